"""The workflow and the package under foreign settings, in odd folders, and on a cluster.

Minutes; `make test-everywhere` runs them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import small_project
from small_project import CHAPTER, ROOT, snakemake, start, write_profile

from nomalib import records

pytestmark = pytest.mark.skipif("EVERYWHERE" not in os.environ, reason="make test-everywhere")
PARAMETERS = """
noise = 0.1  # σ₀² [W]
seed = 0
sleep_s = 0.0  # [s]
record = ""
"""
EXPERIMENT = """
import time
import numpy as np
from nomalib import records

if noise > 5:
    raise ValueError("no draw is feasible")
time.sleep(sleep_s)
rate = np.random.default_rng(seed).random() / noise
records.write(record, dict(noise=noise, seed=seed), {"sum_rate": rate})
"""


@pytest.fixture
def foreign(tmp_path):
    """All at once: what servers and other projects of the user's set."""
    kernel = {"argv": ["/bin/false"], "display_name": "foreign", "language": "python"}
    files = {
        "jupyter/kernels/python3/kernel.json": json.dumps(kernel),
        "home/.keras/keras.json": json.dumps({"floatx": "float16", "backend": "tensorflow"}),
        "home/.config/matplotlib/matplotlibrc": "text.usetex: True\n",
        "home/.ipython/profile_default/startup/a.py": "raise SystemExit('of the user')\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return {
        "HOME": str(tmp_path / "home"),
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "MPLBACKEND": "Agg",
        "KERAS_MAX_EPOCHS": "1",
        "JAX_ENABLE_X64": "1",
        "PYTHONOPTIMIZE": "1",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }


def project(folder, name="my noma é"):
    (folder / name).mkdir()
    return small_project.make(folder / name, PARAMETERS, EXPERIMENT)


def sweep(folder, grid, *arguments):
    """Exit code, what it said, and the records without their times."""
    (folder / "my_grid.yml").write_text(grid, encoding="utf-8")
    configured = ("notebook=book/experiments/tiny.ipynb", "grid=my_grid.yml")
    returncode, said = snakemake(folder, "sweep", "--config", *configured, *arguments, timeout=1800)
    return returncode, said, rates(folder)


def rates(folder):
    rows = records.table(folder / "_runs/sweeps/my_grid/records")
    return sorted((row["noise"], row["seed"], row["sum_rate"]) for row in rows)


def test_all_foreign_settings_at_once_in_an_odd_folder(tmp_path, foreign, monkeypatch):
    folder = project(tmp_path)
    grid = "noise: [0.5, 9.0, 1.0]\nseed: [0, 1]"
    returncode, said, clean = sweep(folder, grid)
    assert returncode == 1 and len(clean) == 4, said
    shutil.rmtree(folder / "_runs")
    notebook = folder / "book/experiments/tiny.ipynb"  # as an editor saves it
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("python3", "my-env"), "utf-8")
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    returncode, said, found = sweep(folder, grid)
    assert returncode == 1 and found == clean, said
    # the infeasible runs are said once, were tried once, and the others have table and plot
    assert said.count("{noise: 9.0, seed: 1}: ValueError: no draw is feasible") == 1, said
    # a kernel that is shut down on a starved machine may print a traceback, of its own
    assert "Trying to restart" not in said and "raise ValueError" not in said, said
    made = folder / "_runs/sweeps/my_grid"
    assert len((made / "tiny.csv").read_text(encoding="utf-8").splitlines()) == 5
    assert (made / "tiny.png").stat().st_size > 5000
    assert len((made / "tiny_failed.txt").read_text(encoding="utf-8").splitlines()) == 2
    assert not list(made.rglob("*.*.ipynb"))
    # called again, nothing runs, and a record that is lost is made anew
    next((made / "records").rglob("*.json")).unlink()
    returncode, said, found = sweep(folder, grid)
    assert returncode == 1 and found == clean and said.count(": experiment tiny") == 1, said
    write_profile(folder, {"noise": [0.5]})
    returncode, said = snakemake(folder, CHAPTER)
    assert returncode == 0, said


def test_a_chapter_that_fails_is_not_tried_again(tmp_path):
    folder = project(tmp_path)
    write_profile(folder, {"noise": [9.0]})
    returncode, said = snakemake(folder, CHAPTER)
    assert returncode == 1 and said.count("no draw is feasible") <= 3, said
    assert len(list(folder.glob("_runs/quick/experiments/tiny/*.failed.ipynb"))) == 1


def test_two_hundred_runs(tmp_path):
    folder = project(tmp_path, "many")
    returncode, said, found = sweep(folder, f"seed: {list(range(200))}")
    assert returncode == 0, said
    assert [seed for _, seed, _ in found] == list(range(200))


