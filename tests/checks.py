"""Independent checks of what the package returns: from the paper's equations, in watt, in NumPy.

Only `better_swap` calls the package, whose parts have their own tests.
"""

from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import minimize

from nomalib import polytope, rates, water_filling
from nomalib.network import Network


class Problem(NamedTuple):
    """The power problem of draws (B, N, M) in x = p/P_c, users in place, unassigned ones idle."""

    gamma: np.ndarray  # P_c |g|²/σ₀², (B, N, M)
    assigned: np.ndarray  # (B, N, M)
    share: np.ndarray  # what of signal k is left at user j, 0 for k = j, (B, N, j, k)
    receiver: bool
    t: float  # 2^R_min − 1

    @property
    def weight(self):
        """Interference of x_k at user j, in noise powers (B, N, j, k): (3) or its counterpart."""
        heard = self.gamma[..., :, None] if self.receiver else self.gamma[..., None, :]
        return self.share * heard


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
    t = np.expm1(net.min_rate * np.log(2.0))
    return Problem(gamma, assigned, share, net.interference_gain == "receiver", t)


def pair_rates(net, gains, assignment, power):
    """R_ij [bps/Hz] by (1), (3), (4), pair by pair."""
    p = problem(net, gains, assignment)
    x = np.where(p.assigned, np.asarray(power).reshape(p.gamma.shape) / net.budget, 0.0)
    interference = (p.weight @ x[..., None])[..., 0]
    return np.log1p(p.gamma * x / (interference + 1.0)) / np.log(2.0)


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
    of moderate entries. It is a Z-matrix; its inverse is nonnegative where, and only where, some
    powers meet R_min.
    """
    idle = ~p.assigned
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = inverted(np.eye(p.gamma.shape[-1]) - p.t * p.share)
        reachable = np.isfinite(inverse).all(axis=(-2, -1))
        right = np.where(idle, 0.0, p.t / p.gamma if p.receiver else p.t)
        x = (inverse @ right[..., None])[..., 0]
        if not p.receiver:
            x = np.where(idle, 0.0, x / p.gamma)
            inverse = np.where(idle, 0.0, 1.0 / p.gamma)[..., None] * inverse
            inverse = inverse * p.gamma[..., None, :]
        if p.t == 0:
            x = np.zeros_like(x)
        x[~reachable] = np.inf
    return np.where(np.isnan(x), np.inf, x), inverse


def stationarity_gap(net, gains, assignment, power):
    """What the sum rate [nats] rises by, to first order, on the way to the best feasible power.

    Also the rounding of it: at large SNRs it is a small difference of large terms.

    The feasible set is the simplex of x_min plus all the spare power along one column of the
    inverse of (QoS). The gap is 0 where the conditions of Karush, Kuhn and Tucker hold, and
    bounds the distance to the optimum where the sum rate is concave.
    """
    p = problem(net, gains, assignment)
    minimal, inverse = least_powers(p)
    x = np.where(p.assigned, np.asarray(power).reshape(p.gamma.shape) / net.budget, 0.0)
    below = 1.0 + (p.weight @ x[..., None])[..., 0]
    above = below + p.gamma * x
    own = np.where(p.assigned, p.gamma / above, 0.0)
    lost = np.where(p.assigned, p.gamma * x / (above * below), 0.0)
    gradient = own - (np.swapaxes(p.weight, -1, -2) @ lost[..., None])[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        column = inverse / inverse.sum(axis=-2, keepdims=True)
        slope = (np.swapaxes(column, -1, -2) @ gradient[..., None])[..., 0]
        terms = own + (np.swapaxes(p.weight, -1, -2) @ lost[..., None])[..., 0]
        sizes = (np.swapaxes(column, -1, -2) @ terms[..., None])[..., 0]
    best = np.where(p.assigned & ~np.isnan(slope), slope, -np.inf).max(axis=(-2, -1))
    size = np.where(p.assigned & ~np.isnan(sizes), sizes, 0.0).max(axis=(-2, -1))
    spare = 1.0 - minimal.sum(axis=(-2, -1))
    gap = spare * best - (gradient * (x - minimal)).sum(axis=(-2, -1))
    return gap, 1e-14 * (size + (terms * x).sum(axis=(-2, -1)))


def assert_allocation(net, gains, assignment, allocation, optimal=True, tolerance=1e-6):
    """Feasible, or rightly said to be infeasible; and stationary where called converged."""
    gains = np.asarray(gains, dtype=float)
    lead = gains.shape[:-2]
    assert allocation.power.shape == gains.shape
    for field in allocation[1:]:
        assert field.shape == lead
    power = allocation.power.reshape(-1, net.n_subchannels, net.n_users)
    feasible, converged, _, residual = (field.reshape(-1) for field in allocation[1:])
    p = problem(net, gains, assignment)
    with np.errstate(over="ignore"):
        need, less, more = (
            least_powers(p._replace(t=p.t * factor))[0].sum(axis=(-2, -1))
            for factor in (1.0, 1 - 1e-9, 1 + 1e-9)
        )
    sure = (more < 1.0) | ~(less <= 1.0)  # else rounding decides
    np.testing.assert_array_equal(feasible[sure], (need < 1.0)[sure], "feasible")
    assert np.isnan(power[~feasible]).all() and not np.isnan(power[feasible]).any()
    assert not converged[~feasible].any(), "an infeasible draw is marked converged"
    assert not np.isnan(residual[feasible & converged]).any() or not optimal
    power = power[feasible]
    assert (power >= 0).all(), "negative power"
    assert (power[~p.assigned[feasible]] == 0).all(), "power for a user that is not assigned"
    assert (power.sum(axis=(-2, -1)) <= net.budget * (1 + 1e-9)).all(), "budget"
    gains = gains.reshape(p.gamma.shape)[feasible]
    rate = pair_rates(net, gains, p.assigned[feasible], power)
    enough = rate >= net.min_rate * (1 - 1e-5)
    # where nothing is to spare, the least powers themselves are known to rounding only
    slack = sure[feasible][:, None, None] & p.assigned[feasible]
    assert enough[slack].all(), "R_min"
    if optimal:
        at = (sure & (need < 1 - 1e-6))[feasible] & converged[feasible]
        gap, rounding = stationarity_gap(net, gains[at], p.assigned[feasible][at], power[at])
        total = np.log(2.0) * rate[at].sum(axis=(-2, -1))
        # the methods take an SNR below 1e-140 for none
        assert (gap <= tolerance * total + 1e-138 + rounding).all(), f"gap {gap.max()} nats"


def slsqp_rate(net, gains, assignment, starts):
    """The best sum rate [bps/Hz] that SciPy's SLSQP finds in watt from these powers (N, M)."""
    p = problem(net, gains, assignment)
    rows, columns = np.nonzero(p.assigned[0])

    def placed(x):
        power = np.zeros(p.gamma.shape[1:])
        power[rows, columns] = x * net.budget
        return power

    def rate(x):
        return pair_rates(net, gains, assignment, placed(x))[0]

    constraints = [
        {"type": "ineq", "fun": lambda x: 1.0 - x.sum()},
        {"type": "ineq", "fun": lambda x: rate(x)[rows, columns] - net.min_rate},
    ]
    found = [
        minimize(
            lambda x: -rate(x).sum(),
            start[rows, columns] / net.budget,
            bounds=[(0.0, 1.0)] * len(rows),
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        for start in starts
    ]
    return max(
        -result.fun
        for result in found
        if min(np.min(c["fun"](result.x)) for c in constraints) >= -1e-7
    )


def better_swap(net, gains, assignment, power, rule):
    """A swap that the rule admits and that raises the sum rate, by trying all of them; or None."""
    now = rates.sum_rate(net, gains, assignment, power)
    short = np.round(rates.qos_violation(net, gains, assignment, power) * assignment.sum())
    for i1, i2 in combinations(range(net.n_subchannels), 2):
        for j1, j2 in product(range(net.n_users), repeat=2):
            on_one = assignment[i1, j1] and not assignment[i2, j1]
            if not (on_one and assignment[i2, j2] and not assignment[i1, j2]):
                continue
            after, spent = assignment.copy(), power.copy()
            after[i1, [j1, j2]], after[i2, [j1, j2]] = [False, True], [True, False]
            spent[i1, j2], spent[i2, j1] = power[i1, j1], power[i2, j2]
            spent[~after] = 0.0
            if rule == "optimum":
                spent = water_filling.allocate(net, gains, after).power
            # a rise below the rounding of 1 is none
            if not rates.sum_rate(net, gains, after, spent) > now * (1 + 1e-8) + 1e-13:
                continue
            if rule == "qos":
                missed = rates.qos_violation(net, gains, after, spent) * after.sum()
                if np.round(missed) > short:
                    continue
            if rule == "feasible" and not polytope.reduce(net, gains, after).feasible:
                continue
            return i1, j1, i2, j2
    return None


@st.composite
def extreme_cases(draw):
    """Network, gains of 0 and from 1e-50 to 1e48, and a full assignment, of two subchannels."""
    net = Network(
        n_subchannels=2,
        n_users=3,
        interference_gain=draw(st.sampled_from(["interferer", "receiver"])),
        sic_residual=draw(st.floats(0, 1)),
        min_rate=draw(st.sampled_from([0.0, 0.01])),
    )
    magnitudes = st.sampled_from([0.0, 1e-50, 1e-9, 1e-3, 1.0, 1e3, 1e48])
    gains = np.reshape(draw(st.lists(magnitudes, min_size=6, max_size=6)), (2, 3))
    return net, gains, np.ones((2, 3), bool)
