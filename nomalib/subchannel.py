"""A subchannel at a price: what all allocators, bounds and schedules are made of.

Interference stays inside a subchannel; only the budget couples subchannels. At a price λ of power
each of them stands alone, with its shares u of the spare power (`nomalib.polytope`):

    φ(λ) = max { R(u) − λ Σ u : u ≥ 0, Σ u ≤ 1 },   R(u) = Σ_j w_j log(1 + α_j u_j / D_j),    (phi)

D_j = 1 + Σ_k Q_jk u_k the interference plus noise of slot j, T_j = D_j + α_j u_j, w_j its weight;
in nats above the least rates. λ + Σ φ(λ) over the subchannels bounds every allocation from above.
Perfect SIC is solved without Σ u ≤ 1, which only raises the bound.

Where one user takes all, its best share x has w α = λ (1 + q x)(1 + (q + α) x), q = Q_kk: with the
level ℓ = w/λ

    q (q + α) x² + (2q + α) x = α ℓ − 1   where ℓ > 1/α,  x = 0 elsewhere, and at most 1.   (taker)

With the interferer's gain and one ε, one user takes all (`nomalib.takers`); with the receiver's
gain there is a closed form where SIC is perfect (`nomalib._perfect_sic`). Elsewhere the best known
split is that of one or of two users.
"""

import numpy as np
from numpy.typing import ArrayLike

from nomalib._checks import Array, check_inside, real_array
from nomalib._compile import borrowing, compiled, inlined, log1p
from nomalib._draws import Shares, check_shares, flat_shares, view
from nomalib._pairs import best_pair, give, share_at
from nomalib._perfect_sic import divide, is_perfect, last_user

__all__ = ["excess_rate"]


# Of subchannel i with k users; `below` holds D, (N, K) like u.


@inlined
def hear(i, k, shares, u, below):
    """Writes D_j."""
    for j in range(k):
        total = 1.0
        for other in range(k):
            total += shares.coupling[i, j, other] * u[i, other]
        below[i, j] = total


@inlined
def rate(i, k, shares, u, below):
    """R(u), by one logarithm for neighbours of one weight: of the product of their 1 + SINR."""
    total, excess, weight = 0.0, 0.0, shares.weight[i, 0]
    for j in range(k):
        if shares.weight[i, j] != weight or excess > 1e100:
            total += weight * log1p(excess)
            excess, weight = 0.0, shares.weight[i, j]
        sinr = shares.strength[i, j] * u[i, j] / below[i, j]
        excess += sinr + excess * sinr
    return total + weight * log1p(excess)


@inlined
def slope(i, k, shares, u, below, out):
    """Writes ∂R/∂u_k = Σ_j w_j ((Q_jk + α_j δ_jk)/T_j − Q_jk/D_j)."""
    for j in range(k):
        out[i, j] = 0.0
    for j in range(k):
        signal = shares.strength[i, j] * u[i, j]
        scale = shares.weight[i, j] / (below[i, j] + signal)
        out[i, j] += shares.strength[i, j] * scale
        if signal > 0.0:
            lost = signal * scale / below[i, j]
            for other in range(k):
                out[i, other] -= shares.coupling[i, j, other] * lost


@inlined
def curvature(i, k, shares, u, below, out):
    """Writes the lower triangle of −∂²R/∂u² = Σ_j w_j (t_j t_jᵀ/T_j² − q_j q_jᵀ/D_j²).

    q_j are the rows of Q, and t_j = q_j + α_j e_j.
    """
    for row in range(k):
        for col in range(row + 1):
            out[i, row, col] = 0.0
    for j in range(k):
        strength, weight = shares.strength[i, j], shares.weight[i, j]
        above = 1.0 / (below[i, j] + strength * u[i, j])
        own = strength * above * above * weight
        both = (above * above - 1.0 / (below[i, j] * below[i, j])) * weight
        out[i, j, j] += own * strength
        for row in range(k):
            q = shares.coupling[i, j, row]
            out[i, max(row, j), min(row, j)] += own * q * (2.0 if row == j else 1.0)
            q *= both
            for col in range(row + 1):
                out[i, row, col] += q * shares.coupling[i, j, col]


@inlined
def worth(price, strength, coupling, weight):
    """max over x in [0, 1] of w log(1 + α x/(1 + q x)) − λ x, and the x."""
    x = min(1.0, share_at(weight / price, strength, coupling)[0])
    return weight * log1p(strength * x / (1.0 + coupling * x)) - price * x, x


