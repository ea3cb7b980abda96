"""The compiled loop of `nomalib.matching`: exchanges in one draw until none is worth it.

With its strongest user above R_min and everybody else at R_min, a subchannel has a closed form.
Powers x_j are in budgets, γ_j = P_c g_j²/σ₀², users stand in SIC order, and z_j = x_j/c_j in units
in which all of a subchannel hear z alike: noise m_j = 1, cost c_j = 1/γ_j ("interferer") or
m_j = 1/γ_j, c_j = 1 ("receiver"). With t = 2^R_min − 1 a user at R_min has

    z_j = t (m_j + Σ_{k<j} z_k + Σ_{k>j} ε_k z_k).

The difference of two neighbouring lines is a recursion without a sum,

    (1 + t ε_{j+1}) z_{j+1} = (1 + t) z_j + t (m_{j+1} − m_j),                           (chain)

so z_j = b_j + s_j z_1. Let κ = Σ_{k>1} ε_k s_k. Line 1 gives the floor F = m_1 + Σ ε_k z_k that
user 1 hears at the minimal powers, and with it n = Σ_j c_j z_j:

    F = (m_1 + Σ_{k>1} ε_k b_k)/(1 − t κ),   z_1 = t F.

A rise of z_1 by δ makes the others follow by s_k t δ/(1 + t − t κ), by line 2 and (chain) without
m. Counting δ by the power w it takes in all gives the strength and the coupling of user 1:

    α = (1 − t κ)/(P F),   q = t κ/(P F),   P = c_1 (1 + t − t κ) + t Σ_{k>1} c_k s_k.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nomalib import water_filling

# What the exchanges raise: a rule of `nomalib.matching`, or "need": less power needed for R_min.
OBJECTIVES = ("rate", "qos", "feasible", "optimum", "need")
_RATE, _QOS, _FEASIBLE, _OPTIMUM, _NEED = range(len(OBJECTIVES))

# A sum rate that rises by less than this, relatively, has not risen.
RISE = 1e-9
# A subchannel that cannot meet R_min at any power counts as one that needs this many budgets.
HOPELESS = 1e9


class Problem(NamedTuple):
    """What stays the same over all draws.

    Attributes:
        snr: P_c/σ₀².
        t: 2^R_min − 1, the SINR at R_min.
        floor: R_min [nats].
        least_sinr: the SINR below which R_min counts as missed.
        receiver: whether an interfering signal weighs the receiver's gain.
        places: K, places of each subchannel.
        most_held: subchannels a user may hold.
        objective: index in `OBJECTIVES`.
        moves: whether free places and the bench take part.
    """

    snr: float
    t: float
    floor: float
    least_sinr: float
    receiver: bool
    places: int
    most_held: int
    objective: int
    moves: bool


class _Draw(NamedTuple):
    """The state of one draw. Subchannel N is the bench, whose terms stay 0.

    Attributes:
        pairs: (|g|, m, c, ε) of each user on each subchannel, (N, M, 4).
        assigned: (N, M).
        users: user of each place, −1 where free; (N, K).
        power: power of each place in budgets, (N, K).
        held: subchannels of each user, (M,).
        terms: what decides the worth of each subchannel, see `_write_terms`, and its score;
            (N + 1, 5).
        memo: terms and score with user j (last: nobody) in place (i, s); (N + 1, K, M + 1, 5). NaN
            until needed, and again when an exchange changes them: the terms with their subchannel,
            all scores with the price.
        worth: what the exchanges raise [nats], and the price λ of power at it; (2,).
        scratch: α, q and shares of the last water level, (3, N).
        order: users of a subchannel in SIC order, (K,).
    """

    pairs: NDArray[np.float64]
    assigned: NDArray[np.bool_]
    users: NDArray[np.int64]
    power: NDArray[np.float64]
    held: NDArray[np.int64]
    terms: NDArray[np.float64]
    memo: NDArray[np.float64]
    worth: NDArray[np.float64]
    scratch: NDArray[np.float64]
    order: NDArray[np.int64]


@njit(cache=True, error_model="numpy")
def _sorted_users(pairs, users, order):
    """Users of a subchannel in SIC order, ties by index, into `order`; returns how many."""
    count = 0
    for s in range(users.shape[0]):
        user = users[s]
        if user >= 0:
            at, gain = count, pairs[user, 0]
            while at > 0 and (
                pairs[order[at - 1], 0] < gain
                or (pairs[order[at - 1], 0] == gain and order[at - 1] > user)
            ):
                order[at] = order[at - 1]
                at -= 1
            order[at] = user
            count += 1
    return count


@njit(cache=True, error_model="numpy")
def strongest_terms(pairs, users, t, order):
    """(n, α, q) of one subchannel: minimal power, strength and coupling of its strongest user.

    In budgets; n is `HOPELESS` where no power meets R_min. `pairs` (M, 4) holds (|g|, m, c, ε).
    """
    count = _sorted_users(pairs, users, order)
    base, slope = 0.0, 1.0
    kept, kept_slope, spent, spent_slope = 0.0, 0.0, 0.0, 0.0
    for at in range(1, count):
        k = order[at]
        cost, residual = pairs[k, 2], pairs[k, 3]
        scale = 1.0 / (1.0 + t * residual)
        base = scale * ((1.0 + t) * base + t * (pairs[k, 1] - pairs[order[at - 1], 1]))
        slope *= scale * (1.0 + t)
        kept += residual * base
        kept_slope += residual * slope
        spent += cost * base
        spent_slope += cost * slope
    room = 1.0 - t * kept_slope
    need, strength, coupling = HOPELESS, 0.0, 0.0
    if count == 0:
        need = 0.0
    elif t == 0.0:
        need, strength = 0.0, 1.0 / (pairs[order[0], 1] * pairs[order[0], 2])
    elif room > 0.0:
        cost, floor = pairs[order[0], 2], (pairs[order[0], 1] + kept) / room
        need = (cost + spent_slope) * t * floor + spent
        if need < HOPELESS:
            scale = 1.0 / (floor * (cost * (t + room) + t * spent_slope))
            strength, coupling = room * scale, t * kept_slope * scale
        else:
            need = HOPELESS
    return need, strength, coupling


@njit(cache=True, error_model="numpy")
def _rate_terms(pairs, users, power, least_sinr):
    """Sum rate [nats] of one subchannel at given powers, and how many users miss R_min."""
    excess, short = 0.0, 0  # the product of all 1 + SINR, less 1: rates may be below rounding
    for a in range(users.shape[0]):
        j = users[a]
        if j < 0:
            continue
        gain, floor, cost = pairs[j, 0], pairs[j, 1], pairs[j, 2]
        for b in range(users.shape[0]):
            k = users[b]
            if k >= 0 and k != j:
                stronger = pairs[k, 0] > gain or (pairs[k, 0] == gain and k < j)
                floor += (1.0 if stronger else pairs[k, 3]) * power[b] / pairs[k, 2]
        sinr = power[a] / cost / floor
        short += sinr < least_sinr
        excess += sinr + excess * sinr
    return np.log1p(excess), short


@njit(cache=True, error_model="numpy")
def _write_terms(draw, problem, i, out):
    """(n, α, q, K_i R_min) of subchannel i for optimal powers; (n, rate, short, 0) for fixed ones.

    n is left at 0 where the rule does not ask for it.
    """
    pairs, users = draw.pairs[i], draw.users[i]
    out[:] = 0.0
    if problem.objective >= _FEASIBLE:
        out[0], out[1], out[2] = strongest_terms(pairs, users, problem.t, draw.order)
    if problem.objective <= _FEASIBLE:
        out[1], out[2] = _rate_terms(pairs, users, draw.power[i], problem.least_sinr)
    else:
        for user in users:
            out[3] += problem.floor if user >= 0 else 0.0


@njit(cache=True, error_model="numpy")
def _update_worth(draw, problem):
    """The worth of the present terms; minus the budgets that R_min needs where that is over one."""
    terms, n = draw.terms, draw.users.shape[0]
    draw.worth[1] = 0.0
    if problem.objective <= _FEASIBLE:
        draw.worth[0] = terms[:, 1].sum()
        return
    spare = 1.0 - terms[:, 0].sum()
    if spare < 0.0 or problem.objective == _NEED:
        draw.worth[0] = min(spare, 0.0) - 1.0
        return
    value = 0.0
    strength, coupling, w = draw.scratch[0], draw.scratch[1], draw.scratch[2]
    for i in range(n):
        value += terms[i, 3]
        strength[i], coupling[i] = spare * terms[i, 1], spare * terms[i, 2]
    level, _ = water_filling.fill(strength, coupling, w)
    if level < np.inf:
        for i in range(n):
            value += np.log1p(strength[i] * w[i] / (1.0 + coupling[i] * w[i]))
        draw.worth[1] = 1.0 / (level * spare)
    draw.worth[0] = value


@njit(cache=True, error_model="numpy")
def _score(terms, objective, worth, price):
    """What a subchannel of these terms adds to the worth, or to its bound (dual) at this price.

    inf, which compares with nothing, where no price is known.
    """
    score = np.inf
    if objective <= _FEASIBLE:
        score = terms[1]
    elif worth < 0.0:
        score = -terms[0]
    elif price > 0.0:
        w = water_filling.share_at(1.0 / price, terms[1], terms[2])[0]
        score = terms[3] + np.log1p(terms[1] * w / (1.0 + terms[2] * w)) - price * (w + terms[0])
    return score


@njit(cache=True, error_model="numpy")
def _update_scores(draw, problem):
    """The scores of the present terms at the present price; those of the memo are forgotten."""
    terms, memo, worth, price = draw.terms, draw.memo, draw.worth[0], draw.worth[1]
    for i in range(draw.users.shape[0]):
        terms[i, 4] = _score(terms[i], problem.objective, worth, price)
        for s in range(memo.shape[1]):
            for j in range(memo.shape[2]):
                memo[i, s, j, 4] = np.nan


@njit(cache=True, error_model="numpy")
def _remember(draw, problem, i, s, j):
    """Writes terms and score of subchannel i with user j in place s into the memo."""
    memo = draw.memo[i, s, j]
    if np.isnan(memo[0]):
        user = draw.users[i, s]
        draw.users[i, s] = j
        _write_terms(draw, problem, i, memo)
        draw.users[i, s] = user
    memo[4] = _score(memo, problem.objective, draw.worth[0], draw.worth[1])


@njit(cache=True, error_model="numpy")
def _keeps_rule(draw, problem, i1, i2, old1, old2):
    """Whether the rule for swaps at fixed powers admits the terms of i1 and i2 after these."""
    new1, new2 = draw.terms[i1], draw.terms[i2]
    if problem.objective == _QOS:
        return new1[2] + new2[2] <= old1[2] + old2[2]
    if problem.objective == _FEASIBLE:
        return new1[0] + new2[0] <= old1[0] + old2[0] or draw.terms[:, 0].sum() <= 1.0
    return True


@njit(cache=True, error_model="numpy")
def _admissible(assigned, held, most_held, moves, i1, j1, i2, j2):
    """Whether j1 on i1 and j2 on i2 (−1: nobody; i2 = N: the bench) may exchange their places."""
    free = j1 != j2 and not (j2 >= 0 and assigned[i1, j2])
    if i2 < assigned.shape[0]:
        free = free and not (j1 >= 0 and assigned[i2, j1])
    else:
        free = free and not (j2 >= 0 and held[j2] >= most_held) and not (j1 >= 0 and held[j1] == 1)
    return free and (moves or (j1 >= 0 and j2 >= 0))


@njit(cache=True, error_model="numpy")
def _put(draw, i, s, j):
    """User j, or nobody, takes place s of subchannel i."""
    old = draw.users[i, s]
    if old >= 0:
        draw.assigned[i, old] = False
        draw.held[old] -= 1
    if j >= 0:
        draw.assigned[i, j] = True
        draw.held[j] += 1
    draw.users[i, s] = j
    draw.memo[i, :, :, 0] = np.nan


@njit(cache=True, error_model="numpy")
def _swap(a, b):
    for k in range(a.shape[0]):
        a[k], b[k] = b[k], a[k]


@njit(cache=True, error_model="numpy")
def _exchange(draw, problem, i1, s1, i2, s2, j2):
    """Exchanges the user of place (i1, s1) with j2 of (i2, s2) if that raises the worth."""
    j1, worth, price = draw.users[i1, s1], draw.worth[0], draw.worth[1]
    other1, other2 = draw.memo[i1, s1, j2], draw.memo[i2, s2, j1]
    _swap(draw.terms[i1], other1)
    _swap(draw.terms[i2], other2)
    if _keeps_rule(draw, problem, i1, i2, other1, other2):
        _update_worth(draw, problem)
    if not draw.worth[0] > worth + RISE * abs(worth):
        _swap(draw.terms[i1], other1)
        _swap(draw.terms[i2], other2)
        draw.worth[0], draw.worth[1] = worth, price
        return False
    _put(draw, i1, s1, j2)
    if i2 < draw.users.shape[0]:
        _put(draw, i2, s2, j1)
    _update_scores(draw, problem)
    return True


@njit(cache=True, error_model="numpy")
def _run(draw, problem, trace):
    """Tries all exchanges in turn until none is worth it; returns how many were made."""
    # handing `draw` over counts references to all its arrays: only where there is work to do
    users, assigned, held = draw.users, draw.assigned, draw.held
    terms, memo, worth = draw.terms, draw.memo, draw.worth
    most_held, moves = problem.most_held, problem.moves and problem.objective > _FEASIBLE
    n, places = users.shape
    bench = assigned.shape[1] + 1 if problem.moves else 0
    trace[0] = worth[0]
    made, at, quiet = 0, 0, 0
    while quiet < n * places:
        i1, s1 = at // places, at % places
        quiet += 1
        for partner in range((i1 + 1) * places, n * places + bench):
            j1 = users[i1, s1]
            if partner < n * places:
                i2, s2 = partner // places, partner % places
                j2 = users[i2, s2]
            else:
                i2, s2, j2 = n, 0, partner - n * places - 1
            if not _admissible(assigned, held, most_held, moves, i1, j1, i2, j2):
                continue
            if np.isnan(memo[i1, s1, j2, 4]):
                _remember(draw, problem, i1, s1, j2)
            if np.isnan(memo[i2, s2, j1, 4]):
                _remember(draw, problem, i2, s2, j1)
            rise = memo[i1, s1, j2, 4] - terms[i1, 4] + memo[i2, s2, j1, 4] - terms[i2, 4]
            if rise <= RISE * abs(worth[0]):
                continue
            if _exchange(draw, problem, i1, s1, i2, s2, j2):
                made += 1
                quiet = 0
                if made < trace.shape[0]:
                    trace[made] = worth[0]
        at = (at + 1) % (n * places)
    return made


@njit(cache=True, error_model="numpy")
def _match_draw(gains, residual, assigned, power, problem, trace):
    """Matches one draw in place of `assigned` and `power`; returns the number of exchanges."""
    n, m = gains.shape
    places = problem.places
    pairs = np.ones((n, m, 4))
    pairs[:, :, 0], pairs[:, :, 3] = gains, residual
    pairs[:, :, 1 if problem.receiver else 2] = 1.0 / (problem.snr * gains**2)
    draw = _Draw(
        pairs,
        assigned,
        np.full((n, places), -1),
        np.zeros((n, places)),
        np.zeros(m, np.int64),
        np.zeros((n + 1, 5)),
        np.full((n + 1, places, m + 1, 5), np.nan),
        np.zeros(2),
        np.zeros((3, n)),
        np.zeros(places, np.int64),
    )
    draw.memo[n] = 0.0
    for i in range(n):
        s = 0
        for j in range(m):
            if assigned[i, j]:
                draw.users[i, s], draw.power[i, s] = j, power[i, j]
                draw.held[j] += 1
                s += 1
        _write_terms(draw, problem, i, draw.terms[i])
    _update_worth(draw, problem)
    if np.isnan(draw.worth[0]):  # no powers were given
        return 0
    _update_scores(draw, problem)
    made = _run(draw, problem, trace)
    power[:] = 0.0
    for i in range(n):
        for s in range(places):
            if draw.users[i, s] >= 0:
                power[i, draw.users[i, s]] = draw.power[i, s]
    return made


@njit(cache=True, error_model="numpy", nogil=True)
def match_draws(first, last, gains, residual, assignment, power, problem, made, trace):
    """Matches these draws in place; writes the number of exchanges and the worth after each."""
    for b in range(first, last):
        made[b] = _match_draw(gains[b], residual, assignment[b], power[b], problem, trace[b])
