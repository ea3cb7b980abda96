"""The certified optimum: no split on a grid, at random or by another method exceeds its bound."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from checks import CONVENTIONS, assert_feasible, draws, same, slsqp_rate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nomalib import baselines, interior_point, optimum, polytope, rates, subchannel, water_filling
from nomalib._draws import flat_shares, view
from nomalib._search import cell_space, search
from nomalib._stages import bound_by_stages, sums
from nomalib.network import Network

RNG = np.random.default_rng(11)
PAPER = Network(sic_residual=RNG.uniform(0, 1, (10, 10)))
ONE = Network(1, 3, 3, sic_residual=[[0.2, 0.9, 0.1]])


def simplex_grid(n_parts, steps):
    """All vectors of n_parts multiples of 1/steps that sum to 1."""
    cuts = [c for c in product(range(steps + 1), repeat=n_parts - 1) if sum(c) <= steps]
    return np.array([(*c, steps - sum(c)) for c in cuts]) / steps


def best_split(net, gains, assignment, u, weights=None):
    """The best sum rate of one draw among many splits u (B, N, K) of its spare power."""
    gains = np.repeat(gains[None], len(u), 0)
    shares = polytope.reduce(net, gains, assignment)
    powers = polytope.allocation(net, shares, u).power
    return rates.sum_rate(net, gains, assignment, powers, weights).max()


TWO = Network(*(2, 3, 3), sic_residual=[[0.9, 0.05, 0.6], [0.4, 0.9, 0.02]], power_dbm=30.0)


@pytest.mark.parametrize(
    "net, min_rate, steps",
    [
        *((replace(ONE, interference_gain=g), r, 60) for g in CONVENTIONS for r in (0.0, 0.1, 0.5)),
        (TWO, 0.5, 8),
    ],
)
def test_no_split_on_a_grid_is_better(net, min_rate, steps):
    net = replace(net, min_rate=min_rate, noise=1e-3)
    gains, assignment = draws(net, 12 if net.n_subchannels == 1 else 4)
    best = optimum.allocate(net, gains, assignment)
    grid = simplex_grid(3 * net.n_subchannels, steps).reshape(-1, net.n_subchannels, 3)
    for b in np.flatnonzero(best.feasible):
        on_grid = best_split(net, gains[b], assignment[b], grid)
        assert on_grid <= best.upper_bound[b] * (1 + 1e-12)
        # the grid holds every vertex, where the optimum mostly is, and comes near it elsewhere
        assert best.sum_rate[b] >= on_grid * (1 - 1e-9)
    assert best.feasible.mean() >= 0.25


def test_paper_size_is_certified():
    gains, assignment = draws(PAPER, 200)
    best = optimum.allocate(PAPER, gains, assignment)
    ok = best.feasible
    assert_feasible(PAPER, gains, assignment, best.power, ok)
    np.testing.assert_allclose(best.power[ok].sum(axis=(1, 2)), PAPER.budget, rtol=1e-12)
    sum_rate = rates.sum_rate(PAPER, gains, assignment, best.power)
    np.testing.assert_allclose(best.sum_rate, sum_rate, rtol=1e-14)
    np.testing.assert_allclose(best.gap[ok], (best.upper_bound / best.sum_rate - 1)[ok], atol=1e-15)
    for part in (best.power, best.sum_rate, best.upper_bound, best.gap):
        assert np.isnan(part[~ok]).all() and not np.isnan(part[ok]).any()
    assert best.gap[ok].mean() <= 1e-3
    local = interior_point.allocate(PAPER, gains, assignment)
    reached = rates.sum_rate(PAPER, gains, assignment, local.power)[ok]
    shortfall = 1 - reached / best.sum_rate[ok]
    assert shortfall.mean() <= 1e-3 and shortfall.min() >= -1e-9
    assert (reached <= best.upper_bound[ok]).all()


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(CONVENTIONS),
    st.sampled_from([0.0, 0.01, 0.1, 1.0]),
    st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
)
def test_nothing_exceeds_the_upper_bound(seed, gain, min_rate, noise):
    rng = np.random.default_rng(seed)
    net = Network(
        *(4, 5, 4),
        sic_residual=rng.uniform(0, 1, (4, 5)),
        min_rate=min_rate,
        noise=noise,
        interference_gain=gain,
    )
    gains, assignment = (part[0] for part in draws(net, 1, seed))
    best = optimum.allocate(net, gains, assignment, max_cells=500)
    assert np.isnan(best.upper_bound) == ~best.feasible
    assume(best.feasible)
    u = rng.dirichlet(np.full(16, 0.1), 200).reshape(200, 4, 4) + 1e-12
    assert best_split(net, gains, assignment, u) <= best.upper_bound * (1 + 1e-12)
    local = interior_point.allocate(net, gains, assignment)
    assert rates.sum_rate(net, gains, assignment, local.power) <= best.upper_bound


@pytest.mark.parametrize("gain", CONVENTIONS)
def test_search_proves_water_filling_where_epsilon_is_uniform(gain):
    """The search knows nothing of the theorem: it certifies it, for K = 4, any R_min and weights.

    An ε that is all but uniform keeps `optimum` from taking the theorem's word.
    """
    rng, checked = np.random.default_rng(4), 0
    for residual, min_rate, noise in product([0.0, 0.1, 0.5, 1.0], [0.0, 0.2], [1.0, 0.1]):
        owed = np.sort(rng.choice([0.5, 1.0], 4))[::-1] * min_rate  # the strongest the most
        options = dict(min_rate=owed, noise=noise, interference_gain=gain)
        exact = Network(1, 4, 4, sic_residual=residual, **options)
        nearly = np.abs(residual - 1e-9 * rng.random((1, 4)))
        net = Network(1, 4, 4, sic_residual=nearly, **options)
        gains, assignment = draws(net, 4, rng)
        gains, weights = -np.sort(-gains), np.r_[1.0, rng.random(3)]
        best = water_filling.allocate(exact, gains, assignment, weights)
        found = optimum.allocate(net, gains, assignment, tol=1e-3, weights=weights)
        ok, rate = best.feasible, best.sum_rate[best.feasible]
        np.testing.assert_allclose(found.sum_rate[ok], rate, rtol=1e-7)
        assert (found.upper_bound[ok] >= rate * (1 - 1e-7)).all()
        assert (found.gap[ok] <= 1e-2).all(), found.gap
        checked += ok.sum()
    assert checked > 30


@pytest.mark.parametrize("gain", CONVENTIONS)
def test_weighted_rates_are_certified(gain):
    """Perfect SIC in closed form, the rest by search; SLSQP and random splits stay below."""
    rng = np.random.default_rng(5)
    for residual, worst in ((0.0, 1e-3), (0.05, 1e-2), (rng.random((4, 4)), 5e-2)):
        net = Network(
            4,
            4,
            3,
            sic_residual=residual,
            noise=0.03,
            interference_gain=gain,
            min_rate=rng.choice([0.0, 0.05], 4),
        )
        gains, assignment = draws(net, 20, 6)
        weights = rng.random((20, 4))
        best = optimum.allocate(net, gains, assignment, weights=weights)
        assert best.feasible.sum() > 10 and np.nanmax(best.gap) <= worst
        for b in np.flatnonzero(best.feasible)[:4]:
            case = net, gains[b], assignment[b]
            starts = [baselines.random_power(net, assignment[b], rng) for _ in range(4)]
            other = slsqp_rate(*case, [*starts, best.power[b]], weights[b])
            assert other <= best.upper_bound[b] * (1 + 1e-6)
            u = rng.dirichlet(np.full(12, 0.1), 200).reshape(200, 4, 3) + 1e-12
            assert best_split(*case, u, weights[b]) <= best.upper_bound[b] * (1 + 1e-12)


def test_uniform_epsilon_is_water_filling():
    for residual in (0.3, np.repeat(np.linspace(0, 1, 10)[:, None], 10, 1)):
        net = replace(PAPER, sic_residual=residual)
        gains, assignment = draws(net, 30)
        best = optimum.allocate(net, gains, assignment)
        exact = water_filling.allocate(net, gains, assignment)
        same(best[:2] + best[5:], exact[:2] + exact[5:])
        assert (best.gap[best.feasible] <= 1e-14).all() and best.converged[best.feasible].all()


def test_two_users_have_a_closed_form_for_any_epsilon():
    """Only the weaker user's ε has an effect, so that it may stand for both; see the theorem."""
    net = replace(PAPER, max_users_per_subchannel=2, min_rate=0.1, noise=1e-3)
    gains, assignment = draws(net, 30)
    best = optimum.allocate(net, gains, assignment)
    assert best.gap[best.feasible].max() <= 1e-4
    for b in np.flatnonzero(best.feasible):
        weaker = np.where(assignment[b], gains[b], np.inf).argmin(axis=-1)
        residual = np.take_along_axis(net.epsilon, weaker[:, None], axis=-1)
        same = replace(net, sic_residual=np.broadcast_to(residual, net.epsilon.shape))
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


