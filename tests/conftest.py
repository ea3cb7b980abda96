"""What all tests share."""

import os
import tempfile
from pathlib import Path

import settings as workflow_settings
from hypothesis import HealthCheck, settings

workflow_settings.isolate(os.environ, Path(__file__).parents[1] / "_runs/settings")

# Many tests train or run networks of the same shape: XLA compiles each shape once a session.
_compiled = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Of properties that do not ask for a number of examples; `pytest --hypothesis-profile=deep`.
_any_pace = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=20, derandomize=True, database=None, **_any_pace)
settings.register_profile("deep", max_examples=1000, print_blob=True, **_any_pace)
settings.load_profile("short")
