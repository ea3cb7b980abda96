"""User scheduling as a matching with swaps: (13)–(14), (20)–(21), Algorithm 2 (PAUS).

Users j1 on i1 (and not on i2) and j2 on i2 (and not on i1) may exchange their places. A swap is
made where it raises the sum rate, until none does: the matching is then two-sided exchange-stable
(Bodine-Baron et al., 2011). Every user keeps its number of subchannels, every subchannel its number
of users. What a swap is worth depends on the powers, and the rule says how:

    "rate"      powers stay with the places, the newcomer takes the leaver's: as printed;
    "qos"       as "rate", and no further pair may fall below R_min;
    "feasible"  as "rate", and R_min must stay within reach of the budget at other powers;
    "optimum"   powers are optimised anew after every swap, so that R_min always holds.

For "optimum" a subchannel matters only by its minimal power n_i and the strength α_i and coupling
q_i of its strongest user (`nomalib.polytope`, `nomalib.water_filling`). For any price λ > 0 of
power the optimum is at most

    λ + Σ_i φ_i(λ),   φ_i(λ) = K_i R_min + max_w [log(1 + α_i w/(1 + q_i w)) − λ (w + n_i)],  (dual)

with equality at its own λ. A swap that does not raise φ_i1 + φ_i2 at the present λ can therefore
not raise the optimum; only the few others need a new water level.

`moves` admits more exchanges, all within the caps: a free place takes part like a user, and so does
a bench that holds every user with a subchannel to spare. So a user can go to a free place, join,
leave, or be replaced by one from the bench, but nobody loses its last subchannel. At fixed powers a
free place has none, and only the replacement is left.

The order is fixed: places by subchannel, then by user at the start; every place is tried with the
places of later subchannels and then with the bench by user, and the first rise is taken at once.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib import polytope, rates, swaps, water_filling
from nomalib.network import Network, check_uniform
from nomalib.polytope import Allocation

Allocator = Callable[[Network, NDArray[np.float64], NDArray[np.bool_]], Allocation]
Rule = Literal["rate", "qos", "feasible", "optimum"]


class Matching(NamedTuple):
    """A schedule with its powers, one for each draw.

    Attributes:
        assignment: bool, (…, N, M).
        power: watt, (…, N, M); NaN where no power was found that meets R_min.
        sum_rate: bps/Hz, (…); NaN as power.
        n_swaps: exchanges made, (…).
        trace: sum rate [bps/Hz] of the start and after each improvement, (…, T), then NaN; NaN also
            for a start that cannot meet R_min.
    """

    assignment: NDArray[np.bool_]
    power: NDArray[np.float64]
    sum_rate: NDArray[np.float64]
    n_swaps: NDArray[np.int64]
    trace: NDArray[np.float64]


def swap_matching(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    power: ArrayLike | None,
    rule: Rule = "qos",
    moves: bool = False,
) -> Matching:
    """Swaps until none raises the sum rate: the second stage of Algorithm 2.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: the start, bool, (N, M) or (…, N, M).
        power: watt, (N, M) or (…, N, M), a draw of NaN is left as it is; no matter for "optimum".
        rule: which swaps are made, see the module.
        moves: whether free places and users with subchannels to spare take part.

    Raises:
        ValueError: naming the argument, the value and what is allowed; under "optimum" also for a
            sic_residual that differs between the users of a subchannel.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> crossed = np.array([[False, True], [True, False]])
    >>> m = swap_matching(net, [[1.0, 0.1], [0.1, 1.0]], crossed, crossed * 0.5)
    >>> m.assignment
    array([[ True, False],
           [False,  True]])
    >>> m.trace.round(3)
    array([0.014, 1.17 ])
    """
    checked_gains, start, lead = polytope.flat_draws(net, gains, assignment)
    _check_options(rule, moves)
    if rule == "optimum":
        check_uniform(net)
        schedule, _, n_swaps, trace = _match(net, checked_gains, start, None, rule, moves)
        spent = water_filling.allocate(net, checked_gains, schedule).power
    else:
        if power is None:
            raise ValueError(f"power is None; rule {rule!r} needs powers of shape (…, N, M)")
        given = rates.checked_power(net, np.asarray(gains), power).reshape(checked_gains.shape)
        schedule, spent, n_swaps, trace = _match(net, checked_gains, start, given, rule, moves)
    rate = rates.sum_rate(net, checked_gains, schedule, spent)
    return _unflattened(Matching(schedule, spent, rate, n_swaps, trace), lead)


def paus(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    allocate: Allocator = water_filling.allocate,
    rule: Rule = "optimum",
    moves: bool = True,
) -> Matching:
    """Power allocation and user scheduling in turn until neither raises the rate: Algorithm 2.

    As printed it is `rule="rate", moves=False`. Both stages are kept only where they raise the sum
    rate, so the whole loop does, whatever the allocator: where a learned one would lower it, the
    powers stay with their places. With "optimum" the swaps look ahead to the best powers, and a
    schedule counts by what the allocator makes of it. A draw that cannot meet R_min at the start is
    first swapped until it can. The trace has one entry after each stage that raised the rate.

    Args:
        net: the scenario. Where ε differs between users, "optimum" looks ahead to the powers that
            are best among those which give a subchannel's spare power to its strongest user.
        gains: magnitudes |g|, (…, N, M).
        assignment: the start, bool, (N, M) or (…, N, M).
        allocate: any allocator, `(net, gains, assignment) -> Allocation`.
        rule: which swaps are made, see the module.
        moves: whether free places and users with subchannels to spare take part.

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> m = paus(net, [[1.0, 0.1], [0.1, 1.0]], [[False, True], [True, False]])
    >>> m.trace.round(3)
    array([0.014, 1.17 ])
    """
    gains, start, lead = polytope.flat_draws(net, gains, assignment)
    _check_options(rule, moves)
    schedule = np.array(np.broadcast_to(start, gains.shape))
    n_swaps = np.zeros(len(gains), np.int64)
    power = allocate(net, gains, schedule).power.copy()
    rate = rates.sum_rate(net, gains, schedule, power)
    steps = [rate.copy()]

    def power_step(draws: NDArray[np.int64], proposal: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Takes schedules at the allocator's powers where the rate rises; returns where it does."""
        found = allocate(net, gains[draws], proposal).power
        achieved = rates.sum_rate(net, gains[draws], proposal, found)
        up = ~np.isnan(achieved) & ~(achieved <= rate[draws] * (1.0 + swaps.RISE))
        to = draws[up]
        schedule[to], power[to], rate[to] = proposal[up], found[up], achieved[up]
        steps.append(rate.copy())
        return up

    look_ahead = rule == "optimum"
    draws = np.flatnonzero(np.isnan(rate) | look_ahead)
    if draws.size:
        objective = "optimum" if look_ahead else "need"
        proposal, _, made, _ = _match(net, gains[draws], schedule[draws], None, objective, moves)
        n_swaps[draws] = np.where(power_step(draws, proposal), made, 0)
    active = np.flatnonzero(~np.isnan(rate) & (not look_ahead))
    while active.size:
        schedule[active], power[active], made, _ = _match(
            net, gains[active], schedule[active], power[active], rule, moves
        )
        n_swaps[active] += made
        rate[active] = rates.sum_rate(net, gains[active], schedule[active], power[active])
        steps.append(rate.copy())
        active = active[power_step(active, schedule[active])]
    trace = _rises(np.stack(steps, axis=-1))
    return _unflattened(Matching(schedule, power, rate, n_swaps, trace), lead)


