"""The global optimum of (10)–(11) for any ε, with a certificate of how close it is.

In shares u of the spare power (`nomalib.polytope`) only the budget couples the subchannels. For
every price λ ≥ 0 of power, the Lagrangian bounds the optimum from above:

    R_total ≤ Σ R_min + λ + Σ_i φ_i(λ),    φ_i(λ) = max { R_i(u) − λ Σ u : u ≥ 0, Σ u ≤ 1 },  (dual)

R_i(u) = Σ_j log T_j − log D_j, with D_j = 1 + Σ_k Q_jk u_k and T_j = D_j + α_j u_j affine in u. φ_i
is a search over at most K shares, by branch and bound on simplices. On a simplex, −log D_j lies
below the line through its values at the vertices, for it is convex, and log T_j below any of its
tangents, for it is concave. Both bounds together are linear, so their maximum is at a vertex.
"""

import heapq
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

from nomalib import interior_point, polytope, rates, water_filling
from nomalib.central_path import follow
from nomalib.network import Network

_MAX_PRICES = 24
_IPM_TOL = 1e-8


class Optimum(NamedTuple):
    """An allocation and what no allocation can exceed, one value for each draw.

    Attributes:
        power: watt, (…, N, M); NaN for an infeasible draw.
        feasible: whether R_min can be met within the budget; (…).
        sum_rate: R_total of `power` [bps/Hz]; (…).
        upper_bound: certified bound on the R_total of every feasible allocation [bps/Hz]; (…).
        gap: (upper_bound − sum_rate)/sum_rate; (…).
    """

    power: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    sum_rate: NDArray[np.float64]
    upper_bound: NDArray[np.float64]
    gap: NDArray[np.float64]


def allocate(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    tol: float = 1e-4,
    max_cells: int = 20_000,
) -> Optimum:
    """The best power for any ε, an upper bound on all others, and the gap between the two.

    Water-filling where ε is the same for all users of a subchannel: exact, with gap 0. Otherwise
    the best of what the interior-point method finds from structured starts, under the bound (dual),
    which is valid (up to rounding) however early the search stops. The problem has a duality gap
    of its own, small for many subchannels, so the reported gap need not reach `tol`.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).
        tol: gap at which the search for a better bound stops.
        max_cells: simplices that one search over a subchannel may examine.

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> net = Network(n_subchannels=1, n_users=3, sic_residual=[[0.0, 0.1, 0.9]], min_rate=0.5)
    >>> best = allocate(net, [[3.0, 2.0, 1.0]], [[True, True, True]])
    >>> bool(best.gap < 1e-4)
    True
    """
    if not 0.0 < tol < 1.0:
        raise ValueError(f"tol is {tol!r}; it must lie in (0, 1)")
    if not (isinstance(max_cells, (int, np.integer)) and max_cells >= 10):
        raise ValueError(f"max_cells is {max_cells!r}; it must be a whole number of at least 10")
    if (net.residual == net.residual[:, :1]).all():
        exact = water_filling.allocate(net, gains, assignment)
        sum_rate = rates.sum_rate(net, gains, assignment, exact.power)
        gap = np.where(exact.feasible, 0.0, np.nan)
        return Optimum(exact.power, exact.feasible, sum_rate, sum_rate.copy(), gap)
    flat_gains, flat_assignment, lead = polytope.flat_draws(net, gains, assignment)
    power, spare, bound = _allocate_all(
        flat_gains,
        flat_assignment,
        polytope.constants(net, flat_assignment),
        net.budget,
        tol,
        max_cells,
    )
    power = power.reshape((*lead, *power.shape[1:]))
    sum_rate = rates.sum_rate(net, gains, assignment, power)
    # what is attained bounds the optimum from below, also where rounding says otherwise
    upper_bound = np.maximum(bound.reshape(lead) / np.log(2.0), sum_rate)
    gap = np.divide(
        upper_bound - sum_rate,
        sum_rate,
        out=np.where(np.isnan(sum_rate), np.nan, 0.0),
        where=sum_rate > 0,
    )
    return Optimum(power, (spare >= 0).reshape(lead), sum_rate, upper_bound, gap)


