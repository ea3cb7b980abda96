"""Every public function on hostile input: a right result, or a ValueError that names the argument.

A warning is an error here as everywhere, and a hang shows where at pytest's `faulthandler_timeout`.
How many examples are generated is a matter of Hypothesis's profile (`conftest.py`): `make fuzz`
takes "deep", more than a million draws, the tests "short", some thousands.
"""

import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from checks import assert_allocation, assert_feasible, better_swap, pair_rates, same, slsqp_rate
from hypothesis import assume, given
from hypothesis import strategies as st

from nomalib import (
    baselines,
    compression,
    deployed,
    derivatives,
    interior_point,
    joint_bound,
    learning,
    matching,
    optimum,
    polytope,
    rates,
    records,
    water_filling,
)
from nomalib.network import MAX_SNR, Network, draw_gains, random_assignment

generated = 0


@pytest.fixture(scope="module", autouse=True)
def how_many(request):
    yield
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{generated:,} draws of gains were generated", file=sys.stderr)


RATES = [0.0, 0.01, 1.0, 1e-6, 12.0, 40.0]


@st.composite
def networks(draw, max_size=4):
    n, m = draw(st.integers(1, max_size)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    uneven = draw(st.booleans())
    return Network(
        n_subchannels=n,
        n_users=m,
        max_users_per_subchannel=draw(st.integers(1, 4)),
        max_subchannels_per_user=draw(st.integers(1, 4)),
        power_dbm=draw(st.sampled_from([43.0, 0.0, -170.0, 200.0])),
        noise=draw(st.sampled_from([0.1, 1e-20, 1e20, 1.0])),
        sic_residual=rng.choice([0.0, 1.0, 0.01, 0.3, 1e-12, 5e-324], (n, m))
        if uneven
        else draw(st.sampled_from([0.0, 0.01, 0.5, 1.0, 1e-300])),
        min_rate=rng.choice(RATES, m) if draw(st.booleans()) else draw(st.sampled_from(RATES)),
        interference_gain=draw(st.sampled_from(["interferer", "receiver"])),
        fading=draw(st.sampled_from(["normal", "rayleigh"])),
    )


def hostile_gains(net, n_draws, rng):
    """Draws of which each is ordinary, huge or tiny over many decades, equal, or mostly zero."""
    shape = (n_draws, net.n_subchannels, net.n_users)
    unit = np.sqrt(net.noise / net.budget)  # an SNR of one
    largest = unit * np.sqrt(MAX_SNR) * (1 - 1e-15)
    wide = unit * 10.0 ** rng.uniform(-10, 7.5, shape)
    kinds = np.stack(
        [
            draw_gains(net, n_draws, rng),
            unit * draw_gains(net, n_draws, rng),
            wide,
            wide ** (1 / 8) * unit ** (7 / 8),
            np.broadcast_to(unit * 10.0 ** rng.uniform(-3, 3, (n_draws, 1, 1)), shape),
            unit * np.round(draw_gains(net, n_draws, rng)),
            rng.choice([0.0, 5e-324, 1e-310, 1e-150, unit, largest], shape),
            np.zeros(shape),
        ]
    )
    chosen = kinds[rng.integers(len(kinds), size=n_draws), np.arange(n_draws)]
    return np.minimum(chosen, largest)


def hostile_assignment(net, n_draws, rng):
    """Within the caps: full, thinned until subchannels and users go without, or a single pair."""
    full = random_assignment(net, rng, n_draws)
    score = np.where(full, rng.random(full.shape), -1.0)
    one = score == score.max(axis=(-2, -1), keepdims=True)
    keep = rng.choice([1.0, 0.5, 0.0], (n_draws, 1, 1))
    return one | (full & (rng.random(full.shape) < keep))


class Case(NamedTuple):
    """A scenario with its draws; Hypothesis prints it."""

    net: Network
    gains: np.ndarray
    assignment: np.ndarray
    rng: np.random.Generator

    def __repr__(self):
        return f"{self.net}, gains of {self.gains.shape}, assignment of {self.assignment.shape}"


@st.composite
def problems(draw, uniform=False, max_size=4):
    net = draw(networks(max_size))
    if uniform:
        net = replace(net, sic_residual=net.epsilon[0, 0], min_rate=net.min_rates[0])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_draws = draw(st.sampled_from([256, 256, 256, 65, 1, 0]))
    global generated
    generated += n_draws
    gains = hostile_gains(net, n_draws, rng)
    assignment = hostile_assignment(net, max(n_draws, 1), rng)
    assignment = assignment[0] if draw(st.booleans()) or n_draws == 0 else assignment
    return Case(net, gains, assignment, rng)


def hostile_power(net, gains, assignment, rng):
    power = np.zeros(gains.shape)
    power[...] = baselines.random_power(net, assignment, rng)
    return power * rng.choice([1.0, 0.0, 1e3], (len(gains), 1, 1))


@given(problems())
def test_rates_and_baselines(given_problem):
    net, gains, assignment, rng = given_problem
    for power in (
        np.broadcast_to(baselines.equal_power(net, assignment), gains.shape),
        np.broadcast_to(baselines.random_power(net, assignment, rng), gains.shape),
    ):
        np.testing.assert_allclose(power.sum(axis=(-2, -1)), net.budget)
        assert (power[~np.broadcast_to(assignment, gains.shape)] == 0).all()
    power = hostile_power(net, gains, assignment, rng)
    expected = pair_rates(net, gains, assignment, power)
    found = rates.rates(net, gains, assignment, power)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)
    total = rates.sum_rate(net, gains, assignment, power)
    np.testing.assert_allclose(total, expected.sum(axis=(-2, -1)), rtol=1e-9, atol=1e-300)
    assigned = np.broadcast_to(assignment, gains.shape)
    least = net.min_rate * (1 - rates.QOS_TOLERANCE)
    share = (assigned & (expected < least)).sum(axis=(-2, -1)) / assigned.sum(axis=(-2, -1))
    borderline = np.isclose(expected, least, rtol=1e-8, atol=0) & assigned
    sure = ~borderline.any(axis=(-2, -1))
    violation = rates.qos_violation(net, gains, assignment, power)
    np.testing.assert_array_equal(violation[sure], share[sure])
    at = derivatives.derivatives(net, gains, assignment, power)
    assert np.isfinite(at.gradient).all() and np.isfinite(at.hessian).all()
    values = derivatives.eigenvalues(net, gains, assignment, power)
    assert (np.isfinite(values).sum(axis=-1) == assigned.sum(axis=-1)).all()


