"""The exact optimum of (10)–(11) when ε is the same for all users of a subchannel.

Then, in both interference conventions, for every R_min and any number of users, the best split
inside a subchannel keeps everybody but the strongest user at R_min. The reason, in noise-normalised
powers and with the receiver's gain (the other convention is alike): let w be the subchannel's
power, n_j = 1/γ_j, M_j = n_j + ε w + (1 − ε) Σ_{k<j} x_k and y_j = log(1 + (1 − ε) x_j/M_j). Then

    R_j = y_j + h(y_j),   h(y) = −log(1 − ε/(1 − ε) (e^y − 1))   convex, increasing, h(0) = 0,

depends on y_j alone, R_j ≥ R_min is y_j ≥ y_min, and spending exactly w reads

    (n_1 + ε w) e^{y_1+…+y_K} + Σ_i (n_{i+1} − n_i) e^{y_{i+1}+…+y_K} = n_K + w.

Moving all that exceeds y_min to user 1 keeps Σ y, so the sum rate does not fall, h being convex;
and it lowers every tail sum, so power is left over, which raises y_1. The chapter "The exact
optimum" has the proof in full.

In shares (`nomalib.polytope`) a subchannel that gets the share w of the spare power yields
log(1 + α w/(1 + q w)), concave in w, with α, q those of its strongest user. What is left is
one level ℓ = 1/λ common to all subchannels:

    (1 + q w)(1 + (q + α) w) = α ℓ   where ℓ > 1/α,   w = 0 elsewhere,   Σ w = 1.       (level)
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from nomalib import polytope
from nomalib.network import Network, check_uniform
from nomalib.polytope import Allocation

_TOLERANCE = 1e-8
_MAX_ITERATIONS = 200


def allocate(net: Network, gains: ArrayLike, assignment: ArrayLike) -> Allocation:
    """The exact optimum of (10)–(11) for ε uniform on each subchannel.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).

    Raises:
        ValueError: naming the argument, the value and what is allowed; also for a sic_residual
            that differs between the users of a subchannel, for which this is no optimum: use
            `nomalib.optimum.allocate`.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> one_each = [[True, False], [False, True]]
    >>> allocate(net, [[2.0, 0.0], [0.0, 1.0]], one_each).power     # levels 1/4 + 7/8 = 1 + 1/8
    array([[0.875, 0.   ],
           [0.   , 0.125]])
    """
    check_uniform(net)
    return polytope.allocate_draws(_allocate_draws, net, gains, assignment, _TOLERANCE)


@njit(cache=True, error_model="numpy")
def share_at(level, strength, coupling):
    """Share w of a subchannel at a level ℓ, the nonnegative root of (level), and dw/dℓ."""
    head = strength * level - 1.0
    if not head > 0.0:
        return 0.0, 0.0
    # in quotients of at most 1: products of three would leave the range of doubles
    inverse = 1.0 / (2.0 * coupling + strength)
    square = 4.0 * (coupling * inverse) * ((coupling + strength) * inverse)
    root = np.sqrt(1.0 + square * head)
    quotient = inverse / (root * (1.0 + root))
    return 2.0 * head * root * quotient, strength * (1.0 + root) * quotient


@njit(cache=True, error_model="numpy")
def fill(strength, coupling, w):
    """Shares w (N) of the common level, of sum 1; returns (level, number of Newton steps).

    Σ w(ℓ) is increasing, and concave but for a kink where a subchannel joins: Newton's method
    inside a bracket. The level is inf, and w is not set, where no subchannel gains from power.
    """
    n = w.shape[0]
    low, high = np.inf, np.inf
    for i in range(n):
        a, q = strength[i], coupling[i]
        if a > 0.0:
            low = min(low, (1.0 + q / n) * (1.0 + (q + a) / n) / a)
            high = min(high, (1.0 + q) * (1.0 + (q + a)) / a)
    if low == np.inf:
        return low, 0
    level, steps = low, 0
    while steps < _MAX_ITERATIONS:
        steps += 1
        total, slope = 0.0, 0.0
        for i in range(n):
            w[i], rise = share_at(level, strength[i], coupling[i])
            total += w[i]
            slope += rise
        if abs(total - 1.0) <= 1e-15 * n:
            break
        if total < 1.0:
            low = level
        else:
            high = level
        step = level + (1.0 - total) / slope if slope > 0.0 else high
        following = step if low < step < high else 0.5 * (low + high)
        if following == level or following == low or following == high:
            break
        level = following
    total = w.sum()
    if not total > 0.0:
        # at SNRs below the rounding of 1 rates are linear: all to the best
        best = strength.argmax()
        w[best], level, total = 1.0, 1.0 / strength[best], 1.0
    for i in range(n):
        w[i] /= total
    return level, steps


@njit(cache=True, error_model="numpy")
def solve(slots, w, u):
    """Shares u of the optimum of one draw; returns the number of Newton steps."""
    n, fullest = u.shape
    level, steps = fill(slots.strength[:, 0], slots.coupling[:, 0, 0], w)
    if level == np.inf:
        for i in range(n):
            w[i] = 1.0 if slots.users[i, 0] >= 0 else 0.0
        w /= w.sum()
    for i in range(n):
        for k in range(fullest):
            u[i, k] = w[i] if k == 0 else 0.0
    return steps


@njit(cache=True, error_model="numpy", nogil=True)
def _allocate_draws(
    first, last, gains, assignment, constants, budget, power, spare, n_iter, residual
):
    n, fullest = gains.shape[1], constants[4]
    slots, floor = polytope.empty_slots(n, fullest), np.log1p(constants[1])
    u, terms, w = np.empty((n, fullest)), np.empty((2, n, fullest)), np.empty(n)
    for b in range(first, last):
        assigned = assignment[b % assignment.shape[0]]
        spare[b] = polytope.reduce_draw(gains[b], assigned, constants, slots)
        if not spare[b] >= 0.0:
            power[b], n_iter[b], residual[b] = np.nan, 0, np.nan
            continue
        n_iter[b] = solve(slots, w, u)
        residual[b] = polytope.certify(slots, u, floor, terms)
        polytope.write_power(budget, spare[b], slots, u, power[b])
