"""How kernels are compiled, and by which sources a result is known."""

import hashlib
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit

_NO_CACHE = (
    "neither nomalib's folder nor the home can be written, so each process compiles all kernels "
    "anew, in about a minute; set NUMBA_CACHE_DIR to a folder that can be"
)


@cache
def source_hash() -> str:
    """SHA-256 of the sources that make a record or a compiled kernel: all but `plots`."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for source in sorted(set(package.glob("*.py")) - {package / "plots.py"}):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()


@cache
def _say_once() -> None:
    warnings.warn(_NO_CACHE, RuntimeWarning, stacklevel=3)


def compiled(function: Callable, **options: Any) -> Any:
    """A kernel: compiled by Numba, kept in the user's cache, dividing as NumPy does, GIL released.

    Numba takes a kernel from its cache while the file that it stands in has not changed; whether
    the kernels that it calls have, it does not ask. Ours are asked for by all sources; and what
    holds a class that other sources had, and these have not, is none of ours. Where no folder for a
    cache can be written, each process compiles anew.
    """
    if config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT is set; nomalib's kernels must be compiled: unset it")
    make = partial(njit, error_model="numpy", nogil=True, **options)
    try:
        kernel = make(cache=True)(function)
    except RuntimeError:  # no folder
        _say_once()
        return make()(function)
    cached = kernel._cache._cache_file
    cached._source_stamp, load_index = source_hash(), cached._load_index

    def load_ours() -> dict:
        try:
            return load_index()
        except (AttributeError, ImportError):
            return {}

    cached._load_index = load_ours
    return kernel


# A kernel that makes no array and calls none that does: it counts no references to those it is
# given. The counts are atomic, and took the interior-point method a sixth of its time.
borrowing = partial(compiled, _nrt=False)

# As an argument of a kernel: for a literal, Numba would compile the kernel once more.
FIRST = np.int64(0)

# into its caller, as Numba compiles that
inlined = njit(error_model="numpy", inline="always")


@inlined
def log1p(x):
    """log(1 + x) to rounding for x > −1/2, as Numba's, in two thirds of the time."""
    y = 1.0 + x
    return np.log(y) - ((y - 1.0) - x) / y
