"""The feasible set in shares, against linear programs and against the rates themselves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from nomalib import polytope, rates
from nomalib.network import Network, draw_gains, random_assignment

CONVENTIONS = ("interferer", "receiver")


def least_power(net, gains, assignment):
    """Least Σ p/P_c that gives every pair R_min, by a linear program; inf where there is none.

    The unknowns are received powers over the noise, so that all coefficients are of order one.
    """
    threshold = 2.0**net.min_rate - 1.0
    strength = net.budget * gains**2 / net.noise
    pairs = np.argwhere(assignment)
    demand = np.zeros((len(pairs), len(pairs)))
    for row, (i, j) in enumerate(pairs):
        for col, (other, user) in enumerate(pairs):
            if row == col:
                demand[row, col] = 1.0
            elif other == i:
                weight = 1.0 if gains[i, user] > gains[i, j] else net.residual[i, user]
                if net.interference_gain == "receiver":
                    weight *= strength[i, j] / strength[i, user]
                demand[row, col] = -threshold * weight
    cost = 1.0 / strength[assignment]
    solved = linprog(
        cost / cost.max(), A_ub=-demand, b_ub=np.full(len(pairs), -threshold), method="highs"
    )
    assert solved.status in (0, 2)
    return solved.fun * cost.max() if solved.status == 0 else np.inf


def draws(n_draws, seed, **changes):
    rng = np.random.default_rng(seed)
    net = Network(n_subchannels=3, n_users=4, **changes)
    return net, draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_feasibility_is_the_linear_programs(convention):
    residual = np.random.default_rng(1).random((3, 4))
    for min_rate, expected in ((0.05, "most"), (0.5, "some"), (2.0, "few")):
        net, gains, assignment = draws(
            30, 2, min_rate=min_rate, sic_residual=residual, interference_gain=convention
        )
        shares = polytope.reduce(net, gains, assignment)
        needs = np.array([least_power(net, g, a) for g, a in zip(gains, assignment, strict=True)])
        np.testing.assert_array_equal(shares.feasible, needs <= 1.0, err_msg=expected)
        solvable = np.isfinite(needs)
        np.testing.assert_allclose(1.0 - shares.spare[solvable], needs[solvable], rtol=1e-7)
        assert not (shares.spare[~solvable] >= 0).any()


@pytest.mark.parametrize("side", [1e-6, -1e-6])
def test_feasibility_at_the_edge(side):
    # the budget is set just above or below the least power that the linear program finds
    net, gains, assignment = draws(20, 3, min_rate=0.3, sic_residual=0.2)
    for g, a in zip(gains, assignment, strict=True):
        need = least_power(net, g, a)
        edge = 10 * np.log10(need * (1 + side))
        changed = Network(
            n_subchannels=3,
            n_users=4,
            min_rate=0.3,
            sic_residual=0.2,
            power_dbm=net.power_dbm + edge,
        )
        assert bool(polytope.reduce(changed, g, a).feasible) == (side > 0)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", [0.0, 0.01, 1.0, "heterogeneous"])
def test_every_vertex_holds_all_other_pairs_at_the_minimal_rate(convention, residual):
    if residual == "heterogeneous":
        residual = np.random.default_rng(4).random((3, 4))
    net, gains, assignment = draws(
        40, 5, min_rate=0.05, sic_residual=residual, interference_gain=convention
    )
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
    st.just(0.0) | st.floats(1e-100, 0.2),
    st.integers(0, 2**32 - 1),
)
def test_rates_in_shares_are_the_rates_of_the_powers(convention, residual, min_rate, seed):
    net, gains, assignment = draws(
        4, seed, min_rate=min_rate, sic_residual=residual, interference_gain=convention
    )
    shares = polytope.reduce(net, gains, assignment)
    rng = np.random.default_rng(seed)
    u = rng.exponential(size=shares.users.shape) * (shares.users >= 0)
    u /= u.sum(axis=(-2, -1), keepdims=True)
    power = polytope.power(net, shares, u)
    assert np.isnan(power[~shares.feasible]).all()
    if not shares.feasible.any():
        return
    ok = shares.feasible
    expected = rates.sum_rate(net, gains[ok], assignment[ok], power[ok])
    ratio = shares.strength * u / (1.0 + np.einsum("bijk,bik->bij", shares.coupling, u))
    pairs = assignment.sum(axis=(-2, -1))
    found = pairs * net.min_rate + np.log2(1.0 + ratio).sum(axis=(-2, -1))
    np.testing.assert_allclose(found[ok], expected, rtol=1e-9)
    np.testing.assert_allclose(power[ok].sum(axis=(-2, -1)), net.budget, rtol=1e-12)
    assert (rates.qos_violation(net, gains[ok], assignment[ok], power[ok]) == 0).all()


def test_gradient_and_residual_of_a_constructed_optimum():
    # two users without coupling: a common level 1/α + u
    strength, coupling = np.array([2.0, 1.0]), np.zeros((2, 2))
    u = np.array([0.75, 0.25])  # levels 1/2 + 3/4 = 1 + 1/4
    gradient = np.empty(2)
    polytope.excess_gradient(strength, coupling, u, gradient)
    np.testing.assert_allclose(gradient, 0.8, rtol=1e-14)
    rate = polytope.excess_rate(strength, coupling, u)
    assert rate == pytest.approx(np.log(2.5) + np.log(1.25), rel=1e-14)
    users, dual = np.array([[0, 1]]), np.zeros((1, 2))
    rng = np.random.default_rng(0)
    strength, heard, at = rng.uniform(1, 9, 3), rng.uniform(0, 4, (3, 3)), rng.dirichlet(np.ones(3))
    slope, step = np.empty(3), 1e-5 * np.eye(3)
    polytope.excess_gradient(strength, heard, at, slope)
    ends = [[polytope.excess_rate(strength, heard, at + s * d) for s in (-1, 1)] for d in step]
    np.testing.assert_allclose(slope, np.diff(ends)[:, 0] / 2e-5, rtol=1e-8)

    def residual(u, gradient, price, dual):
        return polytope.kkt_residual(users, u[None], gradient[None], price, dual, rate)

    assert residual(u, gradient, 0.8, dual) < 1e-15
    # each of the conditions by itself: stationarity, Σ u = 1, u ≥ 0, dual ≥ 0, complementarity
    assert residual(u, gradient, 0.9, dual) == pytest.approx(0.1 / rate)
    assert residual(u * 1.1, gradient, 0.8, dual) == pytest.approx(0.1)
    assert residual(np.array([1.25, -0.25]), gradient, 0.8, dual) == pytest.approx(0.25)
    assert residual(u, gradient - [0, -0.2], 0.8, dual - [[0, 0.2]]) > 0.2 / rate * 0.9
    assert residual(u, gradient - [0, 0.2], 0.8, dual + [[0, 0.2]]) == pytest.approx(
        0.2 * 0.25 / rate
    )


def test_draws_have_no_power_where_a_minimal_rate_is_out_of_reach():
    net = Network(n_subchannels=1, n_users=2, min_rate=1.5, sic_residual=1.0)
    # without cancellation both users cannot have an SINR above 1, at any power
    shares = polytope.reduce(net, [[1.0, 1.0]], [[True, True]])
    assert not shares.feasible
    assert np.isnan(polytope.power(net, shares, np.full((1, 2), 0.5))).all()


def test_a_tiny_minimal_rate_keeps_its_digits():
    for min_rate in (1e-15, 1e-9, 1e-3, 1.0, 30.0):
        net = Network(n_subchannels=1, n_users=1, noise=1.0, power_dbm=300.0, min_rate=min_rate)
        least = polytope.reduce(net, [[1.0]], [[True]]).minimal[0, 0] * net.budget
        # 2^x − 1 by its series where that is exact to double precision
        series = sum((min_rate * np.log(2)) ** n / math.factorial(n) for n in range(150, 0, -1))
        assert least == pytest.approx(series, rel=1e-13)


@pytest.mark.parametrize(
    ("u", "message"),
    [
        ([[0.5, 0.5, 0.0]], "u has shape"),
        ([[1.5, -0.5]], "u holds -0.5"),
        ([[np.inf, 0.0]], "u holds inf"),
        ([["a", "b"]], "u has dtype"),
    ],
)
def test_shares_are_checked(u, message):
    net = Network(n_subchannels=1, n_users=2)
    shares = polytope.reduce(net, [[1.0, 2.0]], [[True, True]])
    with pytest.raises(ValueError, match=message):
        polytope.power(net, shares, u)
    assert np.isnan(polytope.power(net, shares, [[np.nan, 0.5]])).any()
