"""User scheduling as a matching with swaps: (13)–(14), (20)–(21), Algorithm 2 (PAUS).

Users j1 on i1 (and not on i2) and j2 on i2 (and not on i1) may exchange their slots. A swap is made
where it raises the sum rate, until none does: the matching is then two-sided exchange-stable
(Bodine-Baron et al., 2011). Every user keeps its number of subchannels, every subchannel its number
of users. A rule says at which powers a swap counts, and what guards R_min:

    "rate"      fixed powers: they stay with the slots, the newcomer takes the leaver's; no guard;
    "qos"       fixed powers; no further pair may fall below R_min;
    "feasible"  fixed powers; R_min must stay within reach of the budget at other powers;
    "optimum"   optimal powers, found anew after every swap; R_min always holds.

At optimal powers a subchannel matters only by its least power n_i and the strength α_i and coupling
q_i of its strongest user (`nomalib.polytope`, `nomalib.water_filling`), who takes all that others
need not. For any price λ > 0 of power the optimum is at most

    λ + Σ_i ψ_i(λ),  ψ_i(λ) = Σ_j w_j R_min,j + φ_i(λ) − λ n_i  [nats],               (swap-bound)

φ_i of (phi) with the price of the whole budget, and with equality at its own λ. A swap that does
not raise ψ_i1 + ψ_i2 at the present λ can therefore not raise the optimum; only the few others need
a new water level.

Where weights, ε or R_min differ, so that the strongest user need not take all, the best known split
at λ stands in for it, and for the optimum what `nomalib.takers` reaches. Both are exact, the latter
to its gap, with the interferer's gain and one ε, and with the receiver's and an ε of 0 or 1;
elsewhere the search goes by rates that are within reach, not by the best ones.

`moves` admits more exchanges, all within the caps: a free slot takes part like a user, and so does
a bench that holds every user with a subchannel to spare. So a user can go to a free slot, join,
leave, or be replaced by one from the bench, but nobody loses its last subchannel. At fixed powers a
free slot has none, and only the replacement is left.

The order is fixed: slots by subchannel, then by user at the start; every slot is tried with the
slots of later subchannels and then with the bench by user, and the first rise is taken at once.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib import _board, _swaps, rates, takers
from nomalib._checks import Array, Weights, check_choice, checked_flag
from nomalib._draws import Draws, flat_draws, with_axes
from nomalib.network import Network
from nomalib.polytope import Allocation

__all__ = ["Allocator", "Matching", "Rule", "is_exchange_stable", "paus", "swap_matching"]

Allocator = Callable[..., Allocation]
Rule = Literal["rate", "qos", "feasible", "optimum"]

RULES = {
    "rate": (_board.FIXED, _board.NONE),
    "qos": (_board.FIXED, _board.QOS),
    "feasible": (_board.FIXED, _board.FEASIBLE),
    "optimum": (_board.OPTIMAL, _board.NONE),
}


class Matching(NamedTuple):
    """A schedule with its powers, one for each draw.

    Attributes:
        assignment: bool, (…, N, M).
        power: watt, (…, N, M); NaN where no power was found that meets R_min.
        sum_rate: weighted, bps/Hz, (…); NaN as power.
        n_swaps: exchanges made, (…).
        trace: sum rate [bps/Hz] of the start and after each improvement, (…, T), then NaN; NaN also
            for a start that cannot meet R_min.
    """

    assignment: NDArray[np.bool_]
    power: Array
    sum_rate: Array
    n_swaps: NDArray[np.int64]
    trace: Array


def swap_matching(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    power: ArrayLike | None,
    rule: Rule = "qos",
    moves: bool = False,
    weights: Weights = None,
) -> Matching:
    """Swaps until none raises the sum rate: the second stage of Algorithm 2.

    Args:
        net, gains: as of `polytope.reduce`.
        assignment: the start, bool, (N, M) or (…, N, M).
        power: watt, (N, M) or (…, N, M), a draw of NaN is left as it is; no matter for "optimum".
        rule: which swaps are made, see the module.
        moves: whether free slots and users with subchannels to spare take part.
        weights: of the users' rates, (M,) or (…, M); None is 1 for all.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> crossed = np.array([[False, True], [True, False]])
    >>> m = swap_matching(net, [[1.0, 0.1], [0.1, 1.0]], crossed, crossed * 0.5)
    >>> m.assignment
    array([[ True, False],
           [False,  True]])
    >>> m.trace.round(3)
    array([0.014, 1.17 ])
    """
    draws, lead = flat_draws(net, gains, assignment, weights)
    aim = _aim(net, rule, moves)
    optimal = aim.powers == _board.OPTIMAL
    if optimal:
        power = None
    elif power is None:
        raise ValueError(f"power is None; rule {rule!r} needs powers of shape (…, N, M)")
    else:
        power = rates.checked_power(net, draws.gains.reshape(*lead, *draws.gains.shape[1:]), power)
        power = power.reshape(draws.gains.shape)
    every, room = np.arange(len(draws.gains)), 4 * net.n_subchannels * draws.slots
    general = optimal and others_may_take(net, draws)
    schedule, spent, n_swaps, trace = _swaps.exchange(
        net, draws, every, draws.assignment, power, aim, general, room
    )
    if optimal:
        spent = takers.allocate(net, draws.gains, schedule, _weights(draws, every)).power
    rate = _sum_rates(net, draws, every, schedule, spent)
    return with_axes(lead, Matching(schedule, spent, rate, n_swaps, trace))


def paus(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    allocate: Allocator = takers.allocate,
    rule: Rule = "optimum",
    moves: bool = True,
    weights: Weights = None,
) -> Matching:
    """Power allocation and user scheduling in turn until neither raises the rate: Algorithm 2.

        1. The allocator's powers for the start.
        2. At optimal powers: a swap matching that looks ahead to them, and the allocator's powers
           for its schedule. At fixed ones: the same for least power, where R_min cannot be met.
        3. At fixed powers: (a) swap matching, (b) the allocator's powers, while these help.

    As printed it is `rule="rate", moves=False`, but without step 2, and (b) is kept even where it
    lowers the rate: so the loop cycles in some 4 % of runs. Here it ends, but R_min may be broken.

    `allocate` is any allocator (net, gains, assignment, and weights if there are some); all else is
    as of `swap_matching`.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> m = paus(net, [[1.0, 0.1], [0.1, 1.0]], [[False, True], [True, False]])
    >>> m.trace.round(3)
    array([0.014, 1.17 ])
    """
    draws, lead = flat_draws(net, gains, assignment, weights)
    aim, gains, everyone = _aim(net, rule, moves), draws.gains, np.arange(len(draws.gains))
    fixed = aim.powers == _board.FIXED
    schedule = np.array(np.broadcast_to(draws.assignment, gains.shape))
    power, rate = np.full(gains.shape, np.nan), np.full(len(gains), np.nan)
    n_swaps, steps = np.zeros(len(gains), np.int64), []

    def power_stage(at: NDArray[np.int64], found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Takes schedules at the allocator's powers where the rate rises; returns where it does."""
        weighted = () if weights is None else (_weights(draws, at),)
        given = allocate(net, gains[at], found, *weighted).power
        reached = _sum_rates(net, draws, at, found, given)
        up = ~np.isnan(reached) & ~(reached <= rate[at] * (1.0 + _swaps.RISE))
        schedule[at[up]], power[at[up]], rate[at[up]] = found[up], given[up], reached[up]
        steps.append(rate.copy())
        return up

    power_stage(everyone, schedule.copy())  # 1
    ahead = np.flatnonzero(np.isnan(rate)) if fixed else everyone  # 2
    if ahead.size:
        eased = aim._replace(powers=_board.LEAST, guard=_board.NONE) if fixed else aim
        start = schedule[ahead], None, eased, not fixed and others_may_take(net, draws)
        found, _, made, _ = _swaps.exchange(net, draws, ahead, *start)
        n_swaps[ahead] = np.where(power_stage(ahead, found), made, 0)
    at = np.flatnonzero(~np.isnan(rate) & fixed)  # 3
    while at.size:
        begin = schedule[at], power[at], aim, False
        schedule[at], power[at], made, _ = _swaps.exchange(net, draws, at, *begin)
        n_swaps[at] += made
        rate[at] = _sum_rates(net, draws, at, schedule[at], power[at])
        steps.append(rate.copy())
        at = at[power_stage(at, schedule[at])]
    return with_axes(lead, Matching(schedule, power, rate, n_swaps, _rises(steps)))


