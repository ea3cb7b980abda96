"""One price of power, and the best split of each subchannel at it: weighted rates in closed form.

*Theorem (one taker).* With the interferer's gain and one ε of all but the strongest user, any
weights and any R_min, a subchannel of any power has a best split in which all but one user are at
R_min. The reason, in received powers z_j and with S their sum: with y_j = log(E_{j+1}/E_j) and
E_j = 1 + ε S + (1 − ε) Σ_{k<j} z_k

    R_j = y_j + h(y_j),   h(y) = −log(1 − ε/(1 − ε) (e^y − 1))   convex, increasing, h(0) = 0,

depends on y_j alone, R_j ≥ R_min is y_j ≥ y_min, and Σ y_j = log((1 + S)/(1 + ε S)). At a given S
the y so lie in a simplex, on which the weighted rate is convex, and so is minus the power

    Σ c_j z_j = (c_K E_{K+1} − c_1 E_1 − Σ_{j≥2} (c_j − c_{j−1}) E_j)/(1 − ε),   c_j = 1/γ_j,

for E_j is the exponential of a sum, and c_j grows with j. At a price, both together are largest at
a vertex. The chapter "Weights" has the proof for a given power too, and what follows for NOMA.

So at a price a subchannel goes to the user who is worth most (`subchannel.best_taker`); and with
the receiver's gain and perfect SIC to those of `nomalib._perfect_sic`, whose last one would alone
have the same power. In both cases what is left is the level ℓ = 1/λ of one user for each subchannel
(`water_filling.fill`), and to choose these users again at it, until none changes. Elsewhere two
users may share at the level too, and nothing is known of how good that is.
"""

import numpy as np
from numpy.typing import ArrayLike

from nomalib import water_filling
from nomalib._checks import Weights
from nomalib._compile import compiled, log1p
from nomalib._draws import flat_draws, view
from nomalib._pairs import give
from nomalib._perfect_sic import divide, is_perfect, last_user
from nomalib._starts import level_of, rate_of, takers_of
from nomalib.network import Network
from nomalib.polytope import Allocation, allocate_draws
from nomalib.subchannel import best_taker, hear, rate, split_at, worth_alone

__all__ = ["allocate"]

# How often the users are chosen anew, a price is halved for a bound, and one tried for two users.
_ROUNDS, _HALVINGS, _JOINS = 40, 12, 8


def allocate(
    net: Network, gains: ArrayLike, assignment: ArrayLike, weights: Weights = None
) -> Allocation:
    """Power at one price, on each subchannel for the users who are worth most at it.

    The optimum, to rounding or to the gap of its `upper_bound`, with the interferer's gain and one
    ε, and with the receiver's gain where ε is 0 or 1; also where `water_filling` is exact.
    Otherwise a good start for `interior_point` and `optimum`, and `upper_bound` is inf.

    Arguments are those of `polytope.reduce`.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> found = allocate(net, [[2.0, 1.0]], [[True, True]], [1.0, 3.0])
    >>> float(found.sum_rate.round(3))  # 3 log₂(1 + 1)
    3.0
    """

    def method(shares, u, n_iter, gap):
        takers, better = takers_of(u.shape[1]), np.zeros(u.shape[1], np.int64)
        _allocate_draws(shares, takers, better, u, n_iter, gap)

    draws, lead = flat_draws(net, gains, assignment, weights)
    return allocate_draws(method, net, draws, lead)


@compiled
def look(shares, price, takers, better):
    """Writes who is worth most; by how much in all [nats], and whether a user of (perfect) is new.

    At the takers' own price no rate exceeds theirs by more than what is returned.
    """
    more, moved = 0.0, False
    for i in range(better.shape[0]):
        k = better[i] = takers.slot[i]
        if shares.strongest[i]:
            continue
        if not shares.single[i] and is_perfect(i, shares.count[i], shares):
            better[i], _ = last_user(i, shares.count[i], shares, price)
            moved = moved or better[i] != k
        elif shares.count[i] > 1:
            best, most, _ = best_taker(i, shares, price)
            now, _ = worth_alone(i, k, shares, price)
            if most > now:
                better[i] = best
                more += most - now
    return more, moved


@compiled
def change_one(shares, takers, better, value):
    """Makes the one change to `better` that raises the rate most, if any does; the rate."""
    best, where = value * (1.0 + 1e-14), -1
    for i in range(better.shape[0]):
        slot = takers.slot[i]
        if better[i] != slot:
            takers.slot[i] = better[i]
            level_of(shares, takers)
            reached = rate_of(takers)
            if reached > best:
                best, where = reached, i
            takers.slot[i] = slot
    if where >= 0:
        takers.slot[where] = better[where]
    return best if where >= 0 else value


