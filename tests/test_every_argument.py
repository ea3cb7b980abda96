"""Every public function × every wrong argument: a ValueError that names the argument; leading axes
are kept; and none touches the random numbers of its caller.

A function that CALLS lacks fails the test: a new one is one row, with arguments that are right.
"""

import importlib
import inspect
import random
from pathlib import Path

import numpy as np
import pytest
from checks import same

import nomalib
from nomalib import (
    complexity,
    compression,
    deployed,
    fairness,
    learning,
    plots,
    polytope,
    records,
    verdict,
)
from nomalib.network import Network

NET = Network(2, 3, 2, 2)
G = np.array([[0.5, 1.0, 2.0], [1.5, 1.0, 0.1]])
A = np.array([[True, True, False], [False, True, True]])
P = np.array([[5.0, 1.0, 0.0], [0.0, 3.0, 2.0]])
RNG = np.random.default_rng(0)
PAPERS, SIZE_FREE = learning.imitation_network(NET), learning.equivariant_network(2, 3)
SHARES = polytope.reduce(NET, G, A)
U = np.where(SHARES.users >= 0, 0.25, 0.0)
DRAW, POWER = {"net": NET, "gains": G, "assignment": A}, {"power": P}
WEIGHED = DRAW | {"weights": np.ones(3)}
MANY = {"net": NET, "gains": G[None], "assignment": A}
FLOPS = {"n_subchannels": 3, "load": 2}
CELL = Network(2, 2)
SQUARE = {"net": CELL, "gains": G[:, :2]}
RING = {"inner_m": 35.0, "outer_m": 1000.0}
PAIR = {"strong": 3.0, "weak": 1.0}
FAIR = PAIR | {"alpha": 1.0, "sharing": "averaged"}
ALLOTTED = {"net": NET, "gains": G, "weights": np.ones(3)}
TRAINED = {"epochs": 1, "batch_size": 1, "learning_rate": 1e-3, "verbose": 0, "seed": 0}
ARTEFACT = deployed.Artefact(
    "size_free",
    (2,),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    (deployed.Layer(np.zeros((12, 2), np.float32), np.zeros(2, np.float32), None),),
    26,
)
FRAME = fairness.Frame(
    np.zeros(1, int), np.ones(1), np.ones((1, 2)), np.full(2, 0.1), 0.1, 1.0, True
)
CALLS = {
    "network.dbm_to_watt": {"power_dbm": 30.0},
    "network.draw_gains": {"net": NET, "n_draws": 2, "rng": RNG},
    "network.random_assignment": {"net": NET, "rng": RNG, "n_draws": 2},
    "rates.interference": DRAW | POWER,
    "rates.qos_violation": DRAW | POWER | {"tolerance": 1e-6},
    "rates.rates": DRAW | POWER,
    "rates.score": DRAW | POWER | {"weights": np.ones(3)},
    "rates.sic_order": {"gains": G},
    "rates.sinr": DRAW | POWER,
    "rates.sum_rate": WEIGHED | POWER,
    "polytope.allocation": {"net": NET, "shares": SHARES, "u": U},
    "polytope.power": {"net": NET, "shares": SHARES, "u": U},
    "polytope.reduce": WEIGHED,
    "subchannel.excess_rate": {"shares": SHARES, "u": U},
    "baselines.equal_power": {"net": NET, "assignment": A},
    "baselines.equal_totals": WEIGHED,
    "baselines.split_totals": WEIGHED | {"totals": np.array([1.0, 2.0])},
    "baselines.random_power": {"net": NET, "assignment": A, "rng": RNG},
    "optimum.allocate": WEIGHED | {"tol": 1e-3, "max_cells": 100},
    "optimum.certified_split": {"shares": SHARES, "price": 1.0, "tol": 1e-3, "max_cells": 100},
    "water_filling.allocate": WEIGHED,
    "interior_point.allocate": WEIGHED | {"tol": 1e-8, "restarts": 1},
    "interior_point.trace": WEIGHED | {"tol": 1e-8, "kept": 0.5},
    "matching.is_exchange_stable": DRAW | POWER | {"rule": "rate", "moves": False},
    "matching.paus": DRAW | {"rule": "rate", "moves": False},
    "matching.swap_matching": DRAW | POWER | {"rule": "rate", "moves": False},
    "learning.allocate": {"model": SIZE_FREE} | WEIGHED,
    "learning.equivariant_network": {"max_users": 2, "width": 3, "seed": 0},
    "learning.imitate": {"model": PAPERS} | MANY | {"labels": P[None]} | TRAINED,
    "learning.imitation_network": {"net": NET, "seed": 0, "hidden": (3, 3)},
    "learning.maximise_sum_rate": {"model": SIZE_FREE, "networks": [NET], "steps_per_epoch": 1}
    | TRAINED,
    "learning.repair": DRAW | POWER,
    "learning.training_networks": {"n_networks": 1, "rng": RNG},
    "layers.features": {"shares": SHARES, "max_users": 3},
    "layers.problem": {"shares": SHARES, "max_users": 3},
    "compression.circulant_network": {"net": NET, "block": 2, "seed": 0},
    "compression.prune": {"model": PAPERS} | MANY | {"threshold": 0.1},
    "compression.quantise": {"model": PAPERS},
    "compression.save": {"model": SIZE_FREE, "path": Path("unwritten.npz")},
    "compression.with_group_lasso": {"model": PAPERS, "strength": 0.1},
    "deployed.allocate": {"artefact": ARTEFACT} | WEIGHED,
    "deployed.power": {"artefact": ARTEFACT} | DRAW,
    "derivatives.derivatives": DRAW | POWER,
    "derivatives.eigenvalues": DRAW | POWER,
    "derivatives.printed": DRAW | POWER,
    "joint_bound.upper_bound": {"net": NET, "gains": G},
    "complexity.circulant_flops": {"inputs": 4, "outputs": 4, "block": 2},
    "complexity.dense_flops": {"inputs": 4, "outputs": 4, "bias": True},
    "complexity.interior_point_flops": FLOPS,
    "complexity.ipm_bound": {"n_subchannels": 3, "n_users": 3, "encoding": 1.0},
    "complexity.network_flops": {"widths": [3, 2, 3], "n_samples": 1},
    "complexity.network_flops_as_printed": {"widths": [3, 2, 3], "n_samples": 1},
    "complexity.paus_flops": {"widths": [3, 2, 3], "net": NET, "n_rounds": 1},
    "complexity.reduction_flops": FLOPS,
    "complexity.water_filling_flops": {"n_subchannels": 3},
    "channel.complete_draws": {"gains": G[None]},
    "channel.draw_cell": {"net": NET, "n_draws": 2, "rng": RNG, "shadowing_db": 8.0}
    | RING
    | {"exponent": 3.0},
    "channel.draw_distances": {"shape": (2, 3), "rng": RNG} | RING,
    "channel.from_complex": {"channel": np.array([3 + 4j])},
    "channel.from_power": {"power_gains": [4.0, 0.25]},
    "channel.noise_watt": {"bandwidth_hz": 5e5, "density_dbm_hz": -174.0},
    "channel.path_loss_db": {"distance_m": [100.0], "exponent": 3.0},
    "channel.snr_db": {"net": NET, "gains": G},
    "takers.allocate": WEIGHED,
    "schedules.at_price": ALLOTTED,
    "schedules.deferred_acceptance": ALLOTTED,
    "schedules.greedy": ALLOTTED,
    "schedules.linear_assignment": ALLOTTED,
    "schedules.near_far": ALLOTTED,
    "schedules.one_each": ALLOTTED | {"rounds": 3},
    "orthogonal.whole_subchannels": SQUARE,
    "fairness.jain_index": {"rates": [1.0, 2.0]},
    "fairness.mean_rate": {"rates": [1.0, 2.0], "alpha": 2.0, "weights": [1.0, 2.0]},
    "fairness.optimum": SQUARE
    | {"alpha": 1.0, "owed": 0.1, "tol": 1e-2, "start": FRAME, "weights": np.ones(2)},
    "breakeven.adaptive": FAIR,
    "breakeven.fixed": FAIR,
    "breakeven.fixed_level": PAIR | {"epsilon": 0.1, "alpha": 1.0},
    "breakeven.pair_rates": PAIR | {"share": 0.5, "epsilon": 0.1},
    "breakeven.time_shared": FAIR,
    "verdict.interval": {"values": [1.0, 2.0], "errors": [0.1, 0.1], "level": 0.9},
    "verdict.paired": {"samples": [1.0, 2.0]},
    "verdict.ratio": {"means": [1.0, 2.0], "covariance": np.eye(2), "a": 0, "b": 1},
    "verdict.verdict": {"found": (1.0, 2.0), "low": 0.0, "high": 3.0},
    "verdict.weakest": {"verdicts": ["confirmed", "refuted"]},
}
WRONG = ["text", object(), -1, float("nan"), 1j, {}, [1, [2]], b"x", [], -np.ones((2, 3))]
# what is right after all: a level below 1 W or above 0, an empty batch, a gain not known
ADMITTED = {
    ("power_dbm", "-1"),
    ("hidden", "[]"),
    ("sic_order", "[]"),
    ("shape", "[]"),
    ("channel", "1j"),
    ("power_gains", "nan"),
    ("power_gains", "[]"),
    ("distance_m", "[]"),
    ("snr_db", "nan"),
    ("snr_db", "[]"),
    ("low", "-1"),
    ("high", "-1"),
    *((name, "[]") for name in ("strong", "weak", "share", "epsilon")),
}
# of the book: what its runs write and show, which check only what their docstrings say
BOOKS = {"records", "plots"}
ROWS = [
    {"schemes": ["x", "y"], "sum_rate_x": 9.0, "sum_rate_y": 9.0, "covariance": np.eye(2)},
    {"validation_mse": [0.2], "mean_label_mse": 0.5},
]