@njit(cache=True, error_model="numpy")
def copy(source, target, k):
    """Loops: an array assignment compiles NumPy's shape errors too, for seconds."""
    for j in range(k):
        target[j] = source[j]


@njit(cache=True, error_model="numpy")
def alone(taker, share, u):
    """Shares u where one user has all."""
    for k in range(u.shape[0]):
        u[k] = share if k == taker else 0.0


@njit(cache=True, error_model="numpy")
def corner(strength, coupling, k, price, point):
    """Completes a vertex of a simplex from its shares: [u, log T, log D, value R(u) − λ Σ u]."""
    value = 0.0
    for j in range(k):
        below = 1.0
        for m in range(k):
            below += coupling[j, m] * point[m]
        point[k + j] = np.log(below + strength[j] * point[j])
        point[2 * k + j] = np.log(below)
        value += point[k + j] - point[2 * k + j] - price * point[j]
    point[3 * k] = value


@njit(cache=True, error_model="numpy")
def cell_bound(points, cell, k, bounds):
    """Bound of R(u) − λ Σ u on the simplex with these vertices; `bounds` is a workspace.

    log T_j + log 1/D_{j+1} is also the logarithm of a quotient of affine functions, largest at a
    vertex. That constant replaces the two linear bounds where it is the closer one.
    """
    for v in range(k + 1):
        bounds[v] = points[cell[v], 3 * k]
    constant = 0.0
    for j in range(k):
        low, high = np.inf, -np.inf
        least, most, low_next, high_next = np.inf, -np.inf, np.inf, -np.inf
        for v in range(k + 1):
            above = points[cell[v], k + j]
            low, high = min(low, above), max(high, above)
            if j + 1 < k:
                below = points[cell[v], 2 * k + j + 1]
                low_next, high_next = min(low_next, below), max(high_next, below)
                least, most = min(least, above - below), max(most, above - below)
        if j + 1 < k and 8.0 * (most - least) < (high - low) ** 2 + (high_next - low_next) ** 2:
            constant += most
            for v in range(k + 1):
                bounds[v] -= points[cell[v], k + j] - points[cell[v], 2 * k + j + 1]
        elif high - low > 1e-12:
            # the tangent at the logarithmic mean is equally far off at both ends
            mean = low + np.log(np.expm1(high - low) / (high - low))
            for v in range(k + 1):
                off = points[cell[v], k + j] - mean
                bounds[v] += np.expm1(off) - off
    highest = -np.inf
    for v in range(k + 1):
        highest = max(highest, bounds[v])
    return constant + highest


@njit(cache=True, error_model="numpy")
def split(points, cell, k, new):
    """Shares of the point that halves the simplex's longest edge, in logarithms; its two ends.

    An edge is as long as the largest change of a log T_j or log D_j along it; it is cut where the
    affine function behind it reaches its geometric mean.
    """
    longest, first, second, ratio = -1.0, 0, 1, 0.0
    for v in range(k):
        for w in range(v + 1, k + 1):
            for j in range(k, 3 * k):
                change = points[cell[w], j] - points[cell[v], j]
                if abs(change) > longest:
                    longest, first, second, ratio = abs(change), v, w, change
    part = 1.0 / (1.0 + np.exp(0.5 * ratio))
    for j in range(k):
        here, there = points[cell[first], j], points[cell[second], j]
        new[j] = here + part * (there - here)
    return first, second


@njit(cache=True, error_model="numpy")
def best_share(strength, coupling, price):
    """Share in [0, 1] that one user alone would take at a price."""
    return min(1.0, water_filling.share_at(1.0 / price, strength, coupling)) if price > 0 else 1.0


