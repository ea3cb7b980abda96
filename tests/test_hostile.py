"""An adversary's verification: restarts against none, crowded certificates, odd models, damaged
files, shared models, gains of any physical size.

Each runs at two sizes: the suite's, and that of `make verify`, an hour on two cores.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import process_time, sleep
from zipfile import BadZipFile, ZipFile

import keras
import numpy as np
import pytest
from checks import (
    CONVENTIONS,
    assert_allocation,
    better_swap,
    draws,
    every_assignment,
    least_powers,
    problem,
    same,
    stationarity_gap,
    weighted_sum_rate,
)

import nomalib
from nomalib import (
    compression,
    deployed,
    interior_point,
    joint_bound,
    layers,
    learning,
    matching,
    optimum,
    polytope,
    rates,
    takers,
    water_filling,
)
from nomalib.network import Network, draw_gains

# what a test takes in the suite, and under `make verify`
SIZES = {
    "draws with restarts and without": (4_000, 1_000_000),
    "certified draws of each crowded kind": (0, 200),
    "damaged artefacts": (300, 100_000),
    "calls of each of 8 threads": (10, 200),
    "draws at each physical size": (40, 2_000),
    "cells in extended precision": (100, 20_000),
    "cells whose schedules are all tried": (5, 500),
    "moments at which a save stops": (20, 1_000),
}
FULL = bool(os.environ.get("VERIFY"))


def size(name):
    return SIZES[name][FULL]


EPSILONS = {
    "uniform": lambda rng, shape: rng.choice([0.0, 0.01, 0.5, 1.0]),
    "uneven": lambda rng, shape: rng.random(shape),
    "over decades": lambda rng, shape: 10 ** rng.uniform(-6, 0, shape),
    "extreme": lambda rng, shape: rng.choice([0.0, 1e-3, 0.5, 1.0], shape),
}


def crowded_cell(rng):
    """Arguments of a scenario of 2 to 8 users on each of 1 to 5 subchannels."""
    users, n = int(rng.integers(2, 9)), int(rng.integers(1, 6))
    return {
        "n_subchannels": n,
        "n_users": users,
        "max_users_per_subchannel": users,
        "max_subchannels_per_user": n,
        "noise": 10 ** rng.uniform(-6, 0),
        "sic_residual": EPSILONS[rng.choice(list(EPSILONS))](rng, (n, users)).tolist(),
        "min_rate": float(rng.choice([0.0, 0.01, 0.1])),
        "interference_gain": str(rng.choice(CONVENTIONS)),
    }


def recomputed_residual(net, gains, assignment, power):
    """What of the rate there is to gain, to first order, by the paper's equations in watt.

    NaN where next to nothing is to spare, which rounding would drown.
    """
    gap, rounding = stationarity_gap(net, gains, assignment, power)
    total = np.log(2.0) * weighted_sum_rate(net, gains, assignment, power)
    spare = 1.0 - least_powers(problem(net, gains, assignment))[0].sum(axis=(-2, -1))
    return np.where(spare > 1e-6, (gap - rounding) / total, np.nan)


def test_no_restart_loses():
    rng, left, feasible = np.random.default_rng(0), size("draws with restarts and without"), 0
    gained, converged, worst = 0, 0, 0.0
    while feasible < left:
        net = Network(**crowded_cell(rng))
        everyone = np.ones((net.n_subchannels, net.n_users), bool)
        case = net, draw_gains(net, 500, rng), everyone
        many, once = (interior_point.allocate(*case, restarts=r) for r in (5, 0))
        assert not (many.sum_rate < once.sum_rate).any()
        assert (many.residual[many.converged] <= 1e-8).all()
        at = many.converged
        again = recomputed_residual(net, case[1][at], everyone, many.power[at])
        assert not (again > 1e-8).any(), again.max()
        same_rate = weighted_sum_rate(net, case[1][at], everyone, many.power[at])
        np.testing.assert_allclose(many.sum_rate[at], same_rate, rtol=1e-10)
        worst = max(worst, np.nanmax(again, initial=0.0))
        some = case[1][:20]
        assert_allocation(net, some, case[2], interior_point.allocate(net, some, case[2]))
        feasible, converged = feasible + int(many.feasible.sum()), converged + int(at.sum())
        gained += int((many.sum_rate > once.sum_rate * (1 + 1e-9)).sum())
    print(f"{feasible} feasible draws, {converged} converged; a restart gained in {gained}")
    print(f"largest residual recomputed from the power of a converged draw: {worst:.1e}")


# before the starts at a price, and when restarts could lose
BEFORE = "5b6722e"
RESTARTED = """
import json, sys
import numpy as np
from nomalib import interior_point, rates
from nomalib.network import Network
found = []
for case in json.load(open(sys.argv[1])):
    net, gains = Network(**case["net"]), np.array(case["gains"])
    everyone = np.ones(gains.shape[1:], bool)
    powers = [interior_point.allocate(net, gains, everyone, restarts=r).power for r in (0, 5)]
    found.append([rates.sum_rate(net, gains, everyone, power).tolist() for power in powers])
