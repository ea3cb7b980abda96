"""What every public function asks of its arguments; a ValueError names argument, value and rule."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Weights = ArrayLike | None


def is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def checked_number(name: str, value: object, lowest: float, highest: float) -> float:
    """A number between two others, as Python's own."""
    value = (
        value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value
    )
    if not is_number(value) or not lowest <= value <= highest:  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}; it must be a number in [{lowest:g}, {highest:g}]")
    return float(value)  # type: ignore[arg-type]


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


def checked_alpha(alpha: object, lowest: float) -> float:
    """A fairness α: a number up to 4, or inf, of max–min."""
    infinite = is_number(alpha) and alpha == np.inf
    return np.inf if infinite else checked_number("alpha", alpha, lowest, 4.0)


def checked_flag(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {choices}")


def check_generator(rng: object) -> None:
    """Refuses what is no generator, but a seed, say."""
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"rng is {rng!r}; it must be a Generator, as numpy.random.default_rng gives"
        )


def any_array(name: str, value: ArrayLike) -> NDArray:
    """The value as a contiguous array; not one with a mask, which would be lost."""
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array; fill it, or leave the masked draws out")
    try:
        return np.asarray(value, order="C")
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is no array: {error}") from error


def real_array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """The value as a contiguous array of float64, if it holds real numbers."""
    array = any_array(name, value)
    if array.dtype.kind not in "fiu":
        advice = "; take magnitudes by abs()" if array.dtype.kind == "c" else ""
        raise ValueError(f"{name} has dtype {array.dtype}; it must hold real numbers{advice}")
    return np.asarray(array, dtype=np.float64, order="C")


def check_inside(name: str, array: NDArray, inside: NDArray[np.bool_], rule: str) -> None:
    """Refuses an array with a value outside, and names the first one and where it stands.

    The last two axes are subchannel and user, those before them the draw.
    """
    if inside.all():
        return
    at = tuple(np.argwhere(~inside)[0].tolist())
    draw = f"draw {at[0] if len(at) == 3 else at[:-2]}, " if len(at) > 2 else ""
    place = f"{draw}subchannel {at[-2]}, user {at[-1]}" if len(at) > 1 else f"user {at[0]}"
    raise ValueError(f"{name} holds {array[at]} at {place}; {rule}")
