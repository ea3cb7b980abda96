"""Power without optimisation: the paper's Max and Rand (Section V-A), and totals split exactly.

How much power does a subchannel get, and how is that split among its users? The theorem of
`nomalib.water_filling` answers the second question. So any answer to the first, `equal_totals` or
a network's, is worth judging with that split: what is then short of the optimum is the first's.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import Weights, check_generator, real_array
from nomalib._draws import checked_assignment
from nomalib.network import Network, check_network
from nomalib.polytope import Allocation, allocation, reduce

__all__ = ["equal_power", "equal_totals", "random_power", "split_totals"]


def equal_power(net: Network, assignment: ArrayLike) -> NDArray[np.float64]:
    """P_c split equally over the assigned pairs [W], the paper's Max scheme; (…, N, M).

    >>> equal_power(Network(n_subchannels=1, n_users=2, power_dbm=30.0), [[True, True]])
    array([[0.5, 0.5]])
    """
    assignment = checked_assignment(net, assignment)
    return _spend(net, assignment, np.ones(assignment.shape))


def random_power(
    net: Network, assignment: ArrayLike, rng: np.random.Generator
) -> NDArray[np.float64]:
    """P_c split uniformly at random over the assigned pairs [W], the paper's Rand; (…, N, M).

    The shares are uniform on the simplex: exponential variables divided by their sum.

    >>> net = Network(n_subchannels=1, n_users=2, power_dbm=30.0)
    >>> random_power(net, [[True, True]], np.random.default_rng(0)).round(2)
    array([[0.4, 0.6]])
    """
    assignment = checked_assignment(net, assignment)
    check_generator(rng)
    return _spend(net, assignment, rng.standard_exponential(assignment.shape))


def split_totals(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    totals: ArrayLike,
    weights: Weights = None,
) -> Allocation:
    """Any totals of the subchannels, split by the theorem: all but the strongest user at R_min.

    A total below what R_min needs is raised to that, and what the others hold above their needs is
    scaled to spend the budget. Feasible on every feasible draw, and the best split of these totals
    where `Shares.strongest` is True.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).
        totals: power of each subchannel, at least 0, in any unit: their ratios count; (N,) or
            (…, N). NaN in an infeasible draw.
        weights: as of `polytope.reduce`.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, power_dbm=30.0, min_rate=1.0)
    >>> split_totals(net, [[9.0, 3.0]], [[True, True]], [1.0]).power.round(4)
    array([[0.0889, 0.9111]])
    """
    shares = reduce(net, gains, assignment, weights)
    totals = real_array("totals", totals)
    if totals.shape not in (shares.count.shape, shares.count.shape[-1:]):
        raise ValueError(f"totals has shape {totals.shape}; it must be {shares.count.shape}")
    totals = np.broadcast_to(totals, shares.count.shape)
    inside = (totals >= 0.0) & (totals < np.inf) | np.isnan(totals) & ~shares.feasible[..., None]
    if not inside.all():
        *draw, i = np.argwhere(~inside)[0].tolist()
        raise ValueError(
            f"totals holds {totals[*draw, i]} in draw {draw}, subchannel {i}; it must be finite "
            "and at least 0 where the draw is feasible"
        )
    totals = np.where(shares.count > 0, totals, 0.0)
    whole = totals.sum(axis=-1, keepdims=True)
    part = np.divide(totals, whole, out=np.zeros(totals.shape), where=whole > 0.0)
    above = np.maximum(part - shares.minimal.sum(axis=-1), 0.0)
    # where no total is above its need, all subchannels get the same
    none = shares.feasible[..., None] & ~(above.sum(axis=-1, keepdims=True) > 0.0)
    u = np.zeros(shares.users.shape)
    u[..., 0] = np.where(none, shares.count > 0, above)
    return allocation(net, shares, u)


def equal_totals(
    net: Network, gains: ArrayLike, assignment: ArrayLike, weights: Weights = None
) -> Allocation:
    """The same power for every subchannel in use, split by `split_totals`, whose arguments it has.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> float(equal_totals(net, np.eye(2), np.eye(2, dtype=bool)).sum_rate.round(6))  # 2 log₂ 1.5
    1.169925
    """
    check_network(net)
    return split_totals(net, gains, assignment, np.ones(net.n_subchannels), weights)


def _spend(net: Network, assignment: NDArray[np.bool_], weight: NDArray) -> NDArray[np.float64]:
    weight = np.where(assignment, weight, 0.0)
    return net.budget * weight / weight.sum(axis=(-2, -1), keepdims=True)
