"""Two users on one subchannel: up to which residual ε does NOMA beat orthogonal access?

With all power on the subchannel the users' SNRs are s > w. In a physical downlink a split that
gives the share x to the strong user has the rates

    R_s = log₂(1 + s x/(1 + ε s (1 − x))),    R_w = log₂(1 + w (1 − x)/(1 + w x)).            (pair)

OMA shares time instead. The power is *kept* in every part, R = τ C with C = log₂(1 + snr); or it is
*averaged* over the parts, as where the band is shared: a part may use what another saves. Then at
the optimum the parts have SNRs X with d(X)/snr = y alike, d(X) = (1 + X) ln(1 + X) − X; in prices
of time power costs 1/y, and a rate is worth 1/c(X), c(X) = ln(1 + X) − X/(1 + X).

Of two break-evens, ε* is where the best *fixed* split is worth as much as OMA; from ε₀ on
*adaptive* NOMA, which may share time between splits and with OMA, gains nothing on OMA.

Theorem. With the power kept, whatever the fairness, ε₀ = C_w/(w C_s) − 1/s. For let f(x) be
R_s/C_s + R_w/C_w − 1, by which a split exceeds the line of time-sharing; f(0) = f(1) = 0, and f′
has the sign of a quadratic. f′(0) > 0 says ε < ε₀: so NOMA gains there. Where f′(0) ≤ 0, f can
only be positive if it falls, rises and falls; then f′(1) ≤ 0, which is

    ε ≤ (w (1 + s) C_s/(s (1 + w) C_w) − 1)/s,

less than ε₀, for √(1 + v) ln(1 + v)/v falls with v; at v = e^{2z} − 1 it is z/sinh z.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise
from scipy.special import expit, lambertw

from nomalib import polytope
from nomalib._checks import Array, check_choice, checked_alpha, real_array
from nomalib.fairness import mean_rate
from nomalib.network import Network
from nomalib.optimum import certified_split

__all__ = ["Sharing", "TimeShared", "adaptive", "fixed", "fixed_level", "pair_rates", "time_shared"]

Sharing = Literal["kept", "averaged"]

_GRID = expit(np.linspace(-16.0, 12.0, 113))  # of x, in its logit


class TimeShared(NamedTuple):
    """OMA of two users at its fairest; arrays (…), or (…, 2) with the strong user first.

    Attributes:
        level: α-mean of the rates [bps/Hz].
        rates: of the users [bps/Hz].
        share: of the time.
        power: while its part lasts, in budgets.
    """

    level: Array
    rates: Array
    share: Array
    power: Array


def pair_rates(strong: ArrayLike, weak: ArrayLike, share: ArrayLike, epsilon: ArrayLike) -> Array:
    """Rates (pair) of the strong and the weak user [bps/Hz], (…, 2).

    Args:
        strong, weak: SNRs at full power (not in dB), (…).
        share: x in [0, 1], the strong user's share of the power, (…).
        epsilon: ε in [0, 1], (…).

    >>> pair_rates(3.0, 1.0, 1.0, 0.01)
    array([2., 0.])
    """
    strong, weak = _checked_pair(strong, weak)
    share, epsilon = _checked_part("share", share), _checked_part("epsilon", epsilon)
    return _rates(*_together(strong=strong, weak=weak, share=share, epsilon=epsilon))


def time_shared(
    strong: ArrayLike, weak: ArrayLike, alpha: float = 1.0, sharing: Sharing = "averaged"
) -> TimeShared:
    """The fairest OMA of two users on one subchannel, exact.

    Args:
        strong, weak: SNRs at full power (not in dB), (…).
        alpha: fairness above 0, up to 4, or inf for max–min.
        sharing: whether the power is "kept" in each part, or "averaged" over them.

    >>> round(float(time_shared(3.0, 1.0, np.inf, "kept").level), 3)     # 1/(1/2 + 1/1)
    0.667
    """
    strong, weak = _checked_pair(strong, weak)
    alpha = checked_alpha(alpha, 0.1)
    check_choice("sharing", sharing, get_args(Sharing))
    snr = np.stack([strong, weak], axis=-1)
    if sharing == "kept":
        full = np.log2(1.0 + snr)
        # R_s/R_w = (w_w/w_s)^{1/α} with weights 1/C
        share = full ** (1.0 / alpha - 1.0)
        share /= share.sum(axis=-1, keepdims=True)
        power = np.ones(snr.shape)
    else:
        ends = _demand(snr) / snr
        root = elementwise.find_root(
            _unfair, (ends[..., 1], ends[..., 0]), args=(strong, weak, np.array(1.0 / alpha))
        )
        share, part = _parts(root.x, strong, weak)
        power, full = part / snr, np.log2(1.0 + part)
    return TimeShared(mean_rate(share * full, alpha), share * full, share, power)


def fixed_level(
    strong: ArrayLike, weak: ArrayLike, epsilon: ArrayLike, alpha: float = 1.0
) -> Array:
    """The α-mean [bps/Hz] of the rates (pair) at the best fixed split, (…).

    >>> ratio = fixed_level(287.3, 31.9, 0.0) / time_shared(287.3, 31.9).level
    >>> round(float(ratio), 2)
    1.19
    """
    strong, weak = _checked_pair(strong, weak)
    epsilon, alpha = _checked_part("epsilon", epsilon), checked_alpha(alpha, 0.1)
    strong, weak, epsilon = _together(strong=strong, weak=weak, epsilon=epsilon)

    def missed(share: Array, strong: Array, weak: Array, epsilon: Array) -> Array:
        return -mean_rate(_rates(strong, weak, share, epsilon), alpha)

    axes = (np.newaxis,) * strong.ndim
    on_grid = missed(_GRID[:, *axes], strong, weak, epsilon)
    best = np.clip(on_grid.argmin(axis=0), 1, len(_GRID) - 2)
    bracket = tuple(_GRID[best + step] for step in (-1, 0, 1))
    found = elementwise.find_minimum(missed, bracket, args=(strong, weak, epsilon))
    return np.asarray(np.maximum(-found.f_x, -on_grid.min(axis=0)))


def fixed(
    strong: ArrayLike, weak: ArrayLike, alpha: float = 1.0, sharing: Sharing = "averaged"
) -> Array:
    """ε*, at which the best fixed split is worth as much as OMA, (…); arguments of `time_shared`.

    >>> round(float(fixed(287.3, 31.9)), 4)
    0.0069
    """
    target = time_shared(strong, weak, alpha, sharing).level
    strong, weak = _checked_pair(strong, weak)

    def ahead(log_epsilon: Array, strong: Array, weak: Array, target: Array) -> Array:
        return fixed_level(strong, weak, np.exp(log_epsilon), alpha) - target

    lowest = np.full(target.shape, -30.0)
    return np.exp(
        elementwise.find_root(ahead, (lowest, 0.0 * lowest), args=(strong, weak, target)).x
    )


def adaptive(
    strong: ArrayLike, weak: ArrayLike, alpha: float = 1.0, sharing: Sharing = "averaged"
) -> Array:
    """ε₀, from which on NOMA that may choose OMA gains nothing, (…); arguments of `time_shared`.

    With the power kept by the theorem, for any `alpha`. With it averaged by bisection: at OMA's
    prices no split may be worth more than the time it takes (`optimum.certified_split`). f′(0) ≤ 0
    at these prices is necessary, and nearly enough: the ε that it gives is at most 5 % too low.

    >>> [round(float(adaptive(287.3, 31.9, sharing=rule)), 4) for rule in ("kept", "averaged")]
    [0.0159, 0.0128]
    """
    oma = time_shared(strong, weak, alpha, sharing)
    strong, weak = _checked_pair(strong, weak)
    if sharing == "kept" or not strong.size:
        return np.log1p(weak) / (weak * np.log1p(strong)) - 1.0 / strong
    snr = np.stack([strong, weak], axis=-1)
    weights = 1.0 / _surplus(oma.power * snr)
    scale = weights.sum(axis=-1)  # φ spends at most Σ w/λ budgets, see `nomalib._parts`
    budget = scale * _demand(oma.power[..., 0] * strong) / strong
    gains = np.sqrt(snr * budget[..., None]).reshape(-1, 2)
    low = weights[..., 0] * strong / (weights[..., 1] * weak) - 1.0
    low = (low / (strong * oma.power[..., 1])).ravel()
    high, n = np.ones(low.size), low.size
    for _ in range(40):
        epsilon = np.sqrt(low * high)
        residual = np.stack([epsilon, epsilon], axis=1)
        net = Network(n, 2, 2, n, 30.0, 1.0, residual, 0.0, interference_gain="receiver")
        shares = polytope.reduce(net, gains, np.ones(gains.shape, dtype=bool))
        weight, unknown = (weights / scale[..., None]).reshape(-1, 2), np.zeros(n, dtype=bool)
        shares = shares._replace(weight=weight, strongest=unknown, single=unknown)
        pays = certified_split(shares, 1.0, 1e-9).value * scale.ravel() > 1.0 + 1e-8
        low, high = np.where(pays, epsilon, low), np.where(pays, high, epsilon)
    return low.reshape(strong.shape)


def _rates(strong: Array, weak: Array, share: Array, epsilon: Array) -> Array:
    left = 1.0 - share
    clear = strong * share / (1.0 + epsilon * strong * left)
    heard = weak * left / (1.0 + weak * share)
    return np.log2(1.0 + np.stack([clear, heard], axis=-1))


def _demand(snr: Array) -> Array:
    """d, the power over its price, of a part with this SNR."""
    return (1.0 + snr) * np.log1p(snr) - snr


def _surplus(snr: Array) -> Array:
    """c, what a weight of 1 makes of the time beyond the power's price."""
    return np.log1p(snr) - snr / (1.0 + snr)


