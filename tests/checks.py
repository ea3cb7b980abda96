"""Independent checks of what the package returns: from the paper's equations, in watt, in NumPy.

Only `better_swap` calls the package, whose parts have their own tests. Where weights can be given,
they are those of the users in the weighted sum rate: none, (M,), or (B, M) for B draws.
"""

from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog, minimize

from nomalib import polytope, rates, water_filling
from nomalib.network import draw_gains, random_assignment

CONVENTIONS = ("interferer", "receiver")


def draws(net, n_draws, seed=0, one_assignment=False):
    """Gains and assignments of n_draws draws, or one assignment for all; seed or generator."""
    rng = np.random.default_rng(seed)
    gains = draw_gains(net, n_draws, rng)
    return gains, random_assignment(net, rng, None if one_assignment else n_draws)


def weighted(net, n_draws, seed):
    """Gains, assignments, and weights from U(0, 1) of the users, (n_draws, M)."""
    rng = np.random.default_rng(seed)
    return *draws(net, n_draws, rng), rng.random((n_draws, net.n_users))


def same(one, other):
    """Two tuples of arrays are the same to the bit, NaN for NaN."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def every_assignment(net):
    """All assignments within the caps that serve somebody, (A, N, M)."""
    sizes = range(net.max_users_per_subchannel + 1)
    sets = [s for size in sizes for s in combinations(range(net.n_users), size)]
    rows = np.array([[j in s for j in range(net.n_users)] for s in sets])
    found = rows[np.array(list(product(range(len(sets)), repeat=net.n_subchannels)))]
    held = found.sum(axis=1)
    return found[(held <= net.max_subchannels_per_user).all(axis=1) & held.any(axis=1)]


class Problem(NamedTuple):
    """The power problem of draws (B, N, M) in x = p/P_c, users in place, unassigned ones idle."""

    gamma: np.ndarray  # P_c |g|²/σ₀², (B, N, M)
    assigned: np.ndarray  # (B, N, M)
    share: np.ndarray  # what of signal k is left at user j, 0 for k = j, (B, N, j, k)
    receiver: bool
    t: np.ndarray  # 2^R_min − 1 of each user, (M,)

    @property
    def heard(self):
        """Interference of x_k at user j, in noise powers (B, N, j, k): (3) or its counterpart."""
        gain = self.gamma[..., :, None] if self.receiver else self.gamma[..., None, :]
        return self.share * gain


def problem(net, gains, assignment):
    gains = np.asarray(gains, dtype=float).reshape(-1, net.n_subchannels, net.n_users)
    assigned = np.broadcast_to(assignment, gains.shape)
    gamma = net.budget / net.noise * gains**2
    user = np.arange(net.n_users)
    equal = gains[..., None, :] == gains[..., :, None]
    stronger = gains[..., None, :] > gains[..., :, None]  # k is stronger than j, ties by index
    stronger = stronger | (equal & (user < user[:, None]))
    both = assigned[..., None, :] & assigned[..., :, None] & ~np.eye(net.n_users, dtype=bool)
    residual = np.broadcast_to(net.sic_residual, gains.shape[1:])
    share = np.where(both, np.where(stronger, 1.0, residual[:, None, :]), 0.0)
    t = np.expm1(np.broadcast_to(net.min_rate, net.n_users) * np.log(2.0))
    return Problem(gamma, assigned, share, net.interference_gain == "receiver", t)


def pair_rates(net, gains, assignment, power):
    """R_ij [bps/Hz] by (1), (3), (4), pair by pair."""
    p = problem(net, gains, assignment)
    x = np.where(p.assigned, np.asarray(power).reshape(p.gamma.shape) / net.budget, 0.0)
    interference = (p.heard @ x[..., None])[..., 0]
    return np.log1p(p.gamma * x / (interference + 1.0)) / np.log(2.0)


def of_users(weights):
    return np.ones((1, 1, 1)) if weights is None else np.expand_dims(np.atleast_2d(weights), 1)


def weighted_sum_rate(net, gains, assignment, power, weights=None):
    """Σ w_j R_ij [bps/Hz] of each draw, (B,)."""
    rate = pair_rates(net, gains, assignment, power)
    return (of_users(weights) * rate).sum(axis=(-2, -1))


class Pairs(NamedTuple):
    """One draw as its P assigned pairs, in the order of `power[assignment]`."""

    own: np.ndarray  # γ, (P,)
    heard: np.ndarray  # (P, P)
    t: np.ndarray  # (P,)

    def rates(self, x, log1p=np.log1p):
        """R_ij [nats] of powers x; with JAX's logarithm it can be differentiated."""
        return log1p(self.own * x / (1.0 + self.heard @ x))

    def jacobian(self, x):
        below = 1.0 + self.heard @ x
        above = below + self.own * x
        return (np.diag(self.own) + self.heard) / above[:, None] - self.heard / below[:, None]


