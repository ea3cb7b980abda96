"""The NOMA cell: one base station, N subchannels, M users, and the draws of its fading."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import (
    Array,
    check_choice,
    check_generator,
    checked_count,
    checked_number,
    real_array,
)

__all__ = [
    "Fading",
    "InterferenceGain",
    "MAX_SNR",
    "Network",
    "dbm_to_watt",
    "draw_gains",
    "random_assignment",
]

InterferenceGain = Literal["interferer", "receiver"]
Fading = Literal["normal", "rayleigh"]

# Largest P_c |g|²/σ₀², 150 dB: a user beside the antenna.
MAX_SNR = 1e15


@dataclass(frozen=True, eq=False)
class Network:
    """All parameters of a scenario; the defaults are the paper's, where its text gives them.

    Two are equal where all of these are.

    Attributes:
        n_subchannels: N.
        n_users: M.
        max_users_per_subchannel: users that may share one subchannel (H of the paper's prose).
        max_subchannels_per_user: subchannels one user may hold (V of the paper's prose).
        power_dbm: budget P_c of the base station [dBm].
        noise: noise power σ₀² [W], against gains of unit mean square.
        sic_residual: ε in [0, 1], what imperfect SIC leaves of a cancelled signal: a number, or
            an (N, M) array, the paper's ε_il (of user l's signal on subchannel i).
        min_rate: R_min [bps/Hz] of every assigned (subchannel, user) pair, 0 or in [1e-6, 40]: a
            number, or an (M,) array, one for each user.
        interference_gain: whose gain weighs an interfering signal: "interferer", that of the user
            it is meant for, as printed in (3); or "receiver", that of the user who hears it, as in
            a physical downlink.
        fading: "normal", |g| of g ~ N(0, 1), or "rayleigh", |g|² ~ Exp(1).

    >>> net = Network(n_users=4, n_subchannels=2)
    >>> round(net.budget, 2)
    19.95
    """

    n_subchannels: int = 10
    n_users: int = 10
    max_users_per_subchannel: int = 3
    max_subchannels_per_user: int = 4
    power_dbm: float = 43.0
    noise: float = 0.1
    sic_residual: float | Array = 0.01
    min_rate: float | Array = 0.01
    interference_gain: InterferenceGain = "interferer"
    fading: Fading = "normal"

    def __post_init__(self) -> None:
        for name in (
            "n_subchannels",
            "n_users",
            "max_users_per_subchannel",
            "max_subchannels_per_user",
        ):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        for name, lowest, highest in (("power_dbm", -200.0, 200.0), ("noise", 1e-30, 1e30)):
            value = checked_number(name, getattr(self, name), lowest, highest)
            object.__setattr__(self, name, value)
        check_choice("interference_gain", self.interference_gain, get_args(InterferenceGain))
        check_choice("fading", self.fading, get_args(Fading))
        n, m = self.n_subchannels, self.n_users
        self._keep("sic_residual", (n, m), "(n_subchannels, n_users)", 0.0, 1.0)
        self._keep("min_rate", (m,), "(n_users,)", 1e-6, 40.0)

    def _keep(
        self, name: str, shape: tuple[int, ...], axes: str, lowest: float, highest: float
    ) -> None:
        """Checks a field that is a number or an array of this shape, and keeps it read-only."""
        array = real_array(name, getattr(self, name)).copy()
        if array.shape not in ((), shape):
            raise ValueError(
                f"{name} has shape {array.shape}; it must be a number or have shape {axes} = "
                f"{shape}"
            )
        inside = (array == 0.0) | (array >= lowest) & (array <= highest)
        if not inside.all():
            allowed = f"0 or in [{lowest:g}, {highest:g}]" if lowest else f"in [0, {highest:g}]"
            held = f"is {array}" if array.ndim == 0 else f"holds {array[~inside].flat[0]}"
            raise ValueError(f"{name} {held}; it must be {allowed}")
        array.setflags(write=False)
        object.__setattr__(self, name, array if array.ndim else float(array))

    @cached_property
    def budget(self) -> float:
        """P_c in watt."""
        return dbm_to_watt(self.power_dbm)

    @cached_property
    def epsilon(self) -> Array:
        """ε as an (N, M) array, read-only."""
        return self._full(self.sic_residual, (self.n_subchannels, self.n_users))

    @cached_property
    def min_rates(self) -> Array:
        """R_min [bps/Hz] of every user as an (M,) array, read-only."""
        return self._full(self.min_rate, (self.n_users,))

    @cached_property
    def min_nats(self) -> Array:
        """R_min [nats] of every user as an (M,) array, read-only."""
        return self._full(np.log(2.0) * self.min_rates, (self.n_users,))

    @cached_property
    def min_sinr(self) -> Array:
        """t = 2^R_min − 1 of every user as an (M,) array, read-only."""
        # expm1, for 2^R_min − 1 loses digits where R_min is small
        return self._full(np.expm1(self.min_nats), (self.n_users,))

    def _full(self, value: ArrayLike, shape: tuple[int, ...]) -> Array:
        array = np.full(shape, value)
        array.setflags(write=False)
        return array

    def _key(self) -> tuple:
        """The scenario, whether ε and R_min were given as numbers or as arrays of these."""
        arrays = ("sic_residual", "min_rate")
        others = (getattr(self, field.name) for field in fields(self) if field.name not in arrays)
        # −0 is 0
        return *others, (self.epsilon + 0.0).tobytes(), (self.min_rates + 0.0).tobytes()

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Network) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self):
        # by the parameters: an array forgets in a pickle that it is read-only, and a worker process
        # would compile every kernel again for arrays of the other kind
        return Network, tuple(getattr(self, field.name) for field in fields(self))


def check_network(net: object) -> None:
    if not isinstance(net, Network):
        raise ValueError(f"net is {net!r}; it must be a Network")


def dbm_to_watt(power_dbm: float) -> float:
    """Power in watt of a power in dBm.

    >>> dbm_to_watt(30.0)
    1.0
    """
    return 10.0 ** ((checked_number("power_dbm", power_dbm, -1000.0, 1000.0) - 30.0) / 10.0)


def draw_gains(net: Network, n_draws: int, rng: np.random.Generator) -> Array:
    """Magnitudes |g| of `n_draws` independent fading draws, shape (n_draws, N, M).

    >>> draw_gains(Network(n_users=2), 5, np.random.default_rng(0)).shape
    (5, 10, 2)
    """
    check_network(net)
    shape = (checked_count("n_draws", n_draws, 0), net.n_subchannels, net.n_users)
    check_generator(rng)
    if net.fading == "normal":
        return np.abs(rng.standard_normal(shape))
    return np.sqrt(rng.standard_exponential(shape))


def random_assignment(
    net: Network, rng: np.random.Generator, n_draws: int | None = None
) -> NDArray[np.bool_]:
    """A random balanced assignment at the caps: (N, M), or (n_draws, N, M) independent ones.

    It fills all places that both caps allow. The number of users differs by at most one between
    subchannels, and the number of subchannels by at most one between users. If there are more users
    than places, some get none.

    >>> random_assignment(Network(), np.random.default_rng(0)).sum()
    np.int64(30)
    """
    check_network(net)
    n, m = net.n_subchannels, net.n_users
    places = min(n * min(net.max_users_per_subchannel, m), m * min(net.max_subchannels_per_user, n))
    batch = 1 if n_draws is None else checked_count("n_draws", n_draws, 0)
    check_generator(rng)

    def split(parts: int) -> NDArray[np.int64]:
        even = np.full((batch, parts), places // parts)
        even[:, : places % parts] += 1
        return rng.permuted(even, axis=1)

    users_of, left = split(n), split(m)
    assignment = np.zeros((batch, n, m), dtype=bool)
    # Giving each subchannel to the users with most places left always completes (Gale–Ryser).
    for i in range(n):
        eager = np.argsort(-(left + rng.random((batch, m))), axis=1)
        rank = np.argsort(eager, axis=1)
        assignment[:, i] = rank < users_of[:, i, None]
        left -= assignment[:, i]
    return assignment[0] if n_draws is None else assignment
