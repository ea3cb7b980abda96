"""Oracle: exhaustive search over all assignments within the caps, at exact powers."""

from itertools import combinations, product

import numpy as np
import pytest

from nomalib import matching, rates, water_filling
from nomalib.joint_bound import upper_bound
from nomalib.network import Network, draw_gains, random_assignment


def every_assignment(net):
    """All assignments within the caps that serve somebody, (A, N, M)."""
    sizes = range(net.max_users_per_subchannel + 1)
    sets = [s for size in sizes for s in combinations(range(net.n_users), size)]
    rows = np.array([[j in s for j in range(net.n_users)] for s in sets])
    chosen = np.array(list(product(range(len(sets)), repeat=net.n_subchannels)))
    found = rows[chosen]
    held = found.sum(axis=1)
    return found[(held <= net.max_subchannels_per_user).all(axis=1) & held.any(axis=1)]


def joint_optimum(net, gains):
    """The best sum rate of each draw, and the best that serves everybody."""
    schedules = every_assignment(net)
    all_served = schedules.any(axis=1).all(axis=1)
    best = np.empty((2, len(gains)))
    for b, draw in enumerate(gains):
        copies = np.broadcast_to(draw, schedules.shape)
        power = water_filling.allocate(net, copies, schedules).power
        rate = rates.sum_rate(net, copies, schedules, power)
        best[:, b] = [np.fmax.reduce(r, initial=0.0) for r in (rate, rate[all_served])]
    return best


SMALL = [
    (3, 3, 2, 2, "interferer"),
    (3, 4, 2, 2, "receiver"),
    (4, 3, 2, 3, "interferer"),
    (3, 4, 3, 2, "interferer"),
    (4, 4, 2, 2, "interferer"),
]


@pytest.mark.parametrize(("n", "m", "h", "v", "interference_gain"), SMALL)
def test_small_cells_against_the_exhaustive_joint_optimum(n, m, h, v, interference_gain):
    net = Network(n, m, h, v, interference_gain=interference_gain)
    rng = np.random.default_rng(10 * n + m)
    n_draws = 6 if n * m == 16 else 25
    gains, start = draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)
    best, best_serving_all = joint_optimum(net, gains)
    bound = upper_bound(net, gains)
    assert (bound >= best * (1 - 1e-7)).all()
    assert np.mean(best / bound) > 0.998
    rate = matching.paus(net, gains, start).sum_rate
    assert (rate <= best_serving_all * (1 + 1e-9)).all()
    assert np.mean(rate / best) >= 0.99
    assert np.mean(rate / best_serving_all) >= 0.99


@pytest.mark.parametrize(
    ("net", "n_draws"),
    [
        (Network(), 10),
        (Network(interference_gain="receiver"), 4),
        (Network(max_users_per_subchannel=4, max_subchannels_per_user=3), 10),
        (Network(n_users=20, n_subchannels=25), 3),
    ],
    ids=["default", "receiver", "caps of C1, C2", "M = 20, N = 25"],
)
def test_paus_is_within_one_percent_of_the_bound(net, n_draws):
    rng = np.random.default_rng(7)
    gains, start = draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)
    ratio = matching.paus(net, gains, start).sum_rate / upper_bound(net, gains)
    assert (ratio <= 1 + 1e-9).all()
    assert ratio.mean() >= 0.99


def test_low_snr_and_hopeless_users_keep_the_bound_a_bound():
    rng = np.random.default_rng(8)
    for net in (
        Network(3, 3, 2, 2, noise=100.0),
        Network(3, 3, 2, 2, noise=1e3, min_rate=0.05),
        Network(3, 3, 2, 2, sic_residual=1.0, min_rate=1.5),
    ):
        gains = draw_gains(net, 10, rng)
        gains[0, 0] = 0.0
        assert (upper_bound(net, gains) >= joint_optimum(net, gains)[0] * (1 - 1e-7)).all()


def test_users_without_a_channel_are_worth_nothing():
    net = Network(2, 2, sic_residual=0.0, min_rate=0.0)
    assert 0 <= upper_bound(net, np.zeros((2, 2))) < 1e-3
    gains = np.array([[0.0, 1.0], [0.0, 0.0]])
    alone = np.log2(1 + net.budget / net.noise)
    np.testing.assert_allclose(upper_bound(net, gains), alone, rtol=1e-6)


def test_bad_input_is_named():
    net = Network(2, 2, sic_residual=np.array([[0.1, 0.2], [0.1, 0.1]]))
    with pytest.raises(ValueError, match="sic_residual differs"):
        upper_bound(net, np.ones((2, 2)))
    with pytest.raises(ValueError, match="gains has shape"):
        upper_bound(Network(2, 2), np.ones(2))
