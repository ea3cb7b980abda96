"""The best split of a subchannel at a price where SIC is perfect, in closed form.

There Q_jk = q_j a_k for k < j and 0 elsewhere, and α_j = q_j a_j. With n_j = 1/q_j,
c_j = 1/a_j and X_j = Σ_{k≤j} a_k u_k the value at a price is a sum of functions of one X_j each,

    Σ_j G_j(X_j) − w_1 log n_1,   G_j(X) = w_j log(n_j + X) − w_{j+1} log(n_{j+1} + X)
                                           − λ (c_j − c_{j+1}) X,   0 ≤ X_1 ≤ … ≤ X_K,  (perfect)

where w, c of slot K + 1 are 0. At an optimum the X form groups of equal value. A group from s to e
keeps the first logarithm of s and the last of e; its derivative has a quadratic numerator and at
most one local maximum, so the K (K + 1)/2 groups give all values that an X can have, and a monotone
dynamic program over them is exact.
"""

import numpy as np

from nomalib._compile import compiled, inlined, log1p


@inlined
def is_perfect(i, k, coupling):
    """Whether nobody on the subchannel hears a weaker user, nor what it takes to keep its rate."""
    perfect = True
    for row in range(k):
        for col in range(row, k):
            perfect = perfect and coupling[i, row, col] == 0.0
    return perfect


@inlined
def term(j, x, noise, cost, weight, price):
    """G_j(x) of (perfect), less its value at 0."""
    last = j == noise.shape[0] - 1
    value = weight[j] * log1p(x / noise[j]) - price * (cost[j] - (0.0 if last else cost[j + 1])) * x
    return value if last else value - weight[j + 1] * log1p(x / noise[j + 1])


@compiled
def peak(s, e, noise, cost, weight, price):
    """The local maximum over x ≥ 0 of G_s + … + G_e of (perfect), 0 where there is none."""
    if e == noise.shape[0] - 1:
        return max(0.0, weight[s] / (price * cost[s]) - noise[s])
    near, far, lost = noise[s], noise[e + 1], weight[e + 1]
    square = price * (cost[e + 1] - cost[s])
    linear = weight[s] - lost + square * (near + far)
    constant = weight[s] * far - lost * near + square * near * far
    root = np.sqrt(max(0.0, linear * linear - 4.0 * square * constant))
    # the root where the slope falls, without cancellation
    x = 2.0 * constant / (root - linear) if linear < 0.0 else -0.5 * (linear + root) / square
    return x if 0.0 < x < np.inf else 0.0


@compiled
def perfect_split(i, k, shares, price, u):
    """Writes the split of (perfect), with a_1 = 1, into row i of u; returns its value."""
    for j in range(u.shape[1]):
        u[i, j] = 0.0
    while k > 0 and shares.strength[i, k - 1] == 0.0:
        k -= 1  # the weakest, who get nothing
    noise, cost, weight = np.empty(k), np.empty(k), np.empty(k)
    for j in range(k):
        q = shares.coupling[i, j, 0] if j else shares.strength[i, 0]
        noise[j], cost[j], weight[j] = 1.0 / q, q / shares.strength[i, j], shares.weight[i, j]
    points = np.zeros(k * (k + 1) // 2 + 1)
    at = 1
    for s in range(k):
        for e in range(s, k):
            points[at] = peak(s, e, noise, cost, weight, price)
            at += 1
    points.sort()
    # best[j, v]: the most of the first j terms while X_j is at most point v, which is taken[j, v]
    best, taken = np.zeros((k + 1, points.size)), np.zeros((k + 1, points.size), np.int64)
    for j in range(k):
        for v in range(points.size):
            value = best[j, v] + term(j, points[v], noise, cost, weight, price)
            best[j + 1, v], taken[j + 1, v] = value, v
            if v > 0 and best[j + 1, v - 1] >= value:
                best[j + 1, v], taken[j + 1, v] = best[j + 1, v - 1], taken[j + 1, v - 1]
    v = points.size - 1
    for j in range(k - 1, -1, -1):
        v = taken[j + 1, v]
        below = points[taken[j, v]] if j > 0 else 0.0
        u[i, j] = (points[v] - below) * cost[j]
    return best[k, points.size - 1]
