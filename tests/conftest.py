"""What all tests share."""

import os
import tempfile

# Many tests train or run networks of the same shape: XLA compiles each shape once a session.
_compiled = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
