"""Faults under a running workflow: each is said, no finished run is lost, the next call completes.

Here: a kernel and a papermill that are killed, a full disk, a read-only folder. In `test_workflow`:
the scheduler killed, two calls at once.
"""

import shutil
import subprocess

import pytest
import small_project
from small_project import CHAPTER, snakemake, start, write_profile

from nomalib import records

PARAMETERS = """
n_users = 3  # M
fault = "none"
record = ""
"""
EXPERIMENT = """
import os, signal, time
from pathlib import Path
from nomalib import records

if fault != "none":
    strikes = Path(f"{fault}.strikes")
    with strikes.open("a") as file:
        file.write("x")
    if len(strikes.read_text()) <= 2:
        os.kill({"kernel": os.getpid(), "papermill": os.getppid()}[fault], signal.SIGKILL)
        time.sleep(60)
records.write(record, dict(n_users=n_users, fault=fault), {"sum_rate": 2.0 * n_users})
"""


@pytest.fixture
def project(tmp_path):
    return small_project.make(tmp_path, PARAMETERS, EXPERIMENT)


def made(project):
    """Records that are there, all of them whole: file, and when it was written."""
    found = {}
    for path in sorted(project.glob("_runs/quick/records/tiny/*.json")):
        row = records.table([path])[0]
        assert row["sum_rate"] == 2.0 * row["n_users"]
        found[path.name] = path.stat().st_mtime_ns
    return found


def test_a_killed_kernel_and_a_killed_papermill(project):
    write_profile(project, {"fault": ["none", "kernel", "papermill"]})
    returncode, said = snakemake(project, CHAPTER, "--keep-going")
    assert returncode != 0
    assert "Kernel died" in said and "Killed" in said, said
    before = made(project)
    assert len(before) == 1 and not (project / CHAPTER).exists()
    returncode, said = snakemake(project, CHAPTER)
    assert returncode == 0, said
    after = made(project)
    assert len(after) == 3 and before.items() <= after.items()


namespaces = (
    shutil.which("unshare")
    and not subprocess.run(
        ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
    ).returncode
)


@pytest.mark.skipif(not namespaces, reason="needs a mount of its own: Linux with user namespaces")
def test_a_full_disk_and_a_read_only_folder(project):
    write_profile(project, {"n_users": [1, 2]})
    script = project / "steps.sh"
    script.write_text(
        f"""
        keep() {{ mkdir -p kept/$1; cp -a _runs/. kept/$1/; echo "$1 ended with $2"; }}
        mkdir _runs
        mount -t tmpfs -o size=52k tmpfs _runs || exit
        snakemake {CHAPTER} --cores 1; keep full $?
        mount --options-mode ignore -o remount,ro _runs
        snakemake {CHAPTER} --cores 1; keep readonly $?
        mount --options-mode ignore -o remount,rw,size=10m _runs
        snakemake {CHAPTER}; keep roomy $?
        """
    )
    running = start(project, "unshare", "--map-root-user", "--mount", "bash", str(script))
    said, _ = running.communicate(timeout=300)
    assert "roomy ended with 0" in said, said
    full, readonly = said.split("full ended with 1")
    readonly, roomy = readonly.split("readonly ended with 1")
    assert "No space left on device" in full
    assert "Read-only file system: '_runs" in readonly and "Error" in readonly

    def names(step):
        found = {}
        for path in (project / "kept" / step).glob("quick/records/tiny/*.json"):
            records.read(path)
            found[path.name] = path.stat().st_mtime_ns
        return found

    assert names("full") and not (project / "kept/full/quick/book/chapter.ipynb").exists()
    assert names("full") == names("readonly")
    assert names("full").items() <= names("roomy").items() and len(names("roomy")) == 2