def is_exchange_stable(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    power: ArrayLike | None,
    rule: Rule = "qos",
    moves: bool = False,
    weights: Weights = None,
) -> NDArray[np.bool_]:
    """Whether no swap that the rule admits raises the sum rate, (…); False where power is NaN.

    Stable under "rate" is stable under "qos", which admits fewer swaps; and so is stable under
    "optimum" at its powers. Arguments and errors are those of `swap_matching`.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> crossed = np.array([[False, True], [True, False]])
    >>> is_exchange_stable(net, [[1.0, 0.1], [0.1, 1.0]], crossed, crossed * 0.5)
    np.False_
    """
    m = swap_matching(net, gains, assignment, power, rule, moves, weights)
    return (m.n_swaps == 0) & ~np.isnan(m.sum_rate)


def others_may_take(net: Network, draws: Draws) -> bool:
    """Whether on some subchannel another user than the strongest may take all the spare power.

    The rule of `_reduction.name_takers`, for all sets of users at once.
    """
    weighted = bool(np.ptp(draws.weights, axis=1).any())
    imperfect = net.epsilon[(net.epsilon > 0.0).any(axis=1)]
    strongest = net.max_users_per_subchannel == 1 or not (net.min_rates.any() and imperfect.size)
    uneven = np.ptp(imperfect, axis=1).any() or np.ptp(net.min_rates) > 0.0
    return weighted or bool(not strongest and uneven)


def _aim(net: Network, rule: Rule, moves: bool) -> _board.Aim:
    check_choice("rule", rule, RULES)
    return _board.Aim(*RULES[rule], checked_flag("moves", moves), net.max_subchannels_per_user)


def _weights(draws: Draws, at: NDArray[np.int64]) -> Array:
    """Weights of the draws `at`, (M,) or one row for each."""
    return draws.weights[0] if len(draws.weights) == 1 else draws.weights[at]


def _sum_rates(net, draws, at, assignment, power):
    found = rates.pair_rates(net, draws.gains[at], np.where(assignment, power, 0.0))
    return (found * _weights(draws, at)[..., None, :]).sum(axis=(-2, -1))


def _rises(steps: list[Array]) -> Array:
    """Of S steps (B,) those that exceed the one before them, in front, then NaN; (B, S)."""
    rate = np.stack(steps, axis=-1)
    fresh = np.ones(rate.shape, dtype=bool)
    fresh[:, 1:] = ~(rate[:, 1:] <= rate[:, :-1]) & ~np.isnan(rate[:, 1:])
    front = np.argsort(~fresh, axis=1, kind="stable")
    trace = np.where(fresh, rate, np.nan)
    return np.take_along_axis(trace, front, axis=1)[:, : fresh.sum(axis=1).max(initial=1)]
