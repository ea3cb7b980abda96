"""Oracle: exhaustive search over all assignments within the caps, with weights and without."""

from types import SimpleNamespace

import numpy as np
import pytest
from checks import CONVENTIONS, draws, every_assignment, weighted
from scipy.optimize import linear_sum_assignment

from nomalib import interior_point, joint_bound, matching, schedules, takers
from nomalib.joint_bound import upper_bound
from nomalib.network import Network


def joint_optimum(net, gains, start, weights=None):
    """The best rate of each draw, and the best that serves all whom the start serves.

    By the best users to take the power, which is exact without weights; where no theorem says so
    of weights, the interior point may find more.
    """
    every, best = every_assignment(net), np.empty((2, len(gains)))
    for b, gain in enumerate(gains):
        given = np.broadcast_to(gain, every.shape), every, None if weights is None else weights[b]
        rate = takers.allocate(net, *given).sum_rate
        if weights is not None and net.interference_gain == "receiver" and net.epsilon.any():
            rate = np.fmax(rate, interior_point.allocate(net, *given).sum_rate)
        served = (every.any(axis=1) >= start[b].any(axis=0)).all(axis=1)
        best[:, b] = [np.fmax.reduce(r, initial=0.0) for r in (rate, rate[served])]
    return best


# N, M, H, V, gain, ε, whether weighted, and how near to the bound the optimum is
SMALL = [
    (3, 3, 2, 2, "interferer", 0.01, False, 0.998),
    (3, 4, 2, 2, "receiver", 0.01, False, 0.998),
    (4, 3, 2, 3, "interferer", 0.01, False, 0.998),
    (3, 4, 3, 2, "interferer", 0.01, False, 0.998),
    (4, 4, 2, 2, "interferer", 0.01, False, 0.998),
    *((3, 4, 2, 2, "interferer", epsilon, True, 0.98) for epsilon in (0.0, 0.3)),
    *((4, 3, 2, 3, "interferer", epsilon, True, 0.98) for epsilon in (0.0, 0.3)),
    *((*cell, "receiver", 0.0, True, 0.98) for cell in ((3, 4, 2, 2), (4, 3, 2, 3))),
    *((*cell, "receiver", 0.1, True, 0.9) for cell in ((3, 4, 2, 2), (4, 3, 2, 3))),
]


@pytest.mark.parametrize("n, m, h, v, gain, epsilon, weigh, tight", SMALL)
def test_small_cells_against_the_exhaustive_joint_optimum(n, m, h, v, gain, epsilon, weigh, tight):
    net = Network(n, m, h, v, sic_residual=epsilon, interference_gain=gain)
    gains, start, weights = weighted(net, 6 if n * m == 16 else 12 if weigh else 25, 10 * n + m)
    weights = weights if weigh else None
    best = joint_optimum(net, gains, start, weights)
    bound = upper_bound(net, gains, weights)
    assert (bound >= best * (1 - 1e-7)).all() and np.mean(best[0] / bound) > tight
    rate = matching.paus(net, gains, start, weights=weights).sum_rate
    assert (rate <= best[1] * (1 + 1e-9)).all() and np.mean(rate / best[1]) >= 0.99
    assert weigh or np.mean(rate / best[0]) >= 0.99
    start = schedules.at_price(net, gains, weights)
    rate = matching.paus(net, gains, start, weights=weights).sum_rate
    assert (rate <= best[0] * (1 + 1e-9)).all() and np.mean(rate / best[0]) >= 0.99


@pytest.mark.parametrize(
    "net, n_draws, weigh",
    [
        (Network(), 10, False),
        (Network(interference_gain="receiver"), 4, False),
        (Network(max_users_per_subchannel=4, max_subchannels_per_user=3), 10, False),
        (Network(n_users=20, n_subchannels=25), 3, False),
        (Network(sic_residual=0.0), 6, True),
        (Network(sic_residual=0.0, interference_gain="receiver"), 6, True),
    ],
)
def test_paus_is_within_one_percent_of_the_bound(net, n_draws, weigh):
    gains, start, weights = weighted(net, n_draws, 7)
    weights = weights if weigh else None
    ratio = matching.paus(net, gains, start, weights=weights).sum_rate
    ratio /= upper_bound(net, gains, weights)
    assert (ratio <= 1 + 1e-9).all()
    assert ratio.mean() >= 0.99


def test_where_epsilon_differs_the_bound_is_a_bound_and_paus_needs_no_weights():
    rng = np.random.default_rng(5)
    for gain in CONVENTIONS:
        net = Network(3, 4, 2, 2, sic_residual=rng.random((3, 4)), interference_gain=gain)
        gains, start = draws(net, 8, rng)
        rate, (best, _) = (
            matching.paus(net, gains, start).sum_rate,
            joint_optimum(net, gains, start),
        )
        assert (rate <= best * (1 + 1e-9)).all() and (rate >= 0.9 * best).all()
        assert (best <= upper_bound(net, gains) * (1 + 1e-7)).all()


def test_low_snr_hopeless_users_and_r_min_of_each_keep_the_bound_a_bound():
    for net in (
        Network(3, 3, 2, 2, noise=100.0),
        Network(3, 3, 2, 2, noise=1e3, min_rate=0.05),
        Network(3, 3, 2, 2, sic_residual=1.0, min_rate=1.5),
        Network(3, 3, 3, 2, sic_residual=0.0, min_rate=[0.0, 0.1, 1.5]),
    ):
        gains, start = draws(net, 10, 8)
        gains[0, 0] = 0.0
        assert (upper_bound(net, gains) >= joint_optimum(net, gains, start)[0] * (1 - 1e-7)).all()


def test_users_without_a_channel_are_worth_nothing():
    net = Network(2, 2, sic_residual=0.0, min_rate=0.0)
    assert 0 <= upper_bound(net, np.zeros((2, 2))) < 1e-3
    gains = np.array([[0.0, 1.0], [0.0, 0.0]])
    alone = np.log2(1 + net.budget / net.noise)
    np.testing.assert_allclose(upper_bound(net, gains), alone, rtol=1e-6)


@pytest.mark.parametrize("interference_gain", CONVENTIONS)
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
