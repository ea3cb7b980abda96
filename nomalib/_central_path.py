"""The core of the interior-point method: Newton's method along the central path, one draw.

In shares u of the spare power (`nomalib.polytope`) the feasible set is the unit simplex:

    minimise f(u) = −Σ_i R_i(u)   subject to   Σ u = 1,  u ≥ 0,

R_i the weighted rate of subchannel i (`nomalib.subchannel`). The central path u(μ) satisfies
∇f − z + y·1 = 0, u_k z_k = μ, Σ u = 1. Newton's method (`nomalib._newton`)
follows it as μ falls, and a backtracking line search on f − μ Σ log u accepts each step.
"""

import numpy as np

from nomalib._compile import borrowing, inlined
from nomalib._newton import copy, newton_direction
from nomalib.subchannel import curvature, hear, rate, slope

MAX_ITERATIONS = 60


@inlined
def evaluate(shares, u, below):
    """f and Σ log u, the latter as the logarithm of products within the range of doubles."""
    f, logs, product = 0.0, 0.0, 1.0
    for i in range(u.shape[0]):
        k = shares.count[i]
        hear(i, k, shares, u, below)
        f -= rate(i, k, shares, u, below)
        for j in range(k):
            product *= u[i, j]
        if product < 1e-100:
            logs += np.log(product)
            product = 1.0
    return f, logs + np.log(product)


@inlined
def start_on_path(shares, u, work, barrier):
    """z and the price of a start: on the central path as far as u allows, u_k z_k = μ."""
    price, filled = 0.0, 0
    for i in range(u.shape[0]):
        k = shares.count[i]
        slope(i, k, shares, u, work.below, work.slopes)
        for j in range(k):
            price += u[i, j] * work.slopes[i, j]
            work.z[i, j] = barrier / u[i, j]
        filled += k
    return price + filled * barrier


@inlined
def kkt(shares, u, work, price, scale):
    """Step 1: derivatives, and residuals of (newton): stationarity, Σ uz, least and largest u z.

    The first relative to the scale, or to a multiplier that is larger.
    """
    stationarity, gap, low, high = 0.0, 0.0, np.inf, 0.0
    for i in range(u.shape[0]):
        k = shares.count[i]
        slope(i, k, shares, u, work.below, work.slopes)
        curvature(i, k, shares, u, work.below, work.block)
        for row in range(k):
            z = work.z[i, row]
            for col in range(row + 1):
                work.block[i, row, col] *= u[i, row] * u[i, col]
            work.block[i, row, row] += u[i, row] * z
            gap += u[i, row] * z
            low, high = min(low, u[i, row] * z), max(high, u[i, row] * z)
            miss = abs(price - work.slopes[i, row] - z)
            stationarity = max(stationarity, miss / max(scale, z))
    return stationarity, gap, low, high


@inlined
def next_barrier(barrier, last, slots, stationarity, low, high, scale):
    """Step 2: μ falls while the iterate is on the path to it within a factor of ten."""
    while barrier > last:
        centrality = max(high - barrier, barrier - low) / scale
        if max(stationarity, centrality) > 10.0 * barrier / scale:
            break
        barrier = max(last, barrier * min(0.2, np.sqrt(barrier * slots / scale)))
    return barrier


@inlined
def step_to_boundary(shares, u, work, barrier, d_price, keep):
    """Step 4: du and dz; returns the longest dual step, and the slope of the barrier function."""
    step, descent = 1.0, 0.0
    for i in range(u.shape[0]):
        for j in range(shares.count[i]):
            relative = work.direction[i, j] - d_price * work.towards[i, j]
            z, centre = work.z[i, j], barrier / u[i, j]
            work.direction[i, j] = relative * u[i, j]
            work.towards[i, j] = centre - z - z * relative
            if work.towards[i, j] < 0.0:
                step = min(step, -keep * z / work.towards[i, j])
            descent -= work.direction[i, j] * (work.slopes[i, j] + centre)
    return step, descent


@inlined
def backtrack(shares, u, work, barrier, step, descent, start):
    """Step 5: halves the step until the barrier function f − μ Σ log u falls (Armijo).

    `start` is its value and what may be rounding of it; returns the step, f and Σ log u.
    """
    f, logs = 0.0, 0.0
    while True:
        for i in range(u.shape[0]):
            for j in range(shares.count[i]):
                work.trial[i, j] = u[i, j] + step * work.direction[i, j]
        f, logs = evaluate(shares, work.trial, work.below)
        if f - barrier * logs <= start + 1e-4 * step * descent or step < 1e-12:
            break
        step *= 0.5
    return step, f, logs


@inlined
def move(shares, u, work, barrier, step_dual):
    """Takes the step, scaled to the simplex; z stays near μ/u, as IPOPT keeps it."""
    total = 0.0
    for i in range(u.shape[0]):
        for j in range(shares.count[i]):
            total += work.trial[i, j]
    total = 1.0 / total
    for i in range(u.shape[0]):
        for j in range(shares.count[i]):
            u[i, j] = work.trial[i, j] * total
            centre = barrier / u[i, j]
            z = work.z[i, j] + step_dual * work.towards[i, j]
            work.z[i, j] = max(min(z, 1e10 * centre), 1e-10 * centre)


@borrowing
def follow(shares, u, work, centring, tol):
    """Optimises the shares u (N, K) in place; returns (iterations, KKT residual, f).

    It starts with a barrier of `centring` of the rate of a slot.
    """
    slots = shares.count.sum()
    f, logs = evaluate(shares, u, work.below)
    barrier = centring * (shares.least_rate - f) / slots
    price = start_on_path(shares, u, work, barrier)
    n_iter, residual, step = 0, np.inf, 0.0
    while True:
        scale = shares.least_rate - f  # the weighted sum rate
        stationarity, gap, low, high = kkt(shares, u, work, price, scale)
        # 0 where power buys no rate
        residual = max(stationarity, gap / scale) if scale != 0.0 else 0.0
        if work.log.shape[0] > 0:
            work.log[n_iter, 0], work.log[n_iter, 1], work.log[n_iter, 2] = f, barrier, gap
            work.log[n_iter, 3], work.log[n_iter, 4] = residual, step
            copy(u, work.path[n_iter])
        if residual <= tol or n_iter == MAX_ITERATIONS:
            break
        last = 0.1 * tol * scale / slots
        barrier = next_barrier(barrier, last, slots, stationarity, low, high, scale)
        keep = max(0.99, 1.0 - barrier / scale)
        d_price, longest = newton_direction(shares, u, work, barrier, price, keep)
        step_dual, descent = step_to_boundary(shares, u, work, barrier, d_price, keep)
        rounding = 1e-15 * slots * (abs(f) + abs(barrier * logs))
        start = f - barrier * logs + rounding
        step, f, logs = backtrack(shares, u, work, barrier, longest, descent, start)
        move(shares, u, work, barrier, step_dual)
        price += step * d_price
        n_iter += 1
    return n_iter, residual, f
