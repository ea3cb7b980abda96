"""Water-filling against closed forms, an independent bisection, SLSQP and its own level."""

import numpy as np
import pytest
from checks import CONVENTIONS, assert_feasible, draws, slsqp_rate
from scipy.optimize import brentq

from nomalib import baselines, polytope, rates, water_filling
from nomalib.network import Network

RESIDUALS = (0.0, 0.01, 0.1, 0.5, 1.0)


def test_one_user_on_each_subchannel_is_textbook_water_filling():
    # p_i = (ℓ − σ₀²/g_i²)⁺ with Σ p = P_c, the level by Brent's method
    net = Network(n_subchannels=6, n_users=6, max_users_per_subchannel=1, min_rate=0.0, noise=5.0)
    gains, _ = draws(net, 20, 1)
    found = water_filling.allocate(net, gains, np.eye(6, dtype=bool))
    for gain, power in zip(gains, found.power, strict=True):
        floor = net.noise / np.diag(gain) ** 2
        level = brentq(
            lambda x, floor=floor: np.maximum(x - floor, 0).sum() - net.budget,
            floor.min(),
            floor.min() + net.budget,
            xtol=1e-13,
        )
        expected = np.maximum(level - floor, 0)
        np.testing.assert_allclose(np.diag(power), expected, rtol=1e-9, atol=1e-9)
        assert (expected == 0).any() or level > floor.max()
    assert found.converged.all() and found.feasible.all() and (found.n_iter >= 1).all()
    assert found.residual.max() < 1e-12


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_one_subchannel_gives_the_strongest_user_all_but_the_least_of_the_others(convention):
    # three users: user 3, then user 2, at an SINR of exactly t = 1, user 1 the rest; ε = 0, so that
    # p_3 and p_2 depend on the powers of stronger users only: solve from p_1 up
    net = Network(1, 3, sic_residual=0.0, min_rate=1.0, noise=0.5, interference_gain=convention)
    found = water_filling.allocate(net, [[2.0, 1.0, 0.5]], np.ones((1, 3), bool))
    p1, p2, p3 = found.power[0]
    if convention == "interferer":
        assert p2 * 1.0 == pytest.approx(4.0 * p1 + 0.5, rel=1e-12)
        assert p3 * 0.25 == pytest.approx(4.0 * p1 + 1.0 * p2 + 0.5, rel=1e-12)
    else:
        assert p2 == pytest.approx(p1 + 0.5, rel=1e-12)
        assert p3 == pytest.approx(p1 + p2 + 0.5 / 0.25, rel=1e-12)
    assert p1 + p2 + p3 == pytest.approx(net.budget, rel=1e-14)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_all_subchannels_share_one_level_and_only_the_strongest_users_rise(convention, residual):
    net = Network(5, 5, sic_residual=residual, interference_gain=convention, min_rate=0.02)
    gains, assignment = draws(net, 40, 2)
    found = water_filling.allocate(net, gains, assignment)
    ok = found.feasible
    assert ok.sum() > 10
    np.testing.assert_allclose(found.power[ok].sum(axis=(-2, -1)), net.budget, rtol=1e-12)
    pair_rates = rates.rates(net, gains[ok], assignment[ok], found.power[ok])
    masked = np.where(assignment[ok], gains[ok], -1.0)
    strongest = (masked == masked.max(axis=-1, keepdims=True)) & assignment[ok]
    weaker = assignment[ok] & ~strongest
    np.testing.assert_allclose(pair_rates[weaker], net.min_rate, rtol=1e-8)

    # the price of power, by moving a little of it between subchannels' strongest users
    shares = polytope.reduce(net, gains[ok], assignment[ok])
    share = (pair_rates - net.min_rate).max(axis=-1)
    alpha, q = shares.strength[..., 0], shares.coupling[..., 0, 0]
    w = np.expm1(share * np.log(2)) / (alpha - q * np.expm1(share * np.log(2)))
    slope = alpha / ((1 + q * w) * (1 + (q + alpha) * w))
    price = slope.max(axis=-1, keepdims=True)
    rising = share > 1e-6
    np.testing.assert_allclose(np.where(rising, slope, price), price + 0 * slope, rtol=1e-7)
    np.testing.assert_allclose(w.sum(axis=-1), 1.0, rtol=1e-7)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", [0.0, 0.1, 1.0])
def test_slsqp_finds_no_more(convention, residual):
    net = Network(3, 3, sic_residual=residual, interference_gain=convention)
    gains, assignment = draws(net, 4, 3)
    found = water_filling.allocate(net, gains, assignment)
    assert found.feasible.any()
    best = rates.sum_rate(net, gains, assignment, found.power)
    rng = np.random.default_rng(0)
    for b in np.flatnonzero(found.feasible):
        starts = [baselines.random_power(net, assignment[b], rng) for _ in range(3)]
        other = slsqp_rate(net, gains[b], assignment[b], [*starts, found.power[b]])
        assert best[b] * (1 - 1e-6) <= other <= best[b] * (1 + 1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_any_totals_are_split_at_least_as_well_as_by_another_split(convention):
    rng = np.random.default_rng(20)
    net = Network(4, 6, sic_residual=0.2, min_rate=0.1, interference_gain=convention)
    gains, assignment = draws(net, 200, 3)
    best = water_filling.allocate(net, gains, assignment)
    again = baselines.split_totals(net, gains, assignment, best.power.sum(axis=-1))
    np.testing.assert_allclose(again.sum_rate, best.sum_rate, rtol=1e-9)
    rival = polytope.reduce(net, gains, assignment)
    u = rng.random(rival.users.shape) * (rival.users >= 0)
    rival = polytope.allocation(net, rival, u)
    split = baselines.split_totals(net, gains, assignment, rival.power.sum(axis=-1))
    assert_feasible(net, gains, assignment, split.power, rival.feasible)
    served = rival.feasible
    totals = split.power[served].sum(axis=-1), rival.power[served].sum(axis=-1)
    np.testing.assert_allclose(*totals, rtol=1e-9)
    assert (split.sum_rate[served] >= rival.sum_rate[served] * (1 - 1e-9)).all()
    assert (split.sum_rate[served] > rival.sum_rate[served] + 0.1).mean() > 0.5


def test_totals_below_what_r_min_needs_are_raised_and_wrong_ones_refused():
    net = Network(n_subchannels=2, n_users=2, min_rate=1.0)
    gains, pairs = np.array([[2.0, 1.0], [1.0, 2.0]]), np.ones((2, 2), bool)
    least = polytope.reduce(net, gains, pairs).minimal.sum(axis=-1) * net.budget
    power = baselines.split_totals(net, gains, pairs, [1.0, 0.0]).power
    np.testing.assert_allclose(power.sum(axis=-1), [net.budget - least[1], least[1]], rtol=1e-9)
    for wrong in ([1.0, -1.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(ValueError, match=r"^totals holds .* subchannel \d"):
            baselines.split_totals(net, gains, pairs, wrong)
