"""Every public function on hostile input: a right result, or a ValueError that names the argument.

A warning is an error here as everywhere, and a hang shows where at pytest's `faulthandler_timeout`.
How many examples are generated is a matter of Hypothesis's profile (`conftest.py`): `make fuzz`
takes "deep", more than a million draws, the tests "short", some thousands.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from checks import assert_allocation, better_swap, pair_rates, slsqp_rate
from hypothesis import given
from hypothesis import strategies as st

from nomalib import (
    baselines,
    complexity,
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
        min_rate=draw(st.sampled_from([0.0, 0.01, 1.0, 1e-100, 1e-14, 1e-6, 12.0, 300.0, 1e3])),
        interference_gain=draw(st.sampled_from(["interferer", "receiver"])),
        fading=draw(st.sampled_from(["normal", "rayleigh"])),
    )


def hostile_gains(net, n_draws, rng):
    """Draws of which each is ordinary, huge or tiny over many decades, equal, or mostly zero."""
    shape = (n_draws, net.n_subchannels, net.n_users)
    unit = np.sqrt(net.noise / net.budget)  # an SNR of one
    largest = unit * np.sqrt(MAX_SNR) * (1 - 1e-15)
    wide = unit * 10.0 ** rng.uniform(-50, 50, shape)
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
        net = replace(net, sic_residual=net.residual[0, 0])
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
    short = assigned & (expected < net.min_rate * (1 - rates.QOS_TOLERANCE))
    share = short.sum(axis=(-2, -1)) / assigned.sum(axis=(-2, -1))
    borderline = np.isclose(expected, net.min_rate * (1 - rates.QOS_TOLERANCE), rtol=1e-8, atol=0)
    sure = ~(borderline & assigned).any(axis=(-2, -1))
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
    u /= u.sum(axis=(-2, -1), keepdims=True)
    lead = gains.shape[:1]
    power = polytope.power(net, shares, u)
    claims = shares.feasible, np.zeros(lead, bool), np.ones(lead, int), np.full(lead, np.nan)
    assert_allocation(net, gains, assignment, polytope.Allocation(power, *claims), optimal=False)
    repaired = learning.repair(net, gains, assignment, hostile_power(net, gains, assignment, rng))
    assert_allocation(net, gains, assignment, polytope.Allocation(repaired, *claims), False)


@given(problems())
def test_interior_point(given_problem):
    net, gains, assignment, _ = given_problem
    found = interior_point.allocate(net, gains, assignment)
    assert_allocation(net, gains, assignment, found)
    if len(gains) == 1 and found.feasible[0]:
        one = assignment.reshape(gains.shape[1:])
        path = interior_point.trace(net, gains[0], one)
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
    # an SNR below 1e-140 counts as 0
    assert not (rate > best * (1 + 1e-7) + 1e-138).any()
    same = optimum.allocate(net, gains, assignment)
    np.testing.assert_array_equal(same.power, found.power)


@given(problems(max_size=3))
def test_the_certified_optimum(given_problem):
    net, gains, assignment, _ = given_problem
    gains = gains[:32]
    assignment = assignment[:32] if assignment.ndim == 3 else assignment
    found = optimum.allocate(net, gains, assignment, max_cells=200)
    n_draws = len(gains)
    claims = found.feasible, np.zeros(n_draws, bool), np.ones(n_draws, int), np.full(n_draws, 0.0)
    as_allocation = polytope.Allocation(found.power, *claims)
    assert_allocation(net, gains, assignment, as_allocation, optimal=False)
    rate = pair_rates(net, gains, assignment, found.power).sum(axis=(-2, -1))
    np.testing.assert_allclose(found.sum_rate, rate, rtol=1e-9, atol=1e-290)
    other = interior_point.allocate(net, gains, assignment)
    rate = rates.sum_rate(net, gains, assignment, other.power)
    # an SNR below 1e-140 counts as 0
    assert not (rate > found.upper_bound * (1 + 1e-9) + 1e-138).any()
    np.testing.assert_array_equal(np.isnan(found.upper_bound), ~found.feasible)
    np.testing.assert_array_equal(np.isnan(found.gap), ~found.feasible)


@given(problems(max_size=2))
def test_no_other_solver_does_better(given_problem):
    net, gains, assignment, rng = given_problem
    net = replace(net, min_rate=min(net.min_rate, 1.0), noise=0.1, power_dbm=43.0)
    gains = draw_gains(net, 1, rng)
    assignment = assignment[:1]
    if assignment.ndim == 2:
        assignment = hostile_assignment(net, 1, rng)
    best = optimum.allocate(net, gains, assignment)
    local = interior_point.allocate(net, gains, assignment)
    # SLSQP meets R_min to 1e-7 only
    eased = replace(net, min_rate=max(net.min_rate - 1e-7, 0.0))
    bound = optimum.allocate(eased, gains, assignment).upper_bound[0]
    if best.feasible[0]:
        starts = [best.power[0], local.power[0]]
        starts += [baselines.random_power(net, assignment[0], rng) for _ in range(3)]
        assert slsqp_rate(net, gains, assignment, starts) <= bound * (1 + 1e-6)
        assert local.converged[0]


@given(problems(), st.sampled_from(["rate", "qos", "feasible", "optimum"]), st.booleans())
def test_matching(given_problem, rule, moves):
    net, gains, assignment, rng = given_problem
    power = hostile_power(net, gains, assignment, rng)
    if rule == "optimum" and (net.residual != net.residual[:, :1]).any():
        with pytest.raises(ValueError, match="sic_residual differs"):
            matching.swap_matching(net, gains, assignment, power, rule, moves)
        return
    m = matching.swap_matching(net, gains, assignment, power, rule, moves)
    assert (m.assignment.sum(axis=-1) <= net.max_users_per_subchannel).all()
    assert (m.assignment.sum(axis=-2) <= net.max_subchannels_per_user).all()
    rate = pair_rates(net, gains, m.assignment, m.power).sum(axis=(-2, -1))
    np.testing.assert_allclose(m.sum_rate, rate, rtol=1e-9, atol=1e-300)
    trace = m.trace[~np.isnan(m.trace)]
    assert np.isfinite(trace).all() and not (np.diff(m.trace, axis=-1) <= 0).any()
    stable = matching.is_exchange_stable(net, gains, m.assignment, m.power, rule, moves)
    np.testing.assert_array_equal(stable, ~np.isnan(m.sum_rate))
    if len(gains) and stable[0] and not moves:
        assert better_swap(net, gains[0], m.assignment[0], m.power[0], rule) is None


@given(problems(), st.sampled_from(["rate", "qos", "optimum"]), st.booleans())
def test_paus(given_problem, rule, moves):
    net, gains, assignment, _ = given_problem
    m = matching.paus(net, gains, assignment, interior_point.allocate, rule, moves)
    assert (m.assignment.sum(axis=-1) <= net.max_users_per_subchannel).all()
    assert (m.assignment.sum(axis=-2) <= net.max_subchannels_per_user).all()
    rate = pair_rates(net, gains, m.assignment, m.power).sum(axis=(-2, -1))
    np.testing.assert_allclose(m.sum_rate, rate, rtol=1e-9, atol=1e-300)
    spent = m.power.sum(axis=(-2, -1))
    assert not (spent > net.budget * (1 + 1e-9)).any()
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


@given(problems(), st.sampled_from(["interior_point", "water_filling"]))
def test_what_is_counted_is_what_runs(given_problem, method):
    net, gains, assignment, _ = given_problem
    net = replace(net, sic_residual=net.residual[0, 0])
    for draw, pairs in zip(gains[:1], np.broadcast_to(assignment, gains.shape), strict=False):
        try:
            found = COUNTS[method](net, draw, pairs)
        except ValueError as error:
            assert "infeasible" in str(error) and not polytope.reduce(net, draw, pairs).feasible
            continue
        assert found.n_iter == ALLOCATORS[method](net, draw, pairs).n_iter
        assert found.reduction > 0 and found.memory > 0 and found.solution >= 0


COUNTS = {
    "interior_point": complexity.interior_point_count,
    "water_filling": complexity.water_filling_count,
}
ALLOCATORS = {
    "interior_point": lambda *arguments: interior_point.allocate(*arguments, restarts=0),
    "water_filling": water_filling.allocate,
}
SIZE_FREE = learning.equivariant_network()
PAPERS = learning.imitation_network(Network(n_subchannels=2, n_users=3))


def deploy(model):
    """The model as it is deployed."""
    with tempfile.TemporaryDirectory() as folder:
        compression.save(model, Path(folder) / "model.npz")
        return deployed.load(Path(folder) / "model.npz")


DEPLOYED_SIZE_FREE, DEPLOYED_PAPERS = deploy(SIZE_FREE), deploy(PAPERS)


@given(problems(max_size=2))
def test_learned_allocation(given_problem):
    net, gains, assignment, rng = given_problem
    found = learning.allocate(SIZE_FREE, net, gains, assignment)
    assert_allocation(net, gains, assignment, found, optimal=False)
    assert found.converged[found.feasible].all()
    power = deployed.power(DEPLOYED_SIZE_FREE, net, gains, assignment)
    assert_allocation(net, gains, assignment, found._replace(power=power), optimal=False)
    net = replace(net, n_subchannels=2, n_users=3, sic_residual=net.residual[0, 0])
    gains = hostile_gains(net, len(gains), rng)
    assignment = hostile_assignment(net, 1, rng)[0]
    if gains[np.broadcast_to(assignment, gains.shape)].max(initial=0.0) > deployed.LARGEST_GAIN:
        for call, network in ((learning.allocate, PAPERS), (deployed.power, DEPLOYED_PAPERS)):
            with pytest.raises(ValueError, match="gains holds .* single precision"):
                call(network, net, gains, assignment)
        gains = np.minimum(gains, deployed.LARGEST_GAIN)
    found = learning.allocate(PAPERS, net, gains, assignment)
    assert np.isfinite(found.power[found.feasible]).all()
    assert (
        np.isnan(found.power[~found.feasible]).all() and not found.converged[~found.feasible].any()
    )
    spent = found.power[found.feasible].sum(axis=(-2, -1))
    np.testing.assert_allclose(spent, net.budget)
    same = deployed.power(DEPLOYED_PAPERS, net, gains, assignment)
    np.testing.assert_array_equal(np.isnan(same).all(axis=(-2, -1)), ~found.feasible)
    np.testing.assert_allclose(same[found.feasible].sum(axis=(-2, -1)), net.budget)


# Bad input: each corruption names what it spoils, and the error must name it too.
NAN, INF = float("nan"), float("inf")


def with_value(value):
    def spoil(array):
        array = np.array(array, dtype=float)
        array.flat[-1] = value
        return array

    return spoil


BAD_ARRAY = {
    "NaN": with_value(NAN),
    "infinite": with_value(INF),
    "negative": with_value(-1e-300),
    "huge": with_value(1e307),
    "complex": lambda array: array + 0j,
    "text": lambda array: array.astype(str),
    "object": lambda array: array.astype(object),
    "ragged": lambda array: [[1.0], [1.0, 2.0]],
    "None": lambda array: None,
    "dates": lambda array: array.astype("datetime64[s]"),
    "an axis less": lambda array: array[..., 0],
    "transposed": lambda array: np.swapaxes(array, -1, -2),
    "a scalar": lambda array: 1.0,
    "a user more": lambda array: np.concatenate([array, array[..., :1]], axis=-1),
}
BAD_ASSIGNMENT = {
    "integers": lambda array: array.astype(int),
    "floats": lambda array: array.astype(float),
    "text": lambda array: array.astype(str),
    "None": lambda array: None,
    "ragged": lambda array: [[True], [True, False]],
    "an axis less": lambda array: array[..., 0],
    "an axis more": lambda array: array[None, None],
    "transposed": lambda array: np.swapaxes(array, -1, -2),
    "another batch": lambda array: np.stack([array] * 7),
    "nobody": np.zeros_like,
    "beyond the caps": np.ones_like,
}
WITH_POWER = {
    "interference": rates.interference,
    "sinr": rates.sinr,
    "rates": rates.rates,
    "sum_rate": rates.sum_rate,
    "qos_violation": rates.qos_violation,
    "derivatives": derivatives.derivatives,
    "eigenvalues": derivatives.eigenvalues,
    "printed": derivatives.printed,
    "swap_matching": matching.swap_matching,
    "is_exchange_stable": matching.is_exchange_stable,
    "repair": learning.repair,
}
WITH_GAINS = {
    "reduce": polytope.reduce,
    "interior_point": interior_point.allocate,
    "trace": interior_point.trace,
    "water_filling": water_filling.allocate,
    "optimum": optimum.allocate,
    "paus": matching.paus,
    "size_free": lambda *arguments: learning.allocate(SIZE_FREE, *arguments),
    "imitation": lambda *arguments: learning.allocate(PAPERS, *arguments),
    "interior_point_count": complexity.interior_point_count,
    "water_filling_count": complexity.water_filling_count,
    "prune": lambda *arguments: compression.prune(PAPERS, *arguments),
}
WITH_ASSIGNMENT = {
    "equal_power": baselines.equal_power,
    "random_power": lambda net, assignment: baselines.random_power(
        net, assignment, np.random.default_rng(0)
    ),
}
SMALL = Network(n_subchannels=2, n_users=3, max_users_per_subchannel=2, max_subchannels_per_user=2)
GOOD = {
    "gains": np.array([[0.5, 1.0, 2.0], [1.5, 1.0, 0.1]]),
    "assignment": np.array([[True, True, False], [False, True, True]]),
    "power": np.array([[5.0, 1.0, 0.0], [0.0, 3.0, 2.0]]),
}
BAD = [
    (name, argument, corruption)
    for functions, arguments in (
        (WITH_POWER, ("gains", "assignment", "power")),
        (WITH_GAINS, ("gains", "assignment")),
        (WITH_ASSIGNMENT, ("assignment",)),
    )
    for name in functions
    for argument in arguments
    for corruption in (BAD_ASSIGNMENT if argument == "assignment" else BAD_ARRAY)
    if (argument, corruption) != ("power", "NaN")  # an infeasible draw
]


@pytest.mark.parametrize("name, argument, corruption", BAD)
def test_a_bad_array_is_named(name, argument, corruption):
    spoil = (BAD_ASSIGNMENT if argument == "assignment" else BAD_ARRAY)[corruption]
    given_arrays = GOOD | {argument: spoil(GOOD[argument])}
    if name in WITH_POWER:
        call, taken = WITH_POWER[name], ("gains", "assignment", "power")
    elif name in WITH_GAINS:
        call, taken = WITH_GAINS[name], ("gains", "assignment")
    else:
        call, taken = WITH_ASSIGNMENT[name], ("assignment",)
    if name in WITH_ASSIGNMENT and corruption in ("an axis more", "another batch"):
        assert call(SMALL, given_arrays["assignment"]).shape[-2:] == (2, 3)
        return
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        call(SMALL, *(given_arrays[one] for one in taken))


NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(10**400), 10**400),
    st.sampled_from([None, "1", True, 1j, [1.0], np.float32(0.5), np.float64(NAN), b"1", {}]),
)
FIELDS = (
    "n_subchannels",
    "n_users",
    "max_users_per_subchannel",
    "max_subchannels_per_user",
    "power_dbm",
    "noise",
    "sic_residual",
    "min_rate",
    "interference_gain",
    "fading",
)


@given(st.sampled_from(FIELDS), NUMBERS)
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


BAD_OPTIONS = [
    ("n_draws", lambda value: draw_gains(SMALL, value, np.random.default_rng(0))),
    ("n_draws", lambda value: random_assignment(SMALL, np.random.default_rng(0), value)),
    ("tol", lambda value: interior_point.allocate(SMALL, *PAIR, tol=value)),
    ("restarts", lambda value: interior_point.allocate(SMALL, *PAIR, restarts=value)),
    ("tol", lambda value: interior_point.trace(SMALL, *PAIR, tol=value)),
    ("tol", lambda value: optimum.allocate(SMALL, *PAIR, tol=value)),
    ("max_cells", lambda value: optimum.allocate(SMALL, *PAIR, max_cells=value)),
    ("tolerance", lambda value: rates.qos_violation(SMALL, *GOOD.values(), tolerance=value)),
    ("rule", lambda value: matching.swap_matching(SMALL, *GOOD.values(), rule=value)),
    ("rule", lambda value: matching.paus(SMALL, *PAIR, rule=value)),
    ("u", lambda value: polytope.power(SMALL, polytope.reduce(SMALL, *PAIR), value)),
]
PAIR = GOOD["gains"], GOOD["assignment"]


@pytest.mark.parametrize("value", [-1, NAN, "many", None, 2.5, [1.0, 2.0], [[NAN, 0.0]] * 2])
@pytest.mark.parametrize("at", range(len(BAD_OPTIONS)))
def test_a_bad_option_is_named(at, value):
    argument, call = BAD_OPTIONS[at]
    if value is None and at == 1:  # one assignment
        assert call(value).shape == (2, 3)
        return
    if np.shape(value) == (2, 2) and argument == "u":  # an infeasible draw
        assert np.isnan(call(value)).any()
        return
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        call(value)


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
