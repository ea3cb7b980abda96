"""Resource management in downlink NOMA networks: allocation, learning and scheduling."""

import hashlib
import os
from pathlib import Path

import numba

_package = Path(__file__).parent


def source_hash() -> str:
    """SHA-256 of the sources that make a record or a compiled kernel: all but `plots`."""
    digest = hashlib.sha256()
    for source in sorted(set(_package.glob("*.py")) - {_package / "plots.py"}):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()


# Numba keys a kernel's cache by the file the kernel is in, not by the files of the kernels it
# calls: after an edit it could run old code. One cache folder for each state of the sources.
if "NUMBA_CACHE_DIR" not in os.environ and os.access(_package, os.W_OK):
    numba.config.CACHE_DIR = str(_package / "__pycache__" / source_hash()[:16])