@given(problems())
def test_shares_hold_the_feasible_set(given_problem):
    net, gains, assignment, rng = given_problem
    shares = polytope.reduce(net, gains, assignment)
    u = np.where(shares.users >= 0, rng.random(shares.users.shape) + 1e-3, 0.0)
    power = polytope.power(net, shares, u / u.sum(axis=(-2, -1), keepdims=True))
    repaired = learning.repair(net, gains, assignment, hostile_power(net, gains, assignment, rng))
    for spent in (power, repaired):
        assert_feasible(net, gains, assignment, spent, shares.feasible)


@given(problems())
def test_interior_point(given_problem):
    net, gains, assignment, _ = given_problem
    found = interior_point.allocate(net, gains, assignment)
    assert_allocation(net, gains, assignment, found)
    if len(gains) == 1 and found.feasible[0]:
        path = interior_point.trace(net, gains[0], assignment.reshape(gains.shape[1:]))
        for field in path:
            assert np.isfinite(field).all() and len(field) == len(path.sum_rate)
        assert (path.power.sum(axis=(-2, -1)) <= net.budget * (1 + 1e-9)).all()


@given(problems(uniform=True))
def test_water_filling(given_problem):
    net, gains, assignment, _ = given_problem
    found = water_filling.allocate(net, gains, assignment)
    assert_allocation(net, gains, assignment, found)
    assert found.converged[found.feasible].all()
    best = rates.sum_rate(net, gains, assignment, found.power)
    other = interior_point.allocate(net, gains, assignment)
    rate = rates.sum_rate(net, gains, assignment, other.power)
    np.testing.assert_array_equal(other.feasible, found.feasible)
    # an SNR below 1e-15 counts as 0
    assert not (rate > best * (1 + 1e-7) + 1e-12).any()
    assert not (rate < best * (1 - 1e-5) - 1e-9)[other.converged].any()
    same([optimum.allocate(net, gains, assignment).power], [found.power])


