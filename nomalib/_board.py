"""A schedule in the making: who sits where, and what that is worth, for `nomalib._swaps`.

Of a subchannel its `TERMS` are all that counts: the least power n, and the strength α and coupling
q of its strongest user (`nomalib._chain`), or with weights a row of `nomalib._sets`; and a rate, at
the fixed powers or at the least ones. Its score is what it adds to the sum rate, or at optimal
powers to (swap-bound) of `nomalib.matching` at the present price λ; as long as no power meets
R_min, it is −n. Terms are remembered until an exchange changes their subchannel, scores until one
changes the price: few of the questions of a run are new.
"""

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nomalib._chain import Chain, empty_chain, link, strongest_terms
from nomalib._checks import Array
from nomalib._compile import FIRST, compiled, inlined, log1p
from nomalib._reduction import sort_users
from nomalib._sets import best_rate, describe, most_at, sets_of
from nomalib._starts import Takers, takers_of
from nomalib.rates import QOS_TOLERANCE

# Two facts make a rule: at which powers an exchange counts (those of the slots, the best ones, or
# the least ones, of which less is better), and what it must not do.
FIXED, OPTIMAL, LEAST = range(3)
NONE, QOS, FEASIBLE = range(3)

# A subchannel that cannot meet R_min at any power counts as one that needs this many budgets.
HOPELESS = 1e9

# need n, strength α, coupling q, rate [nats], pairs short of R_min; score, and the λ that it is at;
# its row of `Sets`
_NAMES = "need", "strength", "coupling", "rate", "short", "score", "price"
TERMS = np.dtype([*((name, np.float64) for name in _NAMES), ("row", np.int64)])


Aim = namedtuple("Aim", "powers guard moves most_held")


class Board(NamedTuple):
    """The state of one draw. Subchannel N is the bench, whose terms stay 0.

    Attributes:
        gains, assigned, power: of each pair, the last in budgets; (N, M).
        draw: its row of all weights.
        weight: of all users, where they are alike.
        users: user of each slot, −1 where free; (N, K).
        held: subchannels of each user, (M,).
        now: `TERMS` of each subchannel, (N + 1,).
        after: the same, but while an exchange is tried those after it.
        known: with user j (last: nobody) in slot (i, s), a price of NaN where they are not known;
            (N + 1, K, M + 1).
        order, chain, rates: of a subchannel, its users in SIC order (N, K), what these hear, and
            what they reach [nats], (M,).
        takers: what a water level is found of.
        sets: `Sets`, or () where the strongest users take all.
    """

    gains: Array
    assigned: NDArray[np.bool_]
    power: Array
    draw: int
    weight: float
    users: NDArray[np.int64]
    held: NDArray[np.int64]
    now: NDArray[np.void]
    after: NDArray[np.void]
    known: NDArray[np.void]
    order: NDArray[np.int64]
    chain: Chain
    rates: Array
    takers: Takers
    sets: Any


def workspace(n: int, m: int, slots: int, general: bool) -> tuple:
    """All of a board but for what each draw has of its own; `general` with `Sets`."""
    users, order = np.empty((2, n, slots), np.int64)
    now, after = np.zeros((2, n + 1), TERMS)
    known, chain = np.zeros((n + 1, slots, m + 1), TERMS), empty_chain(slots)
    sets, held = sets_of(n, m, slots) if general else (), np.empty(m, np.int64)
    return users, held, now, after, known, order, chain, np.empty(m), takers_of(n), sets


# A board handed to a compiled function counts references to all its arrays, atomically; so does one
# handed to an inlined function with branches. What is called most gets single arrays.


@inlined
def enter(i, draws, gains, assigned, order, chain):
    """Users of subchannel i in SIC order into row i of `order` and the chain; how many they are."""
    k = sort_users(i, gains, assigned, order)
    for row in range(k):
        j = order[i, row]
        link(row, gains[i, j], draws.t[j], draws.epsilon[i, j], draws, chain)
    return k


