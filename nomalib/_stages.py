"""A certified bound of φ, the value of one subchannel at a price, for many users: user by user.

Of the others' shares a user hears two sums, by the recursion behind the reduction (`_chain`). With
c_1 = 1, r_j = (Q_jj + α_j)/c_j and c_{j+1} = Q_{j+1,j}/r_j,

    D_j = 1 + c_j (p_j + e_j) + Q_jj u_j,  p_j = Σ_{k<j} r_k u_k,  e_j = Σ_{k>j} Q_1k u_k:  (sums)

the stronger users' signals, and what SIC leaves of the weaker ones'. So φ is the value of a dynamic
program over the users in SIC order whose state is (p, e): it begins at p = 0 with any e and ends at
e = 0. Here p is rounded down to a grid, which no rate falls by, and of e a cell is known, of which
D_j takes the lower end: what comes out is a bound, for K users and G points in O(K G³). It knows of
u_k ≤ 1, but not of Σ u ≤ 1, which at a price near the best one costs nothing.
"""

import numpy as np

from nomalib._compile import compiled, inlined
from nomalib._pairs import share_at


@inlined
def grid(highest, points):
    """From 0 on, log(1 + x) in equal steps: then so are the logarithms of D."""
    step = np.log(1.0 + highest) / (points.shape[0] - 1)
    for at in range(points.shape[0]):
        points[at] = np.exp(step * at) - 1.0
    points[points.shape[0] - 1] = highest * (1.0 + 1e-12)


@inlined
def sums(i, k, shares, scale, rise):
    """c and r of (sums)."""
    scale[0] = 1.0
    for j in range(k):
        if j > 0:
            scale[j] = shares.coupling[i, j, j - 1] / rise[j - 1]
        rise[j] = (shares.coupling[i, j, j] + shares.strength[i, j]) / scale[j]


@compiled
def stage(user, price, starts, p, e, later, now):
    """Bounds `now` of what a user and those after it are worth in states (p, e), of `later`.

    `user` holds α, Q_jj, Q_1j, w, c and r; only the first `starts` points of p are asked for. Cell
    0 of e is 0 alone, and cell b goes from point b − 1 to point b.
    """
    strength, own, cost, weight, scale, rise = user
    for a in range(starts):
        now[a] = -np.inf
        for after in range(e.shape[0]):
            least = e[max(after - 1, 0)]
            below = 1.0 + scale * (p[a] + least)
            alpha, q = strength / below, own / below
            best = min(1.0, share_at(weight / price, alpha, q)[0])
            most = weight * np.log(1.0 + alpha * best / (1.0 + q * best)) - price * best
            at = a
            for before in range(after, e.shape[0] if cost > 0.0 else after + 1):
                # the shares that lead from one cell of e to the other, by cells of p
                low, high = 0.0, 1.0
                if cost > 0.0:
                    low = max(0.0, (e[max(before - 1, 0)] - e[after]) / cost)
                    high = min(1.0, (e[before] - least) / cost)
                if low > 1.0:
                    break
                while at + 1 < p.shape[0] and p[at + 1] <= p[a] + rise * low:
                    at += 1
                to = at
                while most + later[to, after] > now[a, before]:
                    end = high
                    if to + 1 < p.shape[0]:
                        end = min(high, (p[to + 1] - p[a]) / rise)
                    u = min(max(best, low), end)
                    value = weight * np.log(1.0 + alpha * u / (1.0 + q * u)) - price * u
                    now[a, before] = max(now[a, before], value + later[to, after])
                    if end >= high:
                        break
                    low, to = end, to + 1


@compiled
def bound_by_stages(i, shares, price, points):
    """An upper bound of φ of subchannel i, by a grid of so many points."""
    k = shares.count[i]
    while k > 0 and shares.strength[i, k - 1] == 0.0:
        k -= 1  # the weakest, who get nothing
    if k == 0:
        return 0.0
    scale, rise, p, e = np.empty(k), np.empty(k), np.empty(points), np.empty(points)
    sums(i, k, shares, scale, rise)
    heard = shares.coupling[i, 0, :k].max()
    grid(rise[:k].max(), p)
    grid(heard, e)
    later, now = np.full((points, points), -np.inf), np.empty((points, points))
    later[:, 0] = 0.0
    for j in range(k - 1, -1, -1):
        user = (
            shares.strength[i, j],
            shares.coupling[i, j, j],
            shares.coupling[i, 0, j],
            shares.weight[i, j],
            scale[j],
            rise[j],
        )
        stage(user, price, points if j > 0 else 1, p, e, later, now)
        later, now = now, later
    return later[0].max()
