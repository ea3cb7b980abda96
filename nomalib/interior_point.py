"""A primal-dual interior-point method for the power problem (10)–(11), for any ε.

In shares u of the spare power (`nomalib.polytope`) the feasible set is the unit simplex:

    minimise f(u) = −Σ_i log Π_j (1 + α_j u_j / D_j)   subject to   Σ u = 1,  u ≥ 0.

The central path u(μ) satisfies ∇f − z + y·1 = 0, u_k z_k = μ, Σ u = 1. A Newton step on it is

    (H + Z/U) du + dy·1 = −(∇f − μ/u + y·1),    1ᵀdu = 0,                              (newton)

where H has one K × K block for each subchannel and only the budget couples them. Eliminating the
blocks leaves one scalar equation for dy: O(N K³) an iteration. f is nonconvex for ε > 0: a block
system of the wrong inertia is shifted until the step descends, and a backtracking line search on
the barrier function f − μ Σ log u accepts it.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

from nomalib import polytope
from nomalib.network import Network
from nomalib.polytope import Allocation
from nomalib.water_filling import fill, share_at

MAX_ITERATIONS = 60
_TRACED = 5


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
    """Power by the interior-point method, from equal shares of the spare power.

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
    gains, assignment, lead = polytope.flat_draws(net, gains, assignment)
    power, spare, n_iter, kkt = _allocate_all(
        gains, assignment, polytope.constants(net, assignment), net.budget, tol, restarts
    )
    return Allocation(
        power.reshape((*lead, *power.shape[1:])),
        (spare >= 0).reshape(lead),
        (kkt <= tol).reshape(lead),
        n_iter.reshape(lead),
        kkt.reshape(lead),
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
    log = np.zeros((MAX_ITERATIONS + 1, _TRACED))
    path = np.zeros((MAX_ITERATIONS + 1, n, fullest))
    u = np.empty((n, fullest))
    floor = net.min_rate * np.log(2.0) * (users >= 0).sum()
    spread_evenly(users, u)
    n_iter, _, _ = solve_shares(users, strength, coupling, u, floor, tol, log, path)
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


@njit(cache=True)
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


@njit(cache=True)
def scaled_block(strength, coupling, u, z, k, gradient, block, convex):
    """∇f of one subchannel and the lower triangle of U (H + Z/U) U, its Newton block.

    With D_j = 1 + Σ Q_jk u_k and T_j = D_j + α_j u_j, f = Σ_j log D_j − log T_j, so
    H = Σ_j t_j t_jᵀ/T_j² − q_j q_jᵀ/D_j², t_j and q_j being the rows of Q + diag(α) and Q.
    `convex` is the block without its negative part.
    """
    for row in range(k):
        gradient[row] = 0.0
        for col in range(row + 1):
            convex[row, col] = u[row] * z[row] if row == col else 0.0
            block[row, col] = 0.0
    for j in range(k):
        below = 1.0
        for row in range(k):
            below += coupling[j, row] * u[row]
        above = below + strength[j] * u[j]
        in_below, in_above = 1.0 / below, 1.0 / above
        for row in range(k):
            q = coupling[j, row] * in_below
            t = (coupling[j, row] + (strength[j] if row == j else 0.0)) * in_above
            gradient[row] += q - t
            for col in range(row + 1):
                product = u[row] * u[col]
                tc = (coupling[j, col] + (strength[j] if col == j else 0.0)) * in_above
                convex[row, col] += t * tc * product
                block[row, col] -= q * coupling[j, col] * in_below * product
    for row in range(k):
        for col in range(row + 1):
            block[row, col] += convex[row, col]


@njit(cache=True)
def factorise(block, shift, k, factor):
    """LDLᵀ of block + shift·I into `factor`; returns the number of pivots that are not positive."""
    negative = 0
    for row in range(k):
        for col in range(row):
            value = block[row, col]
            for mid in range(col):
                value -= factor[row, mid] * factor[col, mid] * factor[mid, mid]
            factor[row, col] = value / factor[col, col]
        pivot = block[row, row] + shift
        for mid in range(row):
            pivot -= factor[row, mid] ** 2 * factor[mid, mid]
        if abs(pivot) <= 1e-14 * (abs(block[row, row]) + shift):
            return k + 1
        negative += pivot < 0.0
        factor[row, row] = pivot
    return negative


@njit(cache=True)
def substitute(factor, k, rhs):
    """Solves L D Lᵀ x = rhs in place."""
    for row in range(k):
        for col in range(row):
            rhs[row] -= factor[row, col] * rhs[col]
    for row in range(k):
        rhs[row] /= factor[row, row]
    for row in range(k - 1, -1, -1):
        for below in range(row + 1, k):
            rhs[row] -= factor[below, row] * rhs[below]


@njit(cache=True)
def barrier_value(users, strength, coupling, u, barrier):
    """(f, f − μ Σ log u)."""
    f, logs = 0.0, 0.0
    for i in range(users.shape[0]):
        if users[i, 0] < 0:
            continue
        f -= polytope.excess_rate(strength[i], coupling[i], u[i])
        product = 1.0
        for k in range(users.shape[1]):
            if users[i, k] >= 0:
                product *= u[i, k]
        logs += np.log(product)
    return f, f - barrier * logs


@njit(cache=True)
def solve_shares(users, strength, coupling, u, floor, tol, log, path):
    """Optimises the shares u in place; returns (iterations, residual, f).

    `floor` is the sum of the minimal rates [nats]; residuals are relative to the sum rate.
    `log` and `path` record each iterate if they are not empty.
    """
    n, fullest = users.shape
    counts = np.empty(n, np.int64)
    slots = 0
    for i in range(n):
        counts[i] = 0
        for k in range(fullest):
            counts[i] += users[i, k] >= 0
        slots += counts[i]
    z = np.empty((n, fullest))
    gradient, direction, towards = (
        np.zeros((n, fullest)),
        np.zeros((n, fullest)),
        np.zeros((n, fullest)),
    )
    trial = np.zeros((n, fullest))
    block, convex = np.zeros((n, fullest, fullest)), np.zeros((n, fullest, fullest))
    factor = np.zeros((fullest, fullest))

    # start on the central path as far as u allows: u_k z_k = μ
    price = 0.0
    for i in range(n):
        polytope.excess_gradient(strength[i], coupling[i], u[i], gradient[i])
        for k in range(counts[i]):
            price += u[i, k] * gradient[i, k]
    f, _ = barrier_value(users, strength, coupling, u, 0.0)
    barrier = 0.1 * (floor - f) / slots
    price += slots * barrier
    for i in range(n):
        for k in range(counts[i]):
            z[i, k] = barrier / u[i, k]

    n_iter, residual, step = 0, np.inf, 0.0
    while True:
        # residuals, and the barrier parameter that they allow
        stationarity, gap, low, high = 0.0, 0.0, np.inf, 0.0
        for i in range(n):
            scaled_block(
                strength[i], coupling[i], u[i], z[i], counts[i], gradient[i], block[i], convex[i]
            )
            for k in range(counts[i]):
                product = u[i, k] * z[i, k]
                gap += product
                low, high = min(low, product), max(high, product)
                miss = abs(gradient[i, k] - z[i, k] + price)
                stationarity = max(stationarity, miss / max(floor - f, z[i, k]))
        scale = floor - f
        residual = max(stationarity, gap / scale)
        if log.shape[0]:
            log[n_iter, 0], log[n_iter, 1], log[n_iter, 2] = f, barrier, gap
            log[n_iter, 3], log[n_iter, 4] = residual, step
            path[n_iter] = u
        if residual <= tol or n_iter == MAX_ITERATIONS:
            break
        last_barrier = 0.1 * tol * scale / slots
        while barrier > last_barrier:
            if (
                max(stationarity, max(high - barrier, barrier - low) / scale)
                > 10.0 * barrier / scale
            ):
                break
            relative = barrier * slots / scale
            barrier *= min(0.2, np.sqrt(relative))
            barrier = max(last_barrier, barrier)
        _, phi = barrier_value(users, strength, coupling, u, barrier)

        # block elimination of (newton); shifted until its step descends, that is its inertia is
        # (slots, 1), and is not cut short by the boundary
        keep = max(0.99, 1.0 - barrier / scale)
        shift = 0.0
        while True:
            negative, border, constant = 0, 0.0, 0.0
            for i in range(n):
                k = counts[i]
                negative += factorise(block[i], shift, k, factor)
                for row in range(k):
                    direction[i, row] = barrier - u[i, row] * (gradient[i, row] + price)
                    towards[i, row] = u[i, row]
                substitute(factor, k, direction[i])
                substitute(factor, k, towards[i])
                for row in range(k):
                    constant += u[i, row] * direction[i, row]
                    border += u[i, row] * towards[i, row]
            descends = (negative == 0 and border > 0.0) or (negative == 1 and border < 0.0)
            d_price = constant / border
            step = 1.0
            for i in range(n):
                for k in range(counts[i]):
                    relative = direction[i, k] - d_price * towards[i, k]
                    if relative * step < -keep:
                        step = -keep / relative
            if descends and (step >= 0.1 or shift > 1e3 * scale):
                break
            shift = max(1e-3 * scale / slots, 2.0 * shift)

        # fraction to the boundary, then backtracking on the barrier function
        step_dual, slope = 1.0, 0.0
        for i in range(n):
            for k in range(counts[i]):
                relative = direction[i, k] - d_price * towards[i, k]
                direction[i, k] = relative * u[i, k]
                d_dual = barrier / u[i, k] - z[i, k] - z[i, k] * relative
                towards[i, k] = d_dual
                if d_dual < 0.0:
                    step_dual = min(step_dual, -keep * z[i, k] / d_dual)
                slope += direction[i, k] * (gradient[i, k] - barrier / u[i, k])
        rounding = 1e-15 * (abs(phi) + slots)
        while True:
            for i in range(n):
                for k in range(counts[i]):
                    trial[i, k] = u[i, k] + step * direction[i, k]
            f_trial, phi_trial = barrier_value(users, strength, coupling, trial, barrier)
            if phi_trial <= phi + 1e-4 * step * slope + rounding or step < 1e-12:
                break
            step *= 0.5
        total = 0.0
        for i in range(n):
            for k in range(counts[i]):
                u[i, k] = trial[i, k]
                total += u[i, k]
                z[i, k] += step_dual * towards[i, k]
                # keep z within the primal-dual neighbourhood of μ/u, as IPOPT does
                centre = barrier / u[i, k]
                z[i, k] = max(min(z[i, k], 1e10 * centre), 1e-10 * centre)
        for i in range(n):
            for k in range(counts[i]):
                u[i, k] /= total
        price += step * d_price
        f = f_trial
        n_iter += 1
    return n_iter, residual, f


@njit(cache=True)
def pull_inside(start, even):
    """Scales a start to the simplex and moves it off the boundary."""
    total = start.sum()
    for i in range(start.shape[0]):
        for k in range(start.shape[1]):
            start[i, k] = 0.95 * start[i, k] / total + 0.05 * even[i, k]


@njit(cache=True)
def best_takers(users, strength, coupling, even, start):
    """A start where in each subchannel one user takes the spare power, at a common level."""
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
    fill(alpha, q, w)
    start[:] = 0.0
    for i in range(n):
        start[i, takers[i]] = w[i]
    pull_inside(start, even)


@njit(cache=True)
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
        start[i] = u[i]
        if taker >= 0:
            found = True
            start[i] = 0.0
            start[i, taker] = taken
    if found:
        pull_inside(start, even)
    return found


@njit(cache=True)
def _allocate_draw(gains, assigned, constants, budget, tol, restarts, out):
    n, fullest = gains.shape[0], constants[4]
    users, minimal, spread, strength, coupling = polytope.empty_shares(n, fullest)
    spare = polytope.reduce_draw(
        gains, assigned, constants, users, minimal, spread, strength, coupling
    )
    if not spare >= 0.0:
        out[:] = np.nan
        return spare, 0, np.nan
    floor = np.log1p(constants[1]) * (users >= 0).sum()
    even = spread_evenly(users, np.empty((n, fullest)))
    log, path = np.empty((0, 5)), np.empty((0, n, fullest))
    u, start = even.copy(), np.empty((n, fullest))
    n_iter, residual, f = solve_shares(users, strength, coupling, u, floor, tol, log, path)
    for _ in range(restarts):
        if residual > tol:
            best_takers(users, strength, coupling, even, start)
        elif not other_start(users, strength, coupling, u, even, start):
            break
        again, left, value = solve_shares(users, strength, coupling, start, floor, tol, log, path)
        if value >= f and residual <= tol:
            break
        u[:] = start
        n_iter, residual, f = again, left, value
    polytope.write_power(budget, spare, users, minimal, spread, u, out)
    return spare, n_iter, residual


@njit(cache=True, parallel=True)
def _allocate_all(gains, assignment, constants, budget, tol, restarts):
    n_draws = gains.shape[0]
    power = np.empty(gains.shape)
    spare, kkt = np.empty(n_draws), np.empty(n_draws)
    n_iter = np.empty(n_draws, np.int64)
    for b in prange(n_draws):
        at = np.intp(b) % np.intp(assignment.shape[0])
        spare[b], n_iter[b], kkt[b] = _allocate_draw(
            gains[b], assignment[at], constants, budget, tol, restarts, power[b]
        )
    return power, spare, n_iter, kkt
