"""Power allocation (10)–(11) by a primal-dual interior-point method, for any ε.

Newton's method follows the central path in shares of the spare power (`nomalib.central_path`).
Here are its starts. The first gives most of each subchannel's spare power to its best user. For
ε > 0 the optimum found is local, and a restart moves subchannels to a better vertex of their
simplex, where the price of power says that there is one.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from nomalib import polytope
from nomalib.central_path import MAX_ITERATIONS, follow
from nomalib.network import Network
from nomalib.polytope import Allocation
from nomalib.water_filling import fill, share_at

TRACED = 5
# Of a start: what it keeps of itself when mixed with even shares, and its μ as a share of the rate
# of a slot. A restart stays near the vertex that promised a gain.
KEPT_FIRST, CENTRING_FIRST = 0.8, 0.1
KEPT_AGAIN, CENTRING_AGAIN = 0.999, 1e-3


class Trace(NamedTuple):
    """One draw's path to its optimum, a value for each iterate, the start first.

    Attributes:
        sum_rate: R_total [bps/Hz].
        barrier: μ.
        gap: uᵀz [nats], the duality gap where the problem is convex.
        residual: scaled KKT residual.
        step: step length of the iteration that led here.
        power: the iterates [W], (n_iter + 1, N, M).
    """

    sum_rate: NDArray[np.float64]
    barrier: NDArray[np.float64]
    gap: NDArray[np.float64]
    residual: NDArray[np.float64]
    step: NDArray[np.float64]
    power: NDArray[np.float64]


def allocate(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    tol: float = 1e-8,
    restarts: int = 5,
) -> Allocation:
    """Power by the interior-point method, from a start that favours each subchannel's best user.

    For ε > 0 the problem is not convex and the first optimum found is local. A restart then puts
    every subchannel's power on the split (stay, or one user takes all the spare power) that is
    best at the current price of power, and is made only where that promises a gain.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).
        tol: largest scaled KKT residual that counts as converged.
        restarts: at most so many; 0 is the plain local method.

    Returns:
        An `Allocation`; `n_iter` counts the iterations of the run that is returned.

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> one_each = [[True, False], [False, True]]
    >>> allocate(net, [[2.0, 0.0], [0.0, 1.0]], one_each).power.round(6)
    array([[0.875, 0.   ],
           [0.   , 0.125]])
    """
    _check_options(tol, restarts)
    return polytope.allocate_draws(
        _allocate_draws, net, gains, assignment, tol, float(tol), int(restarts)
    )


def trace(net: Network, gains: ArrayLike, assignment: ArrayLike, tol: float = 1e-8) -> Trace:
    """The iterates of `allocate` without restarts on one draw: gains and assignment (N, M).

    Raises:
        ValueError: naming the argument; also where the draw is infeasible and has no iterates.
    """
    _check_options(tol, 0)
    gains, assignment, lead = polytope.flat_draws(net, gains, assignment)
    if lead:
        raise ValueError(f"gains has leading axes {lead}; a trace is of one draw (N, M)")
    draw_constants = polytope.constants(net, assignment)
    n, fullest = net.n_subchannels, draw_constants[4]
    users, minimal, spread, strength, coupling = polytope.empty_shares(n, fullest)
    spare = polytope.reduce_draw(
        gains[0], assignment[0], draw_constants, users, minimal, spread, strength, coupling
    )
    if not spare >= 0.0:
        raise ValueError("gains and assignment make an infeasible draw: R_min exceeds the budget")
    log = np.zeros((MAX_ITERATIONS + 1, TRACED))
    path = np.zeros((MAX_ITERATIONS + 1, n, fullest))
    u = np.empty((n, fullest))
    counts = polytope.filled(users)
    floor = np.log1p(draw_constants[1]) * counts.sum()
    best_takers(users, strength, coupling, spread_evenly(users, np.empty_like(u)), u)
    n_iter, _, _ = follow(counts, strength, coupling, u, CENTRING_FIRST, floor, tol, log, path)
    power = np.empty((n_iter + 1, n, net.n_users))
    for iterate in range(n_iter + 1):
        polytope.write_power(
            net.budget, spare, users, minimal, spread, path[iterate], power[iterate]
        )
    f, barrier, gap, residual, step = log[: n_iter + 1].T
    return Trace((floor - f) / np.log(2.0), barrier, gap, residual, step, power)


def _check_options(tol: float, restarts: int) -> None:
    if not 0.0 < tol < 1.0:
        raise ValueError(f"tol is {tol!r}; it must lie in (0, 1)")
    if not (isinstance(restarts, (int, np.integer)) and restarts >= 0):
        raise ValueError(f"restarts is {restarts!r}; it must be a whole number of at least 0")


@njit(cache=True, error_model="numpy")
def spread_evenly(users, u):
    """Equal shares of the spare power in every filled slot."""
    filled = 0
    for i in range(users.shape[0]):
        for k in range(users.shape[1]):
            filled += users[i, k] >= 0
    for i in range(users.shape[0]):
        for k in range(users.shape[1]):
            u[i, k] = 1.0 / filled if users[i, k] >= 0 else 0.0
    return u


@njit(cache=True, error_model="numpy")
def copy_shares(source, target):
    """Loops: an array assignment compiles NumPy's shape errors too, for seconds."""
    for i in range(source.shape[0]):
        for k in range(source.shape[1]):
            target[i, k] = source[i, k]


