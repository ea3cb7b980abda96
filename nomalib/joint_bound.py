"""An upper bound on the joint problem (8)–(9): over all schedules within the caps, at any powers.

Relax the budget by a price λ > 0. What a set S of users then earns on subchannel i, at its best,
is φ_i(S, λ) (`nomalib.subchannel`, with the least power), and for every λ the joint optimum is at
most

    λ + max Σ_i φ_i(S_i, λ)   over one set S_i a subchannel, |S_i| ≤ H, no user in more than V.

Choosing the sets is an integer program with one column for each (i, S). Its linear relaxation is at
least its optimum, so the sum stays a bound. A set that earns no more than one of its subsets can be
left out, for the subset uses less of the caps. The bound is convex in λ: the lowest is taken.

Rates, and φ, fall as ε grows. So where φ is not known in closed form, that of a smaller ε bounds
it: with the interferer's gain the least ε on the subchannel, with the receiver's perfect SIC.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import linprog, minimize_scalar

from nomalib._board import enter
from nomalib._chain import empty_chain
from nomalib._checks import Array, Weights
from nomalib._compile import compiled
from nomalib._draws import Shares, flat_draws
from nomalib._sets import every_set, keep_set, rows_of
from nomalib.matching import others_may_take
from nomalib.network import Network, check_network
from nomalib.subchannel import split_at

__all__ = ["upper_bound"]

# The price of power is searched up to N nats, and down to this share of N or of the best strength.
_LOWEST_PRICE = 1e-4


def upper_bound(net: Network, gains: ArrayLike, weights: Weights = None) -> Array:
    """Upper bound on the weighted sum rate [bps/Hz] of every schedule within the caps, shape (…).

    The number of columns grows with M over H: some 0.2 s a draw at N = M = 10, H = 3. With the
    receiver's gain it is loose by what imperfect SIC costs, where weights (or ε, or R_min) differ.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        weights: of the users' rates, (M,) or (…, M); None is 1 for all.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> float(upper_bound(net, [[1.0, 3.0]]).round(6))  # log₂(1 + 9), all to the stronger user
    3.321928
    """
    check_network(net)
    one_served = np.zeros((net.n_subchannels, net.n_users), dtype=bool)
    one_served[0, 0] = True
    draws, lead = flat_draws(net, gains, one_served, weights)
    if others_may_take(net, draws):
        least = net.epsilon.min(axis=1, keepdims=True)
        if draws.receiver:
            least = np.where(least == 1.0, 1.0, 0.0)
        net = replace(net, sic_residual=least + 0.0 * net.epsilon)
        draws, _ = flat_draws(net, gains, one_served, weights)
    sets, member = every_set(net)
    rows = rows_of(net.n_subchannels * len(sets), int(member.sum(axis=1).max()))
    need, bounds = np.empty((net.n_subchannels, len(sets))), np.empty(len(draws.gains))
    for b in range(len(bounds)):
        _keep_sets(draws, b, member, empty_chain(rows.users.shape[1]), rows, need)
        floor = member @ (net.min_nats * draws.weights[b % len(draws.weights)])
        bounds[b] = _bound(net, rows, need, floor, sets, member)
    return bounds.reshape(lead)[()]


def _bound(
    net: Network,
    rows: Shares,
    need: Array,
    floor: Array,
    sets: list[tuple[int, ...]],
    member: NDArray[np.bool_],
) -> float:
    earned, u = np.empty(need.shape), np.empty(rows.strength.shape)

    def bound(log_price: float) -> float:
        price = np.exp(log_price)
        _earn(rows, need, floor, price, u, earned)
        return price + _best_choice(net, earned, sets, member)

    most = net.n_subchannels * max(rows.weight.max(), 1e-100)
    lowest = max(_LOWEST_PRICE * min(most, (rows.weight * rows.strength).max()), 1e-100)
    found = minimize_scalar(
        bound, bounds=np.log([lowest, most]), method="bounded", options={"xatol": 1e-3}
    )
    return found.fun / np.log(2.0)


@compiled
def _keep_sets(draws, b, member, chain, rows, need):
    """Every set on every subchannel as a row, and its least power, (N, S)."""
    n, slots = need.shape[0], rows.users.shape[1]
    assigned, users = np.zeros((n, member.shape[1]), np.bool_), np.empty((n, slots), np.int64)
    draw = b % draws.weights.shape[0]
    for i in range(n):
        for s in range(member.shape[0]):
            assigned[i] = member[s]
            k = enter(i, draws, draws.gains[b], assigned, users, chain)
            row = i * member.shape[0] + s
            need[i, s] = keep_set(rows, i, k, row, users, draw, draws, chain)


@compiled
def _earn(rows, need, floor, price, u, earned):
    """φ of every set on every subchannel, (N, S); −inf where no power meets R_min."""
    for i in range(need.shape[0]):
        for s in range(need.shape[1]):
            most, _ = split_at(i * need.shape[1] + s, rows, price, u)
            earned[i, s] = floor[s] + most - price * need[i, s]


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
