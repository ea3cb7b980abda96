"""Orthogonal access by whole subchannels: each user has one, alone, and at least what it is owed.

Where subchannels may be shared in time or in frequency, OMA is `fairness.optimum` with H = 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment, minimize_scalar

from nomalib import water_filling
from nomalib._checks import Array
from nomalib._draws import checked_gains
from nomalib.network import Network, check_network

__all__ = ["Whole", "whole_subchannels"]


class Whole(NamedTuple):
    """The best way to give each user a subchannel of its own.

    Attributes:
        assignment: bool, (N, N).
        power: watt, (N, N); NaN where infeasible.
        sum_rate: [bps/Hz]; NaN where infeasible.
        upper_bound: on the sum rate of every such assignment [bps/Hz]; NaN where infeasible.
    """

    assignment: NDArray[np.bool_]
    power: Array
    sum_rate: float
    upper_bound: float


def whole_subchannels(net: Network, gains: ArrayLike) -> Whole:
    """Serves every user of one draw on a subchannel of its own, at R_min at least.

    At a price λ of power user l makes max log(1 + p q_il) − λ p of subchannel i, with p at least
    what R_min takes. The best assignment is a linear one, and with λ it bounds all others. Those
    that the search for the lowest bound meets are filled with power, and the best is kept.

    Args:
        net: the scenario, with N = M.
        gains: magnitudes |g|, (N, N).

    >>> found = whole_subchannels(Network(2, 2, noise=1.0), [[3.0, 2.0], [2.0, 0.1]])
    >>> found.assignment.argmax(axis=1), bool(found.upper_bound < 1.001 * found.sum_rate)
    (array([1, 0]), True)
    """
    check_network(net)
    n = net.n_subchannels
    if net.n_users != n:
        raise ValueError(
            f"net has {n} subchannels and {net.n_users} users; one each takes as many of both"
        )
    gains = checked_gains(net, gains)
    if gains.ndim != 2:
        raise ValueError(f"gains has shape {gains.shape}; it must be one draw, (N, N)")
    noise = net.noise / (net.budget * np.maximum(gains, 1e-150) ** 2)  # in budgets
    least = net.min_sinr * noise
    row = np.arange(n)
    # that of least power decides whether everybody can be served
    tried = [linear_sum_assignment(least)[1]]

    def bound(log_price: float) -> float:
        price = np.exp(log_price)
        power = np.maximum(1.0 / price - noise, least)
        worth = np.log1p(power / noise) - price * power
        tried.append(linear_sum_assignment(worth, maximize=True)[1])
        return price + worth[row, tried[-1]].sum()

    feasible = least[row, tried[0]].sum() <= 1.0
    most = np.nan
    if feasible:
        ends = -np.log(1.0 + noise.min(axis=1).max()), np.log(1e3 * n)
        most = minimize_scalar(bound, bounds=ends, method="bounded", options={"xatol": 1e-6}).fun
    assigned = np.unique(tried, axis=0)[:, :, None] == row
    found = water_filling.allocate(net, np.broadcast_to(gains, assigned.shape), assigned)
    best = int(np.nanargmax(found.sum_rate)) if feasible else 0
    rate = float(found.sum_rate[best])
    return Whole(assigned[best], found.power[best], rate, float(most / np.log(2.0)))