def all_others(folder):
    """Calls what `CALLS` leaves out, but for what runs a notebook in a process of its own."""
    _, axes = plots.plt.subplots()
    plots.use_style(), plots.table(["user"], [["1"]]), plots.canvas(axes, 2.0, 1.0)
    plots.box(axes, (1.0, 0.5), "box"), plots.arrow(axes, (0.0, 0.0), (1.0, 0.5))
    plots.first_look([{"n": 1, "rate": 2.0}, {"n": 2, "rate": 3.0}], ["n"], "rate")
    row = {"what": "pass", "device": "CPU", "n_users": 9, "n_subchannels": 5, "batch": 1}
    plots.device_table([row], [1e-6], "pass")
    plots.plt.close("all")
    records.write(folder / "one.json", {"seed": 0}, {"rate": 1.0})
    records.csv_text(records.table(folder)), records.environment()
    records.write(folder / "tiny/0.json", {"seed": 0}, {"rate": 1.0})
    records.seconds(list, repeats=1), records.rows("tiny", str(folder)), records.glued("a", b=1.0)
    complexity.compiled_flops(lambda x: x + x, (2,))
    verdict.share(ROWS[:1], "x", "y"), verdict.learnt(ROWS[1:])
    compression.save(SIZE_FREE, folder / "one.npz"), deployed.load(folder / "one.npz")


