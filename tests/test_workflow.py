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
    """A second call, while the first is at work, is refused."""
    pick = random.Random(0)
    for at in range(3):
        running = start(project, "snakemake", CHAPTER)
        done = len(list(project.glob("_runs/quick/records/tiny/*.json")))
        if at == 0:
            while not (project / "_runs/lock").exists():
                assert running.poll() is None
                time.sleep(0.02)
            returncode, said = snakemake(project, CHAPTER)
            assert returncode != 0 and "Traceback" not in said
            assert "another call is at work in _runs/quick" in said, said
            assert running.poll() is None  # it was still at work
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
    # what runs again: nothing by a date alone; what an edit reaches; what a grid adds
    (project / "nomalib/rates.py").touch()
    assert planned(project) == {}
    whole = (project / "nomalib/plots.py").read_text()
    edit(project / "nomalib/plots.py")
    assert planned(project) == {"chapter": 1}
    (project / "nomalib/plots.py").write_text(whole)
    edit(project / "book/chapter.ipynb", "# A page", "# The page")
    assert planned(project) == {"chapter": 1}
    edit(project / "book/experiments/tiny.ipynb", "# A page", "# The page")
    write_profile(project, GRID | {"noise": [0.5, 0.001, 2.0]})
    assert planned(project) == {"experiment": 4 + 2, "chapter": 1}
    write_profile(project, GRID | {"n_users": [1]})
    run(users=(1,))
    edit(project / "nomalib/rates.py")
    assert planned(project) == {"experiment": 2, "chapter": 1}


@pytest.mark.parametrize(
    "config, says",
    [
        ([], ["'n_user'", "n_users = 3", "noise = 0.1", "fading = 'normal'"]),
        (["profle=quick"], ["profle", "profile, or notebook and grid"]),
        (["profile=mine"], ["profiles/mine.yml", "['tiny']"]),
        (["grid=my_grid.yml"], ["notebook and grid together"]),
    ],
)
def test_a_bad_call_stops_before_anything_runs(project, config, says):
    """More of bad grids, and of how they are refused: test_environment."""
    if config:
        returncode, said = snakemake(project, CHAPTER, "--config", *config)
    else:
        returncode, said = sweep(project, "n_user: [1, 2]")
    assert returncode != 0
    assert all(part in said for part in says), said
    assert not list(project.glob("_runs/**/*.json"))


def test_a_sweep_on_a_cluster_gives_a_table_and_a_plot_and_keeps_its_runs(project):
    submit = project / "submit.sh"
    submit.write_text('nohup bash "$1" > "$1.log" 2>&1 &\necho $!\n')
    cluster = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", f"bash {submit}")
    grid = "seed: [0, 1, 0]\nnoise: [2.0]"
    returncode, said = sweep(project, grid, *cluster, "--jobs", "2", "--latency-wait", "20")
    assert returncode == 0, said
    assert "with external jobid" in said
    made = project / "_runs/sweeps/my_grid"
    table = (made / "tiny.csv").read_text().splitlines()
    assert table[0] == "n_users,noise,seed,fading,check,sum_rate,time_s"
    rows = [expected(3, 2.0, seed) for seed in (0, 1)]  # a run named twice runs once
    assert sorted(line.rsplit(",", 1)[0] for line in table[1:]) == sorted(
        ",".join(map(str, row.values())) for row in rows
    )
    picture = (made / "tiny.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    # another grid of this name leaves the runs, and what asks for them again runs nothing
    before = set(made.glob("records/tiny/*.json"))
    for arguments in (("-n",), ()):
        returncode, said = sweep(project, "seed: [0]\nnoise: [0.5]", *arguments)
        assert returncode == 0, said
        assert before <= set(made.glob("records/tiny/*.json"))
    (row,) = (made / "tiny.csv").read_text().splitlines()[1:]
    assert row.startswith("3,0.5,0,")
    returncode, said = sweep(project, grid, "metric=time")
    assert returncode == 0 and ": experiment tiny" not in said, said
    assert sorted((made / "tiny.csv").read_text().splitlines()) == sorted(table)
    again = (made / "tiny.png").read_bytes()
    assert again.startswith(b"\x89PNG") and again != picture
