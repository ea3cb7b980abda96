"""Schedules by simple rules. Oracles: all schedules of one user each, and blocking pairs."""

from itertools import product

import numpy as np
import pytest
from checks import draws

from nomalib import schedules, takers
from nomalib.network import Network

RULES = [getattr(schedules, name) for name in schedules.__all__]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("n, m, h, v", [(6, 6, 2, 2), (3, 8, 3, 1), (7, 2, 2, 4)])
def test_every_rule_keeps_the_caps_and_goes_by_the_weights(rule, n, m, h, v):
    net, rng = Network(n, m, h, v, min_rate=0.0), np.random.default_rng(n)
    gains, _ = draws(net, 10, rng)
    weights = rng.random((10, m))
    found = rule(net, gains, weights)
    assert found.dtype == bool and found.shape == gains.shape
    assert (found.sum(axis=2) <= h).all() and (found.sum(axis=1) <= v).all()
    assert found.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(found[3], rule(net, gains[3], weights[3]))
    ours = takers.allocate(net, gains, found, weights).sum_rate.mean()
    assert ours >= takers.allocate(net, gains, rule(net, gains), weights).sum_rate.mean()


def test_one_user_each_is_the_best_of_all_such_schedules():
    net, rng = Network(4, 3, 1, 2, min_rate=0.0, noise=1.0), np.random.default_rng(1)
    gains, _ = draws(net, 25, rng)
    weights = rng.random((25, 3))
    users = np.array([u for u in product(range(3), repeat=4) if max(map(u.count, u)) <= 2])
    every, best = users[:, :, None] == np.arange(3), np.empty(25)
    for b in range(25):
        copies = np.broadcast_to(gains[b], every.shape)
        best[b] = takers.allocate(net, copies, every, weights[b]).sum_rate.max()
    ours = takers.allocate(net, gains, schedules.one_each(net, gains, weights), weights).sum_rate
    assert (ours <= best * (1 + 1e-12)).all() and (ours / best).mean() > 0.999
    other = schedules.linear_assignment(net, gains, weights)
    assert (ours >= takers.allocate(net, gains, other, weights).sum_rate * (1 - 1e-12)).all()


def test_no_pair_blocks_the_deferred_acceptance():
    net = Network(5, 7, 2, 2)
    gains, _ = draws(net, 20, 2)
    for gain, found in zip(gains, schedules.deferred_acceptance(net, gains), strict=True):
        for i, j in np.argwhere(~found):
            held, here = gain[found[:, j], j], gain[i, found[i]]
            would_j = len(held) < 2 or gain[i, j] > held.min()
            would_i = len(here) < 2 or gain[i, j] > here.min()
            assert not (would_j and would_i)