@compiled
def least_bound(shares, one, other, u):
    """The least λ + Σ φ of some prices between two; u is a workspace."""
    low, high, bound = min(one, other), max(one, other), np.inf
    for _ in range(_HALVINGS):
        price = np.sqrt(low * high)
        at_price, power = price, 0.0
        for i in range(shares.count.shape[0]):
            at_price += split_at(i, shares, price, u)[0]
            power += u[i].sum()
        bound = min(bound, at_price)
        if power > 1.0:
            low = price
        else:
            high = price
    return bound


@compiled
def begin(shares, takers):
    """The users who gain most from the first power, and their level."""
    for i in range(takers.slot.shape[0]):
        best = 0
        for k in range(1, 0 if shares.strongest[i] else shares.count[i]):
            first = shares.weight[i, best] * shares.strength[i, best]
            if shares.weight[i, k] * shares.strength[i, k] > first:
                best = k
        takers.slot[i] = best
    level = level_of(shares, takers)
    if level == np.inf:  # power buys nothing
        takers.share[:] = 1.0 / takers.share.shape[0]
    return level


@compiled
def settle(shares, takers, better, u):
    """Shares u of one draw; R(u) [nats], its level, the rounds, what others gain at most [nats]."""
    level = begin(shares, takers)
    value, rounds, gap = rate_of(takers), 0, 0.0
    while level < np.inf and rounds < _ROUNDS:
        rounds += 1
        gap, moved = look(shares, 1.0 / level, takers, better)
        if not moved and gap <= 1e-13 * value:
            break
        for i in range(better.shape[0]):  # all at once
            takers.slot[i], better[i] = better[i], takers.slot[i]
        other, reached = level_of(shares, takers), rate_of(takers)
        if moved or reached > value:
            level, value = other, reached
            continue
        for i in range(better.shape[0]):  # or one
            takers.slot[i], better[i] = better[i], takers.slot[i]
        reached = change_one(shares, takers, better, value)
        level = level_of(shares, takers)
        if not reached > value:
            gap = min(gap, least_bound(shares, 1.0 / level, 1.0 / other, u) - value)
            break
        value = reached
    value, known = write(shares, takers, u)
    if not known and level < np.inf:
        value, level = join(shares, takers, better, level, value, u)
    return value, level, rounds, max(0.0, gap) if known and rounds < _ROUNDS else np.inf


@compiled
def write(shares, takers, u):
    """Shares of the takers, and of those that (perfect) joins; R(u), and if each is known best."""
    value, known = 0.0, True
    for i in range(takers.slot.shape[0]):
        k, slot, x = shares.count[i], takers.slot[i], takers.share[i]
        if not shares.single[i] and is_perfect(i, k, shares):
            value += divide(i, k, shares, x, u)
        else:
            give(i, slot, x, u)
            sinr = shares.strength[i, slot] * x / (1.0 + shares.coupling[i, slot, slot] * x)
            value += shares.weight[i, slot] * log1p(sinr)
            known = known and shares.single[i]
    return value, known


@compiled
def join(shares, takers, better, level, value, u):
    """The best known splits instead, at a level that spends about all, if these reach more."""
    n, at, total, reached = better.shape[0], level, 1.0, 0.0
    below = np.empty((n, u.shape[1]))
    for _ in range(_JOINS):
        total = 0.0
        for i in range(n):
            split_at(i, shares, 1.0 / at, u)
            total += u[i].sum()
        if abs(total - 1.0) < 1e-3 or not total > 0.0:
            break
        at /= total
    for i in range(n):
        for j in range(u.shape[1]):
            u[i, j] /= total
        hear(i, shares.count[i], shares, u, below)
        reached += rate(i, shares.count[i], shares, u, below)
    if reached > value:
        return reached, at
    value, _ = write(shares, takers, u)
    return value, level


@compiled
def _allocate_draws(shares, takers, better, u, n_iter, gap):
    for b in range(u.shape[0]):
        if not shares.spare[b] >= 0.0:
            continue
        draw = view(shares, b)
        if draw.strongest.all():
            n_iter[b], gap[b] = water_filling.solve(draw, takers.share, u[b])
        else:
            _, _, n_iter[b], gap[b] = settle(draw, takers, better, u[b])