@inlined
def worth_alone(i, k, shares, price):
    """`worth` of slot k of subchannel i."""
    return worth(price, shares.strength[i, k], shares.coupling[i, k, k], shares.weight[i, k])


@borrowing
def best_taker(i, shares, price):
    """The slot that is worth most alone, or the strongest where it takes all; worth and share."""
    best, most, share = 0, 0.0, 0.0
    for k in range(min(shares.count[i], 1) if shares.strongest[i] else shares.count[i]):
        value, x = worth_alone(i, k, shares, price)
        if value > most:
            best, most, share = k, value, x
    return best, most, share


@borrowing
def split_at(i, shares, price, u):
    """Writes the best known split into row i of u; returns its value, and whether that is φ."""
    k = shares.count[i]
    if not shares.single[i] and is_perfect(i, k, shares):
        _, total = last_user(i, k, shares, price)
        return divide(i, k, shares, total, u) - price * total, True
    taker, value, share = best_taker(i, shares, price)
    give(i, taker, share, u)
    if not shares.single[i]:
        value = best_pair(i, shares, price, value, u)
    return value, shares.single[i]


@borrowing
def value_and_price(shares, u, below, slopes):
    """R(u) of one draw [nats], and Σ u ∂R/∂u; writes D and the slopes."""
    value, price = 0.0, 0.0
    for i in range(u.shape[0]):
        k = shares.count[i]
        hear(i, k, shares, u, below)
        value += rate(i, k, shares, u, below)
        slope(i, k, shares, u, below, slopes)
        for j in range(k):
            price += u[i, j] * slopes[i, j]
    return value, price


@borrowing
def certify(shares, u, below, slopes):
    """R(u) of one draw [nats], and its scaled KKT residual at its own price Σ u ∂R/∂u.

    Largest of: what a slope is above the price; complementarity Σ u (price − slope)₊; both relative
    to the weighted sum rate; and what u misses of a sum of 1. Where power buys no rate, all powers
    are alike. `below` and `slopes` are workspaces.
    """
    value, price = value_and_price(shares, u, below, slopes)
    total = 0.0
    for i in range(u.shape[0]):
        for j in range(shares.count[i]):
            total += u[i, j]
    worst, gap, scale = 0.0, 0.0, shares.least_rate + value
    for i in range(u.shape[0]):
        for j in range(shares.count[i]):
            # a slope is a difference of terms: what may be their rounding is no residual
            above = below[i, j] + shares.strength[i, j] * u[i, j]
            term = shares.weight[i, j] * shares.strength[i, j] / above
            worst = max(worst, slopes[i, j] - price - 2e-15 * term)
            gap += u[i, j] * max(0.0, price - slopes[i, j])
    residual = max(worst, gap)
    if residual > 0.0:
        residual = residual / scale if scale > 0.0 else np.inf
    return value, max(residual, abs(total - 1.0))


def excess_rate(shares: Shares, u: ArrayLike) -> Array:
    """R(u), the weighted rate of every subchannel above its least one [nats], (…, N).

    Args:
        shares: the problem, of `polytope.reduce`.
        u: shares of the spare power, (…, N, K), at least 0.

    >>> from nomalib import network, polytope
    >>> net = network.Network(n_subchannels=1, n_users=1, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> excess_rate(polytope.reduce(net, [[3.0]], [[True]]), [[1.0]])    # log 10
    array([2.30258509])
    """
    u = checked_u(shares, u)
    flat, lead = flat_shares(shares)
    value = np.zeros(flat.count.shape)
    _evaluate_draws(flat, u.reshape(flat.strength.shape), value)
    return value.reshape(lead + value.shape[1:])


def checked_u(shares: Shares, u: ArrayLike) -> Array:
    """Shares (…, N, K) of the spare power, finite and at least 0; NaN passes through."""
    check_shares(shares)
    u = real_array("u", u)
    if u.shape != shares.users.shape:
        raise ValueError(
            f"u has shape {u.shape}; it must be that of the slots, {shares.users.shape}"
        )
    check_inside("u", u, ~((u < 0.0) | np.isinf(u)), "shares must be finite and at least 0")
    return u


@compiled
def _evaluate_draws(shares, u, value):
    below = np.empty(u.shape[1:])
    for b in range(u.shape[0]):
        draw = view(shares, b)
        for i in range(u.shape[1]):
            hear(i, draw.count[i], draw, u[b], below)
            value[b, i] = rate(i, draw.count[i], draw, u[b], below)