@given(problems(max_size=3))
def test_the_certified_optimum(given_problem):
    net, gains, assignment, _ = given_problem
    gains = gains[:32]
    assignment = assignment[:32] if assignment.ndim == 3 else assignment
    found = optimum.allocate(net, gains, assignment, max_cells=200)
    assert_feasible(net, gains, assignment, found.power, found.feasible)
    rate = pair_rates(net, gains, assignment, found.power).sum(axis=(-2, -1))
    np.testing.assert_allclose(found.sum_rate, rate, rtol=1e-9, atol=1e-12)
    other = interior_point.allocate(net, gains, assignment)
    rate = rates.sum_rate(net, gains, assignment, other.power)
    # an SNR below 1e-15 counts as 0
    assert not (rate > found.upper_bound * (1 + 1e-9) + 1e-12).any()
    same([np.isnan(found.upper_bound), np.isnan(found.gap)], 2 * [~found.feasible])


@given(problems(max_size=2))
def test_no_other_solver_does_better(given_problem):
    net, _, assignment, rng = given_problem
    net = replace(net, min_rate=np.minimum(net.min_rate, 1.0), noise=0.1, power_dbm=43.0)
    gains, assignment = draw_gains(net, 1, rng)[0], assignment.reshape(-1, *assignment.shape[-2:])
    assignment = assignment[0]
    best = optimum.allocate(net, gains, assignment)
    assume(best.feasible)
    local = interior_point.allocate(net, gains, assignment)
    # SLSQP meets R_min to 1e-7 only
    eased = np.where(net.min_rates > 2e-6, net.min_rates - 1e-7, 0.0)
    eased = replace(net, min_rate=eased)
    bound = optimum.allocate(eased, gains, assignment).upper_bound
    starts = [best.power, local.power]
    starts += [baselines.random_power(net, assignment, rng) for _ in range(3)]
    assert slsqp_rate(net, gains, assignment, starts) <= bound * (1 + 1e-6)
    assert local.converged


def check_schedule(net, gains, m):
    """Within the caps, at the rate that it says, which rises on the way."""
    assert (m.assignment.sum(axis=-1) <= net.max_users_per_subchannel).all()
    assert (m.assignment.sum(axis=-2) <= net.max_subchannels_per_user).all()
    rate = pair_rates(net, gains, m.assignment, m.power).sum(axis=(-2, -1))
    np.testing.assert_allclose(m.sum_rate, rate, rtol=1e-9, atol=1e-300)
    assert not np.isinf(m.trace).any() and not (np.diff(m.trace, axis=-1) <= 0).any()


@given(problems(), st.sampled_from(["rate", "qos", "feasible", "optimum"]), st.booleans())
def test_matching(given_problem, rule, moves):
    net, gains, assignment, rng = given_problem
    if rule == "optimum":
        net = replace(net, sic_residual=net.epsilon[0, 0], min_rate=net.min_rates[0])
    power = hostile_power(net, gains, assignment, rng)
    m = matching.swap_matching(net, gains, assignment, power, rule, moves)
    check_schedule(net, gains, m)
    stable = matching.is_exchange_stable(net, gains, m.assignment, m.power, rule, moves)
    np.testing.assert_array_equal(stable, ~np.isnan(m.sum_rate))
    if len(gains) and stable[0] and not moves:
        assert better_swap(net, gains[0], m.assignment[0], m.power[0], rule) is None


@given(problems(), st.sampled_from(["rate", "qos", "optimum"]), st.booleans())
def test_paus(given_problem, rule, moves):
    net, gains, assignment, _ = given_problem
    m = matching.paus(net, gains, assignment, interior_point.allocate, rule, moves)
    check_schedule(net, gains, m)
    assert not (m.power.sum(axis=(-2, -1)) > net.budget * (1 + 1e-9)).any()
    start = interior_point.allocate(net, gains, assignment)
    before = rates.sum_rate(net, gains, assignment, start.power)
    assert not (m.sum_rate < before * (1 - 1e-9)).any()