@njit(cache=True, error_model="numpy")
def search(strength, coupling, k, price, tolerance, points, cells, best):
    """φ(λ) of one subchannel by branch and bound, best bound first: (value, upper bound).

    `best` is overwritten by the best shares found; their value is within `tolerance` of the bound
    unless the search ran out of `points` and `cells`, its workspaces.
    """
    new, bounds, cell = points[0], np.empty(k + 1), np.empty(k + 1, np.int64)
    copy(best, new, k)
    corner(strength, coupling, k, price, new)
    value = new[3 * k]
    for taker in range(k):
        alone(taker, best_share(strength[taker], coupling[taker, taker], price), new[:k])
        corner(strength, coupling, k, price, new)
        if new[3 * k] > value:
            value = new[3 * k]
            copy(new, best, k)
    for v in range(k + 1):
        alone(v - 1, 1.0, points[v, :k])
        corner(strength, coupling, k, price, points[v])
        cells[0, v] = v
    highest = cell_bound(points, cells[0], k, bounds)
    unexplored = [(-highest, 0)]
    n_points, n_cells = k + 1, 1
    while highest > value + tolerance and n_points < points.shape[0]:
        _, at = heapq.heappop(unexplored)
        copy(cells[at], cell, k + 1)
        new = points[n_points]
        first, second = split(points, cell, k, new)
        corner(strength, coupling, k, price, new)
        if new[3 * k] > value:
            value = new[3 * k]
            copy(new, best, k)
        for end, slot in ((first, at), (second, n_cells)):
            copy(cell, cells[slot], k + 1)
            cells[slot, end] = n_points
            bound = min(highest, cell_bound(points, cells[slot], k, bounds))
            heapq.heappush(unexplored, (-bound, slot))
        n_points += 1
        n_cells += 1
        highest = -unexplored[0][0]
    return value, max(value, highest)


@njit(cache=True, error_model="numpy")
def price_bound(users, strength, coupling, price, tolerance, points, cells, u, equal):
    """λ + Σ φ_i(λ), and the shares that attain it, into `u`: (upper bound, Σ u)."""
    bound, taken = price, 0.0
    for i in range(users.shape[0]):
        k = 0
        while k < users.shape[1] and users[i, k] >= 0:
            k += 1
        if k == 0:
            continue
        if equal[i]:
            # the strongest user takes all (theorem of the chapter "The exact optimum")
            alone(0, best_share(strength[i, 0], coupling[i, 0, 0], price), u[i])
            bound += polytope.excess_rate(strength[i], coupling[i], u[i]) - price * u[i, 0]
        else:
            _, upper = search(strength[i], coupling[i], k, price, tolerance, points, cells, u[i])
            bound += upper
        taken += u[i].sum()
    return bound, taken


@njit(cache=True, error_model="numpy")
def takers_rate(strength, coupling, takers, w):
    """Σ_i R_i [nats] where user `takers[i]` alone has the spare power, at its best shares w."""
    n = takers.shape[0]
    own_strength, own_coupling = np.empty(n), np.empty(n)
    for i in range(n):
        own_strength[i] = strength[i, takers[i]]
        own_coupling[i] = coupling[i, takers[i], takers[i]]
    water_filling.fill(own_strength, own_coupling, w)
    rate = 0.0
    for i in range(n):
        rate += np.log1p(own_strength[i] * w[i] / (1.0 + own_coupling[i] * w[i]))
    return rate


@njit(cache=True, error_model="numpy")
def swap_takers(users, strength, coupling, takers, u):
    """From these takers, changes one subchannel's at a time while that helps; shares into u."""
    n, fullest = users.shape
    w = np.zeros(n)
    best = takers_rate(strength, coupling, takers, w)
    while True:
        where, who = -1, 0
        for i in range(n):
            taker = takers[i]
            for k in range(fullest):
                if k == taker or users[i, k] < 0:
                    continue
                takers[i] = k
                rate = takers_rate(strength, coupling, takers, w)
                if rate > best * (1.0 + 1e-12):
                    best, where, who = rate, i, k
            takers[i] = taker
        if where < 0:
            break
        takers[where] = who
    takers_rate(strength, coupling, takers, w)
    for i in range(n):
        alone(takers[i], w[i] / max(w.sum(), 1e-300), u[i])


