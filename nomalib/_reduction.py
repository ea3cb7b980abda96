"""R_min eliminated from one draw, by the recursion (chain) of `nomalib._chain`.

The slack y_c of user c, its received power above what R_min takes, raises what the others hear,
and what they need with it. Column c of B is what all of them then spend, for a unit in all; Q_jc
is what user j hears of it, relative to F_j; and α_c = 1/((1 + t_c) F_c) of the unit's own signal.
"""

import numpy as np

from nomalib._chain import NO_SNR, empty_chain, follow_chain, link
from nomalib._compile import borrowing, compiled, inlined
from nomalib._draws import view

# Kernels take whole arrays and the subchannel's index i: a slice passed to a compiled function
# counts its references, atomically, which took a quarter of the time.


@inlined
def sort_users(i, gains, assigned, users):
    """Writes the assigned users by descending gain, ties by index; returns how many there are."""
    count, slots = 0, users.shape[1]
    for j in range(gains.shape[1]):
        # without a branch on what is assigned, which no processor can predict
        if count < slots:
            users[i, count] = j
        count += assigned[i, j]
    for slot in range(1, count):
        j, at = users[i, slot], slot
        while at > 0 and gains[i, users[i, at - 1]] < gains[i, j]:
            users[i, at] = users[i, at - 1]
            at -= 1
        users[i, at] = j
    for slot in range(count, slots):
        users[i, slot] = -1
    return count


@inlined
def hear_slack(k, room, chain):
    """V: by how much F_j rises with the slack of user c, `chain.heard[j, c]`.

    By (chain) again, F_j = a_j + s_j F_1 with a_j = 0 for j ≤ c,
    a_{c+1} = (1 − ε_c)/((1 + t_c ε_c)(1 + t_{c+1} ε_{c+1})), and
    F_1 = (ε_c/(1 + t_c ε_c) + Σ_{k>c} ε_k t_k a_k)/(1 − κ); F_c itself by what z_c is to others.
    """
    rise = 1.0 / room
    for c in range(k):
        first, a = chain.epsilon[c] * chain.step[c], (1.0 - chain.epsilon[c]) * chain.step[c]
        for j in range(c + 1, k):
            a *= chain.step[j] * (1.0 + chain.t[j - 1] if j > c + 1 else 1.0)
            chain.heard[j, c] = a
            first += chain.epsilon[j] * chain.t[j] * a
        first *= rise
        own = 0.0
        for j in range(c):
            chain.heard[j, c] = chain.slope[j] * first
            own += chain.t[j] * chain.heard[j, c]
        for j in range(c + 1, k):
            chain.heard[j, c] += chain.slope[j] * first
            own += chain.epsilon[j] * chain.t[j] * chain.heard[j, c]
        chain.heard[c, c] = own


@inlined
def name_takers(i, at, draws, shares):
    """Writes whether one user, and whether the strongest, is known to take all of set `at` on i.

    One does where the others have one ε, and the interferer's gain counts or that ε is 1, at which
    both conventions are alike (theorem of `nomalib.takers`). The strongest does where nobody weighs
    more and R_min is 0 for all (it alone makes the most of all power), or the others have one ε,
    which is 0 or the strongest has the largest R_min (theorem of `nomalib.water_filling`).
    """
    heaviest, highest_t, lowest, highest = 0.0, 0.0, 1.0, 0.0
    for slot in range(shares.count[at]):
        j = shares.users[at, slot]
        heaviest = max(heaviest, shares.weight[at, slot])
        highest_t = max(highest_t, draws.t[j])
        if slot > 0:
            lowest = min(lowest, draws.epsilon[i, j])
            highest = max(highest, draws.epsilon[i, j])
    first_is_owed_most = shares.count[at] == 0 or highest_t == draws.t[shares.users[at, 0]]
    one_epsilon = lowest >= highest
    others_stay = highest == 0.0 or (one_epsilon and first_is_owed_most) or highest_t == 0.0
    shares.strongest[at] = others_stay and heaviest == shares.weight[at, 0]
    shares.single[at] = shares.strongest[at] or (
        one_epsilon and (lowest == 1.0 or not draws.receiver)
    )


