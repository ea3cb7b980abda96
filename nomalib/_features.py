"""What a size-free network reads, and what becomes of what it writes; by Keras and deployed alike.

It reads each subchannel at a price of power λ = 1/ℓ: the level ℓ of the strongest users, then of
the takers, those worth most at the price before. Of each of its K slots, 0 where one is empty:

    1 for the taker, −1 for the others; log α w ℓ; by how much its worth at the price is below the
    taker's; how its slope ∂R/∂u beside the taker compares with the price; and its interference
    from every slot, at the share that this would take;

all as x/(1 + |x|). No weight of a network stands before these, and nothing in them depends on N.
It writes corrections of who is to take the spare power; the slot with the largest `logit` does, at
the level then common to all subchannels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import Array, Weights
from nomalib._compile import compiled, inlined
from nomalib._draws import Shares, flat_draws, view
from nomalib._pairs import give
from nomalib._starts import level_of, spread_evenly, takers_of
from nomalib.network import Network
from nomalib.polytope import Allocation, allocate_draws
from nomalib.subchannel import hear, slope, worth_alone

# Of a logit: what standing 1 or −1 counts, and what a correction counts at most. It is the larger,
# so that no slot is out of reach of training.
PRIOR, CORRECTION = 4.0, 6.0
_PRICES = 2  # at which takers are looked for

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Seen(NamedTuple):
    """What is seen of draws (B, N, K).

    Attributes:
        features: (B, N, K (4 + K)).
        worth: of each slot as the only taker, above that of the taker [nats], (B, N, K).
        settled: whether the takers are those worth most at their own common level, (B,).
        share: that they have at it, (B, N); of others where not settled.
    """

    features: NDArray[np.float32]
    worth: Array
    settled: NDArray[np.bool_]
    share: Array


class Sight(NamedTuple):
    """Workspaces: the share of each slot as the only taker, the takers' u, D and ∂R/∂u; (N, K)."""

    alone: Array
    u: Array
    below: Array
    slopes: Array


def n_features(slots: int) -> int:
    return slots * (4 + slots)


def look(shares: Shares, slots: int) -> Seen:
    """What is seen of shares with one batch axis, padded to this many slots; 0 if infeasible."""
    shape, k = shares.count.shape, shares.users.shape[2]
    if k > slots:
        raise ValueError(f"assignment puts {k} users on a subchannel; the model takes {slots}")
    features = np.zeros((*shape, n_features(slots)), np.float32)
    seen = Seen(features, np.zeros((*shape, slots)), np.zeros(shape[0], bool), np.empty(shape))
    _look_draws(shares, takers_of(shape[1]), Sight(*np.zeros((4, shape[1], k))), seen)
    return seen


def allocate_by_takers(
    run: Run, slots: int, net: Network, gains: ArrayLike, assignment: ArrayLike, weights: Weights
) -> Allocation:
    """By a network whose `run` gives corrections (B, N, slots) of features (B, N, F)."""

    def method(shares, u, n_iter, gap):
        seen = look(shares, slots)
        _take_draws(shares, seen, run(seen.features), takers_of(u.shape[1]), u)
        n_iter[:] = 1

    draws, lead = flat_draws(net, gains, assignment, weights)
    return allocate_draws(method, net, draws, lead, tol=np.inf)


def allocate_by_shares(
    run: Run, slots: int, net: Network, gains: ArrayLike, assignment: ArrayLike, weights: Weights
) -> Allocation:
    """By a network whose `run` gives shares (B, N, slots) of the spare power."""

    def method(shares, u, n_iter, gap):
        u[:] = run(look(shares, slots).features)[..., : u.shape[2]]
        u /= u.sum(axis=(1, 2), keepdims=True)
        n_iter[:] = 1

    draws, lead = flat_draws(net, gains, assignment, weights)
    return allocate_draws(method, net, draws, lead, tol=np.inf)


@inlined
def softsign(x):
    return x / (1.0 + abs(x))


@inlined
def logit(standing, correction):
    return PRIOR * standing + CORRECTION * softsign(correction)


@inlined
def take_worth_most(shares, price, takers, alone, worths):
    """Makes those worth most at a price the takers, as `_starts.take_at_price`, and says if any is
    new; what each slot would take alone, and be worth above the taker, is kept."""
    changed = False
    for i in range(takers.slot.shape[0]):
        best, most = 0, 0.0
        for k in range(shares.count[i]):
            value, alone[i, k] = worth_alone(i, k, shares, price)
            worths[i, k] = value
            if k == 0 or value > most and not shares.strongest[i]:
                best, most = k, value
        for k in range(shares.count[i]):
            worths[i, k] -= most
        changed = changed or best != takers.slot[i]
        takers.slot[i] = best
    return changed


@inlined
def describe(i, shares, level, taker, sight, worths, features):
    """Writes the features of subchannel i; `features` (N, K (4 + K)), `worths` (N, K)."""
    used, slots = shares.count[i], worths.shape[1]
    for k in range(used):
        sight.u[i, k] = sight.alone[i, k] if k == taker else 0.0
    hear(i, used, shares, sight.u, sight.below)
    slope(i, used, shares, sight.u, sight.below, sight.slopes)
    for k in range(used):
        strength = shares.strength[i, k] * shares.weight[i, k] * level
        features[i, k] = 1.0 if k == taker else -1.0
        features[i, slots + k] = softsign(0.1 * np.log(max(strength, 1e-6)))
        features[i, 2 * slots + k] = softsign(20.0 * worths[i, k])
        features[i, 3 * slots + k] = softsign(level * sight.slopes[i, k] - 1.0)
        for other in range(used):
            heard = shares.coupling[i, k, other] * sight.alone[i, other]
            features[i, (4 + k) * slots + other] = softsign(heard)


@compiled
def _look_draws(shares, takers, sight, seen):
    n = takers.slot.shape[0]
    for b in range(shares.spare.shape[0]):
        if not shares.spare[b] >= 0.0:
            continue
        draw, features, worths = view(shares, b), seen.features[b], seen.worth[b]
        takers.slot[:] = 0
        level = level_of(draw, takers)
        seen.settled[b] = False
        for left in range(_PRICES - 1, -1, -1):
            if seen.settled[b] or level == np.inf:  # power buys no rate
                break
            new = take_worth_most(draw, 1.0 / level, takers, sight.alone, worths)
            seen.settled[b] = not new
            if new and left > 0:
                level = level_of(draw, takers)
        for i in range(n):
            seen.share[b, i] = takers.share[i]
            if level < np.inf:
                describe(i, draw, level, takers.slot[i], sight, worths, features)


@compiled
def _take_draws(shares, seen, corrections, takers, u):
    for b in range(u.shape[0]):
        if not shares.spare[b] >= 0.0:
            continue
        draw, same = view(shares, b), seen.settled[b]
        for i in range(u.shape[1]):
            takers.slot[i], takers.share[i], most = 0, seen.share[b, i], -np.inf
            for k in range(draw.count[i]):
                value = logit(seen.features[b, i, k], corrections[b, i, k])
                if value > most:
                    takers.slot[i], most = k, value
            same = same and (draw.count[i] == 0 or seen.features[b, i, takers.slot[i]] == 1.0)
        if same or level_of(draw, takers) < np.inf:
            for i in range(u.shape[1]):
                give(i, takers.slot[i], takers.share[i], u[b])
        else:
            spread_evenly(draw, u[b])
