"""The feasible set of the power problem (10)–(11) is a simplex, whatever R_min is.

For a fixed SIC order R_ij ≥ R_min is affine in the powers. With t = 2^R_min − 1, noise-normalised
gains γ_j = P_c g_j²/σ₀² and powers x = p/P_c, the K users of one subchannel need

    x_j − (t/γ_j) Σ_k C_jk x_k ≥ t/γ_j,     in short A x ≥ b,                          (QoS)

where C_jk is the weight of signal k at user j: S_jk = 1 for stronger k, ε_k for weaker k, times
γ_k ("interferer") or γ_j ("receiver"). A is an M-matrix where (QoS) can hold at all. Then A⁻¹ ≥ 0,
x_min = A⁻¹b is the least power of every user at once, and every feasible x is x_min plus a
nonnegative combination of the columns of A⁻¹. Scaled to unit sum these columns form B, and

    x = x_min + spare · B u,   u ≥ 0,  Σ u = 1 over all subchannels,   spare = 1 − Σ x_min:

vertex k hands all the spare power to slot k and keeps everybody else exactly at R_min. In the
shares u the rates are again those of a NOMA network, one without minimal rates:

    R_j = R_min + log₂(1 + α_j u_j / (1 + Σ_k Q_jk u_k)).                              (shares)

But for a scaling of rows and columns by γ, A is 1 − t S, in which neighbouring rows differ in two
entries. With the strongest user first and ε_1 = 0, as nobody hears what is left of its signal,

    (1 − t S)⁻¹ = 1 + t V,    V_jc = v_j + s_j (ε_c/(1 + t ε_c) + t Σ_{k>c} ε_k v_k)/(1 − t κ),

where s_1 = 1, s_{j+1} = s_j (1 + t)/(1 + t ε_{j+1}), κ = Σ_k ε_k s_k, and, for j > c only,
v_{c+1} = (1 − ε_c)/((1 + t ε_c)(1 + t ε_{c+1})), v_{j+1} = v_j (1 + t)/(1 + t ε_{j+1}); on the
diagonal V_cc = t Σ_k S_ck V_kc. (QoS) can hold where 1 > t κ. That is the only          (inverse)
subtraction, so the least powers are exact to rounding however far the gains lie apart. V_jc is
what user j hears of a unit of slack of user c, which makes it Q but for the scaling.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import expm1, log
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit
from numpy.typing import ArrayLike, NDArray

from nomalib.network import Network, checked_draws, loads, real_array

# An SNR below counts as 0: its square, and what tolerances are of it, leave the range of doubles.
_LEAST_SNR = 1e-140

# What the compiled functions need of a Network: (P_c/σ₀², t, ε as (N, M), receiver's gain?, K)
Constants = tuple[float, float, NDArray[np.float64], bool, int]


class Shares(NamedTuple):
    """The power problem in shares; users of a subchannel stand in SIC order, padded to K slots.

    Attributes:
        users: user of each slot, −1 where empty; (…, N, K).
        minimal: least powers x_min, as shares of the budget; NaN where none is enough; (…, N, K).
        spread: B, how a share of the spare power spreads over the subchannel; (…, N, K, K).
        strength: α, (…, N, K); 0 in empty slots, and for an SNR below 1e-140.
        coupling: Q, (…, N, K, K); 0 in empty slots.
        spare: 1 − Σ x_min, (…); negative or NaN where no power meets R_min.
    """

    users: NDArray[np.int64]
    minimal: NDArray[np.float64]
    spread: NDArray[np.float64]
    strength: NDArray[np.float64]
    coupling: NDArray[np.float64]
    spare: NDArray[np.float64]

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether R_min can be met within the budget, decided exactly; (…)."""
        return self.spare >= 0


class Slots(NamedTuple):
    """Fields of `Shares` for one draw, as the compiled functions hand them on."""

    users: NDArray[np.int64]
    minimal: NDArray[np.float64]
    spread: NDArray[np.float64]
    strength: NDArray[np.float64]
    coupling: NDArray[np.float64]


class Allocation(NamedTuple):
    """What every allocator returns, one value for each draw.

    Attributes:
        power: watt, (…, N, M); NaN for an infeasible draw.
        feasible: whether R_min can be met within the budget; (…).
        converged: whether the residual is within the method's tolerance; (…).
        n_iter: iterations of the method; (…).
        residual: scaled KKT residual of the allocation, NaN where infeasible; (…).
    """

    power: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    converged: NDArray[np.bool_]
    n_iter: NDArray[np.int64]
    residual: NDArray[np.float64]