def found(name):
    module, function = name.split(".")
    return getattr(importlib.import_module(f"nomalib.{module}"), function)


def test_no_public_function_is_left_out():
    public = set()
    for module in set(nomalib._MODULES) - BOOKS:
        names = importlib.import_module(f"nomalib.{module}").__all__
        public |= {f"{module}.{n}" for n in names if inspect.isroutine(found(f"{module}.{n}"))}
    # what reads a file is tested with damaged ones, what counts compiled code with code, and what
    # reads rows of records reads what the book's runs write
    elsewhere = {"deployed.load", "complexity.compiled_flops", "verdict.share", "verdict.learnt"}
    assert public - set(CALLS) == elsewhere


def call(name, arguments):
    if name == "verdict.paired":
        return found(name)(arguments["samples"], [2.0, 5.0])
    return found(name)(**arguments)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, right = found(name), CALLS[name]
    for argument, value in right.items():
        if argument == "verbose" or argument == "path":
            continue
        for wrong in WRONG:
            if {(argument, repr(wrong)), (function.__name__, repr(wrong))} & ADMITTED:
                continue
            try:
                call(name, right | {argument: wrong})
            except ValueError as error:
                assert argument in str(error), f"{argument}={wrong!r}: {error}"
                continue
            except Exception as error:
                pytest.fail(f"{argument}={wrong!r}: {error!r}")
            assert isinstance(wrong, np.ndarray) or argument == value, f"{argument}={wrong!r} taken"


