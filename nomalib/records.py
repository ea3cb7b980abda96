"""Records: what a run was given, what it measured, and what it was made by; one JSON file a run.

    {"parameters": {…}, "metrics": {…}, "provenance": {…}, "checksum": "…"}

Metrics are numbers or lists of numbers; a name says its unit where that is not obvious, and one
that ends in `_s` is a time [s]. Two runs of the same parameters, sources and versions differ in
their times and in nothing else. NaN, which JSON lacks, is stored as null.
"""

import csv
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nomalib import source_hash

_PACKAGES = ("numpy", "scipy", "numba", "keras", "jax")
_PARTS = {"parameters", "metrics", "provenance", "checksum"}
_imported = time.perf_counter()


def write(path: str | Path, parameters: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Writes one record, whole or not at all; folders on the way are made.

    The provenance is that of `environment`, the parameter `seed` (null if there is none), and
    `wall_time_s` since this module was imported, which is a run's first cell.

    Args:
        path: the file to write; "" writes nothing, which is a notebook's default.
        parameters: whatever JSON can hold, by name.
        metrics: numbers or (nested) lists or arrays of numbers, by name.

    Raises:
        ValueError: naming it: a metric that is no number or infinite, a parameter that JSON cannot
            hold, or a name used twice.

    >>> write("", {"n_users": 10}, {"sum_rate": 31.4})
    """
    for name in metrics:
        if name in parameters:
            raise ValueError(f"metrics has {name!r}, which is a parameter too; names must differ")
    record = {
        "parameters": {name: _written(name, _plain(value)) for name, value in parameters.items()},
        "metrics": {name: _storable(name, _plain(value)) for name, value in metrics.items()},
        "provenance": {
            "seed": _plain(parameters.get("seed")),
            "wall_time_s": round(time.perf_counter() - _imported, 3),
            **environment(),
        },
    }
    text = json.dumps(record | {"checksum": _checksum(record)}, indent=1, allow_nan=False)
    if not path:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, for only within one file system is a rename all or nothing
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read(path: str | Path) -> dict[str, Any]:
    """One record: parameters, metrics (null read as NaN) and provenance.

    Raises:
        ValueError: the file is cut short, changed since it was written, or no record; naming it.
        FileNotFoundError: there is no such file.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is cut short or no record: {error}") from error
    if not isinstance(record, dict) or set(record) != _PARTS:
        raise ValueError(f"{path} is no record: it must hold {sorted(_PARTS)} and nothing else")
    if record.pop("checksum") != _checksum(record):
        raise ValueError(f"{path} was changed after it was written: its checksum does not match")
    record["metrics"] = {name: _nan(value) for name, value in record["metrics"].items()}
    return record


def paths(folder: str | Path) -> list[Path]:
    """All records below a folder, *.json, in order.

    Not those in a folder *.unfinished, where a run that may go on keeps its state.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder of records")
    found = Path(folder).rglob("[!.]*.json")
    return sorted(path for path in found if ".unfinished/" not in path.as_posix())


def table(source: str | Path | Iterable[str | Path]) -> list[dict[str, Any]]:
    """Many records as rows, one flat dict of parameters and metrics each.

    Args:
        source: a folder, of which all `paths` count; or paths.

    Raises:
        ValueError: one of the files is no whole record, naming it.
        FileNotFoundError: there is no such folder or file.
    """
    if isinstance(source, (str, Path)):
        source = paths(source)
    rows = [read(path) for path in source]
    return [row["parameters"] | row["metrics"] for row in rows]


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of a `table` as CSV, with a column for whatever any of them has; lists stay one cell.

    >>> print(csv_text([{"n_users": 10, "sum_rate": 31.4}, {"n_users": 20, "time_s": [1, 2]}]))
    n_users,sum_rate,time_s
    10,31.4,
    20,,"[1, 2]"
    <BLANKLINE>
    """
    rows = list(rows)
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def run_experiment(name: str, path: str | Path, **parameters: Any) -> None:
    """Runs book/experiments/`name`.ipynb, and leaves its record at `path`.

    For chapters that run without the workflow: from book/, or from the project's folder.

    Raises:
        FileNotFoundError: neither folder holds such an experiment.
        RuntimeError: the notebook failed; with what it printed.
    """
    import yaml  # of papermill, which the book needs, but not the package

    places = [
        Path(folder, f"{name}.ipynb").resolve() for folder in ("experiments", "book/experiments")
    ]
    notebook = next((place for place in places if place.is_file()), None)
    if notebook is None:
        raise FileNotFoundError(f"no experiment {name!r}: looked for {places[0]} and {places[1]}")
    parameters["record"] = str(Path(path).resolve())
    # A process of its own: a kernel that is shut down may print an error that is none, which would
    # stand in the chapter that asked.
    command = [sys.executable, "-m", "papermill", notebook, "-", "-y", yaml.safe_dump(parameters)]
    run = subprocess.run(
        [*command, "--cwd", notebook.parent, "--no-progress-bar"], capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(f"{notebook} failed:\n{run.stderr}")


def environment() -> dict[str, Any]:
    """What a result is made by: versions, hash of nomalib, of the notebook if known, machine.

    The notebook is the file that JPY_SESSION_NAME names, a variable that Jupyter sets, and so does
    the workflow; only its code counts, not its outputs.
    """
    notebook = Path(os.environ.get("JPY_SESSION_NAME", ""))
    return {
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        "source": source_hash(),
        "notebook": _code_hash(notebook) if notebook.is_file() else None,
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def _code_hash(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def _processor() -> str:
    """Its model, which on Linux only /proc tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Python's own numbers and lists for NumPy's, at any depth."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return value


def _written(name: str, value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"parameters has {name!r} = {value!r}; JSON cannot hold it") from error
    return value


def _storable(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_storable(name, part) for part in value]
    if not isinstance(value, (int, float)) or value in (math.inf, -math.inf):
        raise ValueError(f"metrics has {name!r} = {value!r}; it must be a finite number or NaN")
    return None if value != value else value


def _nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan(part) for part in value]
    return math.nan if value is None else value