TRAINING = """
import hashlib
import numpy as np
from nomalib import interior_point, learning
from nomalib.network import Network, draw_gains, random_assignment

net, rng = Network(3, 4), np.random.default_rng(0)
gains, assignment = draw_gains(net, 100, rng), random_assignment(net, rng)
power = interior_point.allocate(net, gains, assignment).power
models = [learning.imitation_network(net, seed=1), learning.equivariant_network(seed=2)]
learning.imitate(models[0], net, gains, assignment, power, epochs=3)
learning.maximise_sum_rate(models[1], [net], epochs=2, steps_per_epoch=3, batch_size=16)
weights = [weight for model in models for weight in model.get_weights()]
print("made", hashlib.sha256(b"".join(map(np.ndarray.tobytes, [power, *weights]))).hexdigest())
"""
SETTINGS = """
KERAS_BACKEND=torch KERAS_MAX_EPOCHS=1 KERAS_MAX_STEPS_PER_EPOCH=1 KERAS_NNX_ENABLED=1
JAX_ENABLE_X64=1 JAX_DEFAULT_PRNG_IMPL=rbg JAX_THREEFRY_PARTITIONABLE=0 JAX_DISABLE_JIT=1
JAX_DEFAULT_MATMUL_PRECISION=bfloat16 JAX_NUMPY_DTYPE_PROMOTION=strict
XLA_FLAGS=--xla_cpu_enable_fast_math=true NUMBA_DISABLE_JIT=1 NUMBA_OPT=0 NUMBA_NUM_THREADS=1
OMP_NUM_THREADS=1 PYTHONOPTIMIZE=2 PYTHONHASHSEED=1 MPLBACKEND=Agg LC_ALL=C PYTHONUTF8=0
""".split()


def trained(**environ):
    command = [sys.executable, "-c", TRAINING]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environ
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=900)
    return done.stdout.strip(), done.stderr.strip().splitlines()


def test_a_result_is_the_same_or_refused_under_each_setting(tmp_path, foreign):
    """One training of each network, and one allocation, compared to the bit."""
    expected, _ = trained()
    assert expected.startswith("made ")
    refused = []
    for setting in [*SETTINGS, f"KERAS_HOME={foreign['HOME']}/.keras"]:
        name, _, value = setting.partition("=")
        made, said = trained(**{name: value})
        if made != expected:
            assert made == "" and "Error: " in said[-1], (setting, made, said[-5:])
            refused.append(name)
    assert {"KERAS_HOME", "KERAS_MAX_EPOCHS", "JAX_ENABLE_X64", "XLA_FLAGS"} <= set(refused)
    assert not {"NUMBA_OPT", "MPLBACKEND", "LC_ALL", "PYTHONOPTIMIZE"} & set(refused)


def test_packages_that_pythonpath_brings_stop_the_workflow(tmp_path):
    folder = project(tmp_path, "strange")
    (folder / "numba").mkdir()
    (folder / "numba/__init__.py").touch()
    returncode, said = snakemake(folder, CHAPTER, "-n")
    assert returncode == 1 and "numba" in said and "PYTHONPATH" in said, said


SLURM = all(map(shutil.which, ("slurmctld", "slurmd", "munged"))) and os.geteuid() == 0
PLUGIN = list(Path(sys.prefix).glob("lib/*/site-packages/snakemake_executor_plugin_slurm"))
DATABASE = all(map(shutil.which, ("slurmdbd", "mariadbd")))


@pytest.mark.xdist_group("slurm")  # one after the other: a machine has one
@pytest.mark.skipif(not (SLURM and PLUGIN), reason="NO SLURM HERE: slurmctld, slurmd, munge, root")
@pytest.mark.parametrize(
    "accounting",
    ["", pytest.param("accounting", marks=pytest.mark.skipif(not DATABASE, reason="NO SLURMDBD"))],
)
def test_a_sweep_through_slurm_equals_the_local_one(tmp_path, accounting):
    """A node is killed while it runs; the jobs that it had run on the other."""
    local, cluster = project(tmp_path, "local"), project(tmp_path, "cluster")
    grid = "noise: [0.5, 9.0, 1.0]\nseed: [0, 1]\nsleep_s: 8"
    returncode, said, expected = sweep(local, grid)
    assert returncode == 1 and len(expected) == 4, said
    shutil.copytree(ROOT / "profiles/slurm", cluster / "profiles/slurm")
    (cluster / "my_grid.yml").write_text(grid, encoding="utf-8")
    # in a folder with a short name, as sockets' must be
    state, script = Path(tempfile.mkdtemp()), ROOT / "tools/slurm_here.sh"
    configured = ("--config", "notebook=book/experiments/tiny.ipynb", "grid=my_grid.yml")
    quick = (
        "--slurm-init-seconds-before-status-checks",
        "2",
        "--seconds-between-status-checks",
        "2",
    )
    try:
        subprocess.run([script, "up", state, accounting], check=True, timeout=120)
        running = start(
            cluster, "snakemake", "sweep", "--profile", "profiles/slurm", *configured, *quick
        )
        killed = False
        while running.poll() is None and not killed:
            jobs = subprocess.run(
                ["squeue", "--noheader", "--nodelist=node1", "--states=running", "--format=%k"],
                capture_output=True,
                encoding="utf-8",
            )
            if "experiment" in jobs.stdout:
                killed = kill_node(state, "node1")
            time.sleep(0.5)
        said, _ = running.communicate(timeout=900)
    finally:
        subprocess.run([script, "down", state], check=True, timeout=60)
        shutil.rmtree(state)
    assert killed and running.returncode == 1, said
    assert rates(cluster) == expected, said
    assert said.count("{noise: 9.0, seed: 1, sleep_s: 8}: ValueError: no draw is feasible") == 1


def kill_node(state, name):
    """The node's daemon and all processes of its jobs at once, as where the power fails."""
    doomed = [psutil.Process(int((state / f"{name}.pid").read_text(encoding="utf-8")))]
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURMD_NODENAME") == name:
                steps = [p for p in process.parents() if "slurmstepd" in p.name()]
                doomed += [process, *steps]
        except psutil.Error:  # gone, or of another user
            pass
    for process in {process.pid: process for process in doomed}.values():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    return len(doomed) > 1
