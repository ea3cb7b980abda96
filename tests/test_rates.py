"""Rates against equations (3), (5) and (6) written out by hand; Max and Rand spend P_c."""

import itertools

import numpy as np
import pytest
from checks import CONVENTIONS, draws, pair_rates

from nomalib import baselines, rates
from nomalib.network import Network, random_assignment


def network(n_users, residual, convention, **changes):
    return Network(1, n_users, sic_residual=residual, interference_gain=convention, **changes)


def test_two_users_equation_5():
    g1, g2, p1, p2, e1, e2, noise = 1.7, 0.6, 3.0, 5.0, 0.3, 0.05, 0.2
    residual = np.array([[e1, e2]])
    expected = {
        "interferer": [
            np.log2(1 + p1 * g1**2 / (e2 * p2 * g2**2 + noise)),
            np.log2(1 + p2 * g2**2 / (p1 * g1**2 + noise)),
        ],
        "receiver": [
            np.log2(1 + p1 * g1**2 / (e2 * p2 * g1**2 + noise)),
            np.log2(1 + p2 * g2**2 / (p1 * g2**2 + noise)),
        ],
    }
    for convention in CONVENTIONS:
        net = network(2, residual, convention, noise=noise)
        case = net, [[g1, g2]], [[True, True]], [[p1, p2]]
        np.testing.assert_allclose(rates.rates(*case)[0], expected[convention], rtol=1e-14)
        np.testing.assert_allclose(rates.sum_rate(*case), sum(expected[convention]), rtol=1e-14)


def test_three_users_equation_6_in_any_order_of_the_users():
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
            found = rates.rates(
                net, np.array(g)[None, at], np.ones((1, 3), bool), np.array(p)[None, at]
            )
            np.testing.assert_allclose(found[0], np.array(expected)[at], rtol=1e-14)


def scalar_interference(net, gains, assignment, power):
    """Equation (3) by three loops; the earlier of two users with equal gains counts as stronger."""
    total = np.zeros_like(gains)
    for i, j, other in itertools.product(
        range(net.n_subchannels), range(net.n_users), range(net.n_users)
    ):
        if other == j or not assignment[i, other]:
            continue
        weaker = (gains[i, other], -other) < (gains[i, j], -j)
        gain = gains[i, other] if net.interference_gain == "interferer" else gains[i, j]
        total[i, j] += (net.residual[i, other] if weaker else 1.0) * power[i, other] * gain**2
    return total


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_interference_sinr_and_rates_of_random_draws(convention):
    rng = np.random.default_rng(3)
    net = Network(4, 6, 4, sic_residual=rng.random((4, 6)), interference_gain=convention)
    gains, assignment = draws(net, 10, rng)
    gains[0] = 1.0  # ties
    power = rng.random(gains.shape)
    expected = [
        scalar_interference(net, *draw) for draw in zip(gains, assignment, power, strict=True)
    ]
    found = rates.interference(net, gains, assignment, power)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    ratio = assignment * power * gains**2 / (np.array(expected) + net.noise)
    found = rates.sinr(net, gains, assignment, power)
    np.testing.assert_allclose(found, ratio, rtol=1e-12)
    found = rates.rates(net, gains, assignment, power)
    for oracle in (np.log2(1 + ratio), pair_rates(net, gains, assignment, power)):
        np.testing.assert_allclose(found, oracle, rtol=1e-12, atol=1e-15)
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
