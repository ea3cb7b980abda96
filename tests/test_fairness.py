"""Frames and orthogonal access against convex solvers, exhaustive search and each other."""

import os
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import minimize

from nomalib import channel, fairness, orthogonal, rates, water_filling
from nomalib.network import Network, draw_gains

CELL = Network(
    *(3, 4, 2, 3, 30.0),
    noise=channel.noise_watt(5e5),
    min_rate=0.0,
    interference_gain="receiver",
    fading="rayleigh",
)


def cells(net, count, seed):
    return channel.draw_cell(net, count, np.random.default_rng(seed), shadowing_db=8.0).gains


# how many cells a comparison with a general solver takes; 200 on demand
N_CELLS = int(os.environ.get("NOMALIB_CELLS", 4))


def oma_by_a_convex_solver(net, gains, alpha, owed):
    """The best α-mean over times τ and energies e, with rates τ log₂(1 + e q/τ), by SLSQP."""
    n, m = gains.shape
    q = net.budget * gains**2 / net.noise
    size, last = 2 * n * m + 1, np.eye(2 * n * m + 1)[-1]

    def rates_of(x):
        time, energy = x[:-1].reshape(2, n, m)
        return (time * np.log2(1.0 + energy * q / time)).sum(axis=0)

    def slopes(x):
        time, energy = x[:-1].reshape(2, n, m)
        inside = 1.0 + energy * q / time
        by_energy = q / inside / np.log(2.0)
        by_time = np.log2(inside) - (inside - 1.0) / inside / np.log(2.0)
        each = [np.r_[(by_time * e).ravel(), (by_energy * e).ravel(), 0.0] for e in np.eye(m)]
        return np.array(each)

    rows = np.zeros((n + 1, size))
    rows[:n, : n * m] = np.repeat(np.eye(n), m, axis=1)
    rows[n, n * m : -1] = 1.0
    limits = [{"type": "ineq", "fun": lambda x: 1.0 - rows @ x, "jac": lambda x: -rows}]
    if alpha == np.inf:
        limits += [
            {
                "type": "ineq",
                "fun": lambda x: rates_of(x) - x[-1],
                "jac": lambda x: slopes(x) - last,
            }
        ]
        goal, slope = (lambda x: -x[-1]), (lambda x: -last)
    else:
        limits += [{"type": "ineq", "fun": lambda x: rates_of(x) - owed, "jac": slopes}]

        def goal(x):
            return -(np.log(rates_of(x)) if alpha else rates_of(x)).sum()

        def slope(x):
            return -(1.0 / rates_of(x) if alpha else np.ones(m)) @ slopes(x)

    box = [(1e-9, 1.0)] * (size - 1) + [(0.0, None)]
    options = {"maxiter": 1000, "ftol": 1e-13}
    best, rng = 0.0, np.random.default_rng(0)
    for _ in range(4):  # now and then it gets stuck
        parts = rng.dirichlet(np.full(m, 3.0), n), rng.dirichlet(np.full(n * m, 3.0))
        start = np.r_[parts[0].ravel(), parts[1], 0.1]
        x = minimize(goal, start, jac=slope, bounds=box, constraints=limits, options=options).x
        if (rows @ x <= 1 + 1e-9).all() and (alpha or (rates_of(x) >= owed - 1e-9).all()):
            best = max(best, fairness.mean_rate(rates_of(x), alpha))
    return best


@pytest.mark.parametrize(("alpha", "owed"), [(1.0, 0.0), (np.inf, 0.0), (0.0, 1.0)])
def test_oma_equals_a_general_convex_solver(alpha, owed):
    oma = replace(CELL, n_subchannels=2, n_users=3, max_users_per_subchannel=1)
    for gains in cells(oma, N_CELLS, 1):
        ours = fairness.optimum(oma, gains, alpha, owed, tol=1e-6)
        theirs = oma_by_a_convex_solver(oma, gains, alpha, owed)
        if not ours.feasible:
            assert theirs == 0.0
            continue
        assert ours.level == pytest.approx(theirs, rel=1e-6)
        assert theirs <= ours.upper_bound * (1 + 1e-9)