@njit(cache=True, error_model="numpy")
def pull_inside(start, even, kept):
    """Scales a start to the simplex and mixes it with `even`; `kept` is its own share."""
    total = start.sum()
    for i in range(start.shape[0]):
        for k in range(start.shape[1]):
            start[i, k] = kept * start[i, k] / total + (1.0 - kept) * even[i, k]


@njit(cache=True, error_model="numpy")
def best_takers(users, strength, coupling, even, start):
    """A start where in each subchannel one user takes most of the spare power, at a common level.

    From even shares the method would have to leave a saddle in each subchannel where no user is
    favoured, as with a receiver's gain, ε = 1 and little noise.
    """
    n = users.shape[0]
    takers = np.zeros(n, np.int64)
    alpha, q, w = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        best = -1.0
        for k in range(users.shape[1]):
            value = strength[i, k] / (n + coupling[i, k, k])
            if value > best:
                best, takers[i] = value, k
        alpha[i], q[i] = strength[i, takers[i]], coupling[i, takers[i], takers[i]]
    copy_shares(even, start)
    level, _ = fill(alpha, q, w)
    if level < np.inf:
        for i in range(n):
            for k in range(users.shape[1]):
                start[i, k] = w[i] if k == takers[i] else 0.0
        pull_inside(start, even, KEPT_FIRST)


@njit(cache=True, error_model="numpy")
def other_start(users, strength, coupling, u, even, start):
    """A start that promises more than the optimum u; False if the price of power shows none.

    At the price λ of power, subchannel i is worth R_i − λ w_i where it stands. Its vertices, one
    user with all the spare power of the subchannel, have their best w in closed form (level).
    """
    n, fullest = users.shape
    gradient = np.empty(fullest)
    price = 0.0
    for i in range(n):
        polytope.excess_gradient(strength[i], coupling[i], u[i], gradient)
        for k in range(fullest):
            price += u[i, k] * gradient[k]
    if not price > 0.0:
        return False
    found = False
    for i in range(n):
        worth = polytope.excess_rate(strength[i], coupling[i], u[i]) - price * u[i].sum()
        taker, taken = -1, 0.0
        for k in range(fullest):
            if users[i, k] < 0:
                break
            q = coupling[i, k, k]
            share = share_at(1.0 / price, strength[i, k], q)
            value = np.log1p(strength[i, k] * share / (1.0 + q * share)) - price * share
            if value > worth + 1e-7 * max(1.0, abs(worth)):
                worth, taker, taken = value, k, share
        found = found or taker >= 0
        for k in range(fullest):
            start[i, k] = u[i, k] if taker < 0 else 0.0
        if taker >= 0:
            start[i, taker] = taken
    if found:
        pull_inside(start, even, KEPT_AGAIN)
    return found


@njit(cache=True, error_model="numpy")
def _allocate_draw(gains, assigned, constants, budget, tol, restarts, out):
    n, fullest = gains.shape[0], constants[4]
    users, minimal, spread, strength, coupling = polytope.empty_shares(n, fullest)
    spare = polytope.reduce_draw(
        gains, assigned, constants, users, minimal, spread, strength, coupling
    )
    if not spare >= 0.0:
        out[:] = np.nan
        return spare, 0, np.nan
    counts = polytope.filled(users)
    floor = np.log1p(constants[1]) * counts.sum()
    even = spread_evenly(users, np.empty((n, fullest)))
    log, path = np.empty((0, TRACED)), np.empty((0, n, fullest))
    u, start = np.empty((n, fullest)), np.empty((n, fullest))
    best_takers(users, strength, coupling, even, u)
    n_iter, residual, f = follow(
        counts, strength, coupling, u, CENTRING_FIRST, floor, tol, log, path
    )
    for _ in range(restarts):
        if residual > tol:
            copy_shares(even, start)
        elif not other_start(users, strength, coupling, u, even, start):
            break
        again, left, value = follow(
            counts, strength, coupling, start, CENTRING_AGAIN, floor, tol, log, path
        )
        if residual <= tol and (left > tol or value >= f):
            break
        copy_shares(start, u)
        n_iter, residual, f = again, left, value
    polytope.write_power(budget, spare, users, minimal, spread, u, out)
    return spare, n_iter, residual


@njit(cache=True, error_model="numpy", nogil=True)
def _allocate_draws(
    first, last, gains, assignment, constants, budget, power, spare, n_iter, residual, tol, restarts
):
    for b in range(first, last):
        spare[b], n_iter[b], residual[b] = _allocate_draw(
            gains[b],
            assignment[b % assignment.shape[0]],
            constants,
            budget,
            tol,
            restarts,
            power[b],
        )
