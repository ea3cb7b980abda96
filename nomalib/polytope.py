"""The feasible set of the power problem (10)–(11) is a simplex, whatever R_min is.

For a fixed SIC order R_ij ≥ R_min is affine in the powers. With t_j = 2^R_min,j − 1, gains
γ_j = P_c g_j²/σ₀² and powers x = p/P_c, the K users of one subchannel need

    x_j − (t_j/γ_j) Σ_k C_jk x_k ≥ t_j/γ_j,     in short A x ≥ b,                      (QoS)

where C_jk is the weight of signal k at user j: 1 for stronger k, ε_k for weaker k, times γ_k
("interferer") or γ_j ("receiver"). A is an M-matrix where (QoS) can hold at all. Then A⁻¹ ≥ 0,
x_min = A⁻¹b is the least power of every user at once, and every feasible x is x_min plus a
nonnegative combination of the columns of A⁻¹. Scaled to unit sum these columns form B, and

    x = x_min + spare · B u,   u ≥ 0,  Σ u = 1 over all subchannels,   spare = 1 − Σ x_min:

vertex k hands all the spare power to slot k and keeps everybody else exactly at R_min. In the
shares u the rates are again those of a NOMA network, one without minimal rates:

    R_j = R_min,j + log₂(1 + α_j u_j / (1 + Σ_k Q_jk u_k)).                            (shares)

x_min, B, α and Q come from a recursion over neighbouring users (`nomalib._chain`). What an
allocator does is to find u; what stands before and after is here: `reduce` and `allocation`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import ArrayLike, NDArray

from nomalib import subchannel
from nomalib._checks import Array, Weights
from nomalib._compile import compiled
from nomalib._draws import Draws, Shares, empty_shares, flat_draws, flat_shares, view, with_axes
from nomalib._reduction import reduce_draws, write_power
from nomalib.network import Network, check_network

__all__ = ["Allocation", "Shares", "allocation", "power", "reduce"]


class Allocation(NamedTuple):
    """What every allocator returns, one value for each draw.

    Attributes:
        power: watt, (…, N, M); NaN for an infeasible draw.
        feasible: whether R_min can be met within the budget; (…).
        converged: whether the residual, or the gap, is within the method's tolerance; (…).
        n_iter: iterations of the method; (…).
        residual: scaled KKT residual of the allocation, NaN where infeasible; (…).
        sum_rate: weighted sum rate R_total of `power` [bps/Hz], NaN where infeasible; (…).
        upper_bound: what no feasible power can exceed [bps/Hz]: inf where the method knows none,
            NaN where infeasible; (…).
    """

    power: Array
    feasible: NDArray[np.bool_]
    converged: NDArray[np.bool_]
    n_iter: NDArray[np.int64]
    residual: Array
    sum_rate: Array
    upper_bound: Array

    @property
    def gap(self) -> Array:
        """(upper_bound − sum_rate)/sum_rate, 0 where both are 0; (…)."""
        off = self.upper_bound - self.sum_rate
        return np.divide(off, self.sum_rate, out=np.array(off), where=self.sum_rate > 0)


def reduce(
    net: Network, gains: ArrayLike, assignment: ArrayLike, weights: Weights = None
) -> Shares:
    """The power problem of each draw, in shares of its spare power.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).
        weights: of the users' rates, (M,) or (…, M); None is 1 for all.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0, power_dbm=30.0, min_rate=1.0)
    >>> shares = reduce(net, [[2.0]], [[True]])    # 1 bps/Hz at a gain of 4 needs 1/4 W
    >>> float(shares.spare)
    0.75
    """
    draws, lead = flat_draws(net, gains, assignment, weights)
    shares = empty_shares(len(draws.gains), net.n_subchannels, draws.slots)

    def some(first: int, last: int) -> None:
        reduce_draws(draws, first, Shares._make(part[first:last] for part in shares))

    over_draws(some, len(draws.gains))
    return with_axes(lead, shares)


def allocation(net: Network, shares: Shares, u: ArrayLike) -> Allocation:
    """The powers of shares u of the spare power, with their rate and KKT residual.

    `converged` says whether the residual is at most 1e-8, and `n_iter` is 0.

    Args:
        net: the scenario that `shares` is of.
        shares: the problem, of `reduce`.
        u: (…, N, K), at least 0; scaled to spend the budget. No matter where infeasible.

    Raises:
        ValueError: also for a feasible draw whose shares are all 0 or NaN.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> shares = reduce(net, [[2.0, 0.0], [0.0, 1.0]], [[True, False], [False, True]])
    >>> found = allocation(net, shares, [[0.875], [0.125]])     # levels 1/4 + 7/8 = 1 + 1/8
    >>> found.power, bool(found.converged)
    (array([[0.875, 0.   ],
           [0.   , 0.125]]), True)
    """
    check_network(net)
    u = subchannel.checked_u(shares, u)
    flat, lead = flat_shares(shares)
    u = np.where(flat.users >= 0, u.reshape(flat.users.shape), 0.0)
    total = u.sum(axis=(1, 2), keepdims=True)
    useless = flat.feasible & ~(total[:, 0, 0] > 0.0)
    if useless.any():
        raise ValueError(
            f"u holds nothing above 0 in draw {int(useless.argmax())}, which is feasible; shares "
            "must have a positive sum there"
        )
    u = np.divide(u, total, out=np.zeros_like(u), where=total > 0.0)
    found = _empty_allocation(len(flat.spare), net)
    _finish(net.budget, flat, u, 1e-8, 0, found)
    return with_axes(lead, found)


def power(net: Network, shares: Shares, u: ArrayLike) -> Array:
    """Powers [W] (…, N, M) of shares u (…, N, K) of the spare power; NaN where infeasible.

    As they are, unscaled: their sum may be below or above the budget.

    Raises:
        ValueError: u has another shape, or a share is negative or infinite; NaN passes through.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0, power_dbm=30.0, min_rate=1.0)
    >>> power(net, reduce(net, [[2.0]], [[True]]), [[0.0]])         # 1/4 W is needed for 1 bps/Hz
    array([[0.25]])
    """
    check_network(net)
    u = subchannel.checked_u(shares, u)
    flat, lead = flat_shares(shares)
    out = np.empty((len(flat.spare), net.n_subchannels, net.n_users))
    _write_powers(net.budget, flat, u.reshape(flat.users.shape), out)
    return out.reshape((*lead, *out.shape[1:]))


def over_draws(some: Callable[[int, int], None], n_draws: int, worth_a_thread: int = 64) -> None:
    """Calls some(first, last) for slices of all draws, in threads if there are enough.

    Fewer draws than `worth_a_thread` are left to one. Threads and not Numba's `prange`: it doubles
    the time to compile, takes longer to start than one draw to solve, and may not be called from
    two threads at once.
    """
    n_threads = min(get_num_threads(), n_draws // worth_a_thread) if n_draws > worth_a_thread else 1
    # several slices for each thread, for some draws take longer; and few enough for the cache
    size = min(1024, max(worth_a_thread, n_draws // (8 * n_threads)))
    edges = [*range(0, n_draws, size), n_draws]
    if n_threads == 1:
        for first, last in pairwise(edges):
            some(first, last)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(some, edges[:-1], edges[1:]))  # a list raises what a slice raised


def allocate_draws(
    method: Callable[[Shares, NDArray, NDArray, NDArray], object],
    net: Network,
    draws: Draws,
    lead: tuple[int, ...],
    tol: float = 1e-8,
    worth_a_thread: int = 64,
) -> Allocation:
    """An `Allocation` by a method that writes u: shares in, shares out.

    `method(shares, u, n_iter, gap)` gets the problems of some draws, zeros for u (B, N, K) and for
    its iterations, and inf for what it knows to be the most that any other u gains [nats]. Of an
    infeasible draw it need not write anything.
    """
    found = _empty_allocation(len(draws.gains), net)

    def some(first: int, last: int) -> None:
        shares = empty_shares(last - first, net.n_subchannels, draws.slots)
        reduce_draws(draws, first, shares)
        u = np.zeros(shares.strength.shape)
        method(shares, u, found.n_iter[first:last], found.upper_bound[first:last])
        _finish(net.budget, shares, u, tol, first, found)

    over_draws(some, len(draws.gains), worth_a_thread)
    return with_axes(lead, found)


def _empty_allocation(n_draws: int, net: Network) -> Allocation:
    """For `_finish`, which finds in upper_bound what others gain at most [nats]."""
    power = np.empty((n_draws, net.n_subchannels, net.n_users))
    kinds = bool, bool, np.int64, float, float
    of_draws = [np.zeros(n_draws, kind) for kind in kinds]
    return Allocation._make([power, *of_draws, np.full(n_draws, np.inf)])


@compiled
def _finish(budget, shares, u, tol, first, found):
    below, slopes, nats = np.empty(u.shape[1:]), np.empty(u.shape[1:]), 1.0 / np.log(2.0)
    for at in range(u.shape[0]):
        b = first + at
        found.feasible[b], found.converged[b] = shares.spare[at] >= 0.0, False
        if found.feasible[b]:
            draw = view(shares, at)
            value, found.residual[b] = subchannel.certify(draw, u[at], below, slopes)
            found.converged[b] = found.residual[b] <= tol
            found.sum_rate[b] = (draw.least_rate + value) * nats
            found.upper_bound[b] = found.sum_rate[b] + found.upper_bound[b] * nats
            write_power(budget, draw, u[at], found.power[b])
        else:
            found.power[b] = found.residual[b] = np.nan
            found.sum_rate[b] = found.upper_bound[b] = np.nan


@compiled
def _write_powers(budget, shares, u, out):
    for b in range(u.shape[0]):
        if shares.spare[b] >= 0.0:
            write_power(budget, view(shares, b), u[b], out[b])
        else:
            out[b] = np.nan
