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
from numba import njit
from numpy.typing import ArrayLike, NDArray

from nomalib import interior_point, polytope, rates, starts, water_filling
from nomalib.central_path import follow
from nomalib.network import Network, checked_count, checked_fraction

_MAX_PRICES = 24
_IPM_TOL = 1e-8
_RESTARTS = 5


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
    of its own, small for many subchannels, so the reported gap need not reach `tol`. With many
    users on a subchannel the search is cut off early: with eight the gap may be several percent.

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
    tol, max_cells = checked_fraction("tol", tol), checked_count("max_cells", max_cells, 10)
    if net.uniform_residual:
        exact = water_filling.allocate(net, gains, assignment)
        sum_rate = rates.sum_rate(net, gains, assignment, exact.power)
        gap = np.where(exact.feasible, 0.0, np.nan)
        return Optimum(exact.power, exact.feasible, sum_rate, sum_rate.copy(), gap)
    flat_gains, flat_assignment, lead = polytope.flat_draws(net, gains, assignment)
    n_draws = len(flat_gains)
    power, spare, bound = np.empty(flat_gains.shape), np.empty(n_draws), np.empty(n_draws)
    polytope.over_draws(
        _allocate_draws,
        n_draws,
        flat_gains,
        flat_assignment,
        polytope.constants(net, flat_assignment),
        net.budget,
        power,
        spare,
        bound,
        tol,
        max_cells,
        worth_a_thread=1,
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
    if not price > 0:
        return 1.0
    return min(1.0, water_filling.share_at(1.0 / price, strength, coupling)[0])


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
def keep_better(counts, strength, coupling, floor, trial, f, u):
    """Keeps the better of u and of `trial`, as it is or as interior point improves it; f."""
    log, path = np.empty((0, interior_point.TRACED)), np.empty((0, *u.shape))
    for local in range(2):
        if local:
            starts.pull_inside(counts, trial, starts.KEPT)
            follow(
                counts,
                strength,
                coupling,
                trial,
                1.0 - starts.KEPT,
                floor,
                _IPM_TOL,
                log,
                path,
            )
        value = 0.0
        for i in range(counts.shape[0]):
            value -= polytope.excess_rate(strength[i], coupling[i], trial[i])
        if value < f and trial.sum() <= 1.0 + 1e-14:
            f = value
            starts.copy_shares(trial, u)
    return f


@njit(cache=True, error_model="numpy")
def solve(slots, residuals, floor, tol, u, trial, points, cells):
    """The best shares found, into u, and an upper bound on the sum rate [nats]."""
    n, fullest = u.shape
    users, strength, coupling = slots.users, slots.strength, slots.coupling
    _, _, f = interior_point.solve(slots, residuals, floor, _IPM_TOL, _RESTARTS, u)
    if not strength.max() > 0.0:
        # power buys nothing, however it is split
        return floor
    counts, takers, w = polytope.filled(users), np.zeros(n, np.int64), np.zeros(n)
    for _ in range(2):
        # from the strongest users, then from those who have most where that led
        starts.swap_takers(counts, strength, coupling, takers, w)
        starts.give(takers, w / w.sum(), trial)
        f = keep_better(counts, strength, coupling, floor, trial, f, u)
        for i in range(n):
            takers[i] = u[i].argmax()
    equal = np.empty(n, np.bool_)
    for i in range(n):
        equal[i] = starts.equal_residuals(users[i], residuals[i])

    # minimise the convex bound over λ, whose slope is 1 − Σ u: bracket, then bisect
    price, gradient = 0.0, np.empty(fullest)
    for i in range(n):
        polytope.excess_gradient(strength[i], coupling[i], u[i], gradient)
        price = max(price, gradient.max())
    low, high, bound = 0.0, np.inf, np.inf
    for _ in range(_MAX_PRICES):
        tolerance = 0.5 * tol * (floor - f) / n
        starts.copy_shares(u, trial)
        at_price, taken = price_bound(
            users, strength, coupling, price, tolerance, points, cells, trial, equal
        )
        bound = min(bound, at_price)
        if bound + f > tol * (floor - f) and taken > 0.0:
            for i in range(n):
                for k in range(fullest):
                    trial[i, k] /= taken
            f = keep_better(counts, strength, coupling, floor, trial, f, u)
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
    return floor + bound


@njit(cache=True, error_model="numpy", nogil=True)
def _allocate_draws(
    first, last, gains, assignment, constants, budget, power, spare, bound, tol, max_cells
):
    n, fullest = gains.shape[1], constants[4]
    slots = polytope.empty_slots(n, fullest)
    u, trial = np.empty((n, fullest)), np.empty((n, fullest))
    points = np.empty((max_cells, 3 * fullest + 1))
    cells = np.empty((max_cells, fullest + 1), np.int64)
    for b in range(first, last):
        assigned = assignment[b % assignment.shape[0]]
        spare[b] = polytope.reduce_draw(gains[b], assigned, constants, slots)
        if not spare[b] >= 0.0:
            power[b], bound[b] = np.nan, np.nan
            continue
        floor = np.log1p(constants[1]) * polytope.filled(slots.users).sum()
        bound[b] = solve(slots, constants[2], floor, tol, u, trial, points, cells)
        polytope.write_power(budget, spare[b], slots, u, power[b])
