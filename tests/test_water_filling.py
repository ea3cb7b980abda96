"""Water-filling against closed forms, an independent bisection, SLSQP and its own level."""

import numpy as np
import pytest
from checks import extreme_cases
from hypothesis import given, settings
from scipy.optimize import brentq, minimize

from nomalib import polytope, rates, water_filling
from nomalib.network import Network, draw_gains, random_assignment

CONVENTIONS = ("interferer", "receiver")
RESIDUALS = (0.0, 0.01, 0.1, 0.5, 1.0)


def draws(n_draws, seed, **changes):
    net = Network(**{"n_subchannels": 5, "n_users": 5, **changes})
    rng = np.random.default_rng(seed)
    return net, draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)


def test_one_user_on_each_subchannel_is_textbook_water_filling():
    # p_i = (ℓ − σ₀²/g_i²)⁺ with Σ p = P_c, the level by Brent's method
    net = Network(n_subchannels=6, n_users=6, max_users_per_subchannel=1, min_rate=0.0, noise=5.0)
    rng = np.random.default_rng(1)
    gains = draw_gains(net, 20, rng)
    assignment = np.eye(6, dtype=bool)
    found = water_filling.allocate(net, gains, assignment)
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
    # three users: user 3, then user 2, at an SINR of exactly t, user 1 the rest; ε = 0, so that
    # p_3 and p_2 depend on the powers of stronger users only: solve from p_1 up
    net = Network(
        n_subchannels=1,
        n_users=3,
        sic_residual=0.0,
        min_rate=1.0,
        noise=0.5,
        interference_gain=convention,
    )
    gains = np.array([[2.0, 1.0, 0.5]])
    found = water_filling.allocate(net, gains, np.ones((1, 3), bool))
    p1, p2, p3 = found.power[0]
    t, noise = 1.0, 0.5
    if convention == "interferer":
        assert p2 * 1.0 == pytest.approx(t * (4.0 * p1 + noise), rel=1e-12)
        assert p3 * 0.25 == pytest.approx(t * (4.0 * p1 + 1.0 * p2 + noise), rel=1e-12)
    else:
        assert p2 == pytest.approx(t * (p1 + noise), rel=1e-12)
        assert p3 == pytest.approx(t * (p1 + p2 + noise / 0.25), rel=1e-12)
    assert p1 + p2 + p3 == pytest.approx(net.budget, rel=1e-14)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_all_subchannels_share_one_level_and_only_the_strongest_users_rise(convention, residual):
    net, gains, assignment = draws(
        40, 2, sic_residual=residual, interference_gain=convention, min_rate=0.02
    )
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
    net, gains, assignment = draws(
        4, 3, n_subchannels=3, n_users=3, sic_residual=residual, interference_gain=convention
    )
    found = water_filling.allocate(net, gains, assignment)
    assert found.feasible.any()
    for b in np.flatnonzero(found.feasible):
        pairs = assignment[b]

        def expand(x, pairs=pairs):
            power = np.zeros(pairs.shape)
            power[pairs] = net.budget * np.maximum(x, 0.0)
            return power

        best = rates.sum_rate(net, gains[b], pairs, found.power[b])
        rng = np.random.default_rng(b)
        for _ in range(3):
            solved = minimize(
                lambda x, b=b, pairs=pairs, expand=expand: (
                    -rates.sum_rate(net, gains[b], pairs, expand(x))
                ),
                rng.dirichlet(np.ones(pairs.sum())),
                method="SLSQP",
                bounds=[(0, 1)] * pairs.sum(),
                constraints=[
                    {"type": "eq", "fun": lambda x: x.sum() - 1},
                    {
                        "type": "ineq",
                        "fun": lambda x, b=b, pairs=pairs, expand=expand: (
                            rates.rates(net, gains[b], pairs, expand(x))[pairs] - net.min_rate
                        ),
                    },
                ],
                options={"ftol": 1e-12, "maxiter": 300},
            )
            short = rates.rates(net, gains[b], pairs, expand(solved.x))[pairs].min() - net.min_rate
            if short > -1e-9 and abs(solved.x.sum() - 1) < 1e-9:
                assert -solved.fun <= best * (1 + 1e-6)


def test_a_residual_that_differs_between_users_is_refused():
    residual = np.full((5, 5), 0.1)
    residual[2, 3] = 0.2
    net, gains, assignment = draws(2, 4, sic_residual=residual)
    with pytest.raises(ValueError, match=r"sic_residual differs .*nomalib\.optimum\.allocate"):
        water_filling.allocate(net, gains, assignment)


def test_a_residual_that_differs_between_subchannels_is_not():
    residual = np.linspace(0, 1, 5)[:, None] * np.ones(5)
    net, gains, assignment = draws(30, 5, sic_residual=residual)
    found = water_filling.allocate(net, gains, assignment)
    assert found.feasible.any()
    assert found.converged[found.feasible].all()


@settings(derandomize=True, deadline=None, max_examples=80)
@given(extreme_cases())
def test_extreme_gains(case):
    net, gains, _ = case
    found = water_filling.allocate(*case)
    if net.min_rate > 0 and gains.min() < 1e-8:
        assert not found.feasible
    if not found.feasible:
        assert np.isnan(found.power).all() and np.isnan(found.residual) and not found.converged
        return
    assert found.converged
    assert (found.power >= 0).all()
    assert found.power.sum() == pytest.approx(net.budget, rel=1e-12)


def test_draws_keep_their_axes_and_their_assignments():
    net, gains, assignment = draws(6, 6)
    flat = water_filling.allocate(net, gains, assignment)
    shaped = water_filling.allocate(net, gains.reshape(2, 3, 5, 5), assignment.reshape(2, 3, 5, 5))
    for one, other in zip(flat, shaped, strict=True):
        assert other.shape[:2] == (2, 3)
        np.testing.assert_array_equal(one, other.reshape(one.shape))
    empty = water_filling.allocate(net, gains[:0], assignment[0])
    assert empty.power.shape == (0, 5, 5) and empty.feasible.shape == (0,)


def test_where_no_power_buys_a_rate_all_powers_are_optimal():
    net = Network(n_subchannels=2, n_users=2, min_rate=0.0)
    found = water_filling.allocate(net, np.zeros((2, 2)), np.eye(2, dtype=bool))
    assert found.feasible and found.converged and found.residual == 0
    assert found.power.sum() == pytest.approx(net.budget)
