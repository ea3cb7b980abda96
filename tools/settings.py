"""What a user's environment holds of settings, and which of them the workflow and the tests read.

A setting of Keras, JAX, Numba, NumPy, Matplotlib, IPython, Jupyter or Python changes results, or
breaks a run, without a word. So none of them is read but what says where something is kept.
"""

import importlib.util
import sys
from collections.abc import MutableMapping
from pathlib import Path

FOREIGN = "KERAS_ JAX_ XLA_ TF_ NUMBA_ NPY_ MPL MATPLOTLIB JUPYTER_ IPYTHON PAPERMILL_ PYTHON"
KEPT = "PYTHONPATH PYTHONUNBUFFERED NUMBA_CACHE_DIR"
KEPT += " JAX_COMPILATION_CACHE_DIR JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

OURS = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",  # jobs on all cores would share one GPU, and its sums differ
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, whatever a home holds
    "PYTHONUTF8": "1",
    "PYTHONNOUSERSITE": "1",
}
# each of these has a file of settings in the user's home, which may not even be writable
HOMES = {
    "KERAS_HOME": "keras",
    "MPLCONFIGDIR": "matplotlib",
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter",
    "JUPYTER_DATA_DIR": "jupyter",
    "JUPYTER_RUNTIME_DIR": "jupyter/runtime",
}

# One core for each job: the parallelism is in the number of jobs.
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "NPROC": "1",  # XLA's thread pool
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # no job seizes a GPU's whole memory
}


def isolate(environ: MutableMapping[str, str], folder: Path) -> None:
    """Takes the settings out of an environment; what is to have a home gets it in the folder."""
    for name in [name for name in environ if name.startswith(tuple(FOREIGN.split()))]:
        if name not in KEPT.split():
            del environ[name]
    environ.update(OURS | {name: str(folder.resolve() / home) for name, home in HOMES.items()})


def strangers(*packages: str) -> dict[str, str]:
    """Packages that would not come from this environment but, by PYTHONPATH, from elsewhere."""
    found = {name: importlib.util.find_spec(name) for name in packages}
    origins = {name: str(spec.origin) for name, spec in found.items() if spec}
    here = Path(sys.prefix).resolve()
    return {
        n: origin for n, origin in origins.items() if here not in Path(origin).resolve().parents
    }


def without_space(link: Path) -> str:
    """This environment's Python by a relative path, through a link to the environment."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.unlink(missing_ok=True)  # to what is no more
        link.symlink_to(sys.prefix)
    return str(link / "bin/python")
