"""The optimum of (10)–(11) for any ε and weights, with a certificate of how close it is.

In shares u of the spare power (`nomalib.polytope`) only the budget couples the subchannels. For
every price λ > 0 of power, the Lagrangian bounds the optimum from above:

    R_total ≤ Σ w R_min + λ + Σ_i φ_i(λ),   φ_i(λ) = max { R_i(u) − λ Σ u : u ≥ 0, Σ u ≤ 1 }  (dual)

φ_i has a closed form where the strongest user takes all and where SIC is perfect (there without the
condition Σ u ≤ 1, which at a price near the best one costs nothing; `nomalib.subchannel`). It is
bounded elsewhere: by a search over the shares of up to five users (`nomalib._search`), and for more
by a dynamic program over the users (`nomalib._stages`). The bound is convex in λ. Its least value
is looked for near the price at which the best known splits take the budget, and the shares that
attain it are tried as an allocation.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nomalib import _starts as starts
from nomalib import interior_point, water_filling
from nomalib._central_path import follow
from nomalib._checks import Array, Weights, checked_count, checked_fraction, checked_number
from nomalib._compile import compiled
from nomalib._draws import Shares, flat_draws, flat_shares, view, with_axes
from nomalib._newton import workspace
from nomalib._pairs import give
from nomalib._search import FEW, bound_split, cell_space, price_bound
from nomalib.network import Network
from nomalib.polytope import Allocation, allocate_draws
from nomalib.subchannel import hear, rate, split_at

__all__ = ["Certified", "allocate", "certified_split"]

_MAX_PRICES = 8
_IPM_TOL = 1e-8
_RESTARTS = np.int64(5)


class Certified(NamedTuple):
    """The best split found of every subchannel at a price, and what no split exceeds.

    Attributes:
        value: R(u) − λ Σ u [nats], (…, N).
        bound: upper bound on φ(λ) [nats], (…, N).
        u: shares of the spare power, (…, N, K).
    """

    value: Array
    bound: Array
    u: Array


def allocate(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    weights: Weights = None,
    tol: float = 1e-4,
    max_cells: int = 20_000,
) -> Allocation:
    """The best power for any ε and weights, an upper bound on all others, and the gap between them.

    Water-filling where the strongest users take all: exact. Otherwise the best of what the
    interior-point method finds from structured starts, under the bound (dual), which is valid (up
    to rounding) however early the search stops. The problem has a duality gap of its own, small for
    many subchannels, so the reported gap need not reach `tol`. Neither does it with more than five
    users on a subchannel, whose bound is by a grid, some 0.1 s a draw: with four subchannels and ε
    from U(0, 1) the gap is at most 0.4 % on average at six users and 0.7 % at eight, and up to
    3.3 % in single draws (σ₀² of 0.1 and 0.001, 200 draws each).

    Args:
        net, gains, assignment, weights: as of `polytope.reduce`.
        tol: gap at which the search for a better bound stops; `converged` where it is reached.
        max_cells: simplices that one search over a subchannel may examine, and for more than five
            users three times the squared number of the grid's points.

    >>> net = Network(n_subchannels=1, n_users=3, sic_residual=[[0.0, 0.1, 0.9]], min_rate=0.5)
    >>> best = allocate(net, [[3.0, 2.0, 1.0]], [[True, True, True]])
    >>> bool(best.gap < 1e-4)
    True
    """
    tol, max_cells = checked_fraction("tol", tol), checked_count("max_cells", max_cells, 10)

    def method(shares, u, n_iter, gap):
        work, takers = workspace(*u.shape[1:]), starts.takers_of(u.shape[1])
        space = cell_space(u.shape[2], max_cells)
        _allocate_draws(shares, tol, work, takers, space, u, n_iter, gap)

    draws, lead = flat_draws(net, gains, assignment, weights)
    found = allocate_draws(method, net, draws, lead, worth_a_thread=1)
    return found._replace(converged=found.gap <= tol)


def certified_split(
    shares: Shares, price: float, tol: float = 1e-6, max_cells: int = 20_000
) -> Certified:
    """The best known split of every subchannel at a price, under a certified bound.

    Of up to five users it is found by search; of more it is that of one or two users, or of perfect
    SIC.

    Args:
        shares: the problem, of `polytope.reduce`.
        price: λ [nats per spare power], above 0.
        tol: difference of bound and value [nats] at which a search stops.
        max_cells: simplices that one search may examine.

    >>> from nomalib import polytope
    >>> net = Network(n_subchannels=1, n_users=3, sic_residual=[[0.0, 0.1, 0.9]], min_rate=0.5)
    >>> shares = polytope.reduce(net, [[3.0, 2.0, 1.0]], [[True, True, True]])
    >>> found = certified_split(shares, 1.0)
    >>> bool((found.bound - found.value <= 1e-6).all())
    True
    """
    price, tol = checked_number("price", price, 1e-300, 1e300), checked_fraction("tol", tol)
    flat, lead = flat_shares(shares)
    value, bound = np.zeros(flat.count.shape), np.zeros(flat.count.shape)
    u, slots = np.zeros_like(flat.strength), flat.strength.shape[-1]
    space = cell_space(slots, checked_count("max_cells", max_cells, 10))
    _split_draws(flat, price, tol, space, value, bound, u)
    return with_axes(lead, Certified(value, bound, u))


@compiled
def keep_better(shares, work, trial, f, u):
    """Keeps the better of u and of `trial`, as it is or as interior point improves it; f."""
    for local in range(2):
        if local == 1:
            starts.pull_inside(shares, trial, starts.KEPT)
            follow(shares, trial, work, 1.0 - starts.KEPT, _IPM_TOL)
        value = 0.0
        for i in range(u.shape[0]):
            hear(i, shares.count[i], shares, trial, work.below)
            value -= rate(i, shares.count[i], shares, trial, work.below)
        # of equals rounding must not choose: then powers would depend on the unit of the gains
        if value < f - 1e-14 * (shares.least_rate - f) and trial.sum() <= 1.0 + 1e-14:
            f = value
            u[:] = trial
    return f


@compiled
def taken_at(shares, price, u):
    """Σ u of the best known splits at a price, written into u."""
    for i in range(u.shape[0]):
        split_at(i, shares, price, u)
    return u.sum()


@compiled
def balance(shares, budget, u):
    """The price at which the best known splits together take the budget; `u` is a workspace.

    Sought from one at which nothing is taken, down to 1e-15 of it.
    """
    price = (shares.strength * shares.weight).max()
    low, high = 0.25 * price, price
    while low > 1e-15 * price and not taken_at(shares, low, u) > budget:
        low, high = 0.25 * low, low
    while high > low * (1.0 + 1e-5):
        middle = np.sqrt(low * high)
        if taken_at(shares, middle, u) > budget:
            low = middle
        else:
            high = middle
    return high


@compiled
def solve(shares, tol, work, takers, space, u, trial):
    """The best shares found, into u; (prices tried, what any others gain at most [nats])."""
    _, _, f = interior_point.solve(shares, _IPM_TOL, _RESTARTS, work, takers, u, trial)
    if not shares.strength.max() > 0.0:
        # power buys nothing, however it is split
        return 0, 0.0
    for _ in range(2):
        # from the takers that `interior_point.solve` left, as a rule those that its search reached
        # from the strongest users; then from those who have most where that led
        starts.swap_takers(shares, takers)
        for i in range(u.shape[0]):
            give(i, takers.slot[i], takers.share[i], trial)
        f = keep_better(shares, work, trial, f, u)
        for i in range(u.shape[0]):
            takers.slot[i] = u[i].argmax()
    # minimise the convex bound over λ, whose slope is 1 − Σ u: bracket, then bisect
    few = shares.count.max() <= FEW
    # stages do not know that one subchannel takes no more than all: the price has to say so
    price = balance(shares, 1.0 if few else 1.0 - 1e-9, trial)
    low, high, bound, tried, stretch = 0.0, np.inf, np.inf, 0, 1.003
    while tried < (_MAX_PRICES if few else 1):
        tried += 1
        scale = shares.least_rate - f
        trial[:] = u
        at_price, taken = price_bound(shares, price, 0.5 * tol * scale / u.shape[0], space, trial)
        bound = min(bound, at_price)
        if bound + f > tol * scale and taken > 0.0:
            for i in range(u.shape[0]):
                for k in range(u.shape[1]):
                    trial[i, k] /= taken
            f = keep_better(shares, work, trial, f, u)
        if bound + f <= tol * (shares.least_rate - f):
            break
        if taken > 1.0:
            low = price
        else:
            high = price
        if high < np.inf and high - low <= 1e-6 * high:
            break
        if low == 0.0 or high == np.inf:
            price *= stretch if high == np.inf else 1.0 / stretch
            stretch = min(4.0, stretch * stretch)
        else:
            price = np.sqrt(low * high)
    return tried, max(0.0, bound + f)


@compiled
def _allocate_draws(shares, tol, work, takers, space, u, n_iter, gap):
    trial = np.zeros(u.shape[1:])
    for b in range(u.shape[0]):
        if not shares.spare[b] >= 0.0:
            continue
        draw = view(shares, b)
        if draw.strongest.all():
            n_iter[b], gap[b] = water_filling.solve(draw, takers.share, u[b])
        else:
            n_iter[b], gap[b] = solve(draw, tol, work, takers, space, u[b], trial)


@compiled
def _split_draws(shares, price, tol, space, value, bound, u):
    for b in range(u.shape[0]):
        draw = view(shares, b)
        for i in range(u.shape[1]):
            if shares.spare[b] >= 0.0:
                value[b, i], bound[b, i] = bound_split(i, draw, price, tol, space, u[b])
            else:
                value[b, i] = bound[b, i] = np.nan
