"""Power allocation (10)–(11) by a primal-dual interior-point method, for any ε.

Newton's method follows the central path in shares of the spare power (`nomalib.central_path`). For
ε > 0 the optimum that it finds is local, and it may start again (`nomalib.starts`).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from nomalib import polytope, starts
from nomalib.central_path import MAX_ITERATIONS, follow
from nomalib.network import Network, checked_count, checked_fraction
from nomalib.polytope import Allocation

TRACED = 5


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
    best at the current price of power, and is made only where that promises a gain. Where ε differs
    between users, a search over the users that take it follows.

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
    tol, restarts = checked_fraction("tol", tol), checked_count("restarts", restarts, 0)
    return polytope.allocate_draws(_allocate_draws, net, gains, assignment, tol, tol, restarts)


def trace(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    tol: float = 1e-8,
    kept: float = starts.KEPT,
) -> Trace:
    """The iterates of `allocate` without restarts on one draw: gains and assignment (N, M).

    Args:
        net: the scenario.
        gains: magnitudes |g|, (N, M).
        assignment: bool, (N, M).
        tol: largest scaled KKT residual that counts as converged.
        kept: how much of the start is kept as it is mixed with even shares, and 1 − kept the first
            barrier as a share of the rate of a slot; `allocate` starts so close to a vertex that
            little is to be seen, and from 0.5 the path is long.

    Raises:
        ValueError: naming the argument; also where the draw is infeasible and has no iterates.
    """
    tol, kept = checked_fraction("tol", tol), checked_fraction("kept", kept)
    gains, assignment, lead = polytope.flat_draws(net, gains, assignment)
    if lead:
        raise ValueError(f"gains has leading axes {lead}; a trace is of one draw (N, M)")
    draw_constants = polytope.constants(net, assignment)
    n, fullest = net.n_subchannels, draw_constants[4]
    slots = polytope.empty_slots(n, fullest)
    spare = polytope.reduce_draw(gains[0], assignment[0], draw_constants, slots)
    if not spare >= 0.0:
        raise ValueError(
            f"gains and assignment leave a spare power of {spare:.3g} budgets once R_min is met; "
            "an infeasible draw: it must be at least 0"
        )
    log = np.zeros((MAX_ITERATIONS + 1, TRACED))
    path = np.zeros((MAX_ITERATIONS + 1, n, fullest))
    u = np.empty((n, fullest))
    counts = polytope.filled(slots.users)
    floor = np.log1p(draw_constants[1]) * counts.sum()
    starts.first_start(counts, slots.strength, slots.coupling, kept, u)
    n_iter, _, _ = follow(
        counts, slots.strength, slots.coupling, u, 1.0 - kept, floor, tol, log, path
    )
    power = np.empty((n_iter + 1, n, net.n_users))
    for iterate in range(n_iter + 1):
        polytope.write_power(net.budget, spare, slots, path[iterate], power[iterate])
    f, barrier, gap, residual, step = log[: n_iter + 1].T
    return Trace((floor - f) / np.log(2.0), barrier, gap, residual, step, power)


@njit(cache=True, error_model="numpy")
def solve(slots, residuals, floor, tol, restarts, u):
    """The best optimum found of one draw, into u (N, K); returns (iterations, KKT residual, f).

    `residuals` are ε (N, M). Where the price of power shows no better taker, one restart follows a
    search over takers, unless ε is uniform, where that cannot help.
    """
    n, fullest = u.shape
    users, strength, coupling = slots.users, slots.strength, slots.coupling
    counts = polytope.filled(users)
    log, path = np.empty((0, TRACED)), np.empty((0, n, fullest))
    start = np.zeros((n, fullest))
    starts.first_start(counts, strength, coupling, starts.KEPT, u)
    barrier = 1.0 - starts.KEPT
    n_iter, residual, f = follow(counts, strength, coupling, u, barrier, floor, tol, log, path)
    uniform = True
    for i in range(n):
        uniform = uniform and starts.equal_residuals(users[i], residuals[i])
    by_price = True
    for _ in range(restarts):
        swapped = False
        if not residual <= tol:
            starts.spread_evenly(counts, start)
        elif not (
            by_price
            and starts.start_by_price(counts, strength, coupling, u, floor - f, uniform, start)
        ):
            if uniform or not starts.start_by_swaps(
                counts, strength, coupling, u, floor - f, start
            ):
                break
            swapped = True
        again, left, value = follow(
            counts, strength, coupling, start, barrier, floor, tol, log, path
        )
        if not residual <= tol or (left <= tol and value < f):
            starts.copy_shares(start, u)
            n_iter, residual, f = again, left, value
        elif swapped:
            break
        else:
            by_price = False
    return n_iter, residual, f


@njit(cache=True, error_model="numpy", nogil=True)
def _allocate_draws(
    first, last, gains, assignment, constants, budget, power, spare, n_iter, residual, tol, restarts
):
    n, fullest = gains.shape[1], constants[4]
    slots = polytope.empty_slots(n, fullest)
    u = np.empty((n, fullest))
    for b in range(first, last):
        assigned = assignment[b % assignment.shape[0]]
        spare[b] = polytope.reduce_draw(gains[b], assigned, constants, slots)
        if not spare[b] >= 0.0:
            power[b], n_iter[b], residual[b] = np.nan, 0, np.nan
            continue
        floor = np.log1p(constants[1]) * polytope.filled(slots.users).sum()
        n_iter[b], residual[b], _ = solve(slots, constants[2], floor, tol, restarts, u)
        polytope.write_power(budget, spare[b], slots, u, power[b])
