"""A certified bound of φ, the value of one subchannel at a price, for few by branch and bound.

R(u) = Σ_j w_j (log T_j − log D_j), D_j = 1 + Σ_k Q_jk u_k and T_j = D_j + α_j u_j affine in u, is
searched over the simplex u ≥ 0, Σ u ≤ 1. On a simplex −log D_j lies below the line through its
values at the vertices, for it is convex, and log T_j below any of its tangents, for it is concave.
Both bounds together are linear, so their maximum is at a vertex.

A point is stored as [u, log T, log D, R(u) − λ Σ u], 3 K + 1 numbers.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

from nomalib._checks import Array
from nomalib._compile import FIRST, compiled
from nomalib._pairs import give
from nomalib._stages import bound_by_stages
from nomalib.subchannel import split_at, worth_alone

# Users on a subchannel whose splits are searched. The bound for more is by stages.
FEW = 5


def cell_space(slots: int, max_cells: int) -> tuple[Array, NDArray[np.int64]]:
    """Points and cells, the workspace of `search`: a cell holds the indices of its vertices."""
    return np.empty((max_cells, 3 * slots + 1)), np.empty((max_cells, slots + 1), np.int64)


@compiled
def copy(source, target):
    """Loops: an array assignment compiles NumPy's shape errors too, for seconds."""
    for j in range(target.shape[0]):
        target[j] = source[j]


@compiled
def complete(i, k, shares, price, point):
    """Completes a point from its shares; returns its value."""
    value = 0.0
    for j in range(k):
        below = 1.0
        for m in range(k):
            below += shares.coupling[i, j, m] * point[m]
        point[k + j] = np.log(below + shares.strength[i, j] * point[j])
        point[2 * k + j] = np.log(below)
        value += shares.weight[i, j] * (point[k + j] - point[2 * k + j]) - price * point[j]
    point[3 * k] = value
    return value


@compiled
def cell_bound(i, k, shares, points, cell, bounds):
    """Bound of R(u) − λ Σ u on the simplex with these vertices; `bounds` is a workspace.

    log T_j + log 1/D_{j+1} is also the logarithm of a quotient of affine functions, largest at a
    vertex. That constant replaces the two linear bounds, as far as both have a weight, where it is
    the closer one.
    """
    for v in range(k + 1):
        bounds[v] = points[cell[v], 3 * k]
    constant = 0.0
    for j in range(k):
        low, high, rest = np.inf, -np.inf, shares.weight[i, j]
        least, most, low_next, high_next = np.inf, -np.inf, np.inf, -np.inf
        for v in range(k + 1):
            above = points[cell[v], k + j]
            low, high = min(low, above), max(high, above)
            if j + 1 < k:
                below = points[cell[v], 2 * k + j + 1]
                low_next, high_next = min(low_next, below), max(high_next, below)
                least, most = min(least, above - below), max(most, above - below)
        if j + 1 < k and 8.0 * (most - least) < (high - low) ** 2 + (high_next - low_next) ** 2:
            both = min(rest, shares.weight[i, j + 1])
            constant += both * most
            rest -= both
            for v in range(k + 1):
                bounds[v] -= both * (points[cell[v], k + j] - points[cell[v], 2 * k + j + 1])
        if rest > 0.0 and high - low > 1e-12:
            # the tangent at the logarithmic mean is equally far off at both ends
            mean = low + np.log(np.expm1(high - low) / (high - low))
            for v in range(k + 1):
                off = points[cell[v], k + j] - mean
                bounds[v] += rest * (np.expm1(off) - off)
    highest = -np.inf
    for v in range(k + 1):
        highest = max(highest, bounds[v])
    return constant + highest


@compiled
def halve(k, points, cell, new):
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


@compiled
def search(i, shares, price, tolerance, space, u):
    """φ of subchannel i, best bound first: (value, upper bound).

    Row i of u holds shares to begin with, and then the best found; their value is within
    `tolerance` of the bound unless the search ran out of space.
    """
    points, cells = space
    k = shares.count[i]
    best = u[i, :k]
    new, bounds, cell = points[0], np.empty(k + 1), np.empty(k + 1, np.int64)
    copy(best, new[:k])
    value = complete(i, k, shares, price, new)
    for taker in range(k):
        give(FIRST, taker, worth_alone(i, taker, shares, price)[1], points)
        if complete(i, k, shares, price, new) > value:
            value = new[3 * k]
            copy(new, best)
    for v in range(k + 1):
        give(v, v - 1, 1.0, points)
        complete(i, k, shares, price, points[v])
        cells[0, v] = v
    highest = cell_bound(i, k, shares, points, cells[0], bounds)
    unexplored = [(-highest, 0)]
    n_points, n_cells = k + 1, 1
    while highest > value + tolerance and n_points < points.shape[0]:
        _, at = heapq.heappop(unexplored)
        copy(cells[at], cell)
        new = points[n_points]
        first, second = halve(k, points, cell, new)
        if complete(i, k, shares, price, new) > value:
            value = new[3 * k]
            copy(new, best)
        for end, slot in ((first, at), (second, n_cells)):
            copy(cell, cells[slot])
            cells[slot, end] = n_points
            bound = min(highest, cell_bound(i, k, shares, points, cells[slot], bounds))
            heapq.heappush(unexplored, (-bound, slot))
        n_points += 1
        n_cells += 1
        highest = -unexplored[0][0]
    return value, max(value, highest)


@compiled
def bound_split(i, shares, price, tolerance, space, u):
    """φ_i(λ) from below and above; row i of u holds a start, then the best split found."""
    k, start = shares.count[i], space[0][0]
    for j in range(k):
        start[j] = u[i, j]
    value, exact = split_at(i, shares, price, u)
    if exact or k == 0:
        return value, value
    at_start = complete(i, k, shares, price, start)
    if at_start > value:
        value = at_start
        copy(start[:k], u[i])
    if k <= FEW:
        return search(i, shares, price, tolerance, space, u)
    points = int(np.sqrt(space[0].shape[0] / 3.0))
    return value, max(value, bound_by_stages(i, shares, price, points))


@compiled
def price_bound(shares, price, tolerance, space, u):
    """λ + Σ φ_i(λ), and Σ u of the shares that attain it, into `u`."""
    bound = price
    for i in range(u.shape[0]):
        bound += bound_split(i, shares, price, tolerance, space, u)[1]
    return bound, u.sum()
