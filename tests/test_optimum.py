from dataclasses import replace
from itertools import product

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomalib import interior_point, optimum, polytope, rates, water_filling
from nomalib.network import Network, draw_gains, random_assignment

RNG = np.random.default_rng(11)
SETTINGS = settings(max_examples=40, derandomize=True, deadline=None)
PAPER = Network(sic_residual=RNG.uniform(0, 1, (10, 10)))
ONE = Network(
    n_subchannels=1, n_users=3, max_users_per_subchannel=3, sic_residual=[[0.2, 0.9, 0.1]]
)


def draws(net, n_draws, seed=0):
    rng = np.random.default_rng(seed)
    return draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)


def simplex_grid(n_parts, steps):
    """All vectors of n_parts multiples of 1/steps that sum to 1."""
    cuts = [c for c in product(range(steps + 1), repeat=n_parts - 1) if sum(c) <= steps]
    return np.array([(*c, steps - sum(c)) for c in cuts]) / steps


@pytest.mark.parametrize("gain", ["interferer", "receiver"])
@pytest.mark.parametrize("min_rate", [0.0, 0.1, 0.5])
def test_no_split_on_a_grid_is_better(gain, min_rate):
    net = replace(ONE, interference_gain=gain, min_rate=min_rate, noise=1e-3)
    gains, assignment = draws(net, 12)
    best = optimum.allocate(net, gains, assignment)
    grid = simplex_grid(3, 60)
    for b in np.flatnonzero(best.feasible):
        shares = polytope.reduce(net, np.repeat(gains[b : b + 1], len(grid), 0), assignment[b])
        powers = polytope.power(net, shares, grid[:, None])
        on_grid = rates.sum_rate(net, shares_gains(gains[b], len(grid)), assignment[b], powers)
        assert on_grid.max() <= best.upper_bound[b] * (1 + 1e-12)
        # the grid holds every vertex, where the optimum mostly is, and comes near it elsewhere
        assert best.sum_rate[b] >= on_grid.max() * (1 - 1e-9)
    assert best.feasible.sum() >= 8


def shares_gains(gains, n):
    return np.repeat(gains[None], n, 0)


def test_no_split_on_a_grid_is_better_on_two_subchannels():
    residual = [[0.9, 0.05, 0.6], [0.4, 0.9, 0.02]]
    net = Network(
        n_subchannels=2, n_users=3, sic_residual=residual, min_rate=0.5, noise=1e-3, power_dbm=30.0
    )
    gains, assignment = draws(net, 4)
    best = optimum.allocate(net, gains, assignment)
    grid = simplex_grid(6, 8).reshape(-1, 2, 3)
    for b in np.flatnonzero(best.feasible):
        many = shares_gains(gains[b], len(grid))
        powers = polytope.power(net, polytope.reduce(net, many, assignment[b]), grid)
        on_grid = rates.sum_rate(net, many, assignment[b], powers).max()
        assert on_grid <= best.sum_rate[b] <= best.upper_bound[b]
    assert best.feasible.any()


def test_paper_size_is_certified():
    gains, assignment = draws(PAPER, 200)
    best = optimum.allocate(PAPER, gains, assignment)
    ok = best.feasible
    np.testing.assert_array_equal(ok, polytope.reduce(PAPER, gains, assignment).feasible)
    assert best.gap[ok].mean() <= 1e-3
    local = interior_point.allocate(PAPER, gains, assignment)
    reached = rates.sum_rate(PAPER, gains, assignment, local.power)
    shortfall = 1 - reached[ok] / best.sum_rate[ok]
    assert shortfall.mean() <= 1e-3
    assert shortfall.min() >= -1e-9
    assert (reached[ok] <= best.upper_bound[ok]).all()


