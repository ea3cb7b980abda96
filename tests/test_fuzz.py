"""Hostile input: a right result, or a ValueError that names the argument.

Bad arrays and options go to every public function, random networks only to the rates, baselines,
derivatives and records; the solvers are not fuzzed yet. FUZZ=deep generates more.
"""

import os
from dataclasses import replace

import numpy as np
import pytest
from checks import pair_rates
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomalib import (
    baselines,
    complexity,
    derivatives,
    interior_point,
    learning,
    matching,
    optimum,
    polytope,
    rates,
    records,
    water_filling,
)
from nomalib.network import MAX_SNR, Network, draw_gains, random_assignment

DEEP = os.environ.get("FUZZ") == "deep"
DRAWS = int(os.environ.get("FUZZ_DRAWS", 256 if DEEP else 32))


def profile(examples, deep_examples):
    return settings(
        max_examples=deep_examples if DEEP else examples,
        derandomize=not DEEP,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


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
        min_rate=draw(st.sampled_from([0.0, 0.01, 1.0, 5e-324, 1e-14, 1e-6, 12.0, 300.0, 1e3])),
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


@st.composite
def problems(draw, uniform=False, max_size=4):
    net = draw(networks(max_size))
    if uniform:
        net = replace(net, sic_residual=net.residual[0, 0])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_draws = draw(st.sampled_from([DRAWS, DRAWS, DRAWS, 1, 0]))
    gains = hostile_gains(net, n_draws, rng)
    assignment = hostile_assignment(net, max(n_draws, 1), rng)
    assignment = assignment[0] if draw(st.booleans()) or n_draws == 0 else assignment
    return net, gains, assignment, rng


def hostile_power(net, gains, assignment, rng):
    power = np.zeros(gains.shape)
    power[...] = baselines.random_power(net, assignment, rng)
    return power * rng.choice([1.0, 0.0, 1e-30, 1e3], (len(gains), 1, 1))


@profile(60, 1500)
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


SIZE_FREE = learning.equivariant_network()
PAPERS = learning.imitation_network(Network(n_subchannels=2, n_users=3))


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


BAD_OPTIONS = [
    ("n_draws", lambda value: draw_gains(SMALL, value, np.random.default_rng(0))),
    ("n_draws", lambda value: random_assignment(SMALL, np.random.default_rng(0), value)),
    ("tolerance", lambda value: rates.qos_violation(SMALL, *GOOD.values(), tolerance=value)),
    ("rule", lambda value: matching.swap_matching(SMALL, *GOOD.values(), rule=value)),
    ("rule", lambda value: matching.paus(SMALL, *PAIR, rule=value)),
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


@profile(150, 5000)
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
