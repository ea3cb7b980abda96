"""Counts the floating-point operations of a kernel compiled by Numba, by running it as Python.

The kernel's own source runs, on numbers that count. An addition, multiplication, division, power,
root, exponential or logarithm is one operation; comparisons, signs and indices are free.
"""

import operator
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray


class Count(NamedTuple):
    """What one run took: floating-point operations, and the bytes of all arrays that it made."""

    flops: int
    workspace: int


def counted(kernel: Callable, *arguments: Any) -> tuple[Count, Any]:
    """Runs a function compiled by Numba as Python on numbers that count; also what it returned.

    Args:
        kernel: a function under `numba.njit`; what it calls is counted too.
        arguments: its arguments; arrays are copied, what it writes to them is lost.

    >>> from nomalib.polytope import excess_rate
    >>> count, _ = counted(excess_rate, np.ones(3), np.ones((3, 3)), np.ones(3))
    >>> count.flops     # 3 users, each 3 · 2 and 5 more, and a logarithm
    34
    """
    tally = _Tally()
    with np.errstate(all="ignore"):  # as in the compiled kernel
        returned = _as_python(kernel, tally)(*(_numbers(item, tally) for item in arguments))
    plain = tuple(map(_plain, returned)) if isinstance(returned, tuple) else _plain(returned)
    return Count(tally.flops, tally.workspace), plain


class _Tally:
    """What the numbers of one run have counted so far."""

    def __init__(self) -> None:
        self.flops = self.workspace = 0


class _Number:
    """A float that counts the operations it takes part in. It turns into no plain float unseen."""

    __slots__ = ("value", "tally")

    def __init__(self, value: float, tally: _Tally) -> None:
        self.value, self.tally = value, tally

    def _count(self, value: float) -> "_Number":
        self.tally.flops += 1
        return _Number(value, self.tally)

    def __neg__(self) -> "_Number":
        return _Number(-self.value, self.tally)

    def __abs__(self) -> "_Number":
        return _Number(abs(self.value), self.tally)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Number) else value


def _equip(name: str) -> None:
    function = getattr(operator, f"__{name}__")
    setattr(_Number, f"__{name}__", lambda a, b: a._count(function(a.value, _plain(b))))
    setattr(_Number, f"__r{name}__", lambda a, b: a._count(function(_plain(b), a.value)))


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _equip(_name)
for _name in ("lt", "le", "gt", "ge", "eq"):
    _compare = getattr(operator, _name)
    setattr(_Number, f"__{_name}__", lambda a, b, _f=_compare: _f(a.value, _plain(b)))
# NumPy's functions call the method of their name on each element of an array of objects
for _name in ("sqrt", "exp", "log", "log1p"):
    _function = getattr(np, _name)
    setattr(_Number, _name, lambda a, _f=_function: a._count(_f(a.value)))


class _Arrays:
    """NumPy, with arrays of numbers that count instead of arrays of doubles."""

    def __init__(self, tally: _Tally) -> None:
        self.tally = tally

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any = np.float64) -> NDArray:
        return _numbers(np.zeros(shape, dtype), self.tally, made=True)

    empty = zeros


def _numbers(value: Any, tally: _Tally, made: bool = False) -> Any:
    """Floats, and arrays and tuples of floats, as numbers that count."""
    if isinstance(value, tuple):
        parts = [_numbers(part, tally) for part in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    if isinstance(value, np.ndarray):
        tally.workspace += made * value.nbytes
        if value.dtype.kind != "f":
            return value
        array = np.empty(value.shape, object)
        for index in np.ndindex(value.shape):
            array[index] = _Number(np.float64(value[index]), tally)
        return array
    return _Number(np.float64(value), tally) if isinstance(value, float) else value


class _Module:
    """A module whose compiled functions run as Python."""

    def __init__(self, module: types.ModuleType, tally: _Tally) -> None:
        self.module, self.tally = module, tally

    def __getattr__(self, name: str) -> Any:
        return _as_python(getattr(self.module, name), self.tally)


def _as_python(value: Any, tally: _Tally) -> Any:
    """A compiled function as the Python it was made from, with all that it refers to."""
    if value is np:
        return _Arrays(tally)
    if isinstance(value, types.ModuleType):
        return _Module(value, tally)
    if not isinstance(value, Dispatcher):
        return value
    source = value.py_func
    known = {
        name: source.__globals__[name]
        for name in source.__code__.co_names
        if name in source.__globals__
    }
    scope = {name: _as_python(item, tally) for name, item in known.items()}
    return types.FunctionType(source.__code__, scope | {"__builtins__": __builtins__})
