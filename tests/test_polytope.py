"""The feasible set in shares, against linear programs and against the rates themselves."""

import math
from dataclasses import replace

import numpy as np
import pytest
from checks import CONVENTIONS, draws, least_power
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nomalib import polytope, rates, subchannel
from nomalib.network import Network


def small(**changes):
    return Network(n_subchannels=3, n_users=4, **changes)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_feasibility_is_the_linear_programs(convention):
    residual = np.random.default_rng(1).random((3, 4))
    uneven = [0.0, 1.5, 0.1, 0.6]
    for min_rate, expected in ((0.05, "most"), (0.5, "some"), (2.0, "few"), (uneven, "of each")):
        net = small(min_rate=min_rate, sic_residual=residual, interference_gain=convention)
        gains, assignment = draws(net, 30, 2)
        shares = polytope.reduce(net, gains, assignment)
        needs = np.array([least_power(net, g, a) for g, a in zip(gains, assignment, strict=True)])
        np.testing.assert_array_equal(shares.feasible, needs <= 1.0, err_msg=expected)
        solvable = np.isfinite(needs)
        np.testing.assert_allclose(1.0 - shares.spare[solvable], needs[solvable], rtol=1e-7)
        assert not (shares.spare[~solvable] >= 0).any()


@pytest.mark.parametrize("side", [1e-6, -1e-6])
def test_feasibility_at_the_edge(side):
    # the budget is set just above or below the least power that the linear program finds
    net = small(min_rate=0.3, sic_residual=0.2)
    for g, a in zip(*draws(net, 20, 3), strict=True):
        edge = 10 * np.log10(least_power(net, g, a) * (1 + side))
        changed = replace(net, power_dbm=net.power_dbm + edge)
        assert bool(polytope.reduce(changed, g, a).feasible) == (side > 0)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", [0.0, 0.01, 1.0, "heterogeneous"])
def test_every_vertex_holds_all_other_pairs_at_the_minimal_rate(convention, residual):
    if residual == "heterogeneous":
        residual = np.random.default_rng(4).random((3, 4))
    net = small(min_rate=0.05, sic_residual=residual, interference_gain=convention)
    gains, assignment = draws(net, 40, 5)
    shares = polytope.reduce(net, gains, assignment)
    ok = shares.feasible
    assert ok.sum() > 20
    for i in range(3):
        for slot in range(shares.users.shape[-1]):
            u = np.zeros(shares.users.shape)
            u[:, i, slot] = 1.0
            power = polytope.power(net, shares, u)
            held = ok & (shares.users[:, i, slot] >= 0)
            np.testing.assert_allclose(power[held].sum(axis=(-2, -1)), net.budget, rtol=1e-12)
            above = rates.rates(net, gains, assignment, power)[held] - net.min_rate
            taker = shares.users[held, i, slot]
            at = np.arange(held.sum())
            assert (above[at, i, taker] > 0).all()
            above[at, i, taker] = 0.0
            assert np.abs(above[assignment[held]]).max() < 1e-10


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.sampled_from(CONVENTIONS),
    st.floats(0, 1),
    st.just(0.0) | st.floats(1e-6, 0.2),
    st.integers(0, 2**32 - 1),
)
def test_rates_in_shares_are_the_rates_of_the_powers(convention, residual, min_rate, seed):
    rng = np.random.default_rng(seed)
    owed = min_rate * rng.choice([0.0, 1.0, 3.0], 4)  # by user
    owed[(owed > 0.0) & (owed < 1e-6)] = 0.0
    net = small(min_rate=owed, sic_residual=residual, interference_gain=convention)
    gains, assignment = draws(net, 4, seed)
    weights = rng.random((4, 4))
    shares = polytope.reduce(net, gains, assignment, weights)
    u = rng.exponential(size=shares.users.shape) * (shares.users >= 0)
    u /= u.sum(axis=(-2, -1), keepdims=True)
    power = polytope.power(net, shares, u)
    assert np.isnan(power[~shares.feasible]).all()
    assume(shares.feasible.any())
    ok = shares.feasible
    expected = rates.sum_rate(net, gains[ok], assignment[ok], power[ok], weights[ok])
    ratio = shares.strength * u / (1.0 + np.einsum("bijk,bik->bij", shares.coupling, u))
    excess = (shares.weight * np.log1p(ratio)).sum(axis=-1)
    np.testing.assert_allclose(subchannel.excess_rate(shares, u)[ok], excess[ok], rtol=1e-11)
    found = (shares.least_rate + excess.sum(axis=-1)) / np.log(2.0)
    np.testing.assert_allclose(found[ok], expected, rtol=1e-9)
    allocated = polytope.allocation(net, shares, 7.0 * u)  # scaled to spend the budget
    np.testing.assert_allclose(allocated.power[ok], power[ok], rtol=1e-12)
    np.testing.assert_allclose(allocated.sum_rate[ok], expected, rtol=1e-9)
    np.testing.assert_allclose(power[ok].sum(axis=(-2, -1)), net.budget, rtol=1e-12)
    assert (rates.qos_violation(net, gains[ok], assignment[ok], power[ok]) == 0).all()


def test_a_tiny_minimal_rate_keeps_its_digits():
    for min_rate in (1e-6, 1e-3, 1.0, 30.0):
        net = Network(n_subchannels=1, n_users=1, noise=1.0, power_dbm=150.0, min_rate=min_rate)
        least = polytope.reduce(net, [[1.0]], [[True]]).minimal[0, 0] * net.budget
        # 2^x − 1 by its series where that is exact to double precision
        series = sum((min_rate * np.log(2)) ** n / math.factorial(n) for n in range(150, 0, -1))
        assert least == pytest.approx(series, rel=1e-13)


def test_a_power_that_buys_nothing_is_converged_only_where_none_does():
    net = Network(2, 2, noise=1.0, power_dbm=30.0, min_rate=0.0)
    one_each = [[True, False], [False, True]]
    for strong, residual in ((2.0, math.inf), (0.0, 0.0)):
        gains = [[strong, 0.0], [0.0, 0.0]]
        shares = polytope.reduce(net, gains, one_each)
        found = polytope.allocation(net, shares, [[0.0], [1.0]])
        assert (found.sum_rate, found.residual) == (0.0, residual)
        assert found.converged == (residual == 0.0)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_a_number_for_all_users_is_that_number_for_each(convention, epsilon):
    # who takes all the power is known at once for the first, and found user by user for the second
    net = small(sic_residual=epsilon, interference_gain=convention)
    each = replace(net, sic_residual=np.full((3, 4), epsilon), min_rate=np.full(4, net.min_rate))
    found = polytope.reduce(net, *draws(net, 30, 5))
    expected = polytope.reduce(each, *draws(net, 30, 5), np.ones(4))
    for name, of_all, of_each in zip(found._fields, found, expected, strict=True):
        np.testing.assert_array_equal(of_all, of_each, err_msg=name)
