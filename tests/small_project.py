"""A small project with the workflow as it is: the Snakefile, tiny notebooks, a profile."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CHAPTER = "_runs/quick/book/chapter.ipynb"

_READER = """
from nomalib import records as records_module

len(records_module.table(records))
"""


def make(folder, parameters, code):
    """A project in a folder, with one experiment, `tiny`, and a chapter that reads its records."""
    for name in ("Snakefile", "requirements.txt", "_config.yml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "profiles/default", folder / "profiles/default")
    (folder / "nomalib").mkdir()
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__", "_checks", "_compile", "network", "records", "plots"):
        shutil.copy(ROOT / f"nomalib/{name}.py", folder / "nomalib")
    # the rest of the package, with all that is to be compiled
    (folder / "nomalib/rates.py").write_text('""">>> 1\n1"""\n')
    ignored = " ".join(f"--deselect=nomalib/{name}.py" for name in ("network", "records", "plots"))
    options = f"--maxprocesses 1 {ignored}"  # one is enough for nothing to compile
    (folder / "pytest.ini").write_text(f"[pytest]\naddopts = {options}\n", encoding="utf-8")
    _notebook(folder / "book/experiments/tiny.ipynb", parameters, code)
    _notebook(folder / "book/chapter.ipynb", 'records = ""', _READER)
    (folder / "book/index.md").write_text("# Book\n", encoding="utf-8")
    (folder / "book/references.bib").write_text("", encoding="utf-8")
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/chapter\n"
    )
    return folder


def _notebook(path, parameters, code):
    cells = [
        nbformat.v4.new_markdown_cell("# A page"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code.strip()),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)


def write_profile(project, grid):
    (project / "profiles/quick.yml").write_text(yaml.safe_dump({"experiments": {"tiny": [grid]}}))


def start(project, *command):
    return subprocess.Popen(
        command,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project), "PATH": f"{BIN}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def snakemake(project, *arguments, timeout=300):
    """Exit code, and what it said."""
    running = start(project, "snakemake", *arguments)
    said, _ = running.communicate(timeout=timeout)
    return running.returncode, said


def planned(project):
    """Notebooks that a dry run would run: how many of each rule."""
    returncode, said = snakemake(project, CHAPTER, "--dry-run", "--quiet", "rules")
    assert returncode == 0, said
    counts = dict(re.findall(r"^(chapter|experiment) +(\d+)$", said, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in counts.items()}