def _parts(y: Array, strong: Array, weak: Array) -> tuple[Array, Array]:
    """Shares of the time and SNRs of the parts where power costs 1/y; (…, 2)."""
    snr = np.stack([strong, weak], axis=-1)
    # d(X) = v (ln v − 1) + 1 with v = 1 + X, inverted by Lambert's W
    part = np.expm1(1.0 + lambertw((y[..., None] * snr - 1.0) / np.e).real)
    power = part / snr
    first = (1.0 - power[..., 1]) / (power[..., 0] - power[..., 1])
    return np.stack([first, 1.0 - first], axis=-1), part


def _unfair(y: Array, strong: Array, weak: Array, inverse_alpha: Array) -> Array:
    """R_s/(w_w/w_s)^{1/α} less R_w: what the strong user has too much."""
    share, part = _parts(y, strong, weak)
    rate, surplus = share * np.log1p(part), _surplus(part)
    fair = (surplus[..., 0] / surplus[..., 1]) ** inverse_alpha
    return rate[..., 0] - fair * rate[..., 1]


def _checked_part(name: str, value: ArrayLike) -> Array:
    value = real_array(name, value)
    if not ((value >= 0.0) & (value <= 1.0)).all():
        raise ValueError(f"{name} is {value}; it must lie in [0, 1]")
    return value


def _together(**arrays: Array) -> tuple[Array, ...]:
    """Broadcast to one shape."""
    try:
        return np.broadcast_arrays(*arrays.values())
    except ValueError as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{shapes} must have shapes that broadcast together") from error


def _checked_pair(strong: ArrayLike, weak: ArrayLike) -> tuple[NDArray, NDArray]:
    strong, weak = _together(strong=real_array("strong", strong), weak=real_array("weak", weak))
    good = (weak >= 1e-6) & (strong > weak) & (strong <= 1e12)
    if not good.all():
        raise ValueError(
            f"strong and weak hold {strong[~good][0]:g} and {weak[~good][0]:g}; SNRs, not in dB, "
            "must be 1e-6 ≤ weak < strong ≤ 1e12"
        )
    return strong, weak
