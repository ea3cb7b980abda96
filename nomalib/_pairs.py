"""One user, or two, of a subchannel at a price: their shares in closed form, for `subchannel`."""

import numpy as np

from nomalib._compile import borrowing, inlined

# How many totals of two users are tried.
_TOTALS = 4


@inlined
def share_at(level, strength, coupling):
    """Share x of a taker at its level ℓ, the nonnegative root of (taker), and dx/dℓ."""
    head = strength * level - 1.0
    if not head > 0.0:
        return 0.0, 0.0
    linear = 2.0 * coupling + strength
    root = np.sqrt(linear * linear + 4.0 * coupling * (coupling + strength) * head)
    return 2.0 * head / (linear + root), strength / root


@borrowing
def give(i, taker, share, u):
    """Row i of u where the taker has all of the share."""
    for k in range(u.shape[1]):
        u[i, k] = share if k == taker else 0.0


@inlined
def balance(w, mine, hers, total):
    """How a user a, of SINR (α, Q_aa, Q_ab) = `mine`, shares a total with b; the share of a.

    With u_b = X − u_a, X the total, each rate is the logarithm of a quotient of affine functions,
    the slopes are w_a A/(T_a D_a) and −w_b B/(T_b D_b) with A = α_a (1 + Q_ab X) and
    B = α_b (1 + Q_ba X), and where their sum is 0 is a quadratic in u_a. The
    root at which the sum falls is the one maximum inside, if there is one; else NaN.
    """
    (wa, wb), (a, qaa, qab), (b, qbb, qba) = w, mine, hers
    # D_a = d0 + d1 u_a, T_a = t0 + t1 u_a; D_b = e0 + e1 u_a, T_b = s0 + s1 u_a
    d0, d1, e0, e1 = 1.0 + qab * total, qaa - qab, 1.0 + qbb * total, qba - qbb
    t0, t1, s0, s1 = d0, d1 + a, e0 + b * total, e1 - b
    left, right = wa * a * d0, wb * b * (1.0 + qba * total)
    square = left * s1 * e1 - right * t1 * d1
    linear = left * (s1 * e0 + s0 * e1) - right * (t1 * d0 + t0 * d1)
    constant = left * s0 * e0 - right * t0 * d0
    root = np.sqrt(linear * linear - 4.0 * square * constant)
    return 2.0 * constant / (root - linear) if linear < 0.0 else -0.5 * (linear + root) / square


@borrowing
def best_pair(i, shares, price, value, u):
    """Writes a split of two users into row i of u if it is worth more than `value`; the worth.

    Only a weaker user of more weight is tried beside a stronger one. Their total begins as that of
    the weaker one alone, and follows the slope at the split, as w/(1/α + x) does.
    """
    k = shares.count[i]
    for a in range(k):
        for b in range(a + 1, k):
            wa, wb = shares.weight[i, a], shares.weight[i, b]
            sa, sb = shares.strength[i, a], shares.strength[i, b]
            if not (wb > wa > 0.0 and sb > 0.0):
                continue
            qaa, qab = shares.coupling[i, a, a], shares.coupling[i, a, b]
            qbb, qba = shares.coupling[i, b, b], shares.coupling[i, b, a]
            total = min(1.0, share_at(wb / price, sb, qbb)[0])
            for _ in range(_TOTALS):
                x = balance((wa, wb), (sa, qaa, qab), (sb, qbb, qba), total)
                y = total - x
                if not (x > 0.0 and y > 0.0):
                    break
                da, db = 1.0 + qaa * x + qab * y, 1.0 + qba * x + qbb * y
                ta, tb = da + sa * x, db + sb * y
                reached = wa * np.log(ta / da) + wb * np.log(tb / db) - price * total
                if reached > value:
                    value = reached
                    give(i, a, x, u)
                    u[i, b] = y
                at = wa * ((qab / ta) - qab / da) + wb * ((qbb + sb) / tb - qbb / db)
                total = min(1.0, (total + 1.0 / sb) * at / price - 1.0 / sb)
    return value
