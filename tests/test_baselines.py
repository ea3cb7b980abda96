"""Max and Rand: they spend P_c, on assigned pairs only, and Rand uniformly."""

import numpy as np
import pytest

from nomalib import baselines
from nomalib.network import Network, random_assignment


@pytest.mark.parametrize("n_draws", [None, 40])
def test_both_spend_the_budget_on_assigned_pairs_only(n_draws):
    net = Network(n_users=7)
    rng = np.random.default_rng(0)
    assignment = random_assignment(net, rng, n_draws)
    for power in (
        baselines.equal_power(net, assignment),
        baselines.random_power(net, assignment, rng),
    ):
        assert power.shape == assignment.shape
        assert (power[~assignment] == 0).all() and (power[assignment] > 0).all()
        np.testing.assert_allclose(power.sum(axis=(-2, -1)), net.budget, rtol=1e-14)


def test_equal_power_is_the_same_for_every_pair():
    net = Network()
    assignment = random_assignment(net, np.random.default_rng(0))
    np.testing.assert_allclose(
        baselines.equal_power(net, assignment)[assignment], net.budget / 30, rtol=1e-14
    )


def test_random_power_is_uniform_on_the_simplex():
    # of n uniform shares each has mean 1/n and variance (n − 1)/(n²(n + 1))
    net = Network(n_subchannels=2, n_users=2, power_dbm=30.0)
    assignment = np.ones((20_000, 2, 2), bool)
    power = baselines.random_power(net, assignment, np.random.default_rng(1))
    deviation = np.sqrt(3 / 16 / 5)
    assert np.abs(power.mean(axis=0) - 0.25).max() < 5 * deviation / np.sqrt(20_000)
    assert np.abs(power.std(axis=0) - deviation).max() < 0.02 * deviation


def test_random_power_repeats_with_its_generator():
    net = Network()
    assignment = random_assignment(net, np.random.default_rng(0))
    first, again, other = (
        baselines.random_power(net, assignment, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()


def test_an_assignment_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^assignment has shape \(2, 2\).*\(10, 10\)"):
        baselines.equal_power(Network(), np.ones((2, 2), bool))