def test_the_sum_rate_of_oma_is_water_filling_over_the_best_users():
    oma = replace(CELL, max_users_per_subchannel=1)
    for gains in cells(oma, N_CELLS, 2):
        best = gains == gains.max(axis=1, keepdims=True)
        exact = water_filling.allocate(oma, gains, best).sum_rate / oma.n_users
        found = fairness.optimum(oma, gains, 0.0, tol=1e-6)
        assert found.level <= exact * (1 + 1e-9) and exact <= found.upper_bound * (1 + 1e-9)
        assert found.gap <= 1e-6


@pytest.mark.parametrize("convention", ["receiver", "interferer"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, np.inf])
def test_a_frame_delivers_what_it_says_and_no_more_than_its_bound(alpha, convention):
    net = replace(CELL, sic_residual=0.003, interference_gain=convention)
    gains = cells(net, 1, 3)[0]
    found = fairness.optimum(net, gains, alpha)
    # (4) part by part, from the powers alone
    delivered = np.zeros(net.n_users)
    for i, share, power in zip(found.subchannel, found.share, found.power, strict=True):
        spent = np.zeros(gains.shape)
        spent[i] = power
        assert np.count_nonzero(power) <= net.max_users_per_subchannel
        delivered += share * rates.rates(replace(net, min_rate=0.0), gains, spent > 0, spent)[i]
    np.testing.assert_allclose(found.rates, delivered, rtol=1e-12)
    assert np.bincount(found.subchannel, found.share).max() <= 1 + 1e-12
    assert found.share @ found.power.sum(axis=1) <= net.budget * (1 + 1e-12)
    assert fairness.mean_rate(delivered, alpha) == pytest.approx(found.level, rel=1e-6)
    assert found.gap <= 1e-3
    # random frames of pairs and single users stay below the bound
    rng = np.random.default_rng(4)
    best = 0.0
    for _ in range(200):
        power = rng.dirichlet(np.full(12, 0.3)).reshape(3, 4) * net.budget
        power[np.argsort(power, axis=1) < 2] = 0.0
        value = fairness.mean_rate(rates.rates(net, gains, power > 0, power).sum(axis=0), alpha)
        best = max(best, value)
    assert best <= found.upper_bound


def test_the_gap_is_reached_whatever_the_rates_are():
    # α up to 4, channels 40 dB and weights tenfold apart, σ₀² from 1e-6 to 100 W: where rates are
    # thousands of times apart, the marginal utilities are to the fourth power
    rng = np.random.default_rng(9)
    for alpha in (0.5, 2.0, 4.0, np.inf) * 10:
        n, m = rng.integers(1, 6, 2)
        noise, epsilon = 10 ** rng.uniform(-6, 2), rng.choice([0.0, 0.01, 1.0])
        net = Network(n, m, min(2, m), n, 43.0, noise, epsilon, 0.0, "receiver", "rayleigh")
        gains = rng.rayleigh(size=(n, m)) * 10 ** rng.uniform(-2, 0, m)
        weights = 10 ** rng.uniform(-0.5, 0.5, m)
        found = fairness.optimum(net, gains, alpha, weights=weights)
        assert found.gap <= 1e-3
        level = fairness.mean_rate(found.rates, alpha, weights)
        assert level == pytest.approx(found.level, rel=1e-6)


def test_weights_are_users_in_copies():
    # a user of weight 2 is as good as two users of one channel, each with half of its rate
    cell = replace(CELL, n_users=2, max_users_per_subchannel=1)
    for gains in cells(cell, 3, 12):
        found = fairness.optimum(cell, gains, tol=1e-6, weights=[2.0, 1.0])
        copied = fairness.optimum(replace(cell, n_users=3), gains[:, [0, 0, 1]], tol=1e-6)
        assert found.level == pytest.approx(copied.level * 2 ** (2 / 3), rel=2e-6)
        least = fairness.optimum(cell, gains, np.inf, tol=1e-6, weights=[2.0, 1.0])
        copied = fairness.optimum(replace(cell, n_users=3), gains[:, [0, 0, 1]], np.inf, tol=1e-6)
        assert least.level == pytest.approx(copied.level, rel=2e-6)


