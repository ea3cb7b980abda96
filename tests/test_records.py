"""Records come back as they were written, whole or not at all."""

import json
import math
import multiprocessing
import os
import time
from importlib.metadata import version

import nbformat
import numpy as np
import pytest

from nomalib import records


def test_numpy_numbers_and_nan_are_plain_json(tmp_path):
    path = tmp_path / "deep/a.json"
    records.write(
        path, {"n": np.int64(3), "pair": (1, np.float32(0.5))}, {"r": np.array([[1.0, np.nan]])}
    )

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    stored = json.loads(path.read_text(), parse_constant=refuse)
    assert stored["parameters"] == {"n": 3, "pair": [1, 0.5]}
    assert stored["metrics"] == {"r": [[1.0, None]]}
    np.testing.assert_array_equal(records.read(path)["metrics"]["r"], [[1.0, math.nan]])
    assert os.listdir(path.parent) == ["a.json"]  # no temporary file stays


def test_provenance(tmp_path, monkeypatch):
    cells = [
        {"cell_type": "code", "source": ["1 + 1"], "outputs": []},
        {"cell_type": "markdown", "source": ["words"]},
    ]
    notebook = tmp_path / "n.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook))
    records.write(tmp_path / "a.json", {"seed": 7}, {})
    provenance = records.read(tmp_path / "a.json")["provenance"]
    assert provenance["seed"] == 7
    assert provenance["wall_time_s"] > 0
    assert provenance["source"] == records.source_hash()
    assert provenance["versions"]["numpy"] == version("numpy") == np.__version__
    packages = {"python", "numpy", "scipy", "highspy", "numba", "keras", "jax"}
    assert set(provenance["versions"]) == packages
    assert provenance["machine"]["cores"] == os.cpu_count()
    assert provenance["machine"]["processor"] and provenance["machine"]["system"]
    made_by = provenance["notebook"]

    cells[0]["outputs"], cells[1]["source"] = ["2"], ["other words"]
    notebook.write_text(json.dumps({"cells": cells}))
    assert records.environment()["notebook"] == made_by
    cells[0]["source"] = ["1 + 2"]
    notebook.write_text(json.dumps({"cells": cells}))
    assert records.environment()["notebook"] != made_by
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert records.environment()["notebook"] is None


def test_every_cut_and_every_kind_of_damage_is_refused(tmp_path):
    path, damaged = tmp_path / "a.json", tmp_path / "b.json"
    records.write(path, {"seed": 1}, {"rate": 2.5})
    whole = path.read_bytes()
    ends = [*range(0, len(whole) - 2, 37), len(whole) - 2]  # all but the final brace
    for damage in (
        *(whole[:end] for end in ends),
        whole.replace(b"2.5", b"2.6"),
        b"\xff" + whole,
        b"[]",
        b'{"parameters": {}, "metrics": {}}',
    ):
        damaged.write_bytes(damage)
        with pytest.raises(ValueError, match="b.json"):
            records.read(damaged)
        with pytest.raises(ValueError, match="b.json"):
            records.table(tmp_path)


@pytest.mark.parametrize("value", [math.inf, "0.1", None, [1.0, -math.inf]])
def test_a_metric_is_a_number(tmp_path, value):
    with pytest.raises(ValueError, match="'rate'"):
        records.write(tmp_path / "a.json", {}, {"rate": value})
    assert not os.listdir(tmp_path)


def test_a_name_is_used_once(tmp_path):
    with pytest.raises(ValueError, match="'noise'"):
        records.write(tmp_path / "a.json", {"noise": 0.1}, {"noise": 0.1})


def test_table(tmp_path):
    for name, seed in (("b/1.json", 1), ("a/2.json", 2)):
        records.write(tmp_path / name, {"seed": seed}, {"rate": 10 * seed})
    first, second = {"seed": 2, "rate": 20}, {"seed": 1, "rate": 10}
    assert records.paths(tmp_path) == [tmp_path / "a/2.json", tmp_path / "b/1.json"]
    assert records.table(tmp_path) == [first, second]
    assert records.table([tmp_path / "b/1.json"]) == [second]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        records.table(tmp_path / "nowhere")


def test_nothing_is_written_without_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records.write("", {"seed": 0}, {"rate": 1.0})
    assert not os.listdir(tmp_path)


def _write_for_ever(path):
    while True:
        records.write(path, {"seed": 0}, {"rate": list(range(20_000))})


def test_a_writer_killed_at_any_moment_leaves_a_whole_record(tmp_path):
    path = tmp_path / "a.json"
    records.write(path, {"seed": 0}, {"rate": []})
    for wait in (0.05, 0.11):
        writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(path,))
        writer.start()
        before = path.stat().st_mtime_ns
        while path.stat().st_mtime_ns == before:  # until it writes
            assert writer.is_alive()
            time.sleep(0.01)
        writer.join(wait)
        writer.kill()
        writer.join()
        assert len(records.read(path)["metrics"]["rate"]) == 20_000
    assert records.table(tmp_path)[0]["seed"] == 0  # what the killed leave behind is not read


def test_an_experiment_runs_from_the_projects_folder_and_from_book(tmp_path, monkeypatch):
    (tmp_path / "book/experiments").mkdir(parents=True)
    cell = nbformat.v4.new_code_cell(
        "import time; time.sleep(seed == 1)\nfrom nomalib import records\n"
        "records.write(record, {'seed': seed}, {'twice': 2 * seed})"
    )
    defaults = nbformat.v4.new_code_cell("seed = 0\nrecord = ''", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[defaults, cell])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, tmp_path / "book/experiments/doubling.ipynb")
    monkeypatch.chdir(tmp_path)
    records.run_experiment("doubling", "out/1.json", seed=1)
    assert records.table("out") == [{"seed": 1, "twice": 2}]
    provenance = records.read("out/1.json")["provenance"]
    assert provenance["notebook"] and provenance["wall_time_s"] > 1  # before the import, too
    monkeypatch.chdir("book")
    given = [row["seed"] for row in records.rows("doubling", "", {"seed": 5}, {}, seed=6)]
    assert given == [5, 6]
    with pytest.raises(FileNotFoundError, match="'halving'"):
        records.run_experiment("halving", "out/2.json")


def test_a_time_is_the_median_after_a_call_that_warms_up():
    calls = []
    for quantile, expected in ((0.5, 2.0), ((0.0, 1.0), [1.0, 10.0])):
        clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 13.0]).__next__
        timed = records.seconds(lambda: calls.append(0), repeats=3, clock=clock, quantile=quantile)
        assert timed == expected
    assert len(calls) == 2 * 4


def test_numbers_are_glued_under_their_chapter_as_pythons_own(monkeypatch):
    glued = {}
    monkeypatch.setattr("myst_nb.glue", lambda key, value, display: glued.update({key: value}))
    records.glued("ipm", settled=12, least_gap=np.float64(0.5))
    assert glued == {"ipm_settled": 12, "ipm_least_gap": 0.5}
    assert type(glued["ipm_least_gap"]) is float