json.dump(found, sys.stdout)
"""


@pytest.mark.skipif(not FULL, reason="compares with another commit, on demand")
def test_restarts_recover_what_they_did(tmp_path):
    """Shortfall to the certified optimum, without restarts and with, here and at BEFORE."""
    rng, cases, best = np.random.default_rng(5), [], []
    while sum(map(len, best)) < size("certified draws of each crowded kind") * 3:
        cell = crowded_cell(rng)
        net, everyone = Network(**cell), np.ones((cell["n_subchannels"], cell["n_users"]), bool)
        gains = draw_gains(net, 4, rng)
        cases.append({"net": cell, "gains": gains.tolist()})
        best.append(optimum.allocate(net, gains, everyone).sum_rate)
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    old = subprocess.run(["git", "archive", BEFORE, "nomalib"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(old.stdout)) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    short = {}
    for name, tree in (("then", tmp_path / "old"), ("now", Path(nomalib.__file__).parents[1])):
        command = [sys.executable, "-c", RESTARTED, tmp_path / "cases.json"]
        env = os.environ | {"PYTHONPATH": str(tree)}
        run = subprocess.run(command, capture_output=True, check=True, env=env, cwd=tmp_path)
        rate = np.concatenate([np.array(r, float) for r in json.loads(run.stdout)], axis=1)
        short[name] = np.nanmean(1.0 - rate / np.concatenate(best), axis=1)
        without, left = short[name]
        print(f"{name}: {without:.3e} short without restarts, {left:.3e} with")
    assert short["now"][1] <= short["then"][1]


@pytest.mark.skipif(not FULL, reason="test_many_users_are_certified has two draws of each")
@pytest.mark.parametrize("users, mean", [(5, 0.005), (6, 0.02), (8, 0.1)])
@pytest.mark.parametrize("gain", CONVENTIONS)
@pytest.mark.parametrize("noise", [0.1, 1e-3])
def test_crowded_certificates(users, mean, gain, noise):
    rng, gaps, spent = np.random.default_rng(users), [], 0.0
    while len(gaps) < size("certified draws of each crowded kind"):
        residual = rng.random((4, users))
        net = Network(4, users, users, 4, 43.0, noise, residual, interference_gain=gain)
        case = net, draw_gains(net, 1, rng)[0], np.ones((4, users), bool)
        started = process_time()
        best = optimum.allocate(*case)
        spent += process_time() - started
        if best.feasible:
            gaps.append(float(best.gap))
        free = optimum.allocate(replace(net, min_rate=0.0), *case[1:])
        assert free.converged and free.gap <= 1e-12  # the theorem: that of one level
    print(f"K = {users}, {gain}, {noise}: {np.mean(gaps):.3%} on average, {max(gaps):.2%} at worst")
    print(f"over {len(gaps)} draws, {spent / len(gaps):.2f} s each")
    assert min(gaps) >= 0.0 and np.mean(gaps) <= mean


NET = Network(3, 4, min_rate=0.0)
Dense, Flat = keras.layers.Dense, keras.layers.Flatten


def models():
    """Twenty models of the paper's kind: whether an artefact can be had of each, which it is."""

    def papers(*hidden):
        return keras.Sequential([keras.Input((3, 4)), *hidden, keras.layers.Reshape((3, 4))])

    def joined(join):
        seen = keras.Input((3, 4))
        flat = Flat()(seen)
        return keras.Model(seen, keras.layers.Reshape((3, 4))(join(flat)))

    class Doubled(Dense):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    shared = Dense(12, activation="relu")
    yield True, learning.imitation_network(NET)
    yield True, learning.imitation_network(NET, hidden=[])
    yield True, learning.imitation_network(NET, hidden=[7] * 4)
    yield True, compression.circulant_network(NET, 4)
    yield True, compression.with_group_lasso(learning.imitation_network(NET), 0.1)
    yield True, compression.quantise(learning.imitation_network(NET))
    yield True, learning.equivariant_network(3)
    yield True, papers(Flat(), Dense(8, activation="relu"), Dense(12))
    for activation in ("tanh", "sigmoid", "linear", "leaky_relu", "softplus"):
        yield False, papers(Flat(), Dense(8, activation=activation), Dense(12))
    yield False, papers(Flat(), Dense(12, activation="softplus"))
    yield False, papers(Flat(), Dense(12, use_bias=False))
    yield False, papers(Flat(), keras.layers.Rescaling(0.5), Dense(12))
    yield False, papers(Flat(), keras.layers.BatchNormalization(), Dense(12))
    yield False, papers(Dense(4, activation="relu"), Flat(), Dense(12))
    yield False, papers(Flat(), Doubled(8, activation="relu"), Dense(12))
    yield False, joined(lambda x: Dense(12)(shared(shared(x))))


