"""Rates of NOMA with imperfect successive interference cancellation (SIC), equations (1)–(7).

On each subchannel the assigned users are ordered by descending gain. User j decodes and cancels
the signals of the weaker users l, of which a share ε_il stays, and treats the signals of the
stronger users k as noise.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib.network import Network, checked_draws, is_number, real_array

# A rate this little below R_min, relatively, is rounding and not a violation.
QOS_TOLERANCE = 1e-5
# Largest power, in budgets, whose products with gains within MAX_SNR cannot overflow.
_MAX_POWER = 1e50


def sic_order(gains: ArrayLike) -> NDArray[np.int64]:
    """Users of each subchannel by descending gain (2), ties by index; (…, N, M) → (…, N, M).

    >>> sic_order([[0.5, 2.0, 1.0]])
    array([[1, 2, 0]])
    """
    return np.argsort(-np.asarray(gains), axis=-1, kind="stable")


def interference(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> NDArray[np.float64]:
    """Interference I_ij [W] at every user, equation (3) or its physical counterpart; (…, N, M).

    With `interference_gain="interferer"` a signal of user l weighs p_il |g_il|², as printed; with
    "receiver" it weighs p_il |g_ij|² at user j, for every signal reaches j through j's channel.
    Arguments, errors and NaN are those of `rates`.

    >>> net = Network(n_subchannels=1, n_users=2, sic_residual=0.5)
    >>> interference(net, [[2.0, 1.0]], [[True, True]], [[1.0, 3.0]])   # 0.5 · 3 · 1² and 1 · 2²
    array([[1.5, 4. ]])
    """
    gains, _, spent = checked(net, gains, assignment, power)
    return _interference(net, gains, spent)


def _interference(
    net: Network, gains: NDArray[np.float64], spent: NDArray[np.float64]
) -> NDArray[np.float64]:
    squared = gains**2
    signal = spent * squared if net.interference_gain == "interferer" else spent
    order = sic_order(gains)
    sorted_signal = np.take_along_axis(signal, order, axis=-1)
    remains = np.take_along_axis(np.broadcast_to(net.residual, gains.shape), order, axis=-1)
    inside = np.zeros_like(gains)
    inside[..., 1:] = np.cumsum(sorted_signal, axis=-1)[..., :-1]
    weaker = np.flip(np.cumsum(np.flip(remains * sorted_signal, -1), axis=-1), -1)
    inside[..., :-1] += weaker[..., 1:]
    total = np.empty_like(inside)
    np.put_along_axis(total, order, inside, axis=-1)
    return total if net.interference_gain == "interferer" else total * squared


def sinr(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> NDArray[np.float64]:
    """SINR of equation (1), shape (…, N, M), 0 where unassigned.

    Arguments, errors and NaN are those of `rates`.

    >>> sinr(Network(n_subchannels=1, n_users=1, noise=2.0), [[2.0]], [[True]], [[3.0]])
    array([[6.]])
    """
    gains, _, spent = checked(net, gains, assignment, power)
    return spent * gains**2 / (_interference(net, gains, spent) + net.noise)


def rates(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> NDArray[np.float64]:
    """Rates R_ij [bps/Hz] of equation (4), shape (…, N, M), 0 where unassigned.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).
        power: watt, (N, M) or (…, N, M), within the budget or not; a draw of NaN (infeasible) has
            NaN rates.

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0)
    >>> rates(net, [[1.0]], [[True]], [[3.0]])
    array([[2.]])
    """
    return np.log1p(sinr(net, gains, assignment, power)) / np.log(2.0)


def sum_rate(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> NDArray[np.float64]:
    """R_total [bps/Hz] of equation (7), shape (…). Arguments and errors are those of `rates`.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0)
    >>> float(sum_rate(net, [[1.0, 0.1], [0.1, 1.0]], np.eye(2, dtype=bool), 3.0 * np.eye(2)))
    4.0
    """
    return rates(net, gains, assignment, power).sum(axis=(-2, -1))


def qos_violation(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    power: ArrayLike,
    tolerance: float = QOS_TOLERANCE,
) -> NDArray[np.float64]:
    """Share of the assigned pairs whose rate is below R_min by more than `tolerance`, relatively.

    Shape (…); NaN for a draw without an allocation (NaN power). Arguments as of `rates`.

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, min_rate=1.0)
    >>> float(qos_violation(net, [[1.0, 0.1]], [[True, True]], [[3.0, 1.0]]))
    0.5
    """
    if not is_number(tolerance) or not 0.0 <= tolerance <= 1.0:
        raise ValueError(f"tolerance is {tolerance!r}; it must be a number in [0, 1]")
    gains, assigned, spent = checked(net, gains, assignment, power)
    pair_rates = rates(net, gains, assigned, spent)
    short = assigned & (pair_rates < net.min_rate * (1.0 - tolerance))
    share = short.sum(axis=(-2, -1)) / assigned.sum(axis=(-2, -1))
    return np.where(np.isnan(pair_rates).any(axis=(-2, -1)), np.nan, share)


def checked_power(
    net: Network, gains: NDArray[np.float64], power: ArrayLike, name: str = "power"
) -> NDArray[np.float64]:
    """Powers as an array of the shape of the gains, checked; NaN is an infeasible draw."""
    power = real_array(name, power)
    if power.shape not in (gains.shape, gains.shape[-2:]):
        raise ValueError(
            f"{name} has shape {power.shape}; it must be that of gains, {gains.shape}, or (N, M)"
        )
    power = np.broadcast_to(power, gains.shape)
    outside = (power < 0) | (power > _MAX_POWER * net.budget)
    if outside.any():
        raise ValueError(
            f"{name} holds {power[outside].flat[0]}; it must lie between 0 and {_MAX_POWER:g} "
            "budgets, or be NaN"
        )
    return power


def checked(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Gains, assignment and powers, (…, N, M) each; the power of an unassigned pair is 0."""
    gains, assigned = checked_draws(net, gains, assignment)
    assigned = np.broadcast_to(assigned, gains.shape)
    return gains, assigned, np.where(assigned, checked_power(net, gains, power), 0.0)
