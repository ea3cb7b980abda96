"""Oracles: every choice of takers, the interior-point method, and water-filling."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from checks import draws, same, weighted

from nomalib import interior_point, polytope, takers, water_filling
from nomalib.joint_bound import upper_bound
from nomalib.network import Network

KNOWN = [
    ("interferer", 0.0),
    ("interferer", 0.01),
    ("interferer", 0.7),
    ("receiver", 0.0),
    ("receiver", 1.0),
]


@pytest.mark.parametrize("gain, epsilon", KNOWN)
@pytest.mark.parametrize("noise", [0.1, 0.001])
def test_no_other_power_exceeds_the_bound_and_hardly_any_the_rate(gain, epsilon, noise):
    net = Network(noise=noise, sic_residual=epsilon, interference_gain=gain)
    net = replace(net, min_rate=np.linspace(0.0, 0.2, net.n_users))
    given = weighted(net, 20, 3)
    found, other = takers.allocate(net, *given), interior_point.allocate(net, *given)
    here = found.feasible
    assert here.sum() > 5
    assert (other.sum_rate <= found.upper_bound * (1 + 1e-12))[here].all()
    assert (other.sum_rate <= found.sum_rate * (1 + 1e-12))[here].all()
    assert found.gap[here].mean() < 1e-4 and found.gap[here].max() < 2e-3
    assert found.converged[here].all()
    if (gain, epsilon) == ("receiver", 0.0):
        assert (found.gap[here] < 1e-12).all()


@pytest.mark.parametrize("gain, epsilon", [case for case in KNOWN if case[1] > 0.0])
def test_it_finds_the_best_of_all_choices_of_takers(gain, epsilon):
    net = Network(3, 6, 3, 2, sic_residual=epsilon, interference_gain=gain, noise=0.01)
    gains, assignment, weights = weighted(net, 30, 4)
    found, short = takers.allocate(net, gains, assignment, weights), []
    for b in np.flatnonzero(found.feasible):
        shares = polytope.reduce(net, gains[b], assignment[b], weights[b])
        best = 0.0
        for chosen in product(range(3), repeat=3):
            at = np.arange(3), list(chosen)
            strength, coupling = shares.strength[at], shares.coupling[*at, list(chosen)]
            x, weight = np.zeros(3), shares.weight[at]
            water_filling.fill(strength, coupling, weight, x)
            rate = weight @ np.log1p(strength * x / (1.0 + coupling * x))
            best = max(best, (shares.least_rate + rate) / np.log(2.0))
        assert found.sum_rate[b] <= best * (1 + 1e-12)
        assert best <= found.upper_bound[b] * (1 + 1e-12)
        short.append(1.0 - found.sum_rate[b] / best)
    assert np.mean(np.array(short) < 1e-12) > 0.9 and np.mean(short) < 1e-4


def test_weights_of_one_change_no_bit():
    net = Network()
    case, ones = (net, *draws(net, 50, 1)), np.ones((50, 10))
    same(takers.allocate(*case), water_filling.allocate(*case))
    same(takers.allocate(*case), takers.allocate(*case, ones))
    uneven = replace(net, sic_residual=np.random.default_rng(7).random((10, 10)))
    same(*(interior_point.allocate(uneven, *case[1:], w) for w in (None, ones)))
    same(*([upper_bound(net, case[1][:2], w)] for w in (None, ones[:2])))


def test_where_nothing_is_known_there_is_no_bound():
    net = Network(sic_residual=0.01, interference_gain="receiver")
    given = weighted(net, 20, 2)
    found, other = takers.allocate(net, *given), interior_point.allocate(net, *given)
    assert np.isinf(found.upper_bound[found.feasible]).any()
    here = found.feasible
    assert 0.97 < (found.sum_rate / other.sum_rate)[here].mean() < 1.0
