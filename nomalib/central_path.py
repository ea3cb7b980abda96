"""The core of the interior-point method: Newton's method along the central path, one draw.

In shares u of the spare power (`nomalib.polytope`) the feasible set is the unit simplex:

    minimise f(u) = −Σ_i log Π_j (1 + α_j u_j / D_j)   subject to   Σ u = 1,  u ≥ 0.

The central path u(μ) satisfies ∇f − z + y·1 = 0, u_k z_k = μ, Σ u = 1. A Newton step on it is

    (H + Z/U) du + dy·1 = −(∇f − μ/u + y·1),    1ᵀdu = 0,                              (newton)

where H has one K × K block for each subchannel and only the budget couples them. Eliminating the
blocks leaves one scalar equation for dy: O(N K³) an iteration. The unknowns are the relative steps
r = du/u, in which the blocks are U H U + U Z, near μ·I at the boundary.

f is not convex for ε > 0. Where the system has the wrong inertia, the blocks at fault are shifted
by a multiple of I until the step descends, and a backtracking line search on the barrier function
f − μ Σ log u accepts it.
"""

import numpy as np
from numba import njit

MAX_ITERATIONS = 60


@njit(cache=True, error_model="numpy")
def barrier_terms(counts, strength, coupling, u):
    """f and Σ log u: logarithms of products, taken before these leave the range of doubles.

    Of the product of 1 + SINR only what exceeds 1 is kept, so that no SNR is too low for it.
    """
    f, logs, excess, product = 0.0, 0.0, 0.0, 1.0
    for i in range(counts.shape[0]):
        k = counts[i]
        for j in range(k):
            below = 1.0
            for m in range(k):
                below += coupling[i, j, m] * u[i, m]
            sinr = strength[i, j] * u[i, j] / below
            excess += sinr + excess * sinr
            product *= u[i, j]
        if excess > 1e100:
            f -= np.log1p(excess)
            excess = 0.0
        if product < 1e-100:
            logs += np.log(product)
            product = 1.0
    return f - np.log1p(excess), logs + np.log(product)


@njit(cache=True, error_model="numpy", inline="always")
def newton_block(i, k, strength, coupling, u, z, gradient, block):
    """∇f of subchannel i and the lower triangle of U H U + U Z, its block of (newton).

    With D_j = 1 + Σ Q_jk u_k and T_j = D_j + α_j u_j, f = Σ_j log D_j − log T_j, so
    H = Σ_j t_j t_jᵀ/T_j² − q_j q_jᵀ/D_j², with q_j the rows of Q and t_j = q_j + α_j e_j.
    """
    for row in range(k):
        gradient[i, row] = 0.0
        for col in range(row + 1):
            block[i, row, col] = 0.0
    for j in range(k):
        below = 1.0
        for row in range(k):
            below += coupling[i, j, row] * u[i, row]
        above = 1.0 / (below + strength[i, j] * u[i, j])
        below = 1.0 / below
        own = strength[i, j] * above
        gradient[i, j] -= own
        block[i, j, j] += own * own
        own *= above
        first, second = below - above, above * above - below * below
        for row in range(k):
            q = coupling[i, j, row]
            gradient[i, row] += first * q
            block[i, max(row, j), min(row, j)] += own * q
            if row == j:
                block[i, j, j] += own * q
            q *= second
            for col in range(row + 1):
                block[i, row, col] += q * coupling[i, j, col]
    for row in range(k):
        for col in range(row + 1):
            block[i, row, col] *= u[i, row] * u[i, col]
        block[i, row, row] += u[i, row] * z[i, row]


@njit(cache=True, error_model="numpy")
def factorise(i, k, block, shift, factor):
    """LDLᵀ of block i + shift·I into `factor`; returns how many pivots are negative or vanish.

    L is the strict lower triangle, DLᵀ the strict upper one; the diagonal holds the inverse of D.
    """
    negative = 0
    for row in range(k):
        pivot = block[i, row, row] + shift[i]
        for col in range(row):
            value = block[i, row, col]
            for mid in range(col):
                value -= factor[mid, row] * factor[col, mid]
            factor[col, row] = value
            factor[row, col] = value * factor[col, col]
            pivot -= value * factor[row, col]
        if abs(pivot) <= 1e-14 * (abs(block[i, row, row]) + shift[i]):
            return k + 1
        negative += pivot < 0.0
        factor[row, row] = 1.0 / pivot
    return negative


@njit(cache=True, error_model="numpy")
def substitute(i, k, factor, rhs):
    """Solves L D Lᵀ x = rhs for row i of rhs, in place."""
    for row in range(k):
        for col in range(row):
            rhs[i, row] -= factor[row, col] * rhs[i, col]
    for row in range(k - 1, -1, -1):
        rhs[i, row] *= factor[row, row]
        for below in range(row + 1, k):
            rhs[i, row] -= factor[below, row] * rhs[i, below]


@njit(cache=True, error_model="numpy")
def eliminate(counts, u, gradient, block, shift, barrier, price, factor, direction, towards):
    """Block elimination of (newton): r = direction − dy·towards; returns (dy, descends).

    The step descends where the inertia is (slots, 1): no block has a negative pivot and the
    border is positive, or one has one and the border is negative.
    """
    negative, border, constant = 0, 0.0, 0.0
    for i in range(counts.shape[0]):
        k = counts[i]
        negative += factorise(i, k, block, shift, factor)
        for row in range(k):
            direction[i, row] = barrier - u[i, row] * (gradient[i, row] + price)
            towards[i, row] = u[i, row]
        substitute(i, k, factor, direction)
        substitute(i, k, factor, towards)
        for row in range(k):
            constant += u[i, row] * direction[i, row]
            border += u[i, row] * towards[i, row]
    descends = (negative == 0 and border > 0.0) or (negative == 1 and border < 0.0)
    return constant / border, descends