def test_an_export_computes_what_keras_does_or_is_refused(tmp_path):
    rng, outcomes = np.random.default_rng(1), []
    gains, assignment = draws(NET, 64, rng, one_assignment=True)
    for at, (has_form, model) in enumerate(models()):
        for layer in model.layers:
            if hasattr(layer, "bias") and layer.bias is not None:
                layer.bias.assign(rng.normal(size=layer.bias.shape))
        path = tmp_path / f"{at}.npz"
        try:
            compression.save(model, path)
        except ValueError as error:
            assert "model" in str(error) and not any(tmp_path.glob(f"{at}.npz*"))
            outcomes.append((has_form, False))
            continue
        outcomes.append((has_form, True))
        mine = deployed.power(deployed.load(path), NET, gains, assignment)
        theirs = learning.allocate(model, NET, gains, assignment).power
        np.testing.assert_allclose(mine / NET.budget, theirs / NET.budget, atol=1e-5)
    assert len(outcomes) == 20 and all(form == saved for form, saved in outcomes), outcomes


def test_no_activation_but_relu_is_exported(tmp_path):
    names = [name for name in dir(keras.activations) if callable(getattr(keras.activations, name))]
    others = set(names) - {"relu", "get", "serialize", "deserialize"}
    assert len(others) > 15
    for name in others:
        hidden = Dense(8, activation=getattr(keras.activations, name), name=f"with_{name}")
        model = keras.Sequential([keras.Input((3, 4)), Flat(), hidden, Dense(12)])
        model.add(keras.layers.Reshape((3, 4)))
        with pytest.raises(ValueError, match=f"model.*with_{name}"):
            compression.save(model, tmp_path / "none.npz")
    assert not os.listdir(tmp_path)


SAVING = """
import sys
from nomalib import compression, learning
from nomalib.network import Network
models = [learning.imitation_network(Network(), seed) for seed in (0, 1)]
while True:
    for model in models:
        compression.save(model, sys.argv[1])
    print("twice", flush=True)
"""


