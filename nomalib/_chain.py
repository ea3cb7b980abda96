"""What users hear of each other on one subchannel: a recursion over neighbours in SIC order.

Powers x are in budgets and users in SIC order. In units in which all of a subchannel hear a signal
z alike, with a noise m_j and a cost c_j of z_j in x, γ_j = P_c g_j²/σ₀²,

    "interferer":  z_j = γ_j x_j,  m_j = 1,      c_j = 1/γ_j,
    "receiver":    z_j = x_j,      m_j = 1/γ_j,  c_j = 1,

user j has R_min and a slack y_j where z_j = t_j F_j + y_j, with the interference plus noise that it
hears F_j = m_j + Σ_{k<j} z_k + Σ_{k>j} ε_k z_k. The difference of two neighbouring F is

    (1 + t_{j+1} ε_{j+1}) F_{j+1} = (1 + t_j) F_j + m_{j+1} − m_j + y_j − ε_{j+1} y_{j+1},   (chain)

so F_j = b_j + s_j F_1, and F_1 = m_1 + Σ ε_k z_k closes it: F_1 = (m_1 + Σ ε_k t_k b_k)/(1 − κ)
without slack, κ = Σ ε_k t_k s_k. R_min can be met where 1 > κ. That is the only subtraction, as
m_{j+1} ≥ m_j: least powers are exact to rounding however far the gains lie apart.
"""

from typing import NamedTuple

import numpy as np

from nomalib._checks import Array
from nomalib._compile import compiled, inlined

# A gain of an SNR below LEAST_SNR counts as 0, and NO_SNR stands for it in quotients.
LEAST_SNR, NO_SNR = 1e-15, 1e-30


class Chain(NamedTuple):
    """One subchannel's slots: what (chain) reads and what it gives; (K,) each but the last."""

    noise: Array
    cost: Array
    t: Array
    epsilon: Array
    step: Array  # 1/(1 + t ε)
    base: Array  # b
    slope: Array  # s
    heard: Array  # V, (K, K)


@compiled
def empty_chain(slots):
    one = np.empty((7, slots))
    return Chain(one[0], one[1], one[2], one[3], one[4], one[5], one[6], np.empty((slots, slots)))


@inlined
def link(row, gain, t, epsilon, draws, chain):
    """Enters the user of a slot into the chain."""
    gamma = draws.snr * gain * gain
    noise = 1.0 / (gamma if gamma >= LEAST_SNR else NO_SNR)
    chain.noise[row] = noise if draws.receiver else 1.0
    chain.cost[row] = 1.0 if draws.receiver else noise
    chain.t[row] = t
    # nobody hears what is left of the strongest user's signal
    chain.epsilon[row] = epsilon = epsilon if row > 0 else 0.0
    chain.step[row] = 1.0 / (1.0 + t * epsilon)


@inlined
def follow_chain(k, chain):
    """(chain) without slack for k ≥ 1 users: b and s into `chain`; returns F_1 and κ."""
    base, slope = 0.0, 1.0
    kept_base, kept = 0.0, 0.0
    chain.base[0], chain.slope[0] = base, slope
    for j in range(1, k):
        before = 1.0 + chain.t[j - 1]
        base = chain.step[j] * (before * base + chain.noise[j] - chain.noise[j - 1])
        slope *= chain.step[j] * before
        kept_base += chain.epsilon[j] * chain.t[j] * base
        kept += chain.epsilon[j] * chain.t[j] * slope
        chain.base[j], chain.slope[j] = base, slope
    return (chain.noise[0] + kept_base) / (1.0 - kept), kept


@inlined
def strongest_terms(k, chain):
    """(n, α, q) of a subchannel of k ≥ 1 users: least power, strength and coupling of its first.

    As `reduce_subchannel` has them, for a spare power of 1; n is inf where R_min cannot be
    met. With V of the first user, V_11 = κ/((1 + t_1)(1 − κ)) and V_j1 = s_j/((1 + t_1)(1 − κ)).
    """
    first, kept = follow_chain(k, chain)
    need, total = chain.t[0] * first * chain.cost[0], chain.cost[0] * (1.0 + chain.t[0] - kept)
    for j in range(1, k):
        need += chain.t[j] * (chain.base[j] + chain.slope[j] * first) * chain.cost[j]
        total += chain.t[j] * chain.slope[j] * chain.cost[j]
    if not kept < 1.0:
        need, kept, first, total = np.inf, 0.0, 1.0, np.inf
    scale = 1.0 / (first * total)
    return need, (1.0 - kept) * scale, kept * scale
