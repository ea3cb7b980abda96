"""Rates of NOMA with imperfect successive interference cancellation (SIC), equations (1)–(7).

On each subchannel the assigned users are ordered by descending gain. User j decodes and cancels
the signals of the weaker users l, of which a share ε_il stays, and treats the signals of the
stronger users k as noise.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import Array, Weights, check_inside, checked_number, real_array
from nomalib._draws import checked_draws, pair_weights
from nomalib.network import Network

__all__ = [
    "QOS_TOLERANCE",
    "Score",
    "interference",
    "qos_violation",
    "rates",
    "score",
    "sic_order",
    "sinr",
    "sum_rate",
]

# A rate this little below R_min, relatively, is rounding and not a violation.
QOS_TOLERANCE = 1e-5
# Largest power, in budgets; one this little below 0, of a solver that rounds, counts as 0.
_MAX_POWER, _ROUNDING = 1e15, 1e-12


class Score(NamedTuple):
    """How an allocator did over many draws; the first two are means over its feasible draws.

    Attributes:
        sum_rate: weighted sum rate [bps/Hz].
        violation: share of the assigned pairs below R_min.
        infeasible: share of the draws without an allocation.
    """

    sum_rate: float
    violation: float
    infeasible: float


def sic_order(gains: ArrayLike) -> NDArray[np.int64]:
    """Users of each subchannel by descending gain (2), ties by index; (…, N, M) → (…, N, M).

    >>> sic_order([[0.5, 2.0, 1.0]])
    array([[1, 2, 0]])
    """
    gains = real_array("gains", gains)
    if gains.ndim == 0 or not (gains >= 0.0).all():
        raise ValueError(f"gains is {gains}; it must be an array of magnitudes, at least 0")
    return np.argsort(-gains, axis=-1, kind="stable")


def interference(net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike) -> Array:
    """Interference I_ij [W] at every user, equation (3) or its physical counterpart; (…, N, M).

    With `interference_gain="interferer"` a signal of user l weighs p_il |g_il|², as printed; with
    "receiver" it weighs p_il |g_ij|² at user j, for every signal reaches j through j's channel.
    Arguments, errors and NaN are those of `rates`.

    >>> net = Network(n_subchannels=1, n_users=2, sic_residual=0.5)
    >>> interference(net, [[2.0, 1.0]], [[True, True]], [[1.0, 3.0]])   # 0.5 · 3 · 1² and 1 · 2²
    array([[1.5, 4. ]])
    """
    gains, _, spent = checked(net, gains, assignment, power)
    return heard_interference(net, gains, spent)


def heard_interference(net: Network, gains: Array, spent: Array) -> Array:
    squared = gains**2
    signal = spent * squared if net.interference_gain == "interferer" else spent
    order = sic_order(gains)
    sorted_signal = np.take_along_axis(signal, order, axis=-1)
    remains = np.take_along_axis(np.broadcast_to(net.epsilon, gains.shape), order, axis=-1)
    inside = np.zeros_like(gains)
    inside[..., 1:] = np.cumsum(sorted_signal, axis=-1)[..., :-1]
    weaker = np.flip(np.cumsum(np.flip(remains * sorted_signal, -1), axis=-1), -1)
    inside[..., :-1] += weaker[..., 1:]
    total = np.empty_like(inside)
    np.put_along_axis(total, order, inside, axis=-1)
    return total if net.interference_gain == "interferer" else total * squared


def sinr(net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike) -> Array:
    """SINR of equation (1), shape (…, N, M), 0 where unassigned.

    Arguments, errors and NaN are those of `rates`.

    >>> sinr(Network(n_subchannels=1, n_users=1, noise=2.0), [[2.0]], [[True]], [[3.0]])
    array([[6.]])
    """
    gains, _, spent = checked(net, gains, assignment, power)
    return _sinr(net, gains, spent)


def _sinr(net: Network, gains: Array, spent: Array) -> Array:
    return spent * gains**2 / (heard_interference(net, gains, spent) + net.noise)


def rates(net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike) -> Array:
    """Rates R_ij [bps/Hz] of equation (4), shape (…, N, M), 0 where unassigned.

    Args:
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).
        power: watt, (N, M) or (…, N, M), within the budget or not; a draw of NaN (infeasible) has
            NaN rates.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0)
    >>> rates(net, [[1.0]], [[True]], [[3.0]])
    array([[2.]])
    """
    gains, _, spent = checked(net, gains, assignment, power)
    return pair_rates(net, gains, spent)


def pair_rates(net: Network, gains: Array, spent: Array) -> Array:
    """`rates` of checked gains and powers, (…, N, M), the latter 0 where unassigned."""
    return np.log1p(_sinr(net, gains, spent)) / np.log(2.0)


def sum_rate(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike, weights: Weights = None
) -> Array:
    """R_total [bps/Hz] of equation (7), or the weighted sum Σ w_j R_ij; shape (…).

    Args:
        weights: of the users' rates, (M,) or (…, M); None is 1 for all. Others as of `rates`.

    >>> net = Network(n_subchannels=2, n_users=2, noise=1.0)
    >>> float(sum_rate(net, [[1.0, 0.1], [0.1, 1.0]], np.eye(2, dtype=bool), 3.0 * np.eye(2)))
    4.0
    """
    gains, _, spent = checked(net, gains, assignment, power)
    weight = pair_weights(net, weights, gains.shape[:-2])
    return (pair_rates(net, gains, spent) * weight).sum(axis=(-2, -1))


def qos_violation(
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    power: ArrayLike,
    tolerance: float = QOS_TOLERANCE,
) -> Array:
    """Share of the assigned pairs whose rate is below R_min by more than `tolerance`, relatively.

    Shape (…); NaN for a draw without an allocation (NaN power). Arguments as of `rates`.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, min_rate=1.0)
    >>> float(qos_violation(net, [[1.0, 0.1]], [[True, True]], [[3.0, 1.0]]))
    0.5
    """
    tolerance = checked_number("tolerance", tolerance, 0.0, 1.0)
    gains, assigned, spent = checked(net, gains, assignment, power)
    return _violation(net, assigned, pair_rates(net, gains, spent), tolerance)


def _violation(net: Network, assigned: NDArray[np.bool_], found: Array, tolerance: float) -> Array:
    short = assigned & (found < net.min_rates * (1.0 - tolerance))
    share = short.sum(axis=(-2, -1)) / assigned.sum(axis=(-2, -1))
    return np.where(np.isnan(found).any(axis=(-2, -1)), np.nan, share)


def score(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike, weights: Weights = None
) -> Score:
    """Mean rate, violation and infeasible share of an allocation of many draws, in one.

    Arguments and errors are those of `sum_rate`; a share of the optimum is the ratio of two scores.

    >>> net = Network(n_subchannels=1, n_users=1, noise=1.0, min_rate=1.0)
    >>> score(net, np.ones((4, 1, 1)), [[True]], [[[3.0]], [[0.0]], [[np.nan]], [[np.nan]]])
    Score(sum_rate=1.0, violation=0.5, infeasible=0.5)
    """
    total = sum_rate(net, gains, assignment, power, weights)
    there = ~np.isnan(total)
    if not there.any():
        return Score(np.nan, np.nan, 1.0)
    violation = qos_violation(net, gains, assignment, power)
    return Score(
        float(total[there].mean()), float(violation[there].mean()), float(1 - there.mean())
    )


def checked_power(net: Network, gains: Array, power: ArrayLike, name: str = "power") -> Array:
    """Powers as an array of the shape of the gains, checked; NaN is an infeasible draw."""
    power = real_array(name, power)
    if power.shape not in (gains.shape, gains.shape[-2:]):
        raise ValueError(
            f"{name} has shape {power.shape}; it must be that of gains, {gains.shape}, or (N, M)"
        )
    least, most = -_ROUNDING * net.budget, _MAX_POWER * net.budget
    inside = ((power >= least) & (power <= most)) | np.isnan(power)
    rule = f"it must lie between 0 and {_MAX_POWER:g} budgets, or be NaN"
    check_inside(name, power, inside, rule)
    return np.maximum(np.broadcast_to(power, gains.shape), 0.0)


def checked(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> tuple[Array, NDArray[np.bool_], Array]:
    """Gains, assignment and powers, (…, N, M) each; the power of an unassigned pair is 0."""
    gains, assigned = checked_draws(net, gains, assignment)
    assigned = np.broadcast_to(assigned, gains.shape)
    return gains, assigned, np.where(assigned, checked_power(net, gains, power), 0.0)
