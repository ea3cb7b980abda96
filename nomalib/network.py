"""The NOMA cell: one base station, N subchannels, M users, and the draws of its fading."""

from dataclasses import dataclass, fields
from functools import cached_property
from math import sqrt
from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

InterferenceGain = Literal["interferer", "receiver"]
Fading = Literal["normal", "rayleigh"]

# Largest P_c |g|² / σ₀² that the solvers promise to handle without overflow.
MAX_SNR = 1e100


@dataclass(frozen=True, eq=False)
class Network:
    """All parameters of a scenario; the defaults are the paper's set-up.

    Attributes:
        n_subchannels: N.
        n_users: M.
        max_users_per_subchannel: users that may share one subchannel (H of the paper's prose).
        max_subchannels_per_user: subchannels one user may hold (V of the paper's prose).
        power_dbm: budget P_c of the base station [dBm].
        noise: noise power σ₀² [W], against gains of unit mean square.
        sic_residual: ε in [0, 1], what imperfect SIC leaves of a cancelled signal: a number, or
            an (N, M) array, the paper's ε_il (of user l's signal on subchannel i).
        min_rate: R_min [bps/Hz] of every assigned (subchannel, user) pair.
        interference_gain: whose gain weighs an interfering signal: "interferer", that of the user
            it is meant for, as printed in (3); or "receiver", that of the user who hears it, as in
            a physical downlink.
        fading: "normal", |g| of g ~ N(0, 1), or "rayleigh", |g|² ~ Exp(1).

    Raises:
        ValueError: a value outside its range, naming the argument.

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
    sic_residual: float | NDArray[np.float64] = 0.01
    min_rate: float = 0.01
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
        # wide, yet no power of ten overflows; no rate exceeds log2(1 + MAX_SNR) = 332
        for name, lowest, highest in (
            ("power_dbm", -300.0, 300.0),
            ("noise", 1e-100, 1e100),
            ("min_rate", 0.0, 1000.0),
        ):
            value = getattr(self, name)
            value = value.item() if isinstance(value, np.generic) else value
            if not is_number(value) or not lowest <= value <= highest:
                raise ValueError(
                    f"{name} is {value!r}; it must be a number in [{lowest:g}, {highest:g}]"
                )
            object.__setattr__(self, name, float(value))
        if 0.0 < self.min_rate < 1e-100:  # the SINR that it takes would have no digits
            raise ValueError(f"min_rate is {self.min_rate!r}; it must be 0 or in [1e-100, 1000]")
        for name, choices in (
            ("interference_gain", get_args(InterferenceGain)),
            ("fading", get_args(Fading)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {choices}")
        residual = real_array("sic_residual", self.sic_residual).copy()
        if residual.shape not in ((), (self.n_subchannels, self.n_users)):
            raise ValueError(
                f"sic_residual has shape {residual.shape}; it must be a number or have shape "
                f"(n_subchannels, n_users) = {(self.n_subchannels, self.n_users)}"
            )
        inside = (residual >= 0) & (residual <= 1)
        if not inside.all():
            raise ValueError(
                f"sic_residual holds {residual[~inside].flat[0]}; it must lie in [0, 1]"
            )
        residual.setflags(write=False)
        object.__setattr__(self, "sic_residual", residual if residual.ndim else float(residual))

    @property
    def budget(self) -> float:
        """P_c in watt."""
        return dbm_to_watt(self.power_dbm)

    @cached_property
    def residual(self) -> NDArray[np.float64]:
        """ε as an (N, M) array, read-only."""
        residual = np.full((self.n_subchannels, self.n_users), self.sic_residual)
        residual.setflags(write=False)
        return residual

    @cached_property
    def uniform_residual(self) -> bool:
        """Whether ε is the same for all users of a subchannel, so that water-filling is exact."""
        residual = self.residual
        return isinstance(self.sic_residual, float) or bool((residual == residual[:, :1]).all())

    def __reduce__(self):
        # by the parameters: an array forgets in a pickle that it is read-only, and a worker process
        # would compile every kernel again for arrays of the other kind
        return Network, tuple(getattr(self, field.name) for field in fields(self))


def dbm_to_watt(power_dbm: float) -> float:
    """Power in watt of a power in dBm.

    >>> dbm_to_watt(30.0)
    1.0
    """
    return 10.0 ** ((power_dbm - 30.0) / 10.0)


def draw_gains(net: Network, n_draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Magnitudes |g| of `n_draws` independent fading draws, shape (n_draws, N, M).

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> draw_gains(Network(n_users=2), 5, np.random.default_rng(0)).shape
    (5, 10, 2)
    """
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

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> random_assignment(Network(), np.random.default_rng(0)).sum()
    np.int64(30)
    """
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


def checked_draws(
    net: Network, gains: ArrayLike, assignment: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The one check of what a user passes to a solver: gains (…, N, M) and assignment.

    Raises:
        ValueError: naming `gains` or `assignment`, the value, and what is allowed.
    """
    gains = real_array("gains", gains)
    nm = (net.n_subchannels, net.n_users)
    if gains.shape[-2:] != nm:
        raise ValueError(f"gains has shape {gains.shape}; its last two axes must be {nm}")
    if gains.size:
        largest = sqrt(MAX_SNR * net.noise / net.budget)
        if not (gains.min() >= 0 and gains.max() <= largest):
            bad = gains[~((gains >= 0) & (gains <= largest))].flat[0]
            raise ValueError(
                f"gains holds {bad}; magnitudes must be finite, at least 0, and keep "
                f"P_c g²/σ₀² below {MAX_SNR:g}"
            )
    return gains, checked_assignment(net, assignment, gains.shape)


