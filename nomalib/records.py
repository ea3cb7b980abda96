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
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nomalib._compile import source_hash

__all__ = ["csv_text", "environment", "glued", "paths", "read", "rows", "run_experiment", "seconds"]
__all__ += ["source_hash", "table", "write"]

_PACKAGES = ("numpy", "scipy", "highspy", "numba", "keras", "jax")
_PARTS = {"parameters", "metrics", "provenance", "checksum"}


def write(path: str | Path, parameters: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Writes one record, whole or not at all; folders on the way are made.

    The provenance is that of `environment`, the parameter `seed` (null if there is none), and
    `wall_time_s` since this process began: of a run, all that came before its record.

    Args:
        path: the file to write; `""` writes nothing, which is a notebook's default.
        parameters: whatever JSON can hold, by name.
        metrics: numbers or (nested) lists or arrays of numbers, by name.

    Raises:
        ValueError: for a metric no number or infinite, a parameter not for JSON, or a name in both.

    >>> write("", {"n_users": 10}, {"sum_rate": 31.4})
    """
    if twice := sorted(set(metrics) & set(parameters)):
        raise ValueError(f"{twice} are both parameters and metrics; names must differ")
    given = {name: _parameter(name, value) for name, value in parameters.items()}
    measured = {name: _metric(name, value) for name, value in metrics.items()}
    took = time.time() - psutil.Process().create_time()
    if sys.platform == "linux":  # where psutil knows it to a second only
        ticks = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[19]
        took = time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")
    made_by = {"seed": given.get("seed"), "wall_time_s": round(took, 3)} | environment()
    record = {"parameters": given, "metrics": measured, "provenance": made_by}
    text = json.dumps(record | {"checksum": _checksum(record)}, indent=1, allow_nan=False)
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # in the same folder, for only within one file system is a rename all or nothing
        unfinished = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, path)


def read(path: str | Path) -> dict[str, Any]:
    """One record: parameters, metrics (null read as NaN) and provenance.

    Raises:
        ValueError: the file is cut short, changed since it was written, or no record; naming it.
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
    """All records below a folder, *.json, in order; not in *.unfinished, the state of a run."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder of records")
    return sorted(p for p in Path(folder).rglob("[!.]*.json") if ".unfinished/" not in p.as_posix())


def table(source: str | Path | Iterable[str | Path]) -> list[dict[str, Any]]:
    """Many records as rows, one flat dict of parameters and metrics each.

    Args:
        source: a folder, of which all `paths` count; or paths.

    Raises:
        ValueError: one of the files is no whole record, naming it.
    """
    files = paths(source) if isinstance(source, (str, Path)) else source
    return [record["parameters"] | record["metrics"] for record in map(read, files)]


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of a `table` as CSV, with a column for whatever any of them has; lists stay one cell.

    >>> rows = [{"n_users": 10, "sum_rate": 31.4}, {"n_users": 20, "time_s": [1, 2]}]
    >>> print(csv_text(rows), end="")
    n_users,sum_rate,time_s
    10,31.4,
    20,,"[1, 2]"
    """
    rows, text = list(rows), io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def run_experiment(name: str, path: str | Path, **parameters: Any) -> None:
    """Runs `name` of `book/experiments`, from `book` or above it; its record is at `path`.

    Raises:
        FileNotFoundError: neither folder holds such an experiment.
        RuntimeError: the notebook failed; with what it printed.
    """
    import yaml  # of papermill, which the book needs, but not the package

    places = [Path(folder, f"{name}.ipynb") for folder in ("experiments", "book/experiments")]
    if (notebook := next(filter(Path.is_file, places), None)) is None:
        raise FileNotFoundError(f"no experiment {name!r}: neither {places[0]} nor {places[1]}")
    given = yaml.safe_dump(parameters | {"record": str(Path(path).resolve())})
    # its own process: what its kernel prints when shut down, errors too, must not reach the chapter
    kernel = ["--kernel", "python3", "--language", "python"]  # whatever an editor has written
    command = [sys.executable, "-m", "papermill", notebook.name, "-", "-y", given, *kernel]
    env = os.environ | {"JPY_SESSION_NAME": notebook.name}
    run = subprocess.run(command, cwd=notebook.parent, env=env, capture_output=True)
    if run.returncode:
        raise RuntimeError(f"{notebook} failed:\n{run.stderr.decode()}")


def rows(name: str, folder: str, /, *runs: dict, **common: Any) -> list[dict[str, Any]]:
    """The `table` of the experiment `name`; `record` in each row is the file it is from.

    `folder` holds the records of all experiments. Where it is `""`, small runs are made here: one
    for each of `runs`, which are parameters, or a single one; with `common` save where one differs.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/training/0.json", {"batch_size": 50}, {"loss": 0.25})
    ...     [row["loss"] for row in rows("training", folder)]
    [0.25]
    """
    place = Path(folder or tempfile.mkdtemp(), name)
    for number, run in enumerate([] if folder else runs or [{}]):
        run_experiment(name, place / f"{number}.json", **common | run)
    return [{"record": str(path)} | row for path in paths(place) for row in table([path])]


def seconds(
    call: Callable, *, repeats: int = 5, clock: Callable = time.perf_counter, quantile: Any = 0.5
) -> Any:
    """Time of a call [s]: the median of `repeats`, after one that warms up and does not count.

    Or another `quantile`, or several. The `clock` is the wall's; `time.process_time` is the
    processor's.

    >>> seconds(lambda: time.sleep(0.01), repeats=3) >= 0.01
    True
    """
    call()
    taken = []
    for _ in range(repeats):
        start = clock()
        call()
        taken.append(clock() - start)
    return np.quantile(taken, quantile).tolist()


def glued(prefix: str, **numbers: Any) -> None:
    """Glues numbers for the text of a chapter: `name` as "prefix_name".

    >>> glued("ipm", settled=12, behind=0.5)
    """
    from myst_nb import glue  # which the book needs, but not the package

    for name, number in numbers.items():
        glue(f"{prefix}_{name}", _plain(number), display=False)


def environment() -> dict[str, Any]:
    """What a result is made by: versions, hashes of nomalib and of the notebook's code, machine.

    The notebook is the file that JPY_SESSION_NAME names, as Jupyter and the workflow do, or None.
    """
    notebook = Path(os.environ.get("JPY_SESSION_NAME", ""))
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.is_file() else []
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    used = {p: getattr(sys.modules.get(p), "__version__", None) or version(p) for p in _PACKAGES}
    about = Path("/proc/cpuinfo")  # which names the model, on Linux alone
    about_cpu = about.read_bytes().decode() if about.exists() else ""
    model = re.search(r"(?m)^model name\s*: (.*)", about_cpu)
    return {
        "versions": {"python": platform.python_version()} | used,
        "source": source_hash(),
        "notebook": _checksum(code) if code else None,
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": model[1] if model else platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def _checksum(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _parameter(name: str, value: Any) -> Any:
    try:  # NumPy's numbers as Python's, at any depth
        return json.loads(json.dumps(value, allow_nan=False, default=_plain))
    except (TypeError, ValueError) as error:
        raise ValueError(f"parameters has {name!r} = {value!r}; JSON cannot hold it") from error


def _metric(name: str, value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, (list, tuple)):
        return [_metric(name, part) for part in value]
    if not isinstance(value, (int, float)) or value in (math.inf, -math.inf):
        raise ValueError(f"metrics has {name!r} = {value!r}; it must be a finite number or NaN")
    return None if value != value else value


def _nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan(part) for part in value]
    return math.nan if value is None else value
