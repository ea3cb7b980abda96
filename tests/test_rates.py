"""Rates against equations (3), (5) and (6) written out by hand; Max and Rand spend P_c."""

import itertools

import numpy as np
import pytest
from checks import CONVENTIONS, draws, pair_rates

from nomalib import baselines, rates
from nomalib.network import Network, random_assignment


def network(n_users, residual, convention, **changes):
    return Network(1, n_users, sic_residual=residual, interference_gain=convention, **changes)


def test_three_users_equation_6_in_any_order_of_the_users():
    """Also the oracle of all other tests, which orders no users."""
    # users 1, 2, 3 by descending gain, at the places that `order` gives them
    g, p, e, noise = (2.0, 1.1, 0.4), (1.0, 2.5, 6.0), (0.7, 0.2, 0.04), 0.3
    q = [power * gain**2 for power, gain in zip(p, g, strict=True)]
    interferer = [
        np.log2(1 + q[0] / (e[1] * q[1] + e[2] * q[2] + noise)),
        np.log2(1 + q[1] / (e[2] * q[2] + q[0] + noise)),
        np.log2(1 + q[2] / (q[0] + q[1] + noise)),
    ]
    receiver = [
        np.log2(1 + q[0] / ((e[1] * p[1] + e[2] * p[2]) * g[0] ** 2 + noise)),
        np.log2(1 + q[1] / ((e[2] * p[2] + p[0]) * g[1] ** 2 + noise)),
        np.log2(1 + q[2] / ((p[0] + p[1]) * g[2] ** 2 + noise)),
    ]
    for order in itertools.permutations(range(3)):
        at = np.argsort(order)
        for convention, expected in (("interferer", interferer), ("receiver", receiver)):
            net = network(3, np.array(e)[None, at], convention, noise=noise)
            case = net, np.array([g])[:, at], np.ones((1, 3), bool), np.array([p])[:, at]
            for found in (rates.rates(*case), pair_rates(*case)[0]):
                np.testing.assert_allclose(found[0], np.array(expected)[at], rtol=1e-14)
            total = rates.sum_rate(*case)
            np.testing.assert_allclose(total, sum(expected), rtol=1e-14)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_interference_sinr_and_rates_of_random_draws(convention):
    rng = np.random.default_rng(3)
    net = Network(4, 6, 4, sic_residual=rng.random((4, 6)), interference_gain=convention)
    gains, assignment = draws(net, 10, rng)
    gains[0] = 1.0  # ties
    power = rng.random(gains.shape)
    case = net, gains, assignment, power
    found, ratio = rates.rates(*case), rates.sinr(*case)
    np.testing.assert_allclose(found, pair_rates(*case), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found, np.log2(1 + ratio), rtol=1e-12, atol=1e-15)
    received = assignment * power * gains**2
    heard = ratio * (rates.interference(*case) + net.noise)
    np.testing.assert_allclose(heard, received, rtol=1e-12)
    assert (found[~assignment] == 0).all() and (found[assignment] > 0).all()


def test_perfect_sic_with_interferer_gains_telescopes():
    net = Network(sic_residual=0.0)
    gains, assignment = draws(net, 50, 4)
    power = np.where(assignment, np.random.default_rng(4).random(gains.shape), 0.0)
    received = np.sum(power * gains**2, axis=-1) / net.noise
    found = rates.sum_rate(net, gains, assignment, power)
    np.testing.assert_allclose(found, np.log2(1 + received).sum(axis=-1), rtol=1e-12)


def test_qos_violation_is_the_share_of_pairs_below_the_minimal_rate():
    net = network(2, 0.0, "interferer", noise=1.0, min_rate=1.0)
    both = [[True, True]]
    gains = np.ones((4, 1, 2))
    # rates log2(1 + p1) and log2(1 + p2/(1 + p1)): (1, 1), (1, 0), (0, 0), and no allocation
    power = [[[1.0, 2.0]], [[1.0, 0.5]], [[0.0, 0.5]], [[np.nan, np.nan]]]
    found = rates.qos_violation(net, gains, both, power)
    np.testing.assert_array_equal(found, [0.0, 0.5, 1.0, np.nan])
    just_below = [[[1.0 - 1e-7, 2.0]]] * 4
    assert (rates.qos_violation(net, gains, both, just_below) == 0).all()
    assert (rates.qos_violation(net, gains, both, just_below, tolerance=0.0) == 0.5).all()
    assert (rates.qos_violation(net, gains, [[True, False]], just_below) == 0).all()


def test_powers_of_nan_have_rates_of_nan():
    net = network(2, 0.0, "interferer")
    power = np.full((1, 2), np.nan)
    assert np.isnan(rates.sum_rate(net, [[1.0, 2.0]], [[True, True]], power))


def test_one_power_for_many_draws():
    net = Network(3, 4)
    gains, assignment = draws(net, 5, one_assignment=True)
    power = baselines.equal_power(net, assignment)
    copies = np.broadcast_to(power, gains.shape)
    for function in (rates.interference, rates.sinr, rates.rates, rates.qos_violation):
        one, other = (function(net, gains, assignment, given) for given in (power, copies))
        np.testing.assert_array_equal(one, other)


def test_order_breaks_ties_by_index():
    order = rates.sic_order(np.array([[0.5, 2.0, 0.5, 2.0]]))
    np.testing.assert_array_equal(order, [[1, 3, 0, 2]])


@pytest.mark.parametrize("n_draws", [None, 40])
def test_max_and_rand_spend_the_budget_on_assigned_pairs_only(n_draws):
    net, rng = Network(n_users=7), np.random.default_rng(0)
    assignment = random_assignment(net, rng, n_draws)
    equal, first, again, other = (
        baselines.equal_power(net, assignment),
        *(baselines.random_power(net, assignment, np.random.default_rng(s)) for s in (1, 1, 2)),
    )
    for power in (equal, first):
        assert power.shape == assignment.shape
        assert (power[~assignment] == 0).all() and (power[assignment] > 0).all()
        np.testing.assert_allclose(power.sum(axis=(-2, -1)), net.budget, rtol=1e-14)
    np.testing.assert_allclose(equal[assignment], net.budget / 28, rtol=1e-14)
    assert (first == again).all() and (first != other)[assignment].all()


def test_random_power_is_uniform_on_the_simplex():
    # of n uniform shares each has mean 1/n and variance (n − 1)/(n²(n + 1))
    net = Network(n_subchannels=2, n_users=2, power_dbm=30.0)
    assignment = np.ones((20_000, 2, 2), bool)
    power = baselines.random_power(net, assignment, np.random.default_rng(1))
    deviation = np.sqrt(3 / 16 / 5)
    assert np.abs(power.mean(axis=0) - 0.25).max() < 5 * deviation / np.sqrt(20_000)
    assert np.abs(power.std(axis=0) - deviation).max() < 0.02 * deviation