# where an array must be refused, and what the error must show
MUST = {
    "gains": (-np.ones((2, 3)), "-1|shape"),
    "assignment": (np.ones((2, 3), bool), "has 3 users on subchannel 0, draw 0"),
    "power": (np.ones((2, 4)), r"shape \(2, 4\)"),
}


@pytest.mark.parametrize("name", [n for n in CALLS if CALLS[n].keys() & MUST.keys()])
def test_every_public_function_checks_each_of_its_arrays(name):
    for argument in CALLS[name].keys() & MUST.keys():
        wrong, shown = MUST[argument]
        with pytest.raises(ValueError, match=rf"^{argument}\b.*({shown})"):
            call(name, CALLS[name] | {argument: wrong})


# of one draw, of a batch, or of what they average
ALONE = "interior_point.trace fairness.optimum learning.imitate compression.prune rates.score"
ALONE += " channel.complete_draws orthogonal.whole_subchannels"
BATCHED = [n for n in CALLS if CALLS[n].keys() & {"gains", "assignment"} and n not in ALONE]


@pytest.mark.parametrize("name", [*BATCHED, "the paper's network"])
def test_leading_axes_are_kept_and_none_needs_a_draw(name):
    many = np.random.default_rng(0).uniform(0.5, 1.5, (6, 1, 1))
    right = CALLS.get(name, {"model": PAPERS} | DRAW)

    def found(select):
        given = right | {n: select(many * right[n]) for n in ("gains", "power") if n in right}
        if "weights" in right:
            given["weights"] = select(many[..., 0] * right["weights"])
        if "gains" not in right:
            given["assignment"] = select(np.stack([A] * 6))
        if "rng" in right:
            given["rng"] = np.random.default_rng(0)
        returned = call(name if name in CALLS else "learning.allocate", given)
        return returned if isinstance(returned, tuple) else (returned,)

    flat, folded = found(lambda x: x), found(lambda x: x.reshape(2, 3, *x.shape[1:]))
    one, none = found(lambda x: x[0]), found(lambda x: x[:0])
    for whole, fold, single, empty in zip(flat, folded, one, none, strict=True):
        same([fold.reshape(whole.shape)], [whole])
        assert empty.shape[0] == 0 and empty.ndim == whole.ndim
        # a trace is as long as its batch needs, a network rounds as its batch is cut
        width = None if np.ndim(single) == 0 else np.shape(single)[-1]
        first = whole[0] if width is None else whole[0][..., :width]
        np.testing.assert_allclose(single, first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*CALLS, "all others"])
def test_the_callers_random_numbers_are_left_alone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = np.random.mtrand._rand  # what np.random.random draws from
    before = random.getstate(), str(shared.get_state(legacy=False))
    call(name, CALLS[name]) if name in CALLS else all_others(tmp_path)
    assert before == (random.getstate(), str(shared.get_state(legacy=False)))