def test_every_value_is_what_it_says():
    gains, assignment = draws(PAPER, 50, seed=2)
    best = optimum.allocate(PAPER, gains, assignment)
    ok = best.feasible
    assert 0 < ok.sum() < 50
    np.testing.assert_allclose(best.power[ok].sum(axis=(1, 2)), PAPER.budget, rtol=1e-12)
    assert (best.power[ok] >= 0).all() and not best.power[ok][~assignment[ok]].any()
    assert (rates.qos_violation(PAPER, gains, assignment, best.power)[ok] == 0).all()
    sum_rate = rates.sum_rate(PAPER, gains, assignment, best.power)
    np.testing.assert_array_equal(best.sum_rate[ok], sum_rate[ok])
    np.testing.assert_allclose(best.gap[ok], best.upper_bound[ok] / sum_rate[ok] - 1, atol=1e-15)
    for part in (best.power, best.sum_rate, best.upper_bound, best.gap):
        assert np.isnan(part[~ok]).all()


@SETTINGS
@given(
    st.integers(0, 10_000),
    st.sampled_from(["interferer", "receiver"]),
    st.sampled_from([0.0, 0.01, 0.1, 1.0]),
    st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
)
def test_nothing_exceeds_the_upper_bound(seed, gain, min_rate, noise):
    rng = np.random.default_rng(seed)
    net = Network(
        n_subchannels=4,
        n_users=5,
        max_users_per_subchannel=4,
        sic_residual=rng.uniform(0, 1, (4, 5)),
        min_rate=min_rate,
        noise=noise,
        interference_gain=gain,
    )
    gains, assignment = draws(net, 1, seed)
    best = optimum.allocate(net, gains, assignment, max_cells=500)
    if not best.feasible[0]:
        assert np.isnan(best.upper_bound[0])
        return
    shares = polytope.reduce(net, np.repeat(gains, 200, 0), assignment)
    u = rng.dirichlet(np.full(16, 0.1), 200).reshape(200, 4, 4)
    u *= shares.users >= 0
    powers = polytope.power(net, shares, u / u.sum(axis=(1, 2), keepdims=True))
    rivals = rates.sum_rate(net, np.repeat(gains, 200, 0), assignment[0], powers)
    assert rivals.max() <= best.upper_bound[0] * (1 + 1e-12)
    local = interior_point.allocate(net, gains, assignment)
    assert rates.sum_rate(net, gains, assignment, local.power)[0] <= best.upper_bound[0]


@pytest.mark.parametrize("gain", ["interferer", "receiver"])
def test_search_proves_water_filling_where_epsilon_is_uniform(gain):
    """The search knows nothing of the theorem: it certifies it, for K = 3 and 4 and any R_min."""
    rng = np.random.default_rng(4)
    for residual, min_rate, noise in product([0.0, 0.1, 0.5, 1.0], [0.0, 0.2], [1.0, 0.1]):
        net = Network(
            n_subchannels=1,
            n_users=4,
            max_users_per_subchannel=4,
            sic_residual=residual,
            min_rate=min_rate,
            noise=noise,
            interference_gain=gain,
        )
        gains = np.sqrt(rng.uniform(0.5, 1.0)) * draw_gains(net, 2, rng)
        shares = polytope.reduce(net, gains, np.full((1, 4), True))
        for b in np.flatnonzero(shares.feasible):
            points, cells = np.empty((50_000, 13)), np.empty((50_000, 5), np.int64)
            best = np.zeros(4)
            strength, coupling = shares.strength[b, 0], shares.coupling[b, 0]
            value, upper = optimum.search(strength, coupling, 4, 0.5, 1e-2, points, cells, best)
            share = optimum.best_share(strength[0], coupling[0, 0], 0.5)
            taken = np.log1p(strength[0] * share / (1 + coupling[0, 0] * share)) - 0.5 * share
            assert value == pytest.approx(taken, abs=1e-9)
            assert value <= upper <= taken + 1e-2


def test_uniform_epsilon_is_water_filling():
    for residual in (0.3, np.repeat(np.linspace(0, 1, 10)[:, None], 10, 1)):
        net = replace(PAPER, sic_residual=residual)
        gains, assignment = draws(net, 30)
        best = optimum.allocate(net, gains, assignment)
        exact = water_filling.allocate(net, gains, assignment)
        np.testing.assert_array_equal(best.power, exact.power)
        np.testing.assert_array_equal(best.upper_bound, best.sum_rate)
        np.testing.assert_array_equal(best.gap, np.where(best.feasible, 0.0, np.nan))