@pytest.mark.parametrize("alpha", [1.0, np.inf])
def test_noma_never_loses_and_falls_with_the_residual(alpha):
    for gains in cells(CELL, 3, 5):
        oma = fairness.optimum(replace(CELL, max_users_per_subchannel=1), gains, alpha)
        levels = [oma.level]
        for epsilon in (1.0, 0.1, 0.01, 1e-3, 0.0):
            noma = fairness.optimum(replace(CELL, sic_residual=epsilon), gains, alpha, start=oma)
            assert noma.level >= oma.level * (1 - 1e-9)
            levels.append(noma.level)
            assert noma.upper_bound >= levels[-2] * (1 - 1e-9)
        assert levels[-1] > levels[0]


def test_rates_owed_are_paid_or_proved_out_of_reach():
    gains = cells(CELL, 1, 6)[0]
    most = fairness.optimum(CELL, gains, np.inf, tol=1e-5)
    paid = fairness.optimum(CELL, gains, 0.0, owed=0.999 * most.level)
    assert paid.feasible and paid.rates.min() >= 0.999 * most.level * (1 - 1e-6)
    owed = np.zeros(4)
    owed[[0, 2]] = 0.2
    some = fairness.optimum(CELL, gains, 0.0, owed=owed)
    assert (some.rates >= owed * (1 - 1e-6)).all() and some.level >= paid.level * (1 - 1e-3)
    # owed almost all that can be had, which makes rates dear
    for gains in cells(CELL, 8, 11):
        most = fairness.optimum(CELL, gains, np.inf, tol=1e-5)
        dear = fairness.optimum(CELL, gains, 0.0, owed=0.9999 * most.level)
        assert dear.gap <= 1e-3
    unpaid = fairness.optimum(CELL, gains, 0.0, owed=1.001 * most.upper_bound)
    assert not unpaid.feasible and np.isnan([unpaid.level, unpaid.upper_bound]).all()


def test_whole_subchannels_equal_an_exhaustive_search():
    net = replace(CELL, n_subchannels=4, max_users_per_subchannel=1, min_rate=1.5)
    every = np.array([np.eye(4, dtype=bool)[list(order)] for order in permutations(range(4))])
    exact = 0
    for gains in [*cells(net, 20, 7), *2e-7 * draw_gains(net, 20, np.random.default_rng(8))]:
        all_rates = water_filling.allocate(net, np.broadcast_to(gains, every.shape), every).sum_rate
        found = orthogonal.whole_subchannels(net, gains)
        if np.isnan(all_rates).all():
            assert np.isnan(found.sum_rate)
            continue
        best = np.nanmax(all_rates)
        assert found.sum_rate <= best * (1 + 1e-12) and best <= found.upper_bound * (1 + 1e-9)
        exact += found.sum_rate >= best * (1 - 1e-9)
    assert exact >= 36


def test_means_and_index():
    sample = np.random.default_rng(9).exponential(size=(5, 7))
    for alpha in (0.0, 0.5, 1.0, 2.0):
        mean = fairness.mean_rate(sample, alpha)
        alike = np.repeat(mean[:, None], 7, axis=1)
        np.testing.assert_allclose(fairness.mean_rate(alike, alpha), mean, rtol=1e-13)
    np.testing.assert_allclose(fairness.mean_rate(sample, 2.0), 7 / (1 / sample).sum(axis=1))
    assert fairness.mean_rate([0.0, 1.0], 1.0) == fairness.mean_rate([0.0, 1.0], 2.0) == 0.0