@given(problems(uniform=True, max_size=2))
def test_no_schedule_exceeds_the_joint_bound(given_problem):
    net, gains, assignment, _ = given_problem
    gains = gains[:2]
    assignment = assignment[:2] if assignment.ndim == 3 else assignment
    bound = joint_bound.upper_bound(net, gains)
    assert bound.shape == gains.shape[:1] and np.isfinite(bound).all()
    m = matching.paus(net, gains, assignment)
    assert not (m.sum_rate > bound * (1 + 1e-6) + 1e-300).any()


SIZE_FREE = learning.equivariant_network()
PAPERS = learning.imitation_network(Network(n_subchannels=2, n_users=3))


def deploy(model):
    """The model as it is deployed."""
    with tempfile.TemporaryDirectory() as folder:
        compression.save(model, Path(folder) / "model.npz")
        return deployed.load(Path(folder) / "model.npz")


DEPLOYED_SIZE_FREE, DEPLOYED_PAPERS = deploy(SIZE_FREE), deploy(PAPERS)


@given(problems(max_size=2))
def test_the_size_free_network(given_problem):
    net, gains, assignment, _ = given_problem
    found = learning.allocate(SIZE_FREE, net, gains, assignment)
    assert_allocation(net, gains, assignment, found, optimal=False)
    assert found.converged[found.feasible].all()
    power = deployed.power(DEPLOYED_SIZE_FREE, net, gains, assignment)
    assert_feasible(net, gains, assignment, power, found.feasible)


@given(problems(uniform=True, max_size=2))
def test_the_papers_network(given_problem):
    net, gains, _, rng = given_problem
    net = replace(net, n_subchannels=2, n_users=3)
    gains = hostile_gains(net, len(gains), rng)
    assignment = hostile_assignment(net, 1, rng)[0]
    found = learning.allocate(PAPERS, net, gains, assignment)
    assert not found.converged[~found.feasible].any()
    for power in (found.power, deployed.power(DEPLOYED_PAPERS, net, gains, assignment)):
        assert np.isnan(power[~found.feasible]).all()
        np.testing.assert_allclose(power[found.feasible].sum(axis=(-2, -1)), net.budget)


NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(10**400), 10**400),
    st.sampled_from([None, "1", True, 1j, [1.0], np.float32(0.5), np.float64("nan"), b"1", {}]),
)


@given(st.sampled_from([field.name for field in fields(Network)]), NUMBERS)
def test_a_network_works_or_names_its_bad_field(field, value):
    if field.startswith("n_") and isinstance(value, int) and value > 50:
        value %= 50  # how large is only a matter of memory
    try:
        net = Network(**({"n_subchannels": 2, "n_users": 3} | {field: value}))
    except ValueError as error:
        assert str(error).startswith(field)
        return
    rng = np.random.default_rng(0)
    gains = np.minimum(draw_gains(net, 4, rng), np.sqrt(MAX_SNR * net.noise / net.budget) * 0.99)
    assignment = random_assignment(net, rng)
    assert_allocation(net, gains, assignment, water_filling.allocate(net, gains, assignment))
    power = np.broadcast_to(baselines.equal_power(net, assignment), gains.shape)
    expected = pair_rates(net, gains, assignment, power)
    np.testing.assert_allclose(rates.rates(net, gains, assignment, power), expected, rtol=1e-9)


@given(
    st.dictionaries(st.text(max_size=8), st.one_of(NUMBERS, st.lists(st.floats())), max_size=3),
    st.dictionaries(st.text(max_size=8), st.one_of(NUMBERS, st.lists(st.floats())), max_size=3),
)
def test_records_read_as_written_or_name_the_value(tmp_path_factory, parameters, metrics):
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.unlink(missing_ok=True)
    try:
        records.write(path, parameters, metrics)
    except ValueError as error:
        assert any(repr(name) in str(error) for name in (*parameters, *metrics))
        assert not path.exists()
        return
    found = records.read(path)
    for name, value in metrics.items():
        np.testing.assert_array_equal(found["metrics"][name], value)
    assert set(found["parameters"]) == set(parameters)
