"""The compiled loop of `nomalib.matching`: exchanges in one draw until none is worth it.

With its strongest user above R_min and everybody else at R_min, a subchannel has a closed form.
Powers x_j are in budgets, γ_j = P_c g_j²/σ₀², users stand in SIC order, and z_j = x_j γ_j, m_j = 1
("interferer") or z_j = x_j, m_j = 1/γ_j ("receiver"). A user at R_min has

    z_j = t (m_j + Σ_{k<j} z_k + Σ_{k>j} ε_k z_k),      t = 2^R_min − 1.

The difference of two neighbouring lines is a recursion without a sum,

    (1 + t ε_{j+1}) z_{j+1} = (1 + t) z_j + t (m_{j+1} − m_j),                           (chain)

so the powers of a subchannel are affine in that of one user, and one line of the system fixes this
one: line 1 for the minimal powers, line 2 for those around a strongest user with any z_1.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from nomalib import water_filling

# What the exchanges raise: a rule of `nomalib.matching`, or "need": less power needed for R_min.
OBJECTIVES = ("rate", "qos", "feasible", "optimum", "need")
_RATE, _QOS, _FEASIBLE, _OPTIMUM, _NEED = range(len(OBJECTIVES))
# The functions of the innermost loop are inlined: handing `_Draw` over costs as much as their work.

# A sum rate that rises by less than this, relatively, has not risen.
RISE = 1e-9
# A subchannel that cannot meet R_min at any power counts as one that needs this many budgets.
HOPELESS = 1e9


class Problem(NamedTuple):
    """What stays the same over all draws.

    Attributes:
        snr: P_c/σ₀².
        t: 2^R_min − 1, the SINR at R_min.
        least_sinr: the SINR below which R_min counts as missed.
        residual: ε, (N, M).
        receiver: whether an interfering signal weighs the receiver's gain.
        places: K, places of each subchannel.
        most_held: subchannels a user may hold.
        objective: index in `OBJECTIVES`.
        moves: whether free places and the bench take part.
    """

    snr: float
    t: float
    least_sinr: float
    residual: NDArray[np.float64]
    receiver: bool
    places: int
    most_held: int
    objective: int
    moves: bool


class _Draw(NamedTuple):
    """The state of one draw. Subchannel N is the bench, whose terms stay 0.

    Attributes:
        gains: |g|, (N, M).
        assigned: (N, M).
        users: user of each place, −1 where free; (N, K).
        power: power of each place in budgets, (N, K).
        held: subchannels of each user, (M,).
        terms: what decides the worth of each subchannel, see `_write_terms`; (N + 1, 4).
        memo: terms with user j (last: nobody) in place (i, s), NaN until needed; (N, K, M + 1, 4).
        worth: what the exchanges raise [nats], and the price λ of power at it; (2,).
        dual: φ_i at this price, (N,).
        scratch: α, q and shares of the last water level, (3, N).
        order: users of a subchannel in SIC order, (K,).
    """

    gains: NDArray[np.float64]
    assigned: NDArray[np.bool_]
    users: NDArray[np.int64]
    power: NDArray[np.float64]
    held: NDArray[np.int64]
    terms: NDArray[np.float64]
    memo: NDArray[np.float64]
    worth: NDArray[np.float64]
    dual: NDArray[np.float64]
    scratch: NDArray[np.float64]
    order: NDArray[np.int64]


@njit(cache=True)
def _sorted_users(gain, users, order):
    """Users of a subchannel in SIC order, ties by index, into `order`; returns how many."""
    count = 0
    for user in users:
        if user >= 0:
            at = count
            while at > 0 and (
                gain[order[at - 1]] < gain[user]
                or (gain[order[at - 1]] == gain[user] and order[at - 1] > user)
            ):
                order[at] = order[at - 1]
                at -= 1
            order[at] = user
            count += 1
    return count


@njit(cache=True)
def _chain(gain, order, first, count, residual, snr, t, receiver, noise):
    """Σ ε_k z_k and Σ x_k over the users after `first`, as (constant, per z_first) pairs.

    `noise` scales m: with 0 these are the changes with z_first of what stands above R_min.
    """
    base, slope = 0.0, 1.0
    kept, kept_slope, spent, spent_slope = 0.0, 0.0, 0.0, 0.0
    for at in range(first + 1, count):
        k = order[at]
        own, before = snr * gain[k] ** 2, snr * gain[order[at - 1]] ** 2
        scale = 1.0 + t * residual[k]
        base = (1.0 + t) * base / scale
        if receiver:
            base += noise * t * (1.0 / own - 1.0 / before) / scale
        slope *= (1.0 + t) / scale
        cost = 1.0 if receiver else 1.0 / own
        kept += residual[k] * base
        kept_slope += residual[k] * slope
        spent += cost * base
        spent_slope += cost * slope
    return kept, kept_slope, spent, spent_slope


@njit(cache=True)
def strongest_terms(gain, users, residual, snr, t, receiver, order):
    """(n, α, q) of one subchannel: minimal power, strength and coupling of its strongest user.

    In budgets; n is `HOPELESS` where no power meets R_min.
    """
    count = _sorted_users(gain, users, order)
    if count == 0:
        return 0.0, 0.0, 0.0
    own = snr * gain[order[0]] ** 2
    if t == 0.0:
        return 0.0, own, 0.0
    if not snr * gain[order[count - 1]] ** 2 > 1.0 / HOPELESS**2:
        return HOPELESS, 0.0, 0.0
    noise, cost = (1.0 / own, 1.0) if receiver else (1.0, 1.0 / own)
    kept, kept_slope, spent, spent_slope = _chain(
        gain, order, 0, count, residual, snr, t, receiver, 1.0
    )
    room = 1.0 - t * kept_slope
    if not room > 0.0:
        return HOPELESS, 0.0, 0.0
    z = t * (noise + kept) / room
    need = cost * z + spent + spent_slope * z
    if not need < HOPELESS:
        return HOPELESS, 0.0, 0.0
    floor = noise + kept + kept_slope * z
    # a unit more of z_1 raises z_2 by `follow`, and the other weaker users along the chain
    lost, price = 0.0, cost
    if count > 1:
        second = order[1]
        _, below_kept, _, below_spent = _chain(
            gain, order, 1, count, residual, snr, t, receiver, 0.0
        )
        follow = t / (1.0 - t * below_kept)
        second_cost = 1.0 if receiver else 1.0 / (snr * gain[second] ** 2)
        lost = follow * (residual[second] + below_kept)
        price += follow * (second_cost + below_spent)
    return need, (1.0 - t * lost) / (price * (1.0 + t) * floor), lost / (price * floor)


@njit(cache=True)
def _rate_terms(gain, users, power, problem, residual):
    """Sum rate [nats] of one subchannel at given powers, and how many users miss R_min."""
    product, short = 1.0, 0
    for a in range(users.shape[0]):
        j = users[a]
        if j < 0:
            continue
        own = problem.snr * gain[j] ** 2
        floor = 1.0
        for b in range(users.shape[0]):
            k = users[b]
            if k >= 0 and k != j:
                signal = (own if problem.receiver else problem.snr * gain[k] ** 2) * power[b]
                stronger = gain[k] > gain[j] or (gain[k] == gain[j] and k < j)
                floor += signal if stronger else residual[k] * signal
        sinr = own * power[a] / floor
        short += sinr < problem.least_sinr
        product *= 1.0 + sinr
    return np.log(product), short


@njit(cache=True)
def _write_terms(draw, problem, i, out):
    """(n, α, q, K_i R_min) of subchannel i for optimal powers; (n, rate, short, 0) for fixed ones.

    n is left at 0 where the rule does not ask for it.
    """
    gain, users, residual = draw.gains[i], draw.users[i], problem.residual[i]
    out[:] = 0.0
    if problem.objective >= _FEASIBLE:
        out[0], out[1], out[2] = strongest_terms(
            gain,
            users,
            residual,
            problem.snr,
            problem.t,
            problem.receiver,
            draw.order,
        )
    if problem.objective <= _FEASIBLE:
        out[1], out[2] = _rate_terms(gain, users, draw.power[i], problem, residual)
    else:
        out[3] = (users >= 0).sum() * np.log1p(problem.t)


@njit(cache=True)
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
    strength, coupling, w = draw.scratch
    for i in range(n):
        value += terms[i, 3]
        strength[i], coupling[i] = spare * terms[i, 1], spare * terms[i, 2]
    level, _ = water_filling.fill(strength, coupling, w)
    if level < np.inf:
        for i in range(n):
            value += np.log1p(strength[i] * w[i] / (1.0 + coupling[i] * w[i]))
        draw.worth[1] = 1.0 / (level * spare)
    draw.worth[0] = value


@njit(cache=True, inline="always")
def _dual(price, need, strength, coupling, floor):
    """φ_i(λ) of (dual) in `nomalib.matching`, in nats."""
    w = water_filling.share_at(1.0 / price, strength, coupling)
    return floor + np.log1p(strength * w / (1.0 + coupling * w)) - price * (w + need)


@njit(cache=True)
def _update_dual(draw):
    """φ_i of the present terms at the present price."""
    if draw.worth[1] > 0.0:
        for i in range(draw.users.shape[0]):
            terms = draw.terms[i]
            draw.dual[i] = _dual(draw.worth[1], terms[0], terms[1], terms[2], terms[3])


@njit(cache=True, inline="always")
def _rise(draw, problem, i, s, j):
    """At most this much subchannel i adds to the worth with user j in place s."""
    if i == draw.users.shape[0]:
        return 0.0
    memo, terms = draw.memo, draw.terms
    if np.isnan(memo[i, s, j, 0]):
        old = draw.users[i, s]
        draw.users[i, s] = j
        _write_terms(draw, problem, i, memo[i, s, j])
        draw.users[i, s] = old
    if problem.objective <= _FEASIBLE:
        return memo[i, s, j, 1] - terms[i, 1]
    if draw.worth[0] < 0.0:
        return terms[i, 0] - memo[i, s, j, 0]
    if draw.worth[1] == 0.0:
        return np.inf
    new = _dual(
        draw.worth[1], memo[i, s, j, 0], memo[i, s, j, 1], memo[i, s, j, 2], memo[i, s, j, 3]
    )
    return new - draw.dual[i]


@njit(cache=True)
def _keeps_rule(draw, problem, i1, i2, new1, new2):
    """Whether the rule for swaps at fixed powers admits these terms of i1 and i2."""
    old1, old2 = draw.terms[i1], draw.terms[i2]
    if problem.objective == _QOS:
        return new1[2] + new2[2] <= old1[2] + old2[2]
    more = new1[0] + new2[0] - old1[0] - old2[0]
    return more <= 0.0 or draw.terms[:, 0].sum() + more <= 1.0


@njit(cache=True, inline="always")
def _admissible(draw, problem, i1, j1, i2, j2):
    """Whether j1 on i1 and j2 on i2 (−1: nobody; i2 = N: the bench) may exchange their places."""
    if j1 == j2 or (j2 >= 0 and draw.assigned[i1, j2]):
        return False
    if i2 == draw.users.shape[0]:
        if (j2 >= 0 and draw.held[j2] >= problem.most_held) or (j1 >= 0 and draw.held[j1] == 1):
            return False
    elif j1 >= 0 and draw.assigned[i2, j1]:
        return False
    return (j1 >= 0 and j2 >= 0) or (problem.moves and problem.objective > _FEASIBLE)


@njit(cache=True)
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


@njit(cache=True, inline="always")
def _exchange(draw, problem, i1, s1, i2, s2, j2):
    """Exchanges the user of place (i1, s1) with j2 of (i2, s2) if that raises the worth."""
    j1 = draw.users[i1, s1]
    if not _admissible(draw, problem, i1, j1, i2, j2):
        return False
    worth = draw.worth[0]
    rise = _rise(draw, problem, i1, s1, j2) + _rise(draw, problem, i2, s2, j1)
    if not rise > RISE * abs(worth):
        return False
    new1 = draw.memo[i1, s1, j2].copy()
    new2 = draw.memo[i2, s2, j1].copy() if i2 < draw.users.shape[0] else np.zeros(4)
    if problem.objective <= _FEASIBLE and not _keeps_rule(draw, problem, i1, i2, new1, new2):
        return False
    price = draw.worth[1]
    old1, old2 = draw.terms[i1].copy(), draw.terms[i2].copy()
    draw.terms[i1], draw.terms[i2] = new1, new2
    _update_worth(draw, problem)
    if not draw.worth[0] > worth + RISE * abs(worth):
        draw.terms[i1], draw.terms[i2] = old1, old2
        draw.worth[0], draw.worth[1] = worth, price
        return False
    _update_dual(draw)
    _put(draw, i1, s1, j2)
    if i2 < draw.users.shape[0]:
        _put(draw, i2, s2, j1)
    return True


@njit(cache=True)
def _run(draw, problem, trace):
    """Tries all exchanges in turn until none is worth it; returns how many were made."""
    n, places = draw.users.shape
    bench = draw.gains.shape[1] + 1 if problem.moves else 0
    trace[0] = draw.worth[0]
    made, at, quiet = 0, 0, 0
    while quiet < n * places:
        i1, s1 = at // places, at % places
        quiet += 1
        for partner in range((i1 + 1) * places, n * places + bench):
            if partner < n * places:
                i2, s2 = partner // places, partner % places
                j2 = draw.users[i2, s2]
            else:
                i2, s2, j2 = n, 0, partner - n * places - 1
            if _exchange(draw, problem, i1, s1, i2, s2, j2):
                made += 1
                quiet = 0
                if made < trace.shape[0]:
                    trace[made] = draw.worth[0]
        at = (at + 1) % (n * places)
    return made


@njit(cache=True)
def _match_draw(gains, assigned, power, problem, trace):
    """Matches one draw in place of `assigned` and `power`; returns the number of exchanges."""
    n, m = gains.shape
    places = problem.places
    draw = _Draw(
        gains,
        assigned,
        np.full((n, places), -1),
        np.zeros((n, places)),
        np.zeros(m, np.int64),
        np.zeros((n + 1, 4)),
        np.full((n, places, m + 1, 4), np.nan),
        np.zeros(2),
        np.zeros(n),
        np.zeros((3, n)),
        np.zeros(places, np.int64),
    )
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
    _update_dual(draw)
    made = _run(draw, problem, trace)
    power[:] = 0.0
    for i in range(n):
        for s in range(places):
            if draw.users[i, s] >= 0:
                power[i, draw.users[i, s]] = draw.power[i, s]
    return made


@njit(cache=True, parallel=True)
def match_all(gains, assignment, power, problem, room):
    """Matches all draws in place; returns the numbers of exchanges and `room` worths of each."""
    trace = np.full((gains.shape[0], room), np.nan)
    made = np.zeros(gains.shape[0], np.int64)
    for b in prange(gains.shape[0]):
        made[b] = _match_draw(gains[b], assignment[b], power[b], problem, trace[b])
    return made, trace
