"""The compiled loop of `nomalib.matching`: exchanges in one draw until none is worth it.

Slot after slot, each with the slots of later subchannels and then with the bench:

    1. may the two change places?         `allowed`, by the caps;
    2. does it promise to be worth it?    by the scores of the two subchannels alone;
    3. make it, if it is worth it.        `make`, by the `guard` and by what all are worth.
"""

from collections import namedtuple

import numpy as np
from numpy.typing import NDArray

from nomalib._board import (
    FEASIBLE,
    FIXED,
    QOS,
    Aim,
    Board,
    begin,
    put,
    recall,
    set_score,
    workspace,
    worth_of,
)
from nomalib._checks import Array
from nomalib._compile import compiled, inlined
from nomalib._draws import Draws
from nomalib.network import Network
from nomalib.polytope import over_draws

# A sum rate that rises by less than this, relatively, has not risen.
RISE = 1e-9
# j1 in slot s1 of i1 and j2 in slot s2 of i2 change places; −1 is nobody, i2 = N the bench
Exchange = namedtuple("Exchange", "i1 s1 j1 i2 s2 j2")


def exchange(
    net: Network,
    draws: Draws,
    at: NDArray[np.int64],
    start: NDArray[np.bool_],
    power: Array | None,
    rule: Aim,
    general: bool,
    room: int = 0,
) -> tuple[NDArray[np.bool_], Array, NDArray[np.int64], Array]:
    """Matches the draws `at`: schedules, powers that stayed with their slots, swaps, trace.

    `general` says whether at optimal powers others than the strongest may take all.
    """
    assignment = np.array(np.broadcast_to(start, (len(at), *draws.gains.shape[1:])), order="C")
    share = np.zeros(assignment.shape) if power is None else power / net.budget
    n_swaps, trace = np.zeros(len(at), np.int64), np.full((len(at), room), np.nan)
    slots = min(net.max_users_per_subchannel, net.n_users) if rule.moves else draws.slots

    def some(first: int, last: int) -> None:
        parts = (part[first:last] for part in (assignment, share, n_swaps, trace))
        space = workspace(net.n_subchannels, net.n_users, slots, general)
        match_draws(draws, at[first:last], rule, space, *parts)

    over_draws(some, len(at))
    longest = int(n_swaps.max(initial=0))
    if longest >= room > 0:
        return exchange(net, draws, at, start, power, rule, general, longest + 1)
    trace = np.where(trace < 0.0, np.nan, trace) / np.log(2.0)
    return assignment, share * net.budget, n_swaps, trace[:, : longest + 1]


@inlined
def allowed(assigned, held, rule, x):
    """Step 1: whether an exchange keeps the caps, puts nobody twice on a subchannel or off all."""
    free = x.j1 != x.j2 and not (x.j2 >= 0 and assigned[x.i1, x.j2])
    if x.i2 < assigned.shape[0]:
        free = free and not (x.j1 >= 0 and assigned[x.i2, x.j1])
    else:
        free = free and not (x.j2 >= 0 and held[x.j2] >= rule.most_held)
        free = free and not (x.j1 >= 0 and held[x.j1] == 1)
    # at fixed powers a free slot has none to offer
    return free and ((x.j1 >= 0 and x.j2 >= 0) or (rule.moves and rule.powers != FIXED))


@inlined
def guard(rule, now, after, x):
    """Whether the rule admits the terms after an exchange."""
    admitted = True
    if rule.guard == QOS:
        before = now[x.i1].short + now[x.i2].short
        admitted = after[x.i1].short + after[x.i2].short <= before
    elif rule.guard == FEASIBLE:
        before = now[x.i1].need + now[x.i2].need
        admitted = after[x.i1].need + after[x.i2].need <= before or after["need"].sum() <= 1.0
    return admitted


@compiled
def make(board, rule, x, value, price):
    """Step 3: makes an exchange if the guard admits it and the worth rises; worth and λ."""
    now, after, known = board.now, board.after, board.known
    after[x.i1], after[x.i2] = known[x.i1, x.s1, x.j2], known[x.i2, x.s2, x.j1]
    reached, at_price = value, price
    if guard(rule, now, after, x):
        reached, at_price = worth_of(board, after, rule)
    if not reached > value + RISE * abs(value):
        after[x.i1], after[x.i2] = now[x.i1], now[x.i2]
        return value, price
    for i, s, j in ((x.i1, x.s1, x.j2), (x.i2, x.s2, x.j1)):
        now[i] = after[i]
        if i < board.users.shape[0]:
            put(board, i, s, j)
            known[i]["price"][:] = np.nan
    for i in range(board.users.shape[0]):
        set_score(board, now[i], rule, at_price)
    return reached, at_price


@compiled
def run(draws, board, rule, trace):
    """Exchanges in one draw until none is worth it; returns how many were made."""
    users, assigned, held = board.users, board.assigned, board.held
    now, known = board.now, board.known
    n, slots = users.shape
    bench = held.shape[0] + 1 if rule.moves else 0
    value, price = begin(draws, board, rule)
    trace[:1] = value
    made, at, quiet = 0, 0, 0
    while quiet < n * slots:
        i1, s1 = at // slots, at % slots
        at = (at + 1) % (n * slots)
        quiet += 1
        for partner in range((i1 + 1) * slots, n * slots + bench):
            i2, s2, j2 = n, 0, partner - n * slots - 1
            if partner < n * slots:
                i2, s2 = partner // slots, partner % slots
                j2 = users[i2, s2]
            x = Exchange(i1, s1, users[i1, s1], i2, s2, j2)
            if not allowed(assigned, held, rule, x):
                continue
            rise = 0.0
            for i, s, j in ((i1, s1, j2), (i2, s2, x.j1)):
                if i < n and known[i, s, j].price != price:
                    if np.isnan(known[i, s, j].price):
                        recall(draws, board, rule, i, s, j)
                    set_score(board, known[i, s, j], rule, price)
                rise += known[i, s, j].score - now[i].score
            if not rise > RISE * abs(value):
                continue
            before = value
            value, price = make(board, rule, x, value, price)
            if value > before:
                made, quiet = made + 1, 0
                trace[made : made + 1] = value
    return made


@compiled
def match_draws(draws, at, rule, space, assignment, power, made, trace):
    """The draws `at` in place; writes the number of exchanges, and the worth after each."""
    for b in range(at.shape[0]):
        draw = at[b] % draws.weights.shape[0]
        of_draw = draws.gains[at[b]], assignment[b], power[b], draw, draws.weights[draw, 0]
        board = Board(*of_draw, *space)
        made[b] = run(draws, board, rule, trace[b])