def pairs_of(net, gains, assignment):
    p = problem(net, gains, assignment)
    on, user = np.nonzero(p.assigned[0])
    together = on[:, None] == on
    heard = np.where(together, p.heard[0][on[:, None], user[:, None], user], 0.0)
    return Pairs(p.gamma[0][on, user], heard, p.t[user])


def least_power(net, gains, assignment):
    """Least Σ p/P_c that gives every pair of a draw R_min, by a linear program; inf without one.

    The unknowns are received powers over the noise, so that all coefficients are of order one.
    """
    p = pairs_of(net, gains, assignment)
    demand = p.t[:, None] * p.heard / p.own - np.eye(len(p.own))
    cost = p.own.min() / p.own
    solved = linprog(cost, A_ub=demand, b_ub=-p.t, method="highs")
    assert solved.status in (0, 2)
    return solved.fun / p.own.min() if solved.status == 0 else np.inf


def inverted(matrices):
    """Inverses of matrices of nonpositive off-diagonals, infinite unless these are M-matrices.

    By elimination without pivoting, in which every pivot of an M-matrix is positive.
    """
    left = matrices.copy()
    inverse = np.zeros(matrices.shape) + np.eye(matrices.shape[-1])
    is_m_matrix = np.ones(matrices.shape[:-2], dtype=bool)
    for at in range(matrices.shape[-1]):
        pivot = left[..., at, at, None].copy()  # which the division would change
        is_m_matrix &= pivot[..., 0] > 0
        factor = left[..., :, at].copy()
        factor[..., at] = 0.0
        for part in (left, inverse):
            part[..., at, :] /= pivot
            part -= factor[..., None] * part[..., at, None, :]
    inverse[~is_m_matrix] = np.inf
    return inverse


def least_powers(p):
    """x_min (B, N, M) and the inverse of the matrix of (QoS), inf where R_min cannot be met.

    In the received powers y_k = γ_k x_k ("interferer") or in x ("receiver") the matrix is 1 − t C
    of moderate entries, t_j of user j in row j. It is a Z-matrix; its inverse is nonnegative where,
    and only where, some powers meet R_min.
    """
    idle = ~p.assigned
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = inverted(np.eye(p.gamma.shape[-1]) - p.t[:, None] * p.share)
        reachable = np.isfinite(inverse).all(axis=(-2, -1))
        right = np.where(idle | (p.t == 0), 0.0, p.t / p.gamma if p.receiver else p.t)
        x = (inverse @ right[..., None])[..., 0]
        if not p.receiver:
            x = np.where(idle, 0.0, x / p.gamma)
            inverse = np.where(idle, 0.0, 1.0 / p.gamma)[..., None] * inverse
            inverse = inverse * p.gamma[..., None, :]
        x = np.where(p.t == 0, 0.0, x)
        x[~reachable] = np.inf
    return np.where(np.isnan(x), np.inf, x), inverse


