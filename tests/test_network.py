"""Scenarios: what they refuse, how their draws are distributed, and how assignments fill places."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomalib import baselines
from nomalib.network import (
    Network,
    checked_draws,
    dbm_to_watt,
    draw_gains,
    random_assignment,
)

BAD = [
    ("n_subchannels", 0),
    ("n_users", 2.5),
    ("max_users_per_subchannel", True),
    ("max_subchannels_per_user", -1),
    ("power_dbm", np.nan),
    ("power_dbm", "43"),
    ("noise", 0.0),
    ("noise", np.inf),
    ("min_rate", -0.01),
    ("min_rate", 1e-200),
    ("sic_residual", 1.5),
    ("sic_residual", -0.5),
    ("sic_residual", np.full((10, 10), np.nan)),
    ("interference_gain", "both"),
    ("fading", "rician"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_parameter_is_named_with_its_value(name, value):
    shown = "nan" if isinstance(value, np.ndarray) else str(value)
    with pytest.raises(ValueError, match=f"^{name} .*{shown}"):
        Network(**{name: value})


def test_sic_residual_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"sic_residual has shape \(10,\)"):
        Network(sic_residual=np.zeros(10))


def test_network_is_frozen_and_keeps_its_own_copy_of_an_array():
    residual = np.zeros((10, 10))
    net = Network(sic_residual=residual)
    residual[0, 0] = 1.0
    assert net.residual.max() == 0.0
    with pytest.raises(ValueError, match="read-only"):
        net.sic_residual[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.noise = 1.0


@pytest.mark.parametrize(("dbm", "watt"), [(0.0, 1e-3), (30.0, 1.0), (43.0, 19.952623149688797)])
def test_watt_of_dbm(dbm, watt):
    assert dbm_to_watt(dbm) == pytest.approx(watt, rel=1e-14)


@pytest.mark.parametrize(
    ("fading", "mean", "fourth"),
    # |g| of N(0, 1): mean √(2/π), E g⁴ = 3; |g|² ~ Exp(1): mean √π/2, E g⁴ = 2
    [("normal", np.sqrt(2 / np.pi), 3.0), ("rayleigh", np.sqrt(np.pi) / 2, 2.0)],
)
def test_moments_of_the_fading(fading, mean, fourth):
    gains = draw_gains(Network(fading=fading), 4000, np.random.default_rng(1))
    assert gains.shape == (4000, 10, 10) and gains.min() >= 0
    for moment, expected in ((1, mean), (2, 1.0), (4, fourth)):
        sample = gains**moment
        error = sample.std() / np.sqrt(sample.size)
        assert abs(sample.mean() - expected) < 5 * error


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99)
)
def test_random_assignment_is_balanced_and_fills_all_places(n, m, per_subchannel, per_user, seed):
    net = Network(
        n_subchannels=n,
        n_users=m,
        max_users_per_subchannel=per_subchannel,
        max_subchannels_per_user=per_user,
    )
    assignment = random_assignment(net, np.random.default_rng(seed), 3)
    assert assignment.shape == (3, n, m)
    places = min(n * min(per_subchannel, m), m * min(per_user, n))
    for draw in assignment:
        assert draw.sum() == places
        for load, cap in ((draw.sum(axis=1), per_subchannel), (draw.sum(axis=0), per_user)):
            assert load.max() <= cap and np.ptp(load) <= 1


def test_random_assignments_are_independent_and_repeat_with_the_seed():
    net = Network()
    many = random_assignment(net, np.random.default_rng(5), 400)
    assert len({draw.tobytes() for draw in many}) > 390
    assert (many == random_assignment(net, np.random.default_rng(5), 400)).all()
    # every pair as likely as any other: 3 places of 10 users
    assert np.abs(many.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 400)


BAD_DRAWS = [
    ("gains", lambda g, a: (g[:, :5], a), "last two axes"),
    ("gains", lambda g, a: (-g, a), "-"),
    ("gains", lambda g, a: (np.where(g == g.max(), np.nan, g), a), "nan"),
    ("gains", lambda g, a: (g * 1e60, a), "below 1e"),
    ("gains", lambda g, a: (g.astype(complex), a), "complex"),
    ("assignment", lambda g, a: (g, a.astype(int)), "int64"),
    ("assignment", lambda g, a: (g, a[:4]), "shape"),
    ("assignment", lambda g, a: (g, a | True), "max_users_per_subchannel allows 3"),
    ("assignment", lambda g, a: (g, a & False), "serves 0 users"),
]


@pytest.mark.parametrize(("name", "spoil", "shown"), BAD_DRAWS)
def test_bad_draws_are_named(name, spoil, shown):
    net = Network()
    rng = np.random.default_rng(0)
    gains, assignment = spoil(draw_gains(net, 2, rng), random_assignment(net, rng))
    with pytest.raises(ValueError, match=f"^{name} .*{shown}"):
        checked_draws(net, gains, assignment)


def test_an_assignment_beyond_a_users_cap_is_named():
    net = Network(n_subchannels=5, n_users=2, max_subchannels_per_user=4)
    assignment = np.zeros((5, 2), bool)
    assignment[:, 0] = True
    with pytest.raises(ValueError, match="5 places; max_subchannels_per_user allows 4"):
        checked_draws(net, np.ones((5, 2)), assignment)


def test_whether_the_residual_is_uniform():
    rows = np.repeat(np.random.default_rng(0).random((3, 1)), 4, axis=1)
    for residual, uniform in ((0.3, True), (rows, True), (rows * [1, 1, 1, 0.5], False)):
        assert Network(3, 4, sic_residual=residual).uniform_residual == uniform


def test_a_seed_is_no_generator():
    net = Network(2, 2)
    for function in (
        lambda rng: draw_gains(net, 3, rng),
        lambda rng: random_assignment(net, rng),
        lambda rng: baselines.random_power(net, np.eye(2, dtype=bool), rng),
    ):
        for rng in (0, np.random, np.random.RandomState(0)):
            with pytest.raises(ValueError, match="^rng is .*default_rng"):
                function(rng)
