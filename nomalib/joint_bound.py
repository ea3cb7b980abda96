"""An upper bound on the joint problem (8)–(9): over all schedules within the caps, at any powers.

Relax the budget by a price λ > 0. What a set S of users then earns on subchannel i, at its best,
is φ_i(S, λ) of (dual) in `nomalib.matching`, and for every λ the joint optimum is at most

    λ + max Σ_i φ_i(S_i, λ)   over one set S_i a subchannel, |S_i| ≤ H, no user in more than V.

Choosing the sets is an integer program with one column for each (i, S). Its linear relaxation is at
least its optimum, so the sum stays a bound. A set that earns no more than one of its subsets can be
left out, for the subset uses less of the caps. The bound is convex in λ: the lowest is taken.
"""

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import linprog, minimize_scalar

from nomalib._chain import empty_chain, link, strongest_terms
from nomalib._checks import Array
from nomalib._compile import compiled
from nomalib._draws import flat_draws
from nomalib._reduction import sort_users
from nomalib.matching import check_takers
from nomalib.network import Network
from nomalib.subchannel import worth

__all__ = ["upper_bound"]

# The price of power is searched up to N nats, and down to this share of N or of the best strength.
_LOWEST_PRICE = 1e-4


def upper_bound(net: Network, gains: ArrayLike) -> Array:
    """Upper bound on the sum rate [bps/Hz] of every schedule within the caps, shape (…).

    The number of columns grows with M over H: some 0.2 s a draw at N = M = 10, H = 3.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).

    Raises:
        ValueError: also for a sic_residual or min_rate that differs between users, where φ may have
            no closed form.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> float(upper_bound(net, [[1.0, 3.0]]).round(6))  # log₂(1 + 9), all to the stronger user
    3.321928
    """
    check_takers(net)
    one_served = np.zeros((net.n_subchannels, net.n_users), dtype=bool)
    one_served[0, 0] = True
    draws, lead = flat_draws(net, gains, one_served)
    sets, member = _sets(net)
    terms = np.empty((3, net.n_subchannels, len(sets)))
    bounds = np.empty(len(draws.gains))
    for b in range(len(bounds)):
        _set_terms(draws, b, member, empty_chain(member.sum(axis=1).max()), terms)
        bounds[b] = _bound(net, terms, sets, member)
    return bounds.reshape(lead)[()]


def _bound(
    net: Network, terms: Array, sets: list[tuple[int, ...]], member: NDArray[np.bool_]
) -> float:
    floor, earned = np.log(2.0) * (member @ net.min_rates), np.empty(terms.shape[1:])

    def bound(log_price: float) -> float:
        price = np.exp(log_price)
        _earn(terms, floor, price, earned)
        return price + _best_choice(net, earned, sets, member)

    lowest = max(_LOWEST_PRICE * min(net.n_subchannels, terms[1].max()), 1e-100)
    found = minimize_scalar(
        bound, bounds=np.log([lowest, net.n_subchannels]), method="bounded", options={"xatol": 1e-3}
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


@compiled
def _set_terms(draws, b, member, chain, terms):
    """n, α and q of every set on every subchannel, (3, N, S)."""
    n, gains = draws.gains.shape[1], draws.gains[b]
    users, copies = np.empty((1, chain.t.shape[0]), np.int64), np.empty((1, gains.shape[1]))
    for i in range(n):
        copies[0] = gains[i]
        for s in range(member.shape[0]):
            k = sort_users(0, copies, member[s : s + 1], users)
            for row in range(k):
                j = users[0, row]
                link(row, gains[i, j], draws.t[j], draws.epsilon[i, j], draws, chain)
            terms[0, i, s], terms[1, i, s], terms[2, i, s] = strongest_terms(k, chain)


@compiled
def _earn(terms, floor, price, earned):
    """φ of every set on every subchannel, (N, S); −inf where no power meets R_min."""
    for i in range(earned.shape[0]):
        for s in range(earned.shape[1]):
            most, _ = worth(price, terms[1, i, s], terms[2, i, s], 1.0)
            earned[i, s] = floor[s] + most - price * terms[0, i, s]


def _best_choice(
    net: Network, earned: Array, sets: list[tuple[int, ...]], member: NDArray[np.bool_]
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
