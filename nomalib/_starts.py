"""Starts of the interior-point method: splits at a price, and a search over takers.

In general the weighted sum rate is not concave, and its optima lie near vertices of each
subchannel's simplex: one user, the taker, has all the spare power. At the level of given takers
(`nomalib.water_filling`) λ = 1/ℓ, and with the worth of a taker at a price (`nomalib.subchannel`)

    rate of any takers ≤ λ + Σ_i worth_i(λ) = rate of the given ones + what these are worth more:

a change of takers that is worth no more at the present price cannot raise the rate.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nomalib._checks import Array
from nomalib._compile import borrowing, inlined, log1p
from nomalib._pairs import give
from nomalib.subchannel import best_taker, rate, split_at, value_and_price, worth_alone
from nomalib.water_filling import fill

# What a start keeps of itself when it is mixed with even shares. The method then begins with a
# barrier of μ = (1 − kept) of the rate of a slot. Far from the vertices it takes more iterations,
# and where interference is strong and noise weak, it may not come back to them.
KEPT = 1.0 - 1e-6
# A restart must promise this much more of the sum rate, relatively. It is a little more than the
# method's own residual leaves open.
GAIN = 3e-8
# How often takers are looked for at the price of the last ones.
_PRICES = 4


class Takers(NamedTuple):
    """A taker of each subchannel, and α, q, weight and best share of it; (N,) each."""

    slot: NDArray[np.int64]
    strength: Array
    coupling: Array
    weight: Array
    share: Array


def takers_of(n: int) -> Takers:
    """The strongest user of each of n subchannels, nothing else set."""
    return Takers(np.zeros(n, np.int64), *np.zeros((4, n)))


@borrowing
def level_of(shares, takers):
    """The common level of the takers, inf where power buys no rate; writes their shares."""
    for i in range(takers.slot.shape[0]):
        k = takers.slot[i]
        takers.strength[i] = shares.strength[i, k]
        takers.coupling[i] = shares.coupling[i, k, k]
        takers.weight[i] = shares.weight[i, k]
    level, _ = fill(takers.strength, takers.coupling, takers.weight, takers.share)
    return level


@inlined
def rate_of(takers):
    """Σ R_i [nats] of takers whose level is found."""
    total = 0.0
    for i in range(takers.slot.shape[0]):
        x = takers.share[i]
        sinr = takers.strength[i] * x / (1.0 + takers.coupling[i] * x)
        total += takers.weight[i] * log1p(sinr)
    return total


@borrowing
def take_at_price(shares, takers):
    """Takers worth most at the price of the last ones, from the strongest on; returns the level."""
    level = level_of(shares, takers)
    for _ in range(_PRICES):
        changed = False
        for i in range(takers.slot.shape[0]):
            if level < np.inf and not shares.strongest[i]:
                best, _, _ = best_taker(i, shares, 1.0 / level)
                changed = changed or best != takers.slot[i]
                takers.slot[i] = best
        if not changed:
            break
        level = level_of(shares, takers)
    return level


@borrowing
def first_start(shares, takers, u, kept):
    """The best known splits at the price of takers worth most; even shares where no power helps."""
    for i in range(takers.slot.shape[0]):
        takers.slot[i] = 0
    level = take_at_price(shares, takers)
    if level < np.inf:
        for i in range(u.shape[0]):
            split_at(i, shares, 1.0 / level, u)
        if not u.sum() > 0.0:  # at SNRs below the rounding of 1
            for i in range(u.shape[0]):
                give(i, takers.slot[i], takers.share[i], u)
        pull_inside(shares, u, kept)
    else:
        spread_evenly(shares, u)


@borrowing
def spread_evenly(shares, u):
    """Equal shares of the spare power in every filled slot."""
    filled = shares.count.sum()
    for i in range(u.shape[0]):
        for k in range(u.shape[1]):
            u[i, k] = 1.0 / filled if k < shares.count[i] else 0.0


@borrowing
def pull_inside(shares, start, kept):
    """Scales a start to the simplex and mixes it with even shares; `kept` is its own share."""
    total, filled = start.sum(), shares.count.sum()
    for i in range(start.shape[0]):
        for k in range(shares.count[i]):
            start[i, k] = kept * start[i, k] / total + (1.0 - kept) / filled


@borrowing
def start_by_price(shares, u, work, start):
    """A start where at the price of u each subchannel has its best known split, or stays.

    False if that promises no gain, by the Lagrangian.
    """
    value, price = value_and_price(shares, u, work.below, work.slopes)
    if not price > 0.0:
        return False
    promised = 0.0
    for i in range(u.shape[0]):
        k = shares.count[i]
        now = rate(i, k, shares, u, work.below) - price * u[i].sum()
        at_best, _ = split_at(i, shares, price, start)
        if at_best > now:
            promised += at_best - now
        else:
            for j in range(u.shape[1]):
                start[i, j] = u[i, j]
    if not promised > GAIN * (shares.least_rate + value):
        return False
    pull_inside(shares, start, KEPT)
    return True


@borrowing
def swap_takers(shares, takers):
    """Changes one taker at a time, the best change first, until none raises Σ R_i [nats], returned.

    A change is tried only where it is worth more at the present price.
    """
    level = level_of(shares, takers)
    best = rate_of(takers)
    while level < np.inf:
        price, where, who = 1.0 / level, -1, 0
        for i in range(takers.slot.shape[0]):
            taker = takers.slot[i]
            most, _ = worth_alone(i, taker, shares, price)
            for k in range(0 if shares.strongest[i] else shares.count[i]):
                more, _ = worth_alone(i, k, shares, price)
                if k == taker or not more > most:
                    continue
                takers.slot[i] = k
                level_of(shares, takers)
                value = rate_of(takers)
                if value > best * (1.0 + 1e-12):
                    best, where, who = value, i, k
            takers.slot[i] = taker
        if where < 0:
            break
        takers.slot[where] = who
        level = level_of(shares, takers)
    level_of(shares, takers)
    return best


@borrowing
def start_by_swaps(shares, u, takers, value, start):
    """A start of more than `value` [nats]; False if no change of one taker at a time leads there.

    The search begins once with the users that have most of u and once with the strongest.
    """
    found = False
    for strongest in range(2):
        for i in range(u.shape[0]):
            takers.slot[i] = 0 if strongest else u[i].argmax()
        reached = swap_takers(shares, takers)
        if reached - value > GAIN * (shares.least_rate + value):
            found, value = True, reached
            for i in range(u.shape[0]):
                give(i, takers.slot[i], takers.share[i], start)
    if found:
        pull_inside(shares, start, KEPT)
    return found
