"""Scenarios: what they keep, how their draws are distributed, and how assignments fill places."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomalib.network import Network, draw_gains, random_assignment


def test_network_is_frozen_and_keeps_its_own_copy_of_an_array():
    residual = np.zeros((10, 10))
    net = Network(sic_residual=residual)
    residual[0, 0] = 1.0
    assert net.epsilon.max() == 0.0
    with pytest.raises(ValueError, match="read-only"):
        net.sic_residual[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.noise = 1.0


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
    net = Network(n, m, per_subchannel, per_user)
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


def test_a_minimal_rate_of_each_user():
    net = Network(2, 3, min_rate=[0.0, 1.0, 2.0])
    np.testing.assert_array_equal(net.min_rates, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(net.min_sinr, [0.0, 1.0, 3.0], rtol=1e-15)
    np.testing.assert_array_equal(Network(2, 3, min_rate=0.5).min_rates, [0.5] * 3)


def test_scenarios_are_equal_where_their_parameters_are():
    net, uneven = Network(2, 3), np.arange(6.0).reshape(2, 3) / 10
    assert net == Network(2, 3) and hash(net) == hash(Network(2, 3)) and net != Network(3, 2)
    assert net == Network(2, 3, sic_residual=np.full((2, 3), 0.01), min_rate=[0.01] * 3)
    assert Network(2, 3, sic_residual=uneven) == Network(2, 3, sic_residual=uneven.copy())
    assert Network(2, 3, sic_residual=uneven) != net and net != 3
    assert len({net, Network(2, 3), pickle.loads(pickle.dumps(net)), Network()}) == 2
