"""The workflow in a small project of its own: the Snakefile as it is, with tiny notebooks."""

import json
import random
import signal
import time

import numpy as np
import pytest
import small_project
from small_project import CHAPTER, planned, snakemake, start, write_profile

from nomalib import records

GRID = {"n_users": [1, 2], "noise": [0.5, 1.0e-3]}
PARAMETERS = """
n_users = 3  # M
noise = 0.1
seed = 0
fading = "normal"
check = False
record = ""
"""
EXPERIMENT = """
import time
import numpy as np
from nomalib import records

given = dict(n_users=n_users, noise=noise, seed=seed, fading=fading, check=check)
rate = np.random.default_rng(seed).random() / noise
records.write(record, given, {"sum_rate": rate, "time_s": time.process_time()})
time.sleep(0.2)
"""


@pytest.fixture
def project(tmp_path):
    small_project.make(tmp_path, PARAMETERS, EXPERIMENT)
    write_profile(tmp_path, GRID)
    return tmp_path


def edit(path, old='"""', new='"""# edited: '):
    path.write_text(path.read_text().replace(old, new, 1))


def sweep(project, grid, *arguments):
    (project / "my_grid.yml").write_text(grid)
    configured = ("--config", "notebook=book/experiments/tiny.ipynb", "grid=my_grid.yml")
    return snakemake(project, "sweep", *configured, *arguments)


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


def test_killed_three_times_it_resumes_and_runs_what_is_stale(project):
    pick = random.Random(0)
    for _ in range(3):
        running = start(project, "snakemake", CHAPTER)
        done = len(list(project.glob("_runs/quick/records/tiny/*.json")))
        while running.poll() is None:  # until a job more is done, and then at a random moment
            if len(list(project.glob("_runs/quick/records/tiny/*.json"))) > done:
                time.sleep(pick.uniform(0, 0.4))
                running.send_signal(signal.SIGKILL)
                break
            time.sleep(0.02)
        running.communicate()

    def run(users):
        """All records that are asked for, and no others, are there, and the chapter read them."""
        returncode, said = snakemake(project, CHAPTER)
        assert returncode == 0, said
        rows = [expected(n_users, noise) for n_users in users for noise in (0.5, 0.001)]
        assert sorted(map(str, table_without_times(project))) == sorted(map(str, rows))
        chapter = json.loads((project / CHAPTER).read_text())
        assert chapter["cells"][-1]["outputs"][0]["data"]["text/plain"] == [str(len(rows))]
        assert not list(project.glob("_runs/quick/**/*.*.ipynb"))  # no half-done notebook stays

    run(users=(1, 2))
    # what runs again: nothing; what a grid adds; what an edit reaches
    assert planned(project) == {}
    write_profile(project, GRID | {"noise": [0.5, 0.001, 2.0]})
    assert planned(project) == {"chapter": 1, "experiment": 2}
    write_profile(project, GRID)
    (project / "nomalib/rates.py").touch()  # a date alone makes nothing stale
    assert planned(project) == {}
    edit(project / "nomalib/plots.py")
    assert planned(project) == {"chapter": 1}
    edit(project / "book/chapter.ipynb", "# A page", "# The page")
    assert planned(project) == {"chapter": 1}
    edit(project / "book/experiments/tiny.ipynb", "# A page", "# The page")
    assert planned(project) == {"experiment": 4, "chapter": 1}
    write_profile(project, GRID | {"n_users": [1]})
    run(users=(1,))
    edit(project / "nomalib/rates.py")
    assert planned(project) == {"experiment": 2, "chapter": 1}


@pytest.mark.parametrize(
    "grid, says",
    [
        ("n_user: [1, 2]", ["'n_user'", "n_users = 3", "noise = 0.1", "fading = 'normal'"]),
        ("noise: [0.1, 1e-3]", ["my_grid.yml: noise is '1e-3'", "a finite number", "1.0e-3"]),
    ],
)
def test_a_bad_grid_stops_before_anything_runs(project, grid, says):
    returncode, said = sweep(project, grid)
    assert returncode != 0
    assert all(part in said for part in says), said
    assert not list(project.glob("_runs/sweeps/**/*.json"))


def test_a_sweep_keeps_what_another_grid_asked_for(project):
    assert sweep(project, "seed: [0, 1]")[0] == 0
    before = sorted(project.glob("_runs/sweeps/my_grid/records/tiny/*.json"))
    for arguments in (("-n",), ()):
        returncode, said = sweep(project, "seed: [0]\nnoise: [2.0]", *arguments)
        assert returncode == 0, said
        assert set(before) <= set(project.glob("_runs/sweeps/my_grid/records/tiny/*.json"))
    table = (project / "_runs/sweeps/my_grid/tiny.csv").read_text().splitlines()
    assert len(table) == 2 and table[1].startswith("3,2.0,0,")


@pytest.mark.parametrize(
    "config, says",
    [
        (["profle=quick"], ["profle", "profile, or notebook and grid"]),
        (["profile=mine"], ["profiles/mine.yml", "['tiny']"]),
        (["grid=my_grid.yml"], ["notebook and grid together"]),
    ],
)
def test_a_call_that_names_nothing_there_is_stops(project, config, says):
    returncode, said = snakemake(project, CHAPTER, "--config", *config)
    assert returncode != 0
    assert all(part in said for part in says), said


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
    returncode, said = sweep(project, grid, "metric=time")
    assert returncode == 0, said
    again = (project / "_runs/sweeps/my_grid/tiny.png").read_bytes()
    assert again.startswith(b"\x89PNG") and again != picture