@inlined
def clear(i, shares):
    """Subchannel i without users."""
    for row in range(shares.users.shape[1]):
        shares.minimal[i, row] = shares.strength[i, row] = shares.weight[i, row] = 0.0
        for col in range(shares.users.shape[1]):
            shares.coupling[i, row, col] = shares.spread[i, row, col] = 0.0


@inlined
def reduce_subchannel(i, k, first, room, chain, shares):
    """Subchannel i of k users, its chain followed, for a spare power of 1; its least power."""
    hear_slack(k, room, chain)
    need = 0.0
    for col in range(k):
        total = chain.cost[col]
        for row in range(k):
            # what user `row` adds to keep R_min, and the slack itself
            total += chain.t[row] * chain.heard[row, col] * chain.cost[row]
        total = 1.0 / total
        for row in range(k):
            x = chain.t[row] * chain.heard[row, col] + (1.0 if row == col else 0.0)
            shares.spread[i, row, col] = x * chain.cost[row] * total
            shares.coupling[i, row, col] = chain.heard[row, col] * total
        shares.strength[i, col] = total
    for row in range(k):
        floor = chain.base[row] + chain.slope[row] * first
        shares.minimal[i, row] = chain.t[row] * floor * chain.cost[row]
        need += shares.minimal[i, row]
        scale = 1.0 / (floor * (1.0 + chain.t[row]))
        # nobody hears a gain that counts as 0
        shares.strength[i, row] *= (
            scale if chain.noise[row] * chain.cost[row] < 1.0 / NO_SNR else 0.0
        )
        for col in range(k):
            shares.coupling[i, row, col] *= scale * (1.0 + chain.t[row])
    return need


@borrowing
def reduce_draw(draws, b, chain, shares):
    """Draw b into these shares of one draw; (least_rate, spare power)."""
    gains, assigned = draws.gains[b], draws.assignment[b % draws.assignment.shape[0]]
    weights = draws.weights[b % draws.weights.shape[0]]
    least_rate, spare = 0.0, 1.0
    for i in range(shares.users.shape[0]):
        k = shares.count[i] = sort_users(i, gains, assigned, shares.users)
        clear(i, shares)
        for row in range(k):
            j = shares.users[i, row]
            link(row, gains[i, j], draws.t[j], draws.epsilon[i, j], draws, chain)
            shares.weight[i, row] = weights[j]
            least_rate += weights[j] * draws.min_rate[j]
        first, kept = follow_chain(k, chain)
        if kept < 1.0:
            spare -= reduce_subchannel(i, k, first, 1.0 - kept, chain, shares)
        else:
            spare = np.nan
            for row in range(k):
                shares.minimal[i, row] = np.nan
    if spare >= 0.0:
        for i in range(shares.users.shape[0]):
            for row in range(shares.count[i]):
                shares.strength[i, row] *= spare
                for col in range(shares.count[i]):
                    shares.coupling[i, row, col] *= spare
    for i in range(shares.users.shape[0]):
        shares.strongest[i] = shares.single[i] = True  # where users are alike
        if not draws.alike:
            name_takers(i, i, draws, shares)
    return least_rate, spare


@compiled
def reduce_draws(draws, first, shares):
    """The draws from `first` on into these shares."""
    chain = empty_chain(shares.users.shape[2])
    for at in range(shares.users.shape[0]):
        draw = view(shares, at)
        shares.least_rate[at], shares.spare[at] = reduce_draw(draws, first + at, chain, draw)


@borrowing
def write_power(budget, shares, u, out):
    """p = P_c (x_min + spare · B u) of one draw, into `out` (N, M)."""
    out[:] = 0.0
    for i in range(u.shape[0]):
        for row in range(shares.count[i]):
            x = shares.minimal[i, row]
            for col in range(shares.count[i]):
                x += shares.spare * shares.spread[i, row, col] * u[i, col]
            out[i, shares.users[i, row]] = budget * x
