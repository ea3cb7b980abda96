"""Runs a notebook by papermill, and keeps of it what is whole.

    python tools/notebook.py NOTEBOOK OUTPUT PARAMETERS [--record FILE] [--cwd FOLDER] …

PARAMETERS is a YAML map, checked by the notebook's parameters cell. OUTPUT appears once the
notebook has run to its end. One that raises an exception says so, and is left as OUTPUT with
".failed.ipynb". With --outcome, an exception that would be raised again is an outcome, and the
executed notebook, with it, is OUTPUT.
"""

import argparse
import builtins
import json
import os
import sys
from pathlib import Path

import grids
import yaml

# The Snakefile, which only asks why a run failed, waits for neither nbformat nor papermill: those
# are imported where a notebook is run or written.


def why(notebook: str | Path) -> str | None:
    """The exception that an executed notebook ended with, in one line, or None."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    found = [f"{e['ename']}: {e['evalue']}" for e in outputs if e["output_type"] == "error"]
    return " ".join(found[-1].split()) if found else None


def note(path: Path, notebook: str, error: Exception) -> None:
    """Writes a notebook that ends with an error that no cell raised."""
    import nbformat

    stopped = nbformat.read(notebook, as_version=4)
    said = {"ename": "ChildProcessError", "evalue": f"{error} ({type(error).__name__})"}
    output = nbformat.v4.new_output("error", traceback=[], **said)
    stopped.cells.append(nbformat.v4.new_code_cell("", outputs=[output]))
    nbformat.write(stopped, path)


def will_recur(reason: str) -> bool:
    """Whether it is of what was asked, and not of the machine: no memory, a full disk."""
    kind = getattr(builtins, reason.partition(":")[0], Exception)
    return issubclass(kind, Exception) and not issubclass(kind, (OSError, MemoryError))


def main() -> int | str:
    parser = argparse.ArgumentParser()
    parser.add_argument("notebook")
    parser.add_argument("output", type=Path)
    parser.add_argument("parameters", type=yaml.safe_load)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--cwd")
    parser.add_argument("--attempt", type=int, default=1)
    parser.add_argument("--outcome", action="store_true")
    asked = parser.parse_args()
    try:
        known = grids.schema(asked.notebook)
        grids.check("the parameters", asked.notebook, known, asked.parameters)
    except ValueError as error:
        return str(error)
    import papermill
    from papermill.exceptions import PapermillExecutionError

    failed = asked.output.with_suffix(".failed.ipynb")
    unfinished = asked.output.with_suffix(f".{os.getpid()}.ipynb")
    if asked.attempt > 1 and failed.exists():
        return 1
    if asked.record:
        asked.record.unlink(missing_ok=True)
        asked.parameters["record"] = str(asked.record)
    os.environ["JPY_SESSION_NAME"] = asked.notebook  # for the record
    # whatever kernel an editor has written into the notebook
    kernel = {"kernel_name": "python3", "language": "python"}
    options = kernel | {"cwd": asked.cwd, "progress_bar": False}
    try:
        papermill.execute_notebook(asked.notebook, unfinished, asked.parameters, **options)
        unfinished.rename(asked.output)
    except Exception as error:
        if not isinstance(error, PapermillExecutionError):  # of the kernel, not in it
            note(unfinished, asked.notebook, error)
        if asked.record:
            asked.record.unlink(missing_ok=True)
        reason = why(unfinished)
        print(f"{asked.notebook} {asked.parameters}: {reason}", file=sys.stderr)
        if asked.outcome and (will_recur(reason) or asked.attempt > 1):
            unfinished.rename(asked.output)
            return 0
        print(*getattr(error, "traceback", []), sep="\n", file=sys.stderr)
        if will_recur(reason):
            unfinished.rename(failed)
            print(f"it is as far as it came in {failed}", file=sys.stderr)
        return 1
    finally:
        unfinished.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
