"""What sets of users are worth at a price, for `nomalib._board`: in three numbers, or in shares.

Where the strongest user takes all, a set's least power, strength and coupling say everything. Else
a set is a row of `Shares`, and it is worth its best known split (`nomalib.subchannel`). Which of
the two a kernel is compiled for is told by the type of its `sets`: () or `Sets`.
"""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from nomalib import takers
from nomalib._chain import follow_chain
from nomalib._checks import Array
from nomalib._compile import compiled
from nomalib._draws import Shares, empty_shares
from nomalib._reduction import clear, name_takers, reduce_subchannel
from nomalib._starts import rate_of
from nomalib.network import Network
from nomalib.subchannel import split_at, worth
from nomalib.water_filling import fill


class Sets(NamedTuple):
    """Sets of users, each a row of `known`, in shares of the budget; and those of a schedule.

    Attributes:
        known: user j (last: nobody) in slot s of subchannel i is row (i K + s) (M + 1) + j.
        now: the N sets of the schedule, in shares of what these leave to spare.
        better, u: workspaces.
    """

    known: Shares
    now: Shares
    better: NDArray[np.int64]
    u: Array


def every_set(net: Network) -> tuple[list[tuple[int, ...]], NDArray[np.bool_]]:
    """All sets of users that may share a subchannel, the smaller first, and their (S, M) matrix."""
    largest = min(net.max_users_per_subchannel, net.n_users)
    sets = [s for size in range(1, largest + 1) for s in combinations(range(net.n_users), size)]
    member = np.zeros((len(sets), net.n_users), dtype=bool)
    for row, users in zip(member, sets, strict=True):
        row[list(users)] = True
    return sets, member


def rows_of(count: int, slots: int) -> Shares:
    """So many sets, nothing set."""
    return Shares._make(part[0] for part in empty_shares(1, count, slots))


def sets_of(n: int, m: int, slots: int) -> Sets:
    known, now = (rows_of(count, slots) for count in (n * slots * (m + 1), n))
    return Sets(known, now, np.zeros(n, np.int64), np.zeros((len(known.count), slots)))


# The kernels below are called by these names.


def describe(sets: Any, i: int, k: int, row: int, order: Any, draw: int, draws: Any, chain: Any):
    """Keeps the k users of subchannel i, whose chain is linked, as a row."""


def most_at(sets: Any, terms: Any, price: float, weight: float):
    """φ of a set above its least rates and power, at a price per budget."""


def best_rate(sets: Any, terms: Any, spare: float, weight: float, work: Any):
    """Σ R of the sets of a schedule at their best powers [nats], and the price per budget."""


def by_type(name, plain, general, inline="never"):
    def chosen(sets, *others):
        return general if isinstance(sets, types.BaseNamedTuple) else plain

    options = {"error_model": "numpy"}
    overload(name, strict=False, inline=inline, jit_options=options)(chosen)


def describe_nothing(sets, i, k, row, order, draw, draws, chain):
    pass


@compiled
def keep_set(known, i, k, row, order, draw, draws, chain):
    """The k users of subchannel i, whose chain is linked, as a row; their least power."""
    clear(row, known)
    known.count[row], need = k, 0.0
    for slot in range(k):
        known.users[row, slot] = order[i, slot]
        known.weight[row, slot] = draws.weights[draw, order[i, slot]]
    if k > 0:
        first, kept = follow_chain(k, chain)
        need = np.inf
        if kept < 1.0:
            need = reduce_subchannel(row, k, first, 1.0 - kept, chain, known)
    name_takers(i, row, draws, known)
    return need


def describe_in_shares(sets, i, k, row, order, draw, draws, chain):
    keep_set(sets.known, i, k, row, order, draw, draws, chain)


def worth_of_strongest(sets, terms, price, weight):
    most, _ = worth(price, terms.strength, terms.coupling, weight)
    return most


def worth_of_split(sets, terms, price, weight):
    most, _ = split_at(terms.row, sets.known, price, sets.u)
    return most


def fill_strongest(sets, terms, spare, weight, work):
    for i in range(work.share.shape[0]):
        work.strength[i] = spare * terms[i].strength
        work.coupling[i] = spare * terms[i].coupling
        work.weight[i], work.share[i] = weight, 0.0
    level, _ = fill(work.strength, work.coupling, work.weight, work.share)
    # with nothing to spare, the price at which nobody buys
    price = 1.0 / (level * spare) if spare > 0.0 else weight * terms["strength"].max()
    return rate_of(work), price


def settle_sets(sets, terms, spare, weight, work):
    known, now, highest = sets.known, sets.now, 0.0
    for i in range(now.count.shape[0]):
        row = terms[i].row
        now.count[i], now.strongest[i] = known.count[row], known.strongest[row]
        now.single[i] = known.single[row]
        for j in range(known.count[row]):
            highest = max(highest, known.weight[row, j] * known.strength[row, j])
            now.weight[i, j] = known.weight[row, j]
            now.strength[i, j] = spare * known.strength[row, j]
            for other in range(known.count[row]):
                now.coupling[i, j, other] = spare * known.coupling[row, j, other]
        for j in range(known.count[row], now.weight.shape[1]):
            now.weight[i, j] = now.strength[i, j] = 0.0
    rate, level, _, _ = takers.settle(now, work, sets.better, sets.u)
    return rate, 1.0 / (level * spare) if spare > 0.0 else highest


by_type(describe, describe_nothing, describe_in_shares)
by_type(most_at, worth_of_strongest, worth_of_split, "always")
by_type(best_rate, fill_strongest, settle_sets)
