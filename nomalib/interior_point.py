"""Power allocation (10)–(11) by a primal-dual interior-point method, for any ε and weights.

Newton's method follows the central path in shares of the spare power (`nomalib._central_path`).
Where the problem is not convex the optimum that it finds is local, and it may start again
(`nomalib._starts`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nomalib import _starts as starts
from nomalib._central_path import MAX_ITERATIONS, follow
from nomalib._checks import Array, Weights, checked_count, checked_fraction
from nomalib._compile import borrowing, compiled
from nomalib._draws import Shares, flat_draws, view
from nomalib._newton import copy, workspace
from nomalib.network import Network
from nomalib.polytope import Allocation, allocate_draws, power, reduce

__all__ = ["Trace", "allocate", "trace"]

# Of a tolerance, what the method's residual may take: the residual of the power it returns, without
# the method's own multipliers, is at most three times as large.
_OWN = 1.0 / 3.0


class Trace(NamedTuple):
    """One draw's path to its optimum, a value for each iterate, the start first.

    Attributes:
        sum_rate: weighted sum rate R_total [bps/Hz].
        barrier: μ.
        gap: uᵀz [nats], the duality gap where the problem is convex.
        residual: scaled KKT residual, by the method's own multipliers; it ends below tol/3.
        step: step length of the iteration that led here.
        power: the iterates [W], (n_iter + 1, N, M).
    """

    sum_rate: Array
    barrier: Array
    gap: Array
    residual: Array
    step: Array
    power: Array


def allocate(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    weights: Weights = None,
    tol: float = 1e-8,
    restarts: int = 5,
) -> Allocation:
    """Power by the interior-point method, from the best known splits at a price.

    Where the strongest user of a subchannel need not take all, the problem is not convex and the
    first optimum found is local. A restart then puts every subchannel on the split (stay, or the
    best known one) that is worth most at the current price of power, and is made only where that
    promises a gain; a search over takers follows. The best of all runs is returned, an optimum that
    is local still: where little noise and an ε of 0 for some reward splits among several, it may be
    some percent short of what `optimum` finds.

    Args:
        net, gains, assignment, weights: as of `polytope.reduce`.
        tol: largest scaled KKT residual that counts as converged.
        restarts: at most so many; 0 is the plain local method.

    Returns:
        An `Allocation`; `n_iter` counts the iterations of the run that is returned.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> one_each = [[True, False], [False, True]]
    >>> allocate(net, [[2.0, 0.0], [0.0, 1.0]], one_each).power.round(6)
    array([[0.875, 0.   ],
           [0.   , 0.125]])
    """
    tol, restarts = checked_fraction("tol", tol), checked_count("restarts", restarts, 0)

    def method(shares, u, n_iter, gap):
        work, takers = workspace(*u.shape[1:]), starts.takers_of(u.shape[1])
        _allocate_draws(shares, _OWN * tol, restarts, work, takers, u, n_iter)

    draws, lead = flat_draws(net, gains, assignment, weights)
    return allocate_draws(method, net, draws, lead, tol)


def trace(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    weights: Weights = None,
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
        weights: of the users' rates, (M,); None is 1 for all.

    Raises:
        ValueError: also where the draw is infeasible and has no iterates.
    """
    tol, kept = checked_fraction("tol", tol), checked_fraction("kept", kept)
    shares = reduce(net, gains, assignment, weights)
    if shares.spare.ndim:
        raise ValueError(
            f"gains has leading axes {shares.spare.shape}; a trace is of one draw (N, M)"
        )
    if not shares.feasible:
        raise ValueError(
            f"gains and assignment leave a spare power of {float(shares.spare):.3g} budgets once "
            "R_min is met; an infeasible draw: it must be at least 0"
        )
    n, slots = shares.users.shape
    work = workspace(n, slots, MAX_ITERATIONS + 1)
    takers = starts.takers_of(net.n_subchannels)
    n_iter = _trace_draw(
        Shares._make(part[None] for part in shares), kept, _OWN * tol, work, takers
    )
    f, barrier, gap, residual, step = work.log[: n_iter + 1].T
    sum_rate = (shares.least_rate - f) / np.log(2.0)
    iterates = [power(net, shares, u) for u in work.path[: n_iter + 1]]
    return Trace(sum_rate, barrier, gap, residual, step, np.array(iterates))


@borrowing
def solve(shares, tol, restarts, work, takers, u, start):
    """The best optimum found of one draw, into u (N, K); returns (iterations, KKT residual, f).

    Starts in turn, each kind while it leads to something better: even shares where the method has
    not converged, splits at the present price, a search over takers. The last two cannot help where
    the strongest users take all. `work`, `takers` and `start` are workspaces.
    """
    even, by_price, by_swaps = 0, 1, 2
    starts.first_start(shares, takers, u, starts.KEPT)
    barrier = 1.0 - starts.KEPT
    n_iter, residual, f = follow(shares, u, work, barrier, tol)
    last = even if shares.strongest.all() else by_swaps
    kind = even
    for _ in range(restarts):
        promising = False
        while kind <= last and not promising:
            if kind == even:
                promising = not residual <= tol
                starts.spread_evenly(shares, start)
            elif kind == by_price:
                promising = starts.start_by_price(shares, u, work, start)
            else:
                promising = starts.start_by_swaps(shares, u, takers, -f, start)
            kind += not promising
        if not promising:
            break
        again, left, value = follow(shares, start, work, barrier, tol)
        rounding = 1e-14 * (shares.least_rate - f)
        if value < f - rounding or (left <= tol < residual and value <= f):
            copy(start, u)
            n_iter, residual, f = again, left, value
        else:
            kind += 1
    return n_iter, residual, f


@compiled
def _allocate_draws(shares, tol, restarts, work, takers, u, n_iter):
    start = np.zeros(u.shape[1:])
    for b in range(u.shape[0]):
        if shares.spare[b] >= 0.0:
            draw = view(shares, b)
            n_iter[b], _, _ = solve(draw, tol, restarts, work, takers, u[b], start)


@compiled
def _trace_draw(shares, kept, tol, work, takers):
    draw, u = view(shares, 0), np.zeros(work.z.shape)
    starts.first_start(draw, takers, u, kept)
    return follow(draw, u, work, 1.0 - kept, tol)[0]