def test_search_agrees_with_water_filling_close_to_uniform():
    net = replace(PAPER, sic_residual=0.3 + 1e-9 * RNG.uniform(0, 1, (10, 10)))
    gains, assignment = draws(net, 30)
    best = optimum.allocate(net, gains, assignment)
    exact = optimum.allocate(replace(net, sic_residual=0.3), gains, assignment)
    ok = best.feasible
    np.testing.assert_allclose(best.sum_rate[ok], exact.sum_rate[ok], rtol=1e-7)
    assert (best.upper_bound[ok] >= exact.sum_rate[ok] * (1 - 1e-7)).all()


def test_two_users_have_a_closed_form_for_any_epsilon():
    """Only the weaker user's ε has an effect, so that it may stand for both; see the theorem."""
    net = replace(PAPER, max_users_per_subchannel=2, min_rate=0.1, noise=1e-3)
    gains, assignment = draws(net, 30)
    best = optimum.allocate(net, gains, assignment)
    assert best.gap[best.feasible].max() <= 1e-4
    for b in np.flatnonzero(best.feasible):
        weaker = np.where(assignment[b], gains[b], np.inf).argmin(axis=-1)
        residual = np.take_along_axis(net.residual, weaker[:, None], axis=-1)
        same = replace(net, sic_residual=np.broadcast_to(residual, net.residual.shape))
        exact = water_filling.allocate(same, gains[b], assignment[b]).power
        rate = rates.sum_rate(net, gains[b], assignment[b], exact)
        assert best.sum_rate[b] <= rate * (1 + 1e-12) <= best.upper_bound[b] * (1 + 2e-12)
        assert best.sum_rate[b] == pytest.approx(rate, rel=1e-4)


def test_a_tighter_tolerance_gives_a_tighter_bound():
    gains, assignment = draws(PAPER, 20)
    loose = optimum.allocate(PAPER, gains, assignment, tol=1e-2)
    tight = optimum.allocate(PAPER, gains, assignment, tol=1e-5)
    ok = loose.feasible
    assert tight.gap[ok].mean() < 0.1 * loose.gap[ok].mean()
    assert (tight.sum_rate[ok] <= loose.upper_bound[ok]).all()


def test_a_draw_does_not_depend_on_its_batch_or_the_number_of_threads():
    gains, assignment = draws(PAPER, 6)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        together = optimum.allocate(PAPER, gains, assignment)
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        for part, whole in zip(optimum.allocate(PAPER, gains, assignment), together, strict=True):
            np.testing.assert_array_equal(part, whole)
    finally:
        numba.set_num_threads(threads)
    for b in range(6):
        alone = optimum.allocate(PAPER, gains[b], assignment[b])
        for part, whole in zip(alone, together, strict=True):
            np.testing.assert_array_equal(part, whole[b])


def test_no_gain_no_rate_no_gap():
    net = replace(ONE, min_rate=0.0)
    best = optimum.allocate(net, np.zeros((1, 3)), np.full((1, 3), True))
    assert best.feasible and best.sum_rate == 0 and best.upper_bound == 0 and best.gap == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 0.0}, "tol is 0.0; it must lie in"),
        ({"tol": 1.0}, "tol is 1.0"),
        ({"max_cells": 9}, "max_cells is 9; it must be a whole number of at least 10"),
        ({"max_cells": 100.0}, "max_cells is 100.0"),
        ({"max_cells": True}, "max_cells is True"),
        ({"tol": "1"}, "tol is '1'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        optimum.allocate(ONE, np.ones((1, 3)), np.full((1, 3), True), **options)


def test_input_is_checked():
    with pytest.raises(ValueError, match="gains has shape"):
        optimum.allocate(ONE, np.ones((2, 3)), np.full((1, 3), True))
    with pytest.raises(ValueError, match="assignment has dtype"):
        optimum.allocate(ONE, np.ones((1, 3)), np.ones((1, 3)))
