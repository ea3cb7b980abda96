"""Power allocations without optimisation: the paper's Max and Rand schemes (Section V-A)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import check_generator
from nomalib._draws import checked_assignment
from nomalib.network import Network

__all__ = ["equal_power", "random_power"]


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


def _spend(net: Network, assignment: NDArray[np.bool_], weight: NDArray) -> NDArray[np.float64]:
    weight = np.where(assignment, weight, 0.0)
    return net.budget * weight / weight.sum(axis=(-2, -1), keepdims=True)