@njit(cache=True, error_model="numpy")
def follow(counts, strength, coupling, u, centring, floor, tol, log, path):
    """Optimises the shares u (N, K) in place; returns (iterations, residual, f).

    `counts` (N) are the filled slots; `floor` is the sum of the minimal rates [nats], as residuals
    are relative to the sum rate. `log` and `path` record each iterate if they are not empty.
    """
    n, fullest = u.shape
    slots = counts.sum()
    z, trial = np.zeros((n, fullest)), np.zeros((n, fullest))
    gradient = np.zeros((n, fullest))
    direction, towards = np.zeros((n, fullest)), np.zeros((n, fullest))
    block, factor = np.zeros((n, fullest, fullest)), np.zeros((fullest, fullest))
    shift = np.zeros(n)

    # start on the central path as far as u allows: u_k z_k = μ
    price = 0.0
    for i in range(n):
        newton_block(i, counts[i], strength, coupling, u, z, gradient, block)
        for k in range(counts[i]):
            price -= u[i, k] * gradient[i, k]
    f, logs = barrier_terms(counts, strength, coupling, u)
    barrier = centring * (floor - f) / slots
    price += slots * barrier
    for i in range(n):
        for k in range(counts[i]):
            z[i, k] = barrier / u[i, k]

    n_iter, residual, step = 0, np.inf, 0.0
    while True:
        # residuals, and the barrier parameter that they allow
        scale = floor - f
        stationarity, gap, low, high = 0.0, 0.0, np.inf, 0.0
        for i in range(n):
            newton_block(i, counts[i], strength, coupling, u, z, gradient, block)
            for k in range(counts[i]):
                product = u[i, k] * z[i, k]
                gap += product
                low, high = min(low, product), max(high, product)
                miss = abs(gradient[i, k] - z[i, k] + price)
                if z[i, k] > scale:
                    miss *= scale / z[i, k]
                stationarity = max(stationarity, miss)
        stationarity /= scale
        # 0 where power buys no rate
        residual = max(stationarity, gap / scale) if scale != 0.0 else 0.0
        if log.shape[0]:
            log[n_iter, 0], log[n_iter, 1], log[n_iter, 2] = f, barrier, gap
            log[n_iter, 3], log[n_iter, 4] = residual, step
            for i in range(n):
                for k in range(counts[i]):
                    path[n_iter, i, k] = u[i, k]
        if residual <= tol or n_iter == MAX_ITERATIONS:
            break
        last_barrier = 0.1 * tol * scale / slots
        while barrier > last_barrier:
            centrality = max(high - barrier, barrier - low) / scale
            if max(stationarity, centrality) > 10.0 * barrier / scale:
                break
            barrier *= min(0.2, np.sqrt(barrier * slots / scale))
            barrier = max(last_barrier, barrier)

        # a step that descends and is not cut short by the boundary
        keep = max(0.99, 1.0 - barrier / scale)
        # doubling does not lift 0, which μ may round to
        least_shift = max(barrier, 1e-300)
        for i in range(n):
            shift[i] = 0.0
        attempt = 0
        while True:
            d_price, descends = eliminate(
                counts, u, gradient, block, shift, barrier, price, factor, direction, towards
            )
            step, tight = 1.0, -1
            for i in range(n):
                for k in range(counts[i]):
                    relative = direction[i, k] - d_price * towards[i, k]
                    if relative * step < -keep:
                        step, tight = -keep / relative, i
            attempt += 1
            if (descends and step >= 0.1) or attempt > 30:
                break
            if descends:
                shift[tight] = max(least_shift, 2.0 * shift[tight])
            else:
                for i in range(n):
                    while factorise(i, counts[i], block, shift, factor) > 0:
                        shift[i] = max(least_shift, 2.0 * shift[i])

        # fraction to the boundary, then backtracking on the barrier function
        step_dual, slope = 1.0, 0.0
        for i in range(n):
            for k in range(counts[i]):
                relative = direction[i, k] - d_price * towards[i, k]
                direction[i, k] = relative * u[i, k]
                towards[i, k] = barrier / u[i, k] - z[i, k] - z[i, k] * relative
                if towards[i, k] < 0.0:
                    step_dual = min(step_dual, -keep * z[i, k] / towards[i, k])
                slope += direction[i, k] * (gradient[i, k] - barrier / u[i, k])
        phi = f - barrier * logs
        rounding = 1e-15 * slots * (abs(f) + abs(barrier * logs))
        while True:
            for i in range(n):
                for k in range(counts[i]):
                    trial[i, k] = u[i, k] + step * direction[i, k]
            f, logs = barrier_terms(counts, strength, coupling, trial)
            if f - barrier * logs <= phi + 1e-4 * step * slope + rounding or step < 1e-12:
                break
            step *= 0.5
        total = 0.0
        for i in range(n):
            for k in range(counts[i]):
                total += trial[i, k]
        for i in range(n):
            for k in range(counts[i]):
                u[i, k] = trial[i, k] / total
                # keep z within the primal-dual neighbourhood of μ/u, as IPOPT does
                centre = barrier / u[i, k]
                z[i, k] += step_dual * towards[i, k]
                z[i, k] = max(min(z[i, k], 1e10 * centre), 1e-10 * centre)
        price += step * d_price
        n_iter += 1
    return n_iter, residual, f