def reduce(net: Network, gains: ArrayLike, assignment: ArrayLike) -> Shares:
    """The power problem of each draw, in shares of its spare power.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0, power_dbm=30.0, min_rate=1.0)
    >>> shares = reduce(net, [[2.0]], [[True]])    # 1 bps/Hz at a gain of 4 needs 1/4 W
    >>> float(shares.spare)
    0.75
    """
    gains, assignment, lead = flat_draws(net, gains, assignment)
    draw_constants = constants(net, assignment)
    n_draws, n, fullest = *gains.shape[:2], draw_constants[4]
    shares = Shares(
        np.empty((n_draws, n, fullest), np.int64),
        np.empty((n_draws, n, fullest)),
        np.empty((n_draws, n, fullest, fullest)),
        np.empty((n_draws, n, fullest)),
        np.empty((n_draws, n, fullest, fullest)),
        np.empty(n_draws),
    )
    over_draws(_reduce_draws, n_draws, gains, assignment, draw_constants, *shares)
    return Shares._make(part.reshape(lead + part.shape[1:]) for part in shares)


def power(net: Network, shares: Shares, u: ArrayLike) -> NDArray[np.float64]:
    """Powers [W] (…, N, M) of shares u (…, N, K) of the spare power; NaN where infeasible.

    Raises:
        ValueError: u has another shape, or a share is negative or infinite; NaN passes through.
    """
    u = real_array("u", u)
    if u.shape[-2:] != shares.users.shape[-2:]:
        raise ValueError(
            f"u has shape {u.shape}; its last two axes must be {shares.users.shape[-2:]}"
        )
    if (u < 0).any() or np.isinf(u).any():
        bad = u[(u < 0) | np.isinf(u)].flat[0]
        raise ValueError(f"u holds {bad}; shares must be finite and at least 0")
    # an infeasible draw's columns may hold anything
    spread = np.where(shares.feasible[..., None, None, None], shares.spread, np.nan)
    x = shares.minimal + shares.spare[..., None, None] * np.einsum("...ijk,...ik->...ij", spread, u)
    x = np.where(shares.users >= 0, net.budget * x, 0.0)
    out = np.zeros((*shares.users.shape[:-1], net.n_users))
    # an empty slot repeats user 0; adding its zero changes nothing
    for slot in range(x.shape[-1]):
        at = np.maximum(shares.users[..., slot, None], 0)
        np.put_along_axis(
            out, at, np.take_along_axis(out, at, axis=-1) + x[..., slot, None], axis=-1
        )
    out[~shares.feasible] = np.nan
    return out


def flat_draws(
    net: Network, gains: ArrayLike, assignment: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[int, ...]]:
    """Checked draws with one batch axis: gains (B, N, M), assignment (B or 1, N, M), and (…)."""
    gains, assigned = checked_draws(net, gains, assignment)
    nm = gains.shape[-2:]
    flat = gains.reshape((-1, *nm)), assigned.reshape((-1, *nm))
    for array in flat:  # views; kernels are compiled for one kind of array, and write to neither
        array.setflags(write=False)
    return *flat, gains.shape[:-2]


def constants(net: Network, assignment: NDArray[np.bool_]) -> Constants:
    """What the compiled functions need of a network; K is the fullest subchannel's load."""
    # expm1, for 2^R_min − 1 has no digit left where R_min is tiny
    threshold = expm1(net.min_rate * log(2.0))
    receiver = net.interference_gain == "receiver"
    fullest = max(1, loads(assignment)[0])
    return net.budget / net.noise, threshold, net.residual, receiver, fullest


