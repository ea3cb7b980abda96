"""The sets of users that each subchannel would choose at a price, for `schedules.at_price`.

If one user is as strong as another and weighs as much, the other adds nothing where SIC is perfect:
w/(n + z) is smaller for any power z. So only users count whom no stronger one outweighs, a handful
of many, and all sets of them are tried.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nomalib._chain import Chain, empty_chain, link
from nomalib._checks import Array
from nomalib._compile import FIRST, compiled
from nomalib._draws import Shares
from nomalib._reduction import sort_users
from nomalib._sets import keep_set, rows_of
from nomalib.subchannel import hear, split_at

# Of more users than that, the best alone; and how often a price is corrected.
_MOST_USERS, _PRICES = 10, 30


class Space(NamedTuple):
    """Workspaces: a set as a row of `Shares`, with its users, shares and interference."""

    row: Shares
    chain: Chain
    sorted: NDArray[np.int64]  # all users, (1, M)
    users: NDArray[np.int64]  # of a set, (N, H)
    u: Array
    below: Array


def space(n: int, m: int, most: int) -> Space:
    users = np.zeros((n, most), np.int64)
    row, u, below = rows_of(1, most), *np.zeros((2, 1, most))
    return Space(row, empty_chain(most), np.zeros((1, m), np.int64), users, u, below)


@compiled
def candidates(i, draws, b, weights, everyone, space):
    """Users whom no stronger one outweighs, strongest first, into `space.sorted`; how many."""
    count, heaviest, n = 0, 0.0, draws.gains.shape[1]
    order = space.sorted
    sort_users(0, draws.gains[b, i : i + 1], everyone, order)
    for at in range(order.shape[1]):
        j = order[0, at]
        if weights[j] > heaviest:
            order[0, count], heaviest = j, weights[j]
            count += 1
    while count > _MOST_USERS:
        worst, least = 0, np.inf
        for at in range(count):
            j = order[0, at]
            score = weights[j] * np.log1p(draws.snr / n * draws.gains[b, i, j] ** 2)
            if score < least:
                worst, least = at, score
        for at in range(worst, count - 1):
            order[0, at] = order[0, at + 1]
        count -= 1
    return count


@compiled
def enter(i, chosen, count, draws, b, space):
    """The candidates in the bits of `chosen` as a set; false if there are too many."""
    k = 0
    for at in range(count):
        if chosen >> at & 1:
            if k == space.users.shape[1]:
                return False
            j = space.sorted[0, at]
            space.users[i, k] = j
            link(k, draws.gains[b, i, j], draws.t[j], draws.epsilon[i, j], draws, space.chain)
            k += 1
    draw = b % draws.weights.shape[0]
    keep_set(space.row, i, k, FIRST, space.users, draw, draws, space.chain)
    return True


@compiled
def choose(draws, b, price, everyone, space, score):
    """The best set of every subchannel: its users' weighted rates into `score`; their power."""
    weights, power = draws.weights[b % draws.weights.shape[0]], 0.0
    score[:] = -1.0
    for i in range(score.shape[0]):
        count, best, most = candidates(i, draws, b, weights, everyone, space), 0, 0.0
        for chosen in range(1, 1 << count):
            if enter(i, chosen, count, draws, b, space):
                value, _ = split_at(FIRST, space.row, price, space.u)
                if value > most * (1.0 + 1e-12):
                    best, most = chosen, value
        if best > 0:
            enter(i, best, count, draws, b, space)
            split_at(FIRST, space.row, price, space.u)
            k, row, u = space.row.count[0], space.row, space.u
            hear(FIRST, k, row, u, space.below)
            for slot in range(k):
                if u[0, slot] > 0.0:
                    sinr = row.strength[0, slot] * u[0, slot] / space.below[0, slot]
                    score[i, row.users[0, slot]] = row.weight[0, slot] * np.log1p(sinr)
                    power += u[0, slot]
    return power


@compiled
def choose_draws(draws, first, everyone, space, score):
    """The best sets of each draw, at the price at which they spend the budget."""
    n = score.shape[1]
    for at in range(score.shape[0]):
        b = first + at
        weights = draws.weights[b % draws.weights.shape[0]]
        low, high, price = 0.0, np.inf, n * weights.max()
        for _ in range(_PRICES):
            power = choose(draws, b, price, everyone, space, score[at])
            if abs(power - 1.0) <= 1e-6 or high <= low * (1.0 + 1e-9):
                break
            if power > 1.0:
                low = price
            else:
                high = price
            following = price * power
            if not low < following < high:
                following = np.sqrt(low * high) if 0.0 < low and high < np.inf else price
                if following == price:
                    following = 0.5 * price if high < np.inf else 2.0 * price
            price = following