def stationarity_gap(net, gains, assignment, power, weights=None):
    """What the weighted sum [nats] rises by, to first order, on the way to the best feasible power.

    Also the rounding of it: at large SNRs it is a small difference of large terms.

    The feasible set is the simplex of x_min plus all the spare power along one column of the
    inverse of (QoS). The gap is 0 where the conditions of Karush, Kuhn and Tucker hold, and
    bounds the distance to the optimum where the sum rate is concave.
    """
    p = problem(net, gains, assignment)
    minimal, inverse = least_powers(p)
    x = np.where(p.assigned, np.asarray(power).reshape(p.gamma.shape) / net.budget, 0.0)
    below = 1.0 + (p.heard @ x[..., None])[..., 0]
    above = below + p.gamma * x
    own = np.where(p.assigned, of_users(weights) * p.gamma / above, 0.0)
    lost = own * x / below
    heard_of = np.swapaxes(p.heard, -1, -2)
    gradient = own - (heard_of @ lost[..., None])[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        column = np.swapaxes(inverse / inverse.sum(axis=-2, keepdims=True), -1, -2)
        slope = (column @ gradient[..., None])[..., 0]
        terms = own + (heard_of @ lost[..., None])[..., 0]
        sizes = (column @ terms[..., None])[..., 0]
    best = np.where(p.assigned & ~np.isnan(slope), slope, -np.inf).max(axis=(-2, -1))
    size = np.where(p.assigned & ~np.isnan(sizes), sizes, 0.0).max(axis=(-2, -1))
    spare = 1.0 - minimal.sum(axis=(-2, -1))
    gap = spare * best - (gradient * (x - minimal)).sum(axis=(-2, -1))
    return gap, 1e-14 * (size + (terms * x).sum(axis=(-2, -1)))


def assert_feasible(net, gains, assignment, power, feasible):
    """Within the budget, R_min for all, and NaN where rightly said to be infeasible."""
    p = problem(net, gains, assignment)
    assert power.shape == np.shape(gains) and feasible.shape == power.shape[:-2]
    power, feasible = power.reshape(p.gamma.shape), feasible.reshape(-1)
    with np.errstate(over="ignore"):
        need, less, more = (
            least_powers(p._replace(t=p.t * factor))[0].sum(axis=(-2, -1))
            for factor in (1.0, 1 - 1e-9, 1 + 1e-9)
        )
    sure = (more < 1.0) | ~(less <= 1.0)  # else rounding decides
    np.testing.assert_array_equal(feasible[sure], (need < 1.0)[sure], "feasible")
    assert np.isnan(power[~feasible]).all() and not np.isnan(power[feasible]).any()
    spent, assigned = power[feasible], p.assigned[feasible]
    assert (spent >= 0).all(), "negative power"
    assert (spent[~assigned] == 0).all(), "power for a user that is not assigned"
    assert (spent.sum(axis=(-2, -1)) <= net.budget * (1 + 1e-9)).all(), "budget"
    rate = pair_rates(net, np.reshape(gains, p.gamma.shape)[feasible], assigned, spent)
    enough = rate >= net.min_rate * (1 - 1e-5)
    # where nothing is to spare, the least powers themselves are known to rounding only
    assert enough[sure[feasible][:, None, None] & assigned].all(), "R_min"
    return sure & (need < 1 - 1e-6)


def assert_allocation(net, gains, assignment, found, optimal=True, tolerance=1e-6, weights=None):
    """Feasible, or rightly said to be infeasible; and stationary where called converged."""
    at = assert_feasible(net, gains, assignment, found.power, found.feasible)
    shape = found.feasible.shape
    assert found.converged.shape == found.n_iter.shape == found.residual.shape == shape
    assert not (found.converged & ~found.feasible).any(), "infeasible, and marked converged"
    if optimal:
        assert not np.isnan(found.residual[found.converged]).any()
        p = problem(net, gains, assignment)
        at &= found.converged.reshape(-1)
        some = None if weights is None else np.broadcast_to(weights, (len(at), net.n_users))[at]
        case = np.reshape(gains, p.gamma.shape)[at], p.assigned[at]
        case = *case, found.power.reshape(p.gamma.shape)[at], some
        gap, rounding = stationarity_gap(net, *case)
        total = np.log(2.0) * weighted_sum_rate(net, *case)
        # the methods take an SNR below 1e-15 for none
        assert (gap <= tolerance * total + 1e-12 + rounding).all(), f"gap {gap.max()} nats"


def slsqp_rate(net, gains, assignment, starts, weights=None):
    """The best weighted sum rate [bps/Hz] that SciPy's SLSQP finds from these powers (N, M).

    In watt, with exact derivatives. What meets R_min or the budget to less than 1e-7 is left out.
    """
    p = pairs_of(net, gains, assignment)
    w = np.broadcast_to(of_users(weights)[0], assignment.shape)[assignment]
    constraints = [
        {"type": "ineq", "fun": lambda x: 1.0 - x.sum(), "jac": lambda x: -np.ones_like(x)},
        {"type": "ineq", "fun": lambda x: p.rates(x) - np.log1p(p.t), "jac": p.jacobian},
    ]
    found = [
        minimize(
            lambda x: (-w @ p.rates(x), -w @ p.jacobian(x)),
            start[assignment] / net.budget,
            jac=True,
            bounds=[(0.0, 1.0)] * len(w),
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-13},
        )
        for start in starts
    ]
    met = [s for s in found if min(np.min(c["fun"](s.x)) for c in constraints) >= -1e-7]
    return max((-s.fun for s in met), default=-np.inf) / np.log(2.0)


