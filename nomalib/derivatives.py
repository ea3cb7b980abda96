"""Gradient and Hessian of −R_total in the powers, in closed form, and its curvature.

With D_ij = σ₀² + I_ij and T_ij = D_ij + p_ij |g_ij|², both affine in the powers of subchannel i,

    −R_i = (1/ln 2) Σ_j w_j (log D_ij − log T_ij),  so with the rows d_j = ∂D_ij/∂p, t_j = ∂T_ij/∂p

    ∇(−R_i) = (1/ln 2) Σ_j w_j (d_j/D_ij − t_j/T_ij),                              (gradient)
    ∇²(−R_i) = (1/ln 2) Σ_j w_j (t_j t_jᵀ/T_ij² − d_j d_jᵀ/D_ij²).                 (hessian)

The Hessian is a difference of positive semidefinite matrices: convexity is not a matter of course.
Powers of different subchannels do not interact, so there is one (M, M) block for each subchannel.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import Array, Weights
from nomalib._draws import pair_weights
from nomalib.network import Network
from nomalib.rates import checked, heard_interference, sic_order

__all__ = ["Derivatives", "derivatives", "eigenvalues", "printed"]


class Derivatives(NamedTuple):
    """Derivatives of −R_total [bps/Hz] in the powers [W]; 0 where a user is not assigned.

    Attributes:
        gradient: (…, N, M), in bps/Hz per watt.
        hessian: its diagonal blocks (…, N, M, M), in bps/Hz per watt²; all others are zero.
    """

    gradient: Array
    hessian: Array


def derivatives(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike, weights: Weights = None
) -> Derivatives:
    """Gradient and Hessian of −R_total, the weighted objective of (10), at `power`.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).
        power: watt, (N, M) or (…, N, M); a draw of NaN (infeasible) has NaN derivatives.
        weights: of the users' rates, (M,) or (…, M); None is 1 for all.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0)
    >>> slope = derivatives(net, [[1.0]], [[True]], [[1.0]]).gradient    # −1/(2 ln 2)
    >>> slope.round(4)
    array([[-0.7213]])
    """
    gains, assigned, power = checked(net, gains, assignment, power)
    return _derivatives(net, gains, assigned, power, weights)


def _derivatives(net, gains, assigned, power, weights) -> Derivatives:
    above, below, rise, heard = _affine_parts(net, gains, assigned, power)
    by_interference = heard / below[..., None]
    by_total = rise / above[..., None]
    weight = pair_weights(net, weights, gains.shape[:-2])
    weight = np.broadcast_to(weight, gains.shape)[..., None]
    gradient = (weight * (by_interference - by_total)).sum(axis=-2)
    hessian = np.swapaxes(by_total, -1, -2) @ (weight * by_total)
    hessian -= np.swapaxes(by_interference, -1, -2) @ (weight * by_interference)
    return Derivatives(gradient / np.log(2.0), hessian / np.log(2.0))


def eigenvalues(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike, weights: Weights = None
) -> Array:
    """Eigenvalues of the Hessian of −R_total, ascending, for each subchannel; (…, N, M).

    In bps/Hz per watt². A subchannel of k users has k of them; the other places hold NaN, and so
    does a draw of NaN power. Arguments and errors are those of `derivatives`.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0)
    >>> eigenvalues(net, [[1.0]], [[True]], [[1.0]]).round(4)    # 1/(4 ln 2)
    array([[0.3607]])
    """
    gains, assigned, power = checked(net, gains, assignment, power)
    hessian = _derivatives(net, gains, assigned, power, weights).hessian
    known = np.asarray(~np.isnan(hessian).any(axis=(-2, -1)))
    hessian = np.where(known[..., None, None], hessian, 0.0)
    # an eigenvalue above all others stands in for each unassigned user, and is then left out
    above = 2.0 * np.abs(hessian).sum(axis=(-2, -1))
    diagonal = np.where(assigned, 0.0, above[..., None])
    values = np.linalg.eigvalsh(hessian + diagonal[..., None] * np.eye(net.n_users))
    count = assigned.sum(axis=-1, keepdims=True)
    return np.where(known[..., None] & (np.arange(net.n_users) < count), values, np.nan)


def printed(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> tuple[Array, Array]:
    """What the paper prints as ∂R_ij/∂p_ik (26) and ∂²R_ij/∂p_ik∂p_ij (27); both (…, N, M, M).

    The last two axes are (j, k); nothing in the printed terms tells k = j from k ≠ j. With
    S_ij = Σ_{k<j} p_ik |g_ik|² + σ₀², they are, divided by ln 2, |g_ik|² S_ij/(S_ij + p_ij |g_ij|²)
    and −|g_ik|² |g_ij|² S_ij/(S_ij + p_ij |g_ij|²)². Arguments and errors: those of `derivatives`.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0)
    >>> first, second = printed(net, [[1.0]], [[True]], [[1.0]])
    >>> (first * np.log(2.0)).ravel(), (second * np.log(2.0)).ravel()
    (array([0.5]), array([-0.25]))
    """
    gains, assigned, power = checked(net, gains, assignment, power)
    perfect = replace(net, sic_residual=0.0, interference_gain="interferer")
    below = heard_interference(perfect, gains, power) + net.noise
    squared = np.where(assigned, gains**2, 0.0)
    total = below + squared * power
    pair = assigned[..., :, None] * squared[..., None, :] / np.log(2.0)
    first = pair * (below / total)[..., None]
    second = -pair * (squared * below / total**2)[..., None]
    return first, second


def _affine_parts(
    net: Network, gains: Array, assigned: NDArray[np.bool_], power: Array
) -> tuple[Array, ...]:
    """T and D (…, N, M), and their constant derivatives t and d (…, N, M, M) in the powers."""
    below = heard_interference(net, gains, power) + net.noise
    squared = np.where(assigned, gains**2, 0.0)
    above = below + squared * power
    rank = np.argsort(sic_order(gains), axis=-1)
    weaker = rank[..., None, :] > rank[..., :, None]
    share = np.where(weaker, net.epsilon[:, None, :], 1.0)
    signal = np.broadcast_to(
        squared[..., None, :] if net.interference_gain == "interferer" else squared[..., None],
        share.shape,
    )
    both = assigned[..., None, :] & assigned[..., None]
    weight = np.where(both & ~np.eye(net.n_users, dtype=bool), share * signal, 0.0)
    return above, below, weight + squared[..., None] * np.eye(net.n_users), weight
