"""The workflow in a small project of its own: the Snakefile as it is, with tiny notebooks."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

from nomalib import records

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
GRID = {"n_users": [1, 2], "noise": [0.5, 1.0e-3]}

EXPERIMENT = """
import time
import numpy as np
from nomalib import records

given = dict(n_users=n_users, noise=noise, seed=seed, fading=fading, check=check)
rate = np.random.default_rng(seed).random() / noise
records.write(record, given, {"sum_rate": rate, "time_s": time.process_time()})
time.sleep(0.2)
"""
CHAPTER = """
from nomalib import records as records_module

len(records_module.table(records))
"""


def notebook(path, parameters, code):
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


@pytest.fixture
def project(tmp_path):
    for name in ("Snakefile", "requirements.txt", "_config.yml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "profiles/default", tmp_path / "profiles/default")
    shutil.copytree(ROOT / "nomalib", tmp_path / "nomalib", ignore=shutil.ignore_patterns("__*__"))
    shutil.copy(ROOT / "nomalib/__init__.py", tmp_path / "nomalib")
    parameters = (
        'n_users = 3  # M\nnoise = 0.1\nseed = 0\nfading = "normal"\ncheck = False\nrecord = ""'
    )
    notebook(tmp_path / "book/experiments/tiny.ipynb", parameters, EXPERIMENT)
    notebook(tmp_path / "book/chapter.ipynb", 'records = ""', CHAPTER)
    (tmp_path / "book/index.md").write_text("# Book\n")
    (tmp_path / "book/references.bib").write_text("")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/chapter\n"
    )
    write_profile(tmp_path, GRID)
    # the kernels count as compiled: these notebooks need none
    for module in ("interior_point", "matching", "optimum", "learning"):
        kernel = tmp_path / "_runs/quick/kernels" / module
        kernel.parent.mkdir(parents=True, exist_ok=True)
        kernel.touch()
        (tmp_path / "_runs/sweeps/my_grid/kernels").mkdir(parents=True, exist_ok=True)
        (tmp_path / "_runs/sweeps/my_grid/kernels" / module).touch()
    return tmp_path


def write_profile(project, grid):
    (project / "profiles/quick.yml").write_text(yaml.safe_dump({"experiments": {"tiny": [grid]}}))


def start(project, *arguments):
    return subprocess.Popen(
        [BIN / "snakemake", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def snakemake(project, *arguments):
    running = start(project, *arguments)
    said, _ = running.communicate(timeout=120)
    return running.returncode, said


def sweep(project, grid, *arguments):
    (project / "my_grid.yml").write_text(grid)
    configured = ("--config", "notebook=book/experiments/tiny.ipynb", "grid=my_grid.yml")
    return snakemake(project, "sweep", *configured, *arguments)


CHAPTER_RUN = "_runs/quick/book/chapter.ipynb"


def table_without_times(project):
    folder = project / "_runs/quick/records"
    return [
        {name: value for name, value in row.items() if not name.endswith("_s")}
        for row in records.table(folder)
    ]


def expected(n_users, noise, seed=0):
    rate = np.random.default_rng(seed).random() / noise
    given = dict(n_users=n_users, noise=noise, seed=seed, fading="normal", check=False)
    return given | {"sum_rate": rate}


def planned(project):
    """Rules of a dry run with their counts."""
    returncode, said = snakemake(project, CHAPTER_RUN, "--dry-run", "--quiet", "rules")
    assert returncode == 0, said
    lines = [line.split() for line in said.splitlines()]
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def test_killed_three_times_it_resumes_and_runs_what_is_damaged_or_stale(project):
    pick = random.Random(0)
    for _ in range(3):
        running = start(project, CHAPTER_RUN)
        done = len(list(project.glob("_runs/quick/records/tiny/*.json")))
        while running.poll() is None:  # until a job more is done, and then at a random moment
            if len(list(project.glob("_runs/quick/records/tiny/*.json"))) > done:
                time.sleep(pick.uniform(0, 0.4))
                running.send_signal(signal.SIGKILL)
                break
            time.sleep(0.02)
        running.communicate()
    returncode, said = snakemake(project, CHAPTER_RUN)
    assert returncode == 0, said
    rows = [expected(n_users, noise) for n_users in (1, 2) for noise in (0.5, 0.001)]

    def is_whole():
        found = table_without_times(project)
        chapter = json.loads((project / CHAPTER_RUN).read_text())
        printed = chapter["cells"][-1]["outputs"][0]["data"]["text/plain"]
        return sorted(map(str, found)) == sorted(map(str, rows)) and printed == ["4"]

    assert is_whole()

    # a record cut short, one edited, one of a run that nobody asked for, and a notebook cut short
    first, second, *_ = sorted(project.glob("_runs/quick/records/tiny/*.json"))
    first.write_bytes(first.read_bytes()[:100])
    second.write_text(second.read_text().replace('"n_users": ', '"n_users": 1'))
    alien = first.with_name("0123456789ab.json")
    records.write(alien, {}, {})
    chapter = project / CHAPTER_RUN
    chapter.write_bytes(chapter.read_bytes()[:-20])
    returncode, said = snakemake(project, CHAPTER_RUN)
    assert returncode == 0, said
    for path in (first, second, alien, chapter):
        assert f"Removing {path.relative_to(project)}" in said
    assert is_whole() and not alien.exists()
    assert not list(project.glob("_runs/quick/**/*.[0-9]*.ipynb"))  # no half-done notebook stays

    # what runs again: nothing; what a grid adds; what an edit in nomalib reaches
    assert planned(project) == {}
    write_profile(project, GRID | {"noise": [0.5, 0.001, 2.0]})
    assert planned(project) == {"chapter": 1, "experiment": 2, "total": 3}
    write_profile(project, GRID)
    (project / "nomalib/plots.py").touch()
    assert planned(project) == {"chapter": 1, "total": 1}
    (project / "nomalib/rates.py").touch()
    assert planned(project) == {"kernels": 4, "experiment": 4, "chapter": 1, "total": 9}


@pytest.mark.parametrize(
    "grid, says",
    [
        ("n_user: [1, 2]", ["'n_user'", "n_users = 3", "noise = 0.1", "fading = 'normal'"]),
        ("noise: [1e-3]", ["noise is '1e-3'", "0.1", "1.0e-3"]),
        ("fading: normal\ncheck: 1", ["check is 1"]),
    ],
)
def test_a_bad_grid_stops_before_anything_runs(project, grid, says):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    returncode, said = sweep(project, grid)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert returncode != 0
    assert all(part in said for part in says), said
    # of its own work: the machine may be busy
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert not list(project.glob("_runs/sweeps/**/*.json"))


def test_a_sweep_on_a_cluster_gives_a_table_and_a_plot(project):
    submit = project / "submit.sh"
    submit.write_text('nohup bash "$1" > "$1.log" 2>&1 &\necho $!\n')
    cluster = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", f"bash {submit}")
    grid = "seed: [0, 1, 0]\nnoise: [2.0]"
    returncode, said = sweep(project, grid, *cluster, "--jobs", "2", "--latency-wait", "20")
    assert returncode == 0, said
    assert "with external jobid" in said
    table = (project / "_runs/sweeps/my_grid/tiny.csv").read_text().splitlines()
    assert table[0] == "n_users,noise,seed,fading,check,sum_rate,time_s"
    rows = [expected(3, 2.0, seed) for seed in (0, 1)]  # a run named twice runs once
    assert sorted(line.rsplit(",", 1)[0] for line in table[1:]) == sorted(
        ",".join(map(str, row.values())) for row in rows
    )
    picture = (project / "_runs/sweeps/my_grid/tiny.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
