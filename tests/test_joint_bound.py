"""Oracle: exhaustive search over all assignments within the caps, at exact powers."""

from types import SimpleNamespace

import numpy as np
import pytest
from checks import draws, every_assignment
from scipy.optimize import linear_sum_assignment

from nomalib import joint_bound, matching, rates, water_filling
from nomalib.joint_bound import upper_bound
from nomalib.network import Network


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
    gains, start = draws(net, 6 if n * m == 16 else 25, 10 * n + m)
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
    gains, start = draws(net, n_draws, 7)
    ratio = matching.paus(net, gains, start).sum_rate / upper_bound(net, gains)
    assert (ratio <= 1 + 1e-9).all()
    assert ratio.mean() >= 0.99


def test_low_snr_hopeless_users_and_r_min_of_each_keep_the_bound_a_bound():
    for net in (
        Network(3, 3, 2, 2, noise=100.0),
        Network(3, 3, 2, 2, noise=1e3, min_rate=0.05),
        Network(3, 3, 2, 2, sic_residual=1.0, min_rate=1.5),
        Network(3, 3, 3, 2, sic_residual=0.0, min_rate=[0.0, 0.1, 1.5]),
    ):
        gains, _ = draws(net, 10, 8)
        gains[0, 0] = 0.0
        assert (upper_bound(net, gains) >= joint_optimum(net, gains)[0] * (1 - 1e-7)).all()


def test_users_without_a_channel_are_worth_nothing():
    net = Network(2, 2, sic_residual=0.0, min_rate=0.0)
    assert 0 <= upper_bound(net, np.zeros((2, 2))) < 1e-3
    gains = np.array([[0.0, 1.0], [0.0, 0.0]])
    alone = np.log2(1 + net.budget / net.noise)
    np.testing.assert_allclose(upper_bound(net, gains), alone, rtol=1e-6)


@pytest.mark.parametrize("interference_gain", ["interferer", "receiver"])
@pytest.mark.parametrize("price", [3.0, 8.0])
def test_at_a_price_the_bound_is_a_transportation_problem(monkeypatch, interference_gain, price):
    # one user each: no set of users earns more than its best member alone
    def at_the_price(bound, **_):
        return SimpleNamespace(fun=bound(np.log(price)))

    net = Network(sic_residual=0.1, interference_gain=interference_gain)
    gains, _ = draws(net, 3, 11)
    monkeypatch.setattr(joint_bound, "minimize_scalar", at_the_price)
    snr, t = net.budget * gains**2 / net.noise, 2**net.min_rate - 1
    x = np.maximum(1 / price - 1 / snr, t / snr)
    alone = np.maximum(np.log1p(snr * x) - price * x, 0.0)
    copies = np.repeat(alone, net.max_subchannels_per_user, axis=2)
    best = [c[linear_sum_assignment(c, maximize=True)].sum() for c in copies]
    expected = (price + np.array(best)) / np.log(2)
    np.testing.assert_allclose(upper_bound(net, gains), expected, rtol=1e-9)
