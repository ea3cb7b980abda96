"""The best split of a subchannel at a price where SIC is perfect and the receiver's gain counts.

There Q_jk = α_j for k < j and 0 elsewhere. With n_j = 1/α_j and X_j = Σ_{k≤j} u_k

    R(u) − λ X_K = Σ_j w_j log((n_j + X_j)/(n_j + X_{j−1})) − λ X_K
                 = Σ_j ∫ (w_j/(n_j + z) − λ) dz    from X_{j−1} to X_j,                    (perfect)

so that every unit z of power is best left to the user with the largest w_j/(n_j + z), as long as
that is above λ. As n_1 ≤ n_2 ≤ …, of two users the weaker one overtakes the stronger one at most
once, and the order of SIC is kept (Tse, 1997; Li and Goldsmith, 2001, for broadcast channels).
"""

from nomalib._compile import borrowing, compiled, inlined, log1p


@compiled
def is_perfect(i, k, shares):
    """Whether (perfect) holds: nobody hears a weaker user, and all hear the others alike."""
    perfect = True
    for row in range(k):
        strength = shares.strength[i, row]
        for col in range(k):
            heard = strength if col < row else 0.0
            perfect = perfect and abs(shares.coupling[i, row, col] - heard) <= 1e-12 * strength
    return perfect


@inlined
def last_user(i, k, shares, price):
    """Who has the last unit of power at a price, and how much all have then."""
    last, total = 0, 0.0
    for j in range(k):
        if shares.strength[i, j] > 0.0:
            x = shares.weight[i, j] / price - 1.0 / shares.strength[i, j]
            if x > total:
                last, total = j, x
    return last, total


@borrowing
def divide(i, k, shares, total, u):
    """Writes the best split of this share of the spare power into row i of u; returns its rate."""
    for j in range(u.shape[1]):
        u[i, j] = 0.0
    first, x, rate = -1, 0.0, 0.0
    while x < total:
        j, most = -1, 0.0
        for other in range(first + 1, k):
            a, w = shares.strength[i, other], shares.weight[i, other]
            slope = a * w / (1.0 + a * x)
            if slope > most or (slope == most > 0.0 and w > shares.weight[i, j]):
                j, most = other, slope
        if j < 0:
            break
        end, a, w = total, shares.strength[i, j], shares.weight[i, j]
        for other in range(j + 1, k):
            b, v = shares.strength[i, other], shares.weight[i, other]
            if v > w and b > 0.0:
                end = min(end, max(x, (w / b - v / a) / (v - w)))
        u[i, j] = end - x
        rate += w * log1p(a * (end - x) / (1.0 + a * x))
        first, x = j, end
    return rate
