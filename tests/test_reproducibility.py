"""A seed gives the same numbers: whatever the threads and the order, and from a record alone."""

import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numba
import numpy as np
import pytest
from checks import draws
from numba.core.runtime import _nrt_python, rtsys

from nomalib import (
    compression,
    deployed,
    interior_point,
    learning,
    matching,
    optimum,
    polytope,
    records,
    water_filling,
)
from nomalib.network import Network

ROOT = Path(__file__).parents[1]
UNIFORM = Network(4, 5, max_subchannels_per_user=3)
UNEVEN = replace(UNIFORM, sic_residual=np.random.default_rng(5).random((4, 5)))
PAPER = Network(noise=1e-2, sic_residual=np.random.default_rng(9).random((10, 10)))


def drawn(model):
    """The network with random weights: of a new size-free one the last layer is 0."""
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(scale=0.2, size=w.shape) for w in model.get_weights()])
    return model


def by_network(net, gains, assignment):
    return learning.allocate(drawn(learning.equivariant_network()), net, gains, assignment)


RULES = get_args(matching.Rule)
CALLS = {
    "reduce": (polytope.reduce, UNEVEN),
    "water_filling": (water_filling.allocate, UNIFORM),
    "interior_point": (interior_point.allocate, PAPER),
    "optimum": (optimum.allocate, UNEVEN),
    "size_free": (by_network, UNEVEN),
    **{rule: (partial(matching.paus, rule=rule, moves=False), UNIFORM) for rule in RULES},
    "moves": (matching.paus, UNIFORM),
}


def equal(found, expected, at):
    for one, other in zip(found, expected, strict=True):
        one, other = np.asarray(one), other[at]
        if one.ndim and one.shape != other.shape:  # a trace is as long as its batch needs
            width = min(one.shape[-1], other.shape[-1])
            one, other = one[..., :width], other[..., :width]
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", CALLS)
def test_threads_order_and_company_change_nothing(name):
    call, net = CALLS[name]
    rng = np.random.default_rng(7)
    n_draws = 200 if name != "optimum" else 20
    gains, assignment = draws(net, n_draws, rng)
    threads = numba.get_num_threads()
    expected = call(net, gains, assignment)
    try:
        for count in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(count)
            equal(call(net, gains, assignment), expected, slice(None))
            shuffled = rng.permutation(n_draws)
            equal(call(net, gains[shuffled], assignment[shuffled]), expected, shuffled)
            equal(call(net, gains[:64], assignment[:64]), expected, slice(64))
            for b in (0, n_draws // 2, n_draws - 1):
                equal(call(net, gains[b], assignment[b]), expected, b)
    finally:
        numba.set_num_threads(threads)


def test_company_changes_the_last_bits_of_the_papers_network_alone(tmp_path):
    """Single-precision products of matrices round by their size; what comes before does not."""
    model, rng = drawn(learning.imitation_network(UNIFORM)), np.random.default_rng(7)
    gains, assignment = draws(UNIFORM, 200, rng)
    compression.save(model, tmp_path / "paper.npz")
    artefact = deployed.load(tmp_path / "paper.npz")
    for run in (partial(deployed.power, artefact), lambda *x: learning.allocate(model, *x).power):
        batch = run(UNIFORM, gains, assignment)
        alone = [run(UNIFORM, *draw) for draw in zip(gains, assignment, strict=True)]
        np.testing.assert_allclose(alone, batch, rtol=0, atol=1e-5 * UNIFORM.budget)
        np.testing.assert_array_equal(run(UNIFORM, gains, assignment), batch)


@pytest.mark.parametrize("name", CALLS)
def test_kernels_free_the_arrays_that_they_make(name):
    """Also those that count no references to them (`borrowing` of `nomalib._compile`)."""
    call, net = CALLS[name]
    given = net, *draws(net, 20, np.random.default_rng(7))
    _nrt_python.memsys_enable_stats()
    call(*given)
    before = rtsys.get_allocation_stats()
    call(*given)
    after = rtsys.get_allocation_stats()
    assert after.mi_alloc - before.mi_alloc == after.mi_free - before.mi_free > 0


TINY = dict(n_users=4, n_subchannels=3, n_draws=100, residuals="uniform", seed=3)


def run_experiment(record, parameters, threads):
    """The experiment `assumptions`, as the workflow runs it but for the threads of the solvers."""
    given = [part for pair in parameters.items() for part in ("-p", pair[0], str(pair[1]))]
    papermill = [Path(sys.executable).with_name("papermill"), "book/experiments/assumptions.ipynb"]
    command = [*papermill, record.with_suffix(".ipynb"), "-p", "record", record, *given]
    quiet = ["--no-progress-bar", "--log-level", "ERROR"]
    settings = {"PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": str(threads)}
    subprocess.run([*command, *quiet], cwd=ROOT, env=os.environ | settings, check=True)
    return records.read(record)


def test_a_record_is_rebuilt_from_its_own_parameters(tmp_path):
    first = run_experiment(tmp_path / "first.json", TINY, threads=1)
    assert first["parameters"].items() > TINY.items()
    again = run_experiment(tmp_path / "again.json", first["parameters"], threads=2)
    assert again["parameters"] == first["parameters"]
    assert again["provenance"]["source"] == first["provenance"]["source"]
    measured = {n: value for n, value in first["metrics"].items() if not n.endswith("_s")}
    assert len(measured) >= 18 and measured.keys() <= again["metrics"].keys()
    for name, value in measured.items():
        np.testing.assert_array_equal(again["metrics"][name], value, name)


LEVEL = """
from nomalib import water_filling
import numpy as np
print(water_filling.fill(np.ones(2), np.zeros(2), np.ones(2), np.ones(2))[0])
"""


def test_an_edited_kernel_is_never_answered_by_old_code(tmp_path):
    """In the user's own cache folder too; what is called stands in another file than its caller."""
    shutil.copytree(ROOT / "nomalib", tmp_path / "nomalib", ignore=shutil.ignore_patterns("__*__"))
    shutil.copy(ROOT / "nomalib/__init__.py", tmp_path / "nomalib")
    settings = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    found = []
    for edit in ("", "head = 0.5 * head\n    ", ""):
        for index in (tmp_path / "cache").rglob("*.nbi") if len(found) == 2 else ():
            # as where a class that a kernel took has another name now
            index.write_bytes(pickle.dumps(numba.__version__) + b"cnomalib._draws\nGone\n.")
        path = tmp_path / "nomalib/_pairs.py"
        text = path.read_text(encoding="utf-8")
        assert "if not head > 0.0:" in text
        path.write_text(text.replace("if not head > 0.0:", f"{edit}if not head > 0.0:", 1))
        command = [sys.executable, "-c", LEVEL]
        run = subprocess.run(
            command, env=os.environ | settings, cwd=tmp_path, check=True, capture_output=True
        )
        found.append(float(run.stdout))
    assert found[0] == 1.5 and found[1] == found[2] == pytest.approx(2.0)
    assert any((tmp_path / "cache").rglob("*.nbi"))