def test_a_save_that_is_killed_leaves_the_old_file(tmp_path):
    """Stopped at any moment, for what it then leaves is what it would leave if killed there."""
    rng, path, midway = np.random.default_rng(6), tmp_path / "network.npz", 0
    whole = set()
    for seed in (0, 1):
        compression.save(learning.imitation_network(Network(), seed), path)
        whole.add(path.read_bytes())
    path.unlink()
    child = subprocess.Popen([sys.executable, "-c", SAVING, path], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"twice\n"
        seen = set()
        for _ in range(size("moments at which a save stops")):
            sleep(rng.uniform(0.0, 0.05))
            child.send_signal(signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            seen.add(path.read_bytes())
            midway += (tmp_path / "network.npz.unfinished").exists()
            child.send_signal(signal.SIGCONT)
    finally:
        child.kill()
        child.communicate()
    print(f"{midway} moments in the middle of a save")
    assert seen | {path.read_bytes()} <= whole and len(whole) == 2 and midway > 0


@cache  # for three tests
def kinds_of_models():
    small = learning.imitation_network(NET, hidden=[5])
    return {
        "imitation": small,
        "FFT": compression.circulant_network(NET, 4),
        "int8": compression.quantise(small),
        "size-free": learning.equivariant_network(3, 4),
    }


def test_damaged_artefacts_are_named_or_the_same(tmp_path):
    rng, refused, n = np.random.default_rng(2), 0, size("damaged artefacts")
    gains, assignment = draws(NET, 8, rng, one_assignment=True)
    path = tmp_path / "damaged.npz"
    for model in kinds_of_models().values():
        compression.save(model, path)
        whole = path.read_bytes()
        power = deployed.power(deployed.load(path), NET, gains, assignment)
        for _ in range(n // 4):
            if rng.random() < 0.2:
                damaged = whole[: rng.integers(len(whole))]
            else:
                flipped = bytearray(whole)
                for at in rng.integers(len(whole), size=rng.choice([1, 1, 2, 30])):
                    flipped[at] ^= 1 << rng.integers(8)
                damaged = bytes(flipped)
            path.write_bytes(damaged)
            try:
                found = deployed.power(deployed.load(path), NET, gains, assignment)
            except ValueError as error:
                assert "damaged.npz" in str(error)
                refused += 1
                continue
            np.testing.assert_array_equal(found, power)
    assert refused > 0.7 * (n // 4 * 4)


def test_damage_behind_a_wrong_size_is_named(tmp_path):
    """NumPy compares a part's sum only at its end, which the zip's directory says."""
    path = tmp_path / "damaged.npz"
    compression.save(kinds_of_models()["size-free"], path)
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\1\2", 0, data.rfind(b"kernel_0.npy"))
    for size_at in (20, 24):  # as stored, and unpacked
        data[entry + size_at + 2] ^= 0x10
    with ZipFile(io.BytesIO(data)) as archive:
        data[archive.getinfo("kernel_0.npy").header_offset + 200] ^= 1
    path.write_bytes(data)
    with suppress(BadZipFile):  # a patched zipfile sees that the part overlaps the next
        assert np.load(path)["kernel_0"].size
    with pytest.raises(ValueError, match="damaged.npz is no artefact"):
        deployed.load(path)


def test_threads_share_a_model():
    rng, calls = np.random.default_rng(3), size("calls of each of 8 threads")
    # two shapes, as each is compiled
    cases = [draws(NET, n, rng, one_assignment=True) for n in (1, 64, 64)]
    for name, model in kinds_of_models().items():
        expected = [learning.allocate(model, NET, *case).power for case in cases]

        def work(at, name=name, model=model, expected=expected):
            for call in range(at, at + calls):
                found = learning.allocate(model, NET, *cases[call % 3]).power
                np.testing.assert_array_equal(found, expected[call % 3], name)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))


@pytest.mark.parametrize("gain", CONVENTIONS)
def test_only_the_snr_matters(gain):
    """Gains times c and noise times c²: the same powers, to the bit where c is a power of 2."""
    rng, n = np.random.default_rng(4), size("draws at each physical size")
    one = Network(interference_gain=gain)
    mixed = replace(one, sic_residual=rng.random((10, 10)))
    size_free, papers = learning.equivariant_network(3), learning.imitation_network(one)
    allocators = {
        "water-filling": (one, water_filling.allocate),
        "interior point": (mixed, interior_point.allocate),
        "optimum": (mixed, lambda *case: optimum.allocate(*case, max_cells=100)),
        "takers": (mixed, takers.allocate),
        "schedules": (one, matching.paus),
        "size-free": (mixed, lambda *case: learning.allocate(size_free, *case)),
        "paper's": (one, lambda *case: learning.allocate(papers, *case)),
    }
    gains, assignment = draws(one, n, rng)
    for name, (net, allocate) in allocators.items():
        power = allocate(net, gains, assignment).power
        for c in (2.0**-20, 2.0**10, 1e-6, 1e3, 0.3):
            scaled = replace(net, noise=net.noise * c * c)
            found = allocate(scaled, c * gains, assignment).power
            if np.log2(c) % 1 == 0:
                same([found], [power])
            else:
                off = 1e-5 if name in ("size-free", "paper's") else 1e-12
                np.testing.assert_allclose(found / net.budget, power / net.budget, atol=off)
    x = layers.features(polytope.reduce(mixed, gains, assignment), 3)
    assert np.isfinite(x).all()


def in_extended_precision(net, gains, assignment):
    """The problem with SNRs, and so all that is made of them, in 64 bits of mantissa on x86."""
    p = problem(net, gains, assignment)
    wide = np.asarray(gains, np.longdouble).reshape(p.gamma.shape)
    return p._replace(gamma=np.longdouble(net.budget) / np.longdouble(net.noise) * wide**2)


def test_rates_and_levels_in_extended_precision():
    """Rates of any powers; and of single users the exact powers, by bisection of the level."""
    rng, worst, left = np.random.default_rng(7), [0.0, 0.0], size("cells in extended precision")
    for _ in range(left):
        net = Network(**crowded_cell(rng))
        gains, everyone = draw_gains(net, 20, rng), np.ones((net.n_subchannels, net.n_users), bool)
        power = rng.exponential(size=gains.shape) ** 4
        power *= net.budget / power.sum(axis=(1, 2), keepdims=True)
        p = in_extended_precision(net, gains, everyone)
        x = power.astype(np.longdouble) / np.longdouble(net.budget)
        exact = np.log1p(p.gamma * x / (1 + (p.heard @ x[..., None])[..., 0]))
        exact /= np.log(np.longdouble(2))
        off = np.abs(rates.rates(net, gains, everyone, power) / exact - 1)
        worst[0] = max(worst[0], float(off.max()))

        alone = np.zeros_like(everyone)
        alone[np.arange(net.n_subchannels), rng.integers(net.n_users, size=net.n_subchannels)] = (
            True
        )
        found = water_filling.allocate(net, gains, alone)
        inverse = 1 / in_extended_precision(net, gains, alone).gamma[:, alone]
        least = np.expm1(np.longdouble(net.min_rate) * np.log(np.longdouble(2))) * inverse
        low, high = np.zeros(len(gains), np.longdouble), 1 + inverse.max(axis=1)
        for _ in range(80):
            level = (low + high) / 2
            x = np.maximum(least, level[:, None] - inverse)
            over = x.sum(axis=1) > 1
            low, high = np.where(over, low, level), np.where(over, level, high)
        clear = np.abs(least.sum(axis=1) - 1) > 1e-12
        at = found.feasible
        np.testing.assert_array_equal(at[clear], (least.sum(axis=1) < 1)[clear])
        off = np.abs(found.power[:, alone] / net.budget - x)[at]
        worst[1] = max(worst[1], float(off.max(initial=0.0)))
    print(f"{left} cells: rates to {worst[0]:.1e}, powers of single users to {worst[1]:.1e}")
    assert worst[0] < 1e-12 and worst[1] < 1e-12


def test_every_schedule_is_tried():
    """Small cells: no schedule exceeds the joint bound, and no admitted swap is better."""
    rng = np.random.default_rng(8)
    for at in range(size("cells whose schedules are all tried")):
        n, m, h, v = (3, 3, 2, 2) if at % 2 else (2, 4, 3, 1)
        noise, residual = 10 ** rng.uniform(-4, 0), rng.choice([0.0, 0.01, 0.5, 1.0])
        gain, least = rng.choice(CONVENTIONS), rng.choice([0.0, 0.01, 0.1])
        net = Network(n, m, h, v, 43.0, noise, residual, least, str(gain))
        gains, schedules = draw_gains(net, 1, rng)[0], every_assignment(net)
        best = np.fmax.reduce(water_filling.allocate(net, *copies(gains, schedules)).sum_rate)
        assert not best > joint_bound.upper_bound(net, gains) * (1 + 1e-9)
        start = schedules[rng.integers(len(schedules))]
        for rule in matching.RULES:
            found = matching.paus(net, gains, start, rule=rule, moves=False)
            if not np.isnan(found.sum_rate):
                assert found.sum_rate <= best * (1 + 1e-9)
                assert better_swap(net, gains, found.assignment, found.power, rule) is None


def copies(gains, schedules):
    return np.broadcast_to(gains, schedules.shape), schedules