def loads(assignment):
    """Users of each subchannel, subchannels of each user."""
    return assignment.sum(axis=-1), assignment.sum(axis=-2)


def exchanges(net, assignment, moves=True):
    """Every schedule one exchange away: of two users, or with a free place or the bench."""
    after = []

    def change(*cells):
        new = assignment.copy()
        for i, j in cells:
            new[i, j] = ~new[i, j]
        after.append(new)

    load, held = loads(assignment)
    served, idle = np.argwhere(assignment), np.argwhere(~assignment)
    for (i1, j1), (i2, j2) in product(served, served):
        if i1 < i2 and not assignment[i1, j2] and not assignment[i2, j1]:
            change((i1, j1), (i2, j1), (i2, j2), (i1, j2))
    for (i1, j1), (i2, j2) in product(served, idle if moves else []):
        if j2 == j1 and load[i2] < net.max_users_per_subchannel:
            change((i1, j1), (i2, j1))  # goes to a free place
        if i2 == i1 and held[j1] > 1 and held[j2] < net.max_subchannels_per_user:
            change((i1, j1), (i1, j2))  # is replaced from the bench
    for i, j in served if moves else []:
        if held[j] > 1:
            change((i, j))  # leaves
    for i, j in idle if moves else []:
        if load[i] < net.max_users_per_subchannel and held[j] < net.max_subchannels_per_user:
            change((i, j))  # joins
    return np.reshape(after, (-1, *assignment.shape)).astype(bool)


def better_swap(net, gains, assignment, power, rule):
    """A swap that the rule admits and that raises the sum rate, by trying all of them; or None."""
    now = rates.sum_rate(net, gains, assignment, power)
    short = np.round(rates.qos_violation(net, gains, assignment, power) * assignment.sum())
    after = exchanges(net, assignment, moves=False)
    gains = np.broadcast_to(gains, after.shape)
    left = np.where(assignment & ~after, power, 0.0).sum(axis=-1, keepdims=True)
    spent = np.where(after & ~assignment, left, np.where(after, power, 0.0))
    if rule == "optimum":
        spent = water_filling.allocate(net, gains, after).power
    # a rise below the rounding of 1 is none
    better = rates.sum_rate(net, gains, after, spent) > now * (1 + 1e-8) + 1e-13
    if rule == "qos":
        missed = rates.qos_violation(net, gains, after, spent) * assignment.sum()
        better &= np.round(missed) <= short
    if rule == "feasible":
        better &= polytope.reduce(net, gains, after).feasible
    return after[better][0] if better.any() else None
