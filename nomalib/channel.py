"""Cells with distances: path loss, shadowing, noise from a bandwidth, and channels of others.

`nomalib` takes magnitudes |g| and a noise σ₀² [W]; only P_c |g|²/σ₀² matters. Two conventions are
common elsewhere, the power gain |g|² and the complex channel; `from_power` and `from_complex`
convert them by name.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import (
    Array,
    any_array,
    check_generator,
    checked_count,
    checked_number,
    real_array,
)
from nomalib.network import Network, check_network, dbm_to_watt, draw_gains

__all__ = [
    "Cell",
    "complete_draws",
    "draw_cell",
    "draw_distances",
    "from_complex",
    "from_power",
    "noise_watt",
    "path_loss_db",
    "snr_db",
]

_DB = np.log(10.0) / 10.0  # nats of power in a decibel


class Cell(NamedTuple):
    """Draws of a cell.

    Attributes:
        gains: magnitudes |g|, path loss and shadowing included, (n_draws, N, M).
        distances: of the users from the base station [m], (n_draws, M).
    """

    gains: Array
    distances: Array


def noise_watt(bandwidth_hz: float, density_dbm_hz: float = -174.0) -> float:
    """Noise power [W] of a band: its width [Hz] times the density [dBm/Hz], −174 thermal.

    >>> float(f"{noise_watt(5e6 / 10):.4g}")  # of a tenth of 5 MHz
    1.991e-15
    """
    width = checked_number("bandwidth_hz", bandwidth_hz, 1.0, 1e12)
    return dbm_to_watt(checked_number("density_dbm_hz", density_dbm_hz, -250.0, -50.0)) * width


def path_loss_db(distance_m: ArrayLike, exponent: float | None = None) -> Array:
    """Path loss [dB] at distances [m], an array of the same shape.

    128.1 + 37.6 log₁₀(d/km), of 3GPP TR 36.814 for cells of 2 GHz; or, given an exponent n, the
    plain 10 n log₁₀(d/m), which counts from 1 m.

    Raises:
        ValueError: for a distance that is not a finite number above 0.

    >>> path_loss_db([100.0, 1000.0])
    array([ 90.5, 128.1])
    >>> path_loss_db(10.0, exponent=3.0)
    array(30.)
    """
    distance = real_array("distance_m", distance_m)
    bad = ~((distance > 0.0) & np.isfinite(distance))
    if bad.any():
        raise ValueError(
            f"distance_m holds {distance[bad][0]}; distances must be finite and above 0 m"
        )
    if exponent is None:
        return np.asarray(128.1 + 37.6 * np.log10(distance / 1000.0))
    return np.asarray(10.0 * checked_number("exponent", exponent, 1.0, 8.0) * np.log10(distance))


def draw_distances(
    shape: int | tuple[int, ...],
    rng: np.random.Generator,
    inner_m: float = 35.0,
    outer_m: float = 1000.0,
) -> Array:
    """Distances [m] of users spread uniformly over a ring (a disc where `inner_m` is small).

    >>> d = draw_distances(1000, np.random.default_rng(0), 50.0, 299.0)
    >>> bool((d >= 50.0).all() and (d <= 299.0).all())
    True
    """
    check_generator(rng)
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    shape = tuple(checked_count("shape", size, 0) for size in sizes)
    inner = checked_number("inner_m", inner_m, 1e-3, 1e6)
    outer = checked_number("outer_m", outer_m, inner, 1e6)
    # the area within d grows like d²
    return np.sqrt(rng.uniform(inner**2, outer**2, shape))


def draw_cell(
    net: Network,
    n_draws: int,
    rng: np.random.Generator,
    inner_m: float = 35.0,
    outer_m: float = 1000.0,
    shadowing_db: float = 0.0,
    exponent: float | None = None,
) -> Cell:
    """Draws of a cell with distances: |g|² = fading × 10^((shadowing − path loss)/10).

    Fading is the scenario's (`Network.fading`), independent on every subchannel; the path loss
    (`path_loss_db`) and the log-normal shadowing are a user's on all of them.

    Args:
        net: the scenario; its noise is that of one subchannel, as of `noise_watt`.
        n_draws, rng: as of `network.draw_gains`.
        inner_m: inner radius of the ring in which the users stand [m].
        outer_m: its outer radius [m].
        shadowing_db: standard deviation of the shadowing [dB].
        exponent: of the path loss; None is the form of 3GPP.

    >>> net = Network(power_dbm=30.0, noise=noise_watt(5e5), fading="rayleigh")
    >>> cell = draw_cell(net, 100, np.random.default_rng(0), shadowing_db=10.0)
    >>> cell.gains.shape, cell.distances.shape
    ((100, 10, 10), (100, 10))
    """
    fading = draw_gains(net, n_draws, rng)
    deviation = checked_number("shadowing_db", shadowing_db, 0.0, 50.0)
    distances = draw_distances((len(fading), net.n_users), rng, inner_m, outer_m)
    shadowing = deviation * rng.standard_normal(distances.shape)
    gain_db = shadowing - path_loss_db(distances, exponent)
    return Cell(fading * np.exp(0.5 * _DB * gain_db)[:, None, :], distances)


def from_power(power_gains: ArrayLike) -> Array:
    """Magnitudes |g| from power gains |g|².

    Raises:
        ValueError: for a negative gain, which is mostly one in dB.

    >>> from_power([4.0, 0.25])
    array([2. , 0.5])
    """
    power_gains = real_array("power_gains", power_gains)
    if (power_gains < 0.0).any():
        raise ValueError(
            f"power_gains holds {power_gains[power_gains < 0.0][0]}; |g|² is at least 0 "
            "(a value x in dB is 10**(x / 10))"
        )
    return np.sqrt(power_gains)


def from_complex(channel: ArrayLike) -> Array:
    """Magnitudes |g| from complex channels.

    Raises:
        ValueError: for real numbers, which may be |g| or |g|² already.

    >>> from_complex([3 + 4j])
    array([5.])
    """
    channel = any_array("channel", channel)
    if channel.dtype.kind != "c":
        raise ValueError(
            f"channel has dtype {channel.dtype}; it must be complex (|g| needs no conversion, "
            "|g|² from_power)"
        )
    return np.abs(channel).astype(np.float64)


def complete_draws(gains: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """The draws (n, N, M) of a measurement without NaN, and the indices of those left out.

    >>> kept, left_out = complete_draws([[[1.0, 2.0]], [[np.nan, 1.0]]])
    >>> kept.shape, left_out
    ((1, 1, 2), array([1]))
    """
    gains = real_array("gains", gains)
    if gains.ndim != 3:
        raise ValueError(f"gains has shape {gains.shape}; it must have three axes, (n, N, M)")
    whole = ~np.isnan(gains).any(axis=(1, 2))
    return gains[whole], np.flatnonzero(~whole)


def snr_db(net: Network, gains: ArrayLike) -> Array:
    """SNR [dB] where the budget is spread evenly over the subchannels: P_c |g|²/(N σ₀²).

    >>> float(snr_db(Network(n_subchannels=1, power_dbm=30.0, noise=0.1), [[1.0]])[0, 0])
    10.0
    """
    check_network(net)
    gains = real_array("gains", gains)
    if (gains < 0.0).any():
        raise ValueError(f"gains holds {gains[gains < 0.0][0]}; magnitudes are at least 0")
    with np.errstate(divide="ignore"):  # a gain of 0 is −∞ dB
        return 10.0 * np.log10(net.budget / net.n_subchannels / net.noise * gains**2)
