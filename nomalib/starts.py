"""Starts of the interior-point method: where in each subchannel one user takes the spare power.

For ε > 0 the sum rate is not concave, and its optima lie near vertices of each subchannel's
simplex: one user, the taker, has all the spare power. Once the takers are chosen, the shares of
the subchannels are those of water-filling. Which takers are best is a search over vertices.
"""

import numpy as np
from numba import njit

from nomalib.polytope import excess_gradient, excess_rate
from nomalib.water_filling import fill, share_at

# What a start keeps of itself when it is mixed with even shares. The method then begins with a
# barrier of μ = (1 − kept) of the rate of a slot. Far from the vertices it takes more iterations,
# and where interference is strong and noise weak, it may not come back to them.
KEPT = 1.0 - 1e-6
# A restart must promise this much more of the sum rate, relatively. It is a little more than the
# method's own residual leaves open.
_GAIN = 3e-8


@njit(cache=True, error_model="numpy")
def spread_evenly(counts, u):
    """Equal shares of the spare power in every filled slot."""
    filled = counts.sum()
    for i in range(u.shape[0]):
        for k in range(u.shape[1]):
            u[i, k] = 1.0 / filled if k < counts[i] else 0.0


@njit(cache=True, error_model="numpy")
def copy_shares(source, target):
    """Loops: an array assignment compiles NumPy's shape errors too, for seconds."""
    for i in range(source.shape[0]):
        for k in range(source.shape[1]):
            target[i, k] = source[i, k]


@njit(cache=True, error_model="numpy")
def pull_inside(counts, start, kept):
    """Scales a start to the simplex and mixes it with even shares; `kept` is its own share."""
    total, filled = start.sum(), counts.sum()
    for i in range(start.shape[0]):
        for k in range(counts[i]):
            start[i, k] = kept * start[i, k] / total + (1.0 - kept) / filled


@njit(cache=True, error_model="numpy")
def takers_rate(strength, coupling, takers, alpha, q, w):
    """Σ_i R_i [nats] above the minimal rates where `takers` share the spare power, and the level.

    Their best shares go into w; α and q are workspaces.
    """
    n = takers.shape[0]
    for i in range(n):
        alpha[i], q[i] = strength[i, takers[i]], coupling[i, takers[i], takers[i]]
    level, _ = fill(alpha, q, w)
    rate = 0.0
    for i in range(n):
        rate += np.log1p(alpha[i] * w[i] / (1.0 + q[i] * w[i]))
    return rate, level


@njit(cache=True, error_model="numpy")
def give(takers, w, start):
    """The shares where each subchannel's taker has all of w."""
    for i in range(start.shape[0]):
        for k in range(start.shape[1]):
            start[i, k] = w[i] if k == takers[i] else 0.0


@njit(cache=True, error_model="numpy")
def first_start(counts, strength, coupling, kept, start):
    """A start where in each subchannel one user takes most of the spare power, at a common level.

    From even shares the method would have to leave a saddle in each subchannel where no user is
    favoured, as with a receiver's gain, ε = 1 and little noise.
    """
    n = counts.shape[0]
    takers = np.zeros(n, np.int64)
    for i in range(n):
        best = -1.0
        for k in range(counts[i]):
            value = strength[i, k] / (n + coupling[i, k, k])
            if value > best:
                best, takers[i] = value, k
    w = np.zeros(n)
    _, level = takers_rate(strength, coupling, takers, np.empty(n), np.empty(n), w)
    if level < np.inf:
        give(takers, w, start)
        pull_inside(counts, start, kept)
    else:
        spread_evenly(counts, start)


@njit(cache=True, error_model="numpy")
def start_by_price(counts, strength, coupling, u, rate, uniform, start):
    """A start that promises more than `rate` [nats], u's; False if the price of power shows none.

    At the price λ of power, subchannel i is worth R_i − λ w_i where it stands. Its vertices, one
    user with all the spare power of the subchannel, have their best w in closed form (level).
    """
    n, fullest = u.shape
    gradient = np.empty(fullest)
    price = 0.0
    for i in range(n):
        excess_gradient(strength[i], coupling[i], u[i], gradient)
        for k in range(counts[i]):
            price += u[i, k] * gradient[k]
    if not price > 0.0:
        return False
    promised = 0.0
    for i in range(n):
        worth = excess_rate(strength[i], coupling[i], u[i]) - price * u[i].sum()
        best, taker, taken = worth, -1, 0.0
        for k in range(1 if uniform else counts[i]):
            q = coupling[i, k, k]
            share = share_at(1.0 / price, strength[i, k], q)[0]
            value = np.log1p(strength[i, k] * share / (1.0 + q * share)) - price * share
            if value > best:
                best, taker, taken = value, k, share
        promised += best - worth
        for k in range(fullest):
            start[i, k] = u[i, k] if taker < 0 else 0.0
        if taker >= 0:
            start[i, taker] = taken
    if not promised > _GAIN * rate:
        return False
    pull_inside(counts, start, KEPT)
    return True


@njit(cache=True, error_model="numpy")
def swap_takers(counts, strength, coupling, takers, w):
    """Σ R_i [nats] once no change of one subchannel's taker helps; the best goes first. Sets w."""
    n = counts.shape[0]
    alpha, q = np.empty(n), np.empty(n)
    best, _ = takers_rate(strength, coupling, takers, alpha, q, w)
    while True:
        where, who = -1, 0
        for i in range(n):
            taker = takers[i]
            for k in range(counts[i]):
                if k == taker:
                    continue
                takers[i] = k
                value, _ = takers_rate(strength, coupling, takers, alpha, q, w)
                if value > best * (1.0 + 1e-12):
                    best, where, who = value, i, k
            takers[i] = taker
        if where < 0:
            break
        takers[where] = who
    best, _ = takers_rate(strength, coupling, takers, alpha, q, w)
    return best


@njit(cache=True, error_model="numpy")
def start_by_swaps(counts, strength, coupling, u, rate, start):
    """A start of more than `rate` [nats]; False if no change of one taker at a time leads there.

    The search begins once with the users that have most of u and once with the strongest.
    """
    n = counts.shape[0]
    takers, w = np.empty(n, np.int64), np.zeros(n)
    found = False
    for strongest in range(2):
        for i in range(n):
            takers[i] = 0 if strongest else u[i].argmax()
        reached = swap_takers(counts, strength, coupling, takers, w)
        if reached > rate * (1.0 + _GAIN):
            found, rate = True, reached
            give(takers, w, start)
    if found:
        pull_inside(counts, start, KEPT)
    return found


@njit(cache=True, error_model="numpy")
def equal_residuals(users, residual):
    """Whether all users of a subchannel but the strongest have the same ε; its own has no effect.

    The strongest user is then the best taker (theorem of the chapter "The exact optimum").
    """
    for k in range(2, users.shape[0]):
        if users[k] >= 0 and residual[users[k]] != residual[users[1]]:
            return False
    return True