def is_exchange_stable(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    power: ArrayLike | None,
    rule: Rule = "qos",
    moves: bool = False,
) -> NDArray[np.bool_]:
    """Whether no swap that the rule admits raises the sum rate, (…); False where power is NaN.

    Stable under "rate" is stable under "qos", which admits fewer swaps; and so is stable under
    "optimum" at the optimal powers, for these would be feasible after the swap. Arguments and
    errors are those of `swap_matching`.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> crossed = np.array([[False, True], [True, False]])
    >>> is_exchange_stable(net, [[1.0, 0.1], [0.1, 1.0]], crossed, crossed * 0.5)
    np.False_
    """
    m = swap_matching(net, gains, assignment, power, rule, moves)
    return (m.n_swaps == 0) & ~np.isnan(m.sum_rate)


def _check_options(rule: str, moves: bool) -> None:
    if rule not in get_args(Rule):
        raise ValueError(f"rule is {rule!r}; it must be one of {get_args(Rule)}")
    if not isinstance(moves, (bool, np.bool_)):
        raise ValueError(f"moves is {moves!r}; it must be True or False")


def _unflattened(m: Matching, lead: tuple[int, ...]) -> Matching:
    return Matching(
        m.assignment.reshape(lead + m.assignment.shape[1:]),
        m.power.reshape(lead + m.power.shape[1:]),
        m.sum_rate.reshape(lead),
        m.n_swaps.reshape(lead),
        m.trace.reshape((*lead, m.trace.shape[-1])),
    )


def _rises(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The entries (B, S) that exceed the one before them, moved to the front, then NaN."""
    fresh = np.ones(steps.shape, dtype=bool)
    fresh[:, 1:] = ~(steps[:, 1:] <= steps[:, :-1]) & ~np.isnan(steps[:, 1:])
    front = np.argsort(~fresh, axis=1, kind="stable")
    trace = np.where(fresh, steps, np.nan)
    return np.take_along_axis(trace, front, axis=1)[:, : fresh.sum(axis=1).max(initial=1)]


def _match(
    net: Network,
    gains: NDArray[np.float64],
    start: NDArray[np.bool_],
    power: NDArray[np.float64] | None,
    objective: str,
    moves: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Assignment, powers that stayed with their places, number of swaps, and trace."""
    snr, t, residual, receiver, fullest = polytope.constants(net, start)
    problem = swaps.Problem(
        snr,
        t,
        float(np.log1p(t)),
        float(np.expm1(net.min_rate * (1.0 - rates.QOS_TOLERANCE) * np.log(2.0))),
        receiver,
        min(net.max_users_per_subchannel, net.n_users) if moves else fullest,
        net.max_subchannels_per_user,
        swaps.OBJECTIVES.index(objective),
        moves,
    )
    # longer than a trace has been seen; where it is not, the same swaps are made once more
    room = 4 * net.n_subchannels * problem.places
    while True:
        assignment = np.array(np.broadcast_to(start, gains.shape))
        share = np.zeros(gains.shape) if power is None else power / net.budget
        n_swaps, trace = np.zeros(len(gains), np.int64), np.full((len(gains), room), np.nan)
        polytope.over_draws(
            swaps.match_draws,
            len(gains),
            gains,
            residual,
            assignment,
            share,
            problem,
            n_swaps,
            trace,
        )
        longest = int(n_swaps.max(initial=0))
        if longest < room:
            trace = np.where(trace < 0.0, np.nan, trace) / np.log(2.0)
            return assignment, share * net.budget, n_swaps, trace[:, : longest + 1]
        room = longest + 1
