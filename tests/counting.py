"""Counts the floating-point operations of a kernel compiled by Numba, by running it as Python.

The kernel's own source runs, on numbers that count. An addition, multiplication, division, power,
root, exponential or logarithm is one operation; comparisons, signs and indices are free.
"""

import operator
import types

import numpy as np
from numba.core.dispatcher import Dispatcher


class Number:
    """A float that counts the operations it takes part in. It turns into no plain float unseen."""

    __slots__ = ("value", "tally")

    def __init__(self, value, tally):
        self.value, self.tally = value, tally

    def counts(self, value):
        self.tally.append(1)
        return Number(value, self.tally)

    def __neg__(self):
        return Number(-self.value, self.tally)

    def __abs__(self):
        return Number(abs(self.value), self.tally)


def plain(value):
    return value.value if isinstance(value, Number) else value


def equip(name):
    function = getattr(operator, name)
    setattr(Number, f"__{name}__", lambda a, b: a.counts(function(a.value, plain(b))))
    setattr(Number, f"__r{name}__", lambda a, b: a.counts(function(plain(b), a.value)))


for name in ("add", "sub", "mul", "truediv", "pow"):
    equip(name)
for name in ("lt", "le", "gt", "ge", "eq"):
    compare = getattr(operator, name)
    setattr(Number, f"__{name}__", lambda a, b, _f=compare: _f(a.value, plain(b)))
# NumPy's functions call the method of their name on each element of an array of objects
for name in ("sqrt", "exp", "log", "log1p"):
    function = getattr(np, name)
    setattr(Number, name, lambda a, _f=function: a.counts(_f(a.value)))


def numbers(value, tally):
    """Floats, and arrays and tuples of floats, as numbers that count."""
    if isinstance(value, tuple):
        parts = [numbers(part, tally) for part in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        array = np.empty(value.shape, object)
        for index in np.ndindex(value.shape):
            array[index] = Number(np.float64(value[index]), tally)
        return array
    return Number(np.float64(value), tally) if isinstance(value, float) else value


class AsPython:
    """A module whose compiled functions run as Python, on arrays of numbers that count."""

    def __init__(self, module, tally):
        self.module, self.tally = module, tally

    def __getattr__(self, name):
        if self.module is not np:
            return as_python(getattr(self.module, name), self.tally)
        if name in ("empty", "zeros"):
            return lambda shape, dtype=np.float64: numbers(np.zeros(shape, dtype), self.tally)
        return getattr(np, name)


def as_python(value, tally):
    """A compiled function as the Python it was made from, with all that it refers to."""
    if isinstance(value, types.ModuleType):
        return AsPython(value, tally)
    if not isinstance(value, Dispatcher):
        return value
    source = value.py_func
    known = {n: source.__globals__[n] for n in source.__code__.co_names if n in source.__globals__}
    scope = {name: as_python(item, tally) for name, item in known.items()}
    return types.FunctionType(source.__code__, scope | {"__builtins__": __builtins__})


def counted(kernel, *arguments):
    """Operations of one run of a function under `numba.njit`, all that it calls included.

    Also what it returned. Arrays are copied: what the kernel writes to them is lost.
    """
    tally = []
    with np.errstate(all="ignore"):  # as in the compiled kernel
        returned = as_python(kernel, tally)(*(numbers(item, tally) for item in arguments))
    found = tuple(map(plain, returned)) if isinstance(returned, tuple) else plain(returned)
    return len(tally), found