def crowded(users, noise, gain, rng, n=1):
    """A feasible draw of n subchannels that all users share; ε from U(0, 1)."""
    while True:
        residual = rng.random((n, users))
        net = Network(n, users, users, n, 43.0, noise, residual, interference_gain=gain)
        case = net, *(part[0] for part in draws(net, 1, rng))
        if polytope.reduce(*case).feasible:
            return case


@pytest.mark.parametrize("gain", CONVENTIONS)
@pytest.mark.parametrize("noise", [0.1, 1e-3])
def test_stages_bound_a_subchannel(gain, noise):
    """Two sums say what a user hears; no split beats the bound, and few users it bounds tightly."""
    rng = np.random.default_rng(7)
    for users in (2, 3, 4, 7):
        shares = view(flat_shares(polytope.reduce(*crowded(users, noise, gain, rng)))[0], 0)
        u, own = rng.random(users), shares.coupling[0].diagonal()
        scale, rise = np.empty(users), np.empty(users)
        sums.py_func(0, users, shares, scale, rise)
        left = shares.coupling[0, 0] * u
        heard = np.cumsum(rise * u) - rise * u + left[::-1].cumsum()[::-1] - left
        below = 1.0 + shares.coupling[0] @ u
        np.testing.assert_allclose(1.0 + scale * heard + own * u, below, rtol=1e-10)
        for price in (0.03, 0.3, 3.0):
            coarse, fine = (bound_by_stages(0, shares, price, points) for points in (20, 80))
            best = rng.dirichlet(np.full(users + 1, 0.1), 3000)[:, :users]
            many = polytope.Shares._make(np.stack([part] * 3000) for part in shares)
            value = subchannel.excess_rate(many, best[:, None])[:, 0] - price * best.sum(axis=1)
            assert value.max() <= fine <= coarse * (1 + 1e-12)
            if users < 5:
                space, found = cell_space(users, 20_000), u[None] / users
                value, bound = search(0, shares, price, 1e-4, space, found)
                assert value <= fine and (fine <= bound + 0.03 or found.sum() > 0.99)


@pytest.mark.parametrize("users, worst", [(5, 0.02), (6, 0.03), (8, 0.03)])
def test_many_users_are_certified(users, worst):
    """The gap of two draws of each kind; `make verify` has 200."""
    rng = np.random.default_rng(users)
    for gain, noise in product(CONVENTIONS, (0.1, 1e-3)):
        for _ in range(2):
            case = crowded(users, noise, gain, rng, n=4)
            best = optimum.allocate(*case)
            assert 0.0 <= best.gap <= worst
            u = rng.dirichlet(np.full(4 * users, 0.1), 300).reshape(300, 4, users) + 1e-12
            assert best_split(*case, u) <= best.upper_bound
            at_none = optimum.allocate(replace(case[0], min_rate=0.0), *case[1:])
            assert at_none.converged and abs(at_none.gap) <= 1e-12  # the theorem: that of one level
        assert optimum.allocate(*crowded(users, noise, gain, rng)).gap <= worst  # alone
