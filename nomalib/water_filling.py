"""The exact optimum of (10)–(11) where the strongest user of each subchannel takes all.

It does where no user weighs more than the strongest, and the others have one ε, which is 0 or the
strongest has the largest R_min: in both interference conventions, for any number of users, the best
split then keeps everybody else at R_min. The reason, in budgets and with the receiver's gain (the
other convention is alike): let X be the subchannel's power, n_j = 1/γ_j,
E_j = n_j + ε X + (1 − ε) Σ_{k<j} x_k and y_j = log(1 + (1 − ε) x_j/E_j). Then

    R_j = y_j + h(y_j),   h(y) = −log(1 − ε/(1 − ε) (e^y − 1))   convex, increasing, h(0) = 0,

depends on y_j alone, R_j ≥ R_min is y_j ≥ y_min, and spending exactly X reads

    (n_1 + ε X) e^{y_1+…+y_K} + Σ_i (n_{i+1} − n_i) e^{y_{i+1}+…+y_K} = n_K + X.

Moving all that exceeds y_min to user 1 keeps Σ y, so the weighted sum rate does not fall: h is
convex (0 at ε = 0), no y_min is above that of user 1, and no weight. It lowers every tail sum, so
power is left over, which raises y_1. The chapter "The exact optimum" has the proof in full. Where
R_min is 0 for all, the strongest user takes all for any ε: it alone makes as much of the same power
as all could with perfect SIC.

In shares (`nomalib.polytope`) a subchannel of the share x then yields w log(1 + α x/(1 + q x)),
concave in x, with α, q and the weight w of its strongest user. What is left is one level ℓ = 1/λ
common to all subchannels:

    (1 + q x)(1 + (q + α) x) = α w ℓ   where w ℓ > 1/α,   x = 0 elsewhere,   Σ x = 1.    (level)
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import Weights
from nomalib._compile import borrowing, compiled, inlined
from nomalib._draws import flat_draws, view
from nomalib._pairs import share_at
from nomalib.network import Network
from nomalib.polytope import Allocation, allocate_draws

__all__ = ["allocate"]

_MAX_ITERATIONS = 200


def allocate(
    net: Network, gains: ArrayLike, assignment: ArrayLike, weights: Weights = None
) -> Allocation:
    """The exact optimum of (10)–(11) where the strongest user of each subchannel takes all.

    Arguments are those of `polytope.reduce`.

    Raises:
        ValueError: also where it is not known that the strongest user takes all, as ε, R_min or the
            weights differ between the users of a subchannel: use `nomalib.optimum.allocate`.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> one_each = [[True, False], [False, True]]
    >>> allocate(net, [[2.0, 0.0], [0.0, 1.0]], one_each).power     # levels 1/4 + 7/8 = 1 + 1/8
    array([[0.875, 0.   ],
           [0.   , 0.125]])
    """

    def method(shares, u, n_iter, gap):
        if not shares.strongest.all():
            _refuse(net, weights, shares.users[~shares.strongest][0])
        _allocate_draws(shares, u, n_iter, gap)

    draws, lead = flat_draws(net, gains, assignment, weights)
    return allocate_draws(method, net, draws, lead)


def _refuse(net: Network, weights: Weights, users: NDArray[np.int64]) -> None:
    given = {"sic_residual": net.epsilon, "min_rate": net.min_rates, "weights": weights}
    differ = [name for name, value in given.items() if value is not None and np.ptp(value) > 0]
    shared = users[users >= 0].tolist()
    raise ValueError(
        f"{' or '.join(differ)} differs between users {shared} of a subchannel, whose strongest "
        "need not take all the spare power then; nomalib.optimum.allocate takes any, also as "
        "`allocate` of nomalib.matching.paus"
    )


@borrowing
def fill(strength, coupling, weight, x):
    """Shares x (N) at the common level, of sum 1; returns (level, number of Newton steps).

    Σ x(ℓ) is increasing, and concave but for a kink where a subchannel joins: Newton's method
    inside a bracket. The level is inf, and x is not set, where no subchannel gains from power.
    """
    n = x.shape[0]
    low, high = np.inf, np.inf
    for i in range(n):
        a, q = strength[i] * weight[i], coupling[i]
        if a > 0.0:
            low = min(low, (1.0 + q / n) * (1.0 + (q + strength[i]) / n) / a)
            high = min(high, (1.0 + q) * (1.0 + (q + strength[i])) / a)
    if low == np.inf:
        return low, 0
    level, steps = low, 0
    while steps < _MAX_ITERATIONS:
        steps += 1
        total, slope = 0.0, 0.0
        for i in range(n):
            x[i], rise = share_at(level * weight[i], strength[i], coupling[i])
            total += x[i]
            slope += rise * weight[i]
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
    total = x.sum()
    if not total > 0.0:
        # at SNRs below the rounding of 1 rates are linear: all to the best
        best = 0
        for i in range(1, n):
            if strength[i] * weight[i] > strength[best] * weight[best]:
                best = i
        x[best], level, total = 1.0, 1.0 / (strength[best] * weight[best]), 1.0
    for i in range(n):
        x[i] /= total
    return level, steps


@inlined
def solve(shares, x, u):
    """Shares u of one draw, x (N) a workspace; (Newton steps, what any others gain at most [nats]).

    The latter as of any concave function: its steepest slope above the mean one.
    """
    level, steps = fill(shares.strength[:, 0], shares.coupling[:, 0, 0], shares.weight[:, 0], x)
    if level == np.inf:
        for i in range(x.shape[0]):
            x[i] = 1.0 if shares.count[i] > 0 else 0.0
        x /= x.sum()
    steepest, mean = 0.0, 0.0
    for i in range(x.shape[0]):
        u[i, 0] = x[i]
        strength = shares.strength[i, 0]
        below = 1.0 + shares.coupling[i, 0, 0] * x[i]
        slope = shares.weight[i, 0] * strength / (below * (below + strength * x[i]))
        steepest = max(steepest, slope)
        mean += x[i] * slope
    return steps, steepest - mean


@compiled
def _allocate_draws(shares, u, n_iter, gap):
    x = np.empty(u.shape[1])
    for b in range(u.shape[0]):
        if shares.spare[b] >= 0.0:
            n_iter[b], gap[b] = solve(view(shares, b), x, u[b])