def over_draws(
    kernel: Callable[..., None], n_draws: int, *arguments: object, worth_a_thread: int = 64
) -> None:
    """Calls kernel(first, last, *arguments), compiled with nogil, for all draws, in threads.

    Fewer draws than `worth_a_thread` are left to one. Threads and not Numba's `prange`: it doubles
    the time to compile, takes longer to start than one draw to solve, and may not be called from
    two threads at once.
    """
    n_threads = min(get_num_threads(), n_draws // worth_a_thread)
    if n_threads <= 1:
        kernel(0, n_draws, *arguments)
        return
    # several slices for each thread, for some draws take longer
    n_slices = min(n_draws // worth_a_thread, 8 * n_threads)
    edges = np.linspace(0, n_draws, 1 + n_slices).astype(int).tolist()
    with ThreadPoolExecutor(n_threads) as pool:
        slices = pool.map(lambda first, last: kernel(first, last, *arguments), edges, edges[1:])
        list(slices)  # raises what a slice raised


def allocate_draws(
    kernel: Callable[..., None],
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    tol: float,
    *options: object,
) -> Allocation:
    """An `Allocation` by a compiled kernel that writes power, spare, n_iter and residual."""
    gains, assignment, lead = flat_draws(net, gains, assignment)
    n_draws = len(gains)
    power = np.empty(gains.shape)
    spare, residual = np.empty(n_draws), np.empty(n_draws)
    n_iter = np.empty(n_draws, np.int64)
    over_draws(
        kernel,
        n_draws,
        gains,
        assignment,
        constants(net, assignment),
        net.budget,
        power,
        spare,
        n_iter,
        residual,
        *options,
    )
    return Allocation(
        power.reshape((*lead, *power.shape[1:])),
        (spare >= 0).reshape(lead),
        (residual <= tol).reshape(lead),
        n_iter.reshape(lead),
        residual.reshape(lead),
    )


# Kernels take whole arrays and the subchannel's index i: a slice passed to a compiled function
# counts its references, atomically, which took a quarter of the time.


@njit(cache=True, error_model="numpy")
def sort_users(i, gains, assigned, users):
    """Writes the assigned users by descending gain, ties by index; returns how many there are."""
    count, fullest = 0, users.shape[1]
    for j in range(gains.shape[1]):
        # without a branch on what is assigned, which no processor can predict
        if count < fullest:
            users[i, count] = j
        count += assigned[i, j]
    for slot in range(1, count):
        j, at = users[i, slot], slot
        while at > 0 and gains[i, users[i, at - 1]] < gains[i, j]:
            users[i, at] = users[i, at - 1]
            at -= 1
        users[i, at] = j
    for slot in range(count, users.shape[1]):
        users[i, slot] = -1
    return count


@njit(cache=True, error_model="numpy", inline="always")
def heard_from_slack(i, k, t, residual, users, heard, chain):
    """V of (inverse) of the k users of subchannel i, into `heard`; returns 1 − t κ.

    `chain` (3, K) is a workspace for ε_j, 1/(1 + t ε_j) and s_j.
    """
    slope, kept = 1.0, 0.0
    for row in range(k):
        # nobody hears what is left of the strongest user's signal
        epsilon = residual[i, users[i, row]] if row else 0.0
        step = 1.0 / (1.0 + t * epsilon)
        slope *= (1.0 + t) * step if row else 1.0
        kept += epsilon * slope
        chain[0, row], chain[1, row], chain[2, row] = epsilon, step, slope
    room = 1.0 - t * kept
    inverse = 1.0 / room
    for col in range(k):
        fixed = (1.0 - chain[0, col]) * chain[1, col]
        first = chain[0, col] * chain[1, col]
        for row in range(col + 1, k):
            fixed *= chain[1, row] * (1.0 + t if row > col + 1 else 1.0)
            heard[i, row, col] = fixed
            first += t * chain[0, row] * fixed
        first *= inverse
        own = 0.0
        for row in range(k):
            if row < col:
                heard[i, row, col] = chain[2, row] * first
                own += heard[i, row, col]
            elif row > col:
                heard[i, row, col] += chain[2, row] * first
                own += chain[0, row] * heard[i, row, col]
        heard[i, col, col] = t * own
    return room


@njit(cache=True, error_model="numpy", inline="always")
def reduce_subchannel(
    i,
    k,
    gains,
    snr,
    t,
    residual,
    receiver,
    users,
    minimal,
    spread,
    strength,
    coupling,
    chain,
):
    """Subchannel i of k users for a spare power of 1; returns its least power, NaN without one."""
    fullest = users.shape[1]
    for row in range(fullest):
        minimal[i, row] = 0.0
        # γ until it is needed no more
        strength[i, row] = snr * gains[i, users[i, row]] ** 2 if row < k else 0.0
        for col in range(fullest):
            coupling[i, row, col] = spread[i, row, col] = 0.0
    if k == 0:
        return 0.0
    weakest = strength[i, k - 1]
    if (t > 0.0 and not t < weakest * 1e300) or not (
        heard_from_slack(i, k, t, residual, users, coupling, chain) > 0.0
    ):
        for row in range(k):
            minimal[i, row] = np.nan
        return np.nan
    if t == 0.0:  # also where gains are 0
        for row in range(k):
            spread[i, row, row] = 1.0
            for col in range(k):
                coupling[i, row, col] *= strength[i, row if receiver else col]
        return 0.0
    for row in range(k):
        # of a unit of received power, relative to the weakest user's; "receiver" counts in x itself
        chain[0, row] = 1.0 if receiver else weakest / strength[i, row]
    for col in range(k):
        total = chain[0, col]
        for row in range(k):
            total += t * coupling[i, row, col] * chain[0, row]
        chain[1, col] = 1.0 / total
    need, rest = 0.0, 1.0 / (1.0 + t)
    for row in range(k):
        gamma, floor = strength[i, row], 1.0
        if receiver:
            for col in range(k):
                floor += t * (gamma / strength[i, col]) * coupling[i, row, col]
        else:
            for col in range(k):
                floor += t * coupling[i, row, col]
        # at R_min the SINR is t
        minimal[i, row] = t * floor / gamma
        need += minimal[i, row]
        chain[2, row] = (gamma if receiver else weakest) / floor
    for row in range(k):
        strength[i, row] = chain[2, row] * rest * chain[1, row]
        for col in range(k):
            value = coupling[i, row, col]
            coupling[i, row, col] = chain[2, row] * value * chain[1, col]
            value = (1.0 if row == col else 0.0) + t * value
            spread[i, row, col] = value * chain[0, row] * chain[1, col]
    return need


@njit(cache=True, error_model="numpy")
def reduce_draw(gains, assigned, constants, slots):
    """One draw into the given slots; returns its spare power, NaN or negative if infeasible."""
    snr, t, residual, receiver, fullest = constants
    users, minimal, spread, strength, coupling = slots
    chain, counts = np.empty((3, fullest)), np.empty(gains.shape[0], np.int64)
    spare = 1.0
    for i in range(gains.shape[0]):
        counts[i] = sort_users(i, gains, assigned, users)
    for i in range(gains.shape[0]):
        spare -= reduce_subchannel(
            i,
            counts[i],
            gains,
            snr,
            t,
            residual,
            receiver,
            users,
            minimal,
            spread,
            strength,
            coupling,
            chain,
        )
    if spare >= 0.0:
        for i in range(gains.shape[0]):
            for row in range(fullest):
                strength[i, row] *= spare if spare * strength[i, row] > _LEAST_SNR else 0.0
                for col in range(fullest):
                    coupling[i, row, col] *= spare
    return spare


@njit(cache=True, error_model="numpy")
def empty_slots(n, fullest):
    """What `reduce_draw` fills for n subchannels of at most `fullest` users."""
    return Slots(
        np.empty((n, fullest), np.int64),
        np.empty((n, fullest)),
        np.empty((n, fullest, fullest)),
        np.empty((n, fullest)),
        np.empty((n, fullest, fullest)),
    )


@njit(cache=True, error_model="numpy")
def filled(users):
    """How many users each subchannel serves."""
    counts = np.zeros(users.shape[0], np.int64)
    for i in range(users.shape[0]):
        for k in range(users.shape[1]):
            counts[i] += users[i, k] >= 0
    return counts


@njit(cache=True, error_model="numpy")
def excess_rate(strength, coupling, u):
    """Sum rate of one subchannel above its minimal rates, in nats: Σ_j log(1 + α_j u_j/D_j)."""
    excess = 0.0
    for j in range(u.shape[0]):
        denominator = 1.0
        for k in range(u.shape[0]):
            denominator += coupling[j, k] * u[k]
        sinr = strength[j] * u[j] / denominator
        excess += sinr + excess * sinr
    return np.log1p(excess)


@njit(cache=True, error_model="numpy")
def excess_gradient(strength, coupling, u, out):
    """Gradient of `excess_rate`: Σ_j (Q_jk + α_j δ_jk)/(D_j + α_j u_j) − Q_jk/D_j."""
    out[:] = 0.0
    for j in range(u.shape[0]):
        below = 1.0
        for k in range(u.shape[0]):
            below += coupling[j, k] * u[k]
        above = below + strength[j] * u[j]
        out[j] += strength[j] / above
        lost = strength[j] * u[j] / (below * above)
        for k in range(u.shape[0]):
            out[k] -= coupling[j, k] * lost


@njit(cache=True, error_model="numpy")
def kkt_residual(users, u, gradient, price, dual, scale):
    """Scaled maximum of the KKT residuals of: maximise Σ excess rates over the unit simplex.

    Stationarity gradient − price + dual = 0, primal Σ u = 1 and u ≥ 0, dual ≥ 0, complementarity
    uᵀdual = 0; relative to `scale`, the sum rate [nats], as what the budget can buy, and
    stationarity relative to the slot's own dual where that is larger. 0 where power buys no rate:
    then all powers are alike.
    """
    if scale == 0.0:
        return 0.0
    worst, total, gap, inverse = 0.0, 0.0, 0.0, 1.0 / scale
    for i in range(users.shape[0]):
        for j in range(users.shape[1]):
            if users[i, j] < 0:
                break
            stationarity = abs(gradient[i, j] - price + dual[i, j])
            worst = max(worst, stationarity / max(scale, dual[i, j]))
            worst = max(worst, -dual[i, j] * inverse, -u[i, j])
            gap += u[i, j] * dual[i, j]
            total += u[i, j]
    return max(worst, gap * inverse, abs(total - 1.0))


@njit(cache=True, error_model="numpy")
def certify(slots, u, floor, terms):
    """`kkt_residual` of shares u of one draw at their own price Σ u·gradient.

    `floor` is R_min [nats], and `terms` (2, N, K) a workspace.
    """
    users, strength, coupling = slots.users, slots.strength, slots.coupling
    gradient, dual = terms
    n, fullest = u.shape
    # until the price is known, `dual` holds the sum of the magnitudes of a gradient's terms
    rate, price, excess = 0.0, 0.0, 0.0
    for i in range(n):
        for k in range(fullest):
            gradient[i, k] = dual[i, k] = 0.0
            rate += floor * (users[i, k] >= 0)
        for j in range(fullest):
            below = 1.0
            for k in range(fullest):
                below += coupling[i, j, k] * u[i, k]
            signal = strength[i, j] * u[i, j]
            above = 1.0 / (below + signal)
            own = strength[i, j] * above
            gradient[i, j] += own
            dual[i, j] += own
            if signal == 0.0:
                continue
            sinr = signal / below
            excess += sinr + excess * sinr
            lost = sinr * above
            for k in range(fullest):
                gradient[i, k] -= coupling[i, j, k] * lost
                dual[i, k] += coupling[i, j, k] * lost
        if excess > 1e100:
            rate += np.log1p(excess)
            excess = 0.0
        for k in range(fullest):
            price += u[i, k] * gradient[i, k]
    rate += np.log1p(excess)
    for i in range(n):
        for k in range(fullest):
            # at SNRs above 1e16 a gradient is a small difference of large terms: what may be
            # their rounding is no residual
            least = max(price, gradient[i, k] - 1e-15 * dual[i, k])
            gradient[i, k] = min(gradient[i, k], least)
            dual[i, k] = max(0.0, price - gradient[i, k])
    return kkt_residual(users, u, gradient, price, dual, rate)


@njit(cache=True, error_model="numpy")
def write_power(budget, spare, slots, u, out):
    """p = P_c (x_min + spare · B u) of one draw, into `out` (N, M)."""
    users, minimal, spread = slots.users, slots.minimal, slots.spread
    out[:] = 0.0
    for i in range(users.shape[0]):
        for row in range(users.shape[1]):
            if users[i, row] < 0:
                break
            x = minimal[i, row]
            for col in range(users.shape[1]):
                x += spare * spread[i, row, col] * u[i, col]
            out[i, users[i, row]] = budget * x


@njit(cache=True, error_model="numpy", nogil=True)
def _reduce_draws(
    first, last, gains, assignment, constants, users, minimal, spread, strength, coupling, spare
):
    for b in range(first, last):
        slots = Slots(users[b], minimal[b], spread[b], strength[b], coupling[b])
        assigned = assignment[b % assignment.shape[0]]
        spare[b] = reduce_draw(gains[b], assigned, constants, slots)