def checked_assignment(
    net: Network, assignment: ArrayLike, shape: tuple[int, ...] | None = None
) -> NDArray[np.bool_]:
    """The assignment as bool, checked against the caps and the shape (…, N, M) of the draws.

    Without draws, any leading axes are right.
    """
    assignment = _array("assignment", assignment)
    if assignment.dtype != bool:
        raise ValueError(f"assignment has dtype {assignment.dtype}; it must be bool")
    if shape is None:
        shape = (*assignment.shape[:-2], net.n_subchannels, net.n_users)
    one_for_all = assignment.shape == (1, *shape[-2:]) and len(shape) > 2
    if assignment.shape not in (shape, shape[-2:]) and not one_for_all:
        raise ValueError(
            f"assignment has shape {assignment.shape}; it must be {shape[-2:]} or {shape}"
        )
    if not assignment.size:
        return assignment
    fullest, busiest, fewest = loads(assignment.reshape(-1, *shape[-2:]))
    for load, cap, name in (
        (fullest, net.max_users_per_subchannel, "max_users_per_subchannel"),
        (busiest, net.max_subchannels_per_user, "max_subchannels_per_user"),
    ):
        if load > cap:
            raise ValueError(f"assignment fills {load} places; {name} allows {cap}")
    if fewest == 0:
        raise ValueError("assignment serves 0 users in a draw; it must serve at least one")
    return assignment


@njit(cache=True, nogil=True)
def loads(assignment):
    """Most users on a subchannel, most subchannels of a user, fewest places filled in a draw.

    One compiled pass over assignments (B, N, M): sums over their axes take NumPy longer than
    water-filling takes to solve a draw.
    """
    n_draws, n, m = assignment.shape
    fullest, busiest, fewest = 0, 0, n * m
    of_user = np.empty(m, np.int64)
    for b in range(n_draws):
        filled = 0
        of_user[:] = 0
        for i in range(n):
            on_subchannel = 0
            for j in range(m):
                on_subchannel += assignment[b, i, j]
                of_user[j] += assignment[b, i, j]
            fullest = max(fullest, on_subchannel)
            filled += on_subchannel
        for j in range(m):
            busiest = max(busiest, of_user[j])
        fewest = min(fewest, filled)
    return fullest, busiest, fewest


def check_generator(rng: np.random.Generator) -> None:
    """Raises a ValueError where `rng` is no generator, but a seed, say."""
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"rng is {rng!r}; it must be a Generator, as numpy.random.default_rng gives"
        )


def check_uniform(net: Network) -> None:
    """Raises a ValueError where ε differs between the users of a subchannel."""
    if not net.uniform_residual:
        raise ValueError(
            f"sic_residual differs between users, from {net.residual.min()} to "
            f"{net.residual.max()}; it must be the same for all users of a subchannel "
            "(nomalib.optimum.allocate takes any, also as `allocate` of nomalib.matching.paus)"
        )


def is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def checked_count(name: str, value: object, least: int) -> int:
    """A whole number of at least `least` and below 2³¹, as Python's own."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not least <= value < 2**31:  # type: ignore[operator]
        raise ValueError(
            f"{name} is {value!r}; it must be a whole number of at least {least}, below 2**31"
        )
    return int(value)  # type: ignore[call-overload]


def checked_fraction(name: str, value: object) -> float:
    """A number between 0 and 1, neither of them, as Python's own."""
    if not is_number(value) or not 0.0 < value < 1.0:  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}; it must lie in (0, 1)")
    return float(value)  # type: ignore[arg-type]


def real_array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """The value as a contiguous array of float64, if it holds real numbers."""
    array = _array(name, value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {array.dtype}; it must hold real numbers")
    return np.asarray(array, dtype=np.float64, order="C")


def _array(name: str, value: ArrayLike) -> NDArray:
    try:
        return np.asarray(value, order="C")
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is no array: {error}") from error