@inlined
def rates_at(power, i, k, order, chain, out):
    """Rates [nats] of the k users entered, at the powers of their slots."""
    for row in range(k):
        heard = chain.noise[row]
        for other in range(k):
            if other != row:
                z = power[i, order[i, other]] / chain.cost[other]
                heard += z if other < row else chain.epsilon[other] * z
        j = order[i, row]
        out[j] = log1p(power[i, j] / chain.cost[row] / heard)


@inlined
def put(board, i, s, j):
    """User j, or nobody, takes slot s of subchannel i and its power; returns who had it."""
    old, power = board.users[i, s], 0.0
    if old >= 0:
        power = board.power[i, old]
        board.power[i, old], board.assigned[i, old] = 0.0, False
        board.held[old] -= 1
    if j >= 0:
        board.power[i, j], board.assigned[i, j] = power, True
        board.held[j] += 1
    board.users[i, s] = j
    return old


@compiled
def recall(draws, board, rule, i, s, j):
    """Writes the terms of subchannel i with user j in slot s, all but their score."""
    terms = board.known[i, s, j]
    old = put(board, i, s, j)
    k = enter(i, draws, board.gains, board.assigned, board.order, board.chain)
    terms.rate = terms.short = terms.need = terms.strength = terms.coupling = 0.0
    if k > 0 and (rule.powers != FIXED or rule.guard == FEASIBLE):
        need, terms.strength, terms.coupling = strongest_terms(k, board.chain)
        terms.need = min(need, HOPELESS)
    n_users = board.assigned.shape[1]
    terms.row = (i * board.users.shape[1] + s) * (n_users + 1) + (j if j >= 0 else n_users)
    describe(board.sets, i, k, terms.row, board.order, board.draw, draws, board.chain)
    if rule.powers == FIXED:
        rates_at(board.power, i, k, board.order, board.chain, board.rates)
    for row in range(k):
        user = board.order[i, row]
        owed = draws.min_rate[user]
        if rule.powers == FIXED:
            terms.short += board.rates[user] < owed * (1.0 - QOS_TOLERANCE)
        owed = board.rates[user] if rule.powers == FIXED else owed
        terms.rate += draws.weights[board.draw, user] * owed
    put(board, i, s, old)


@inlined
def set_score(board, terms, rule, price):
    """What a subchannel of these terms adds at this price; 0 is no price."""
    terms.price = price
    terms.score = terms.rate
    if rule.powers != FIXED and price > 0.0:
        most = most_at(board.sets, terms, price, board.weight)
        terms.score += most - price * terms.need
    elif rule.powers != FIXED:
        terms.score = -terms.need


@inlined
def worth_of(board, terms, rule):
    """What all subchannels of these terms are worth [nats], and λ, 0 where it has no meaning.

    Minus the budgets that R_min needs where those are more than one, or where only they count.
    """
    need, value, price = 0.0, 0.0, 0.0
    for i in range(terms.shape[0]):
        need += terms[i].need
        value += terms[i].rate
    if rule.powers == LEAST or (rule.powers == OPTIMAL and need > 1.0):
        value = -max(1.0, need)
    elif rule.powers == OPTIMAL:
        rate, price = best_rate(board.sets, terms, 1.0 - need, board.weight, board.takers)
        value += rate
    return value, price


@compiled
def begin(draws, board, rule):
    """Seats the users and finds the terms of the start; its worth and λ."""
    n, m = board.assigned.shape
    board.users[:], board.held[:] = -1, 0
    board.known["price"][:] = np.nan
    for i in range(n):
        s = 0
        for j in range(m):
            if board.assigned[i, j]:
                board.users[i, s] = j
                board.held[j] += 1
                s += 1
    for i in range(n):
        first = board.users[i, 0]
        recall(draws, board, rule, i, FIRST, first)
        board.now[i] = board.after[i] = board.known[i, 0, first]
    value, price = worth_of(board, board.now, rule)
    for i in range(n):
        set_score(board, board.now[i], rule, price)
    return value, price