@njit(cache=True, error_model="numpy")
def keep_better(users, strength, coupling, even, floor, trial, f, u):
    """Keeps the better of u and of `trial`, as it is or as interior point improves it; f."""
    log, path = np.empty((0, 5)), np.empty((0, *u.shape))
    if not trial.sum() > 0.0:
        return f
    for local in range(2):
        if local:
            interior_point.pull_inside(trial, even, interior_point.KEPT_AGAIN)
            follow(
                polytope.filled(users),
                strength,
                coupling,
                trial,
                interior_point.CENTRING_AGAIN,
                floor,
                _IPM_TOL,
                log,
                path,
            )
        value = 0.0
        for i in range(users.shape[0]):
            value -= polytope.excess_rate(strength[i], coupling[i], trial[i])
        if value < f and trial.sum() <= 1.0 + 1e-14:
            f = value
            for i in range(users.shape[0]):
                copy(trial[i], u[i], users.shape[1])
    return f


@njit(cache=True, error_model="numpy")
def equal_residuals(users, residual):
    """Whether all users but the strongest have the same ε; the strongest's is of no effect."""
    for k in range(2, users.shape[0]):
        if users[k] >= 0 and residual[users[k]] != residual[users[1]]:
            return False
    return True


@njit(cache=True, error_model="numpy")
def _allocate_draw(gains, assigned, constants, budget, tol, max_cells, out):
    n, fullest = gains.shape[0], constants[4]
    users, minimal, spread, strength, coupling = polytope.empty_shares(n, fullest)
    spare = polytope.reduce_draw(
        gains, assigned, constants, users, minimal, spread, strength, coupling
    )
    if not spare >= 0.0:
        out[:] = np.nan
        return spare, np.nan
    floor = np.log1p(constants[1]) * (users >= 0).sum()
    even = interior_point.spread_evenly(users, np.empty((n, fullest)))
    if not strength.max() > 0.0:
        # power buys nothing, however it is split
        polytope.write_power(budget, spare, users, minimal, spread, even, out)
        return spare, floor
    u, trial, shares = even.copy(), even.copy(), even.copy()
    f = keep_better(users, strength, coupling, even, floor, trial, np.inf, u)
    takers = np.zeros(n, np.int64)
    for _ in range(2):
        # from the strongest users, then from those who have most where that led
        swap_takers(users, strength, coupling, takers, trial)
        f = keep_better(users, strength, coupling, even, floor, trial, f, u)
        for i in range(n):
            takers[i] = np.argmax(u[i])
    equal = np.empty(n, np.bool_)
    for i in range(n):
        equal[i] = equal_residuals(users[i], constants[2][i])
    points = np.empty((max_cells, 3 * fullest + 1))
    cells = np.empty((max_cells, fullest + 1), np.int64)

    # minimise the convex bound over λ, whose slope is 1 − Σ u: bracket, then bisect
    price, gradient = 0.0, np.empty(fullest)
    for i in range(n):
        polytope.excess_gradient(strength[i], coupling[i], u[i], gradient)
        price = max(price, gradient.max())
    low, high, bound = 0.0, np.inf, np.inf
    for _ in range(_MAX_PRICES):
        tolerance = 0.5 * tol * (floor - f) / n
        shares[:] = u
        at_price, taken = price_bound(
            users, strength, coupling, price, tolerance, points, cells, shares, equal
        )
        bound = min(bound, at_price)
        if bound + f > tol * (floor - f) and taken > 0.0:
            trial[:] = shares / taken
            f = keep_better(users, strength, coupling, even, floor, trial, f, u)
        if bound + f <= tol * (floor - f):
            break
        if taken > 1.0:
            low = price
        else:
            high = price
        if high - low <= 1e-6 * high:
            break
        if low == 0.0:
            price *= 0.8
        elif high == np.inf:
            price *= 1.25
        else:
            price = np.sqrt(low * high)
    polytope.write_power(budget, spare, users, minimal, spread, u, out)
    return spare, floor + bound


@njit(cache=True, error_model="numpy", parallel=True)
def _allocate_all(gains, assignment, constants, budget, tol, max_cells):
    n_draws = gains.shape[0]
    power = np.empty(gains.shape)
    spare, bound = np.empty(n_draws), np.empty(n_draws)
    for b in prange(n_draws):
        at = np.intp(b) % np.intp(assignment.shape[0])
        spare[b], bound[b] = _allocate_draw(
            gains[b], assignment[at], constants, budget, tol, max_cells, power[b]
        )
    return power, spare, bound
