"""An upper bound on the joint problem (8)–(9): over all schedules within the caps, at any powers.

Relax the budget by a price λ > 0. What a set S of users then earns on subchannel i, at its best,
is φ_i(S, λ) of (dual) in `nomalib.matching`, and for every λ the joint optimum is at most

    λ + max Σ_i φ_i(S_i, λ)   over one set S_i a subchannel, |S_i| ≤ H, no user in more than V.

Choosing the sets is an integer program with one column for each (i, S). Its linear relaxation is at
least its optimum, so the sum stays a bound. A set that earns no more than one of its subsets can be
left out, for the subset uses less of the caps. The bound is convex in λ: the lowest is taken.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import linprog, minimize_scalar

from nomalib import polytope
from nomalib.network import Network, check_uniform, checked_draws

# The price of power is searched up to N nats, and down to this share of N or of the best strength.
_LOWEST_PRICE = 1e-4


def upper_bound(net: Network, gains: ArrayLike) -> NDArray[np.float64]:
    """Upper bound on the sum rate [bps/Hz] of every schedule within the caps, shape (…).

    The number of columns grows with M over H: some 0.2 s a draw at N = M = 10, H = 3.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).

    Raises:
        ValueError: naming the argument, the value and what is allowed; also for a sic_residual that
            differs between the users of a subchannel, for which φ has no closed form.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> float(upper_bound(net, [[1.0, 3.0]]).round(6))  # log₂(1 + 9), all to the stronger user
    3.321928
    """
    check_uniform(net)
    one_served = np.zeros((net.n_subchannels, net.n_users), dtype=bool)
    one_served[0, 0] = True
    gains, _ = checked_draws(net, gains, one_served)
    bounds = [_bound(net, draw) for draw in gains.reshape((-1, *one_served.shape))]
    return np.array(bounds).reshape(gains.shape[:-2])[()]


def _bound(net: Network, gains: NDArray[np.float64]) -> float:
    sets, member = _sets(net)
    terms = [_terms(net, i, gains[i], member) for i in range(net.n_subchannels)]
    need, strength, coupling = np.stack(terms, axis=1)
    floor = net.min_rate * np.log(2.0) * member.sum(axis=1)

    def bound(log_price: float) -> float:
        price = np.exp(log_price)
        head = np.maximum(strength / price - 1.0, 0.0)
        linear, square = 2.0 * coupling + strength, coupling * (coupling + strength)
        root = np.sqrt(linear**2 + 4.0 * square * head)
        w = np.divide(2.0 * head, linear + root, out=np.zeros_like(head), where=head > 0.0)
        earned = floor + np.log1p(strength * w / (1.0 + coupling * w)) - price * (w + need)
        return price + _best_choice(net, earned, sets, member)

    lowest = max(_LOWEST_PRICE * min(net.n_subchannels, strength.max()), 1e-100)
    found = minimize_scalar(
        bound,
        bounds=np.log([lowest, net.n_subchannels]),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return found.fun / np.log(2.0)


def _sets(net: Network) -> tuple[list[tuple[int, ...]], NDArray[np.bool_]]:
    """All sets of users that may share a subchannel, the smaller first, and their (S, M) matrix."""
    largest = min(net.max_users_per_subchannel, net.n_users)
    sets = [s for size in range(1, largest + 1) for s in combinations(range(net.n_users), size)]
    member = np.zeros((len(sets), net.n_users), dtype=bool)
    for row, users in zip(member, sets, strict=True):
        row[list(users)] = True
    return sets, member


def _terms(
    net: Network, i: int, gain: NDArray[np.float64], member: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(n, α, q) of every set on subchannel i, (3, S); n is inf where no budget is enough."""
    one = replace(
        net,
        n_subchannels=1,
        sic_residual=net.residual[i, 0],
        max_users_per_subchannel=net.n_users,
    )
    shares = polytope.reduce(one, np.tile(gain, (len(member), 1, 1)), member[:, None])
    # a set that R_min leaves nothing to spare has nothing to gain
    spared = shares.spare > 0
    spare = np.where(spared, shares.spare, 1.0)
    return np.stack(
        [
            np.where(shares.feasible, shares.minimal.sum(axis=(-2, -1)), np.inf),
            np.where(spared, shares.strength[:, 0, 0] / spare, 0.0),
            np.where(spared, shares.coupling[:, 0, 0, 0] / spare, 0.0),
        ]
    )


def _best_choice(
    net: Network,
    earned: NDArray[np.float64],
    sets: list[tuple[int, ...]],
    member: NDArray[np.bool_],
) -> float:
    """The linear relaxation of choosing one set for each subchannel, within the users' caps."""
    place = {users: s for s, users in enumerate(sets)}
    best = np.maximum(earned, 0.0)
    worth_it = earned > 0.0
    for s, users in enumerate(sets):
        if len(users) > 1:
            smaller = [place[users[:at] + users[at + 1 :]] for at in range(len(users))]
            below = best[:, smaller].max(axis=1)
            worth_it[:, s] &= earned[:, s] > below
            best[:, s] = np.maximum(best[:, s], below)
    subchannel, chosen = np.nonzero(worth_it)
    if not chosen.size:
        return 0.0
    one_set = (subchannel == np.arange(net.n_subchannels)[:, None]).astype(float)
    held = member[chosen].T.astype(float)
    caps = np.r_[np.ones(net.n_subchannels), np.full(net.n_users, net.max_subchannels_per_user)]
    earned = earned[subchannel, chosen]
    largest = earned.max()  # HiGHS's tolerances are absolute
    found = linprog(
        -earned / largest,
        A_ub=sparse.csr_array(np.vstack([one_set, held])),
        b_ub=caps,
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"the linear relaxation was not solved: {found.message}")
    return -found.fun * largest
