"""The interior-point method against the exact optimum, and its conditions in watt."""

import itertools

import numpy as np
import pytest
from checks import (
    CONVENTIONS,
    assert_allocation,
    draws,
    pairs_of,
    slsqp_rate,
    stationarity_gap,
    weighted_sum_rate,
)
from scipy.optimize import nnls

from nomalib import interior_point, optimum, rates, water_filling
from nomalib.network import Network

TOL = 1e-8


def small(**changes):
    return Network(**{"n_subchannels": 4, "n_users": 4, "max_users_per_subchannel": 2, **changes})


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", [0.0, 0.1, 1.0])
def test_kkt_conditions_of_the_original_problem(convention, residual):
    """In watt: ∇R_total = price·1 − Σ_j multiplier_j ∇R_j with multipliers ≥ 0 on tight pairs.

    SLSQP, from the starts of `trace` too, finds no more.
    """
    net = small(sic_residual=residual, interference_gain=convention, min_rate=0.02)
    gains, assignment = draws(net, 10, 2)
    found = interior_point.allocate(net, gains, assignment)
    assert found.feasible.sum() >= 5
    for b in np.flatnonzero(found.feasible):
        pairs = pairs_of(net, gains[b], assignment[b])
        x = found.power[b][assignment[b]] / net.budget
        rate, jacobian = pairs.rates(x) / np.log(2.0), pairs.jacobian(x) / np.log(2.0)
        assert x.sum() == pytest.approx(1.0, rel=1e-12) and (x > 0).all()
        assert rate.min() >= net.min_rate * (1 - 1e-9)
        tight = rate < net.min_rate + 1e-5
        # in units of what all the budget buys; columns: the price, and tight pairs' multipliers
        conditions = np.column_stack([np.ones(len(x)), -jacobian[tight].T])
        scale = np.abs(conditions).max(axis=0)
        _, miss = nnls(conditions / scale, jacobian.sum(axis=0))
        assert miss <= 1e-4 * np.abs(jacobian.sum(axis=0)).max()
        start = interior_point.trace(net, gains[b], assignment[b]).power[0]
        other = slsqp_rate(net, gains[b], assignment[b], [start])
        assert other == pytest.approx(rate.sum(), rel=1e-5)


GRID = list(
    itertools.product(
        CONVENTIONS, (0.0, 0.01, 0.1, 0.5, 1.0), (1e-6, 1e-3, 0.1, 1.0), (0.0, 0.01, 0.06)
    )
)


@pytest.mark.parametrize("load", [2, 3, 4])
@pytest.mark.parametrize("n", [1, 10])
def test_every_feasible_draw_converges_to_the_exact_optimum(load, n):
    """A thin sample of the grid of benchmarks/convergence.py."""
    checked = 0
    for seed, (convention, residual, noise, min_rate) in enumerate(GRID):
        net = Network(
            *(n, max(n, load), load),
            sic_residual=residual,
            noise=noise,
            min_rate=min_rate,
            interference_gain=convention,
        )
        gains, assignment = draws(net, 6, seed)
        found = interior_point.allocate(net, gains, assignment)
        ok = found.feasible
        assert found.converged[ok].all() and not found.converged[~ok].any()
        assert (found.residual[ok] <= TOL).all() and (found.n_iter <= 60).all()
        exact = water_filling.allocate(net, gains, assignment)
        np.testing.assert_array_equal(ok, exact.feasible)
        case = gains[ok], assignment[ok]
        rate = rates.sum_rate(net, *case, found.power[ok])
        np.testing.assert_allclose(rate, rates.sum_rate(net, *case, exact.power[ok]), rtol=1e-7)
        np.testing.assert_allclose(found.power[ok].sum(axis=(-2, -1)), net.budget, rtol=1e-12)
        assert (rates.qos_violation(net, *case, found.power[ok], tolerance=1e-6) == 0).all()
        assert np.isnan(found.power[~ok]).all() and np.isnan(found.residual[~ok]).all()
        checked += ok.sum()
    assert checked > 400


def test_a_trace_from_the_middle_is_longer_and_ends_at_the_same_optimum():
    net = small()
    gains, assignment = draws(net, 40, 6)
    b = np.flatnonzero(interior_point.allocate(net, gains, assignment).feasible)[0]
    short, long = (
        interior_point.trace(net, gains[b], assignment[b], **start) for start in ({}, {"kept": 0.5})
    )
    assert len(long.step) > len(short.step) and long.residual[-1] <= TOL
    assert long.barrier[0] > 1e5 * short.barrier[0]
    np.testing.assert_allclose(long.power[-1], short.power[-1], atol=1e-6 * net.budget)
    # the residual, relative to the rate, says how far from stationary each power is
    many = np.broadcast_to(gains[b], long.power.shape)
    gap, rounding = stationarity_gap(net, many, assignment[b], long.power)
    bound = 3 * long.residual * long.sum_rate * np.log(2)
    assert gap[0] > 0.1 and (gap <= bound + rounding).all() and bound[-1] < 1e-6


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_trace_is_the_path_to_what_allocate_returns(residual):
    net = small(sic_residual=residual)
    gains, assignment = draws(net, 40, 6)
    found = interior_point.allocate(net, gains, assignment, restarts=0)
    for b in np.flatnonzero(found.feasible)[:5]:
        path = interior_point.trace(net, gains[b], assignment[b])
        assert {len(part) for part in path} == {found.n_iter[b] + 1}
        np.testing.assert_array_equal(path.power[-1], found.power[b])
        assert max(found.residual[b], 3 * path.residual[-1]) <= TOL
        assert (path.residual[:-1] > TOL / 3).all()
        many = np.broadcast_to(gains[b], path.power.shape)
        spent, got = path.power.sum(axis=(1, 2)), rates.rates(net, many, assignment[b], path.power)
        np.testing.assert_allclose(spent, net.budget, rtol=1e-12)
        np.testing.assert_allclose(path.sum_rate, got.sum(axis=(1, 2)), rtol=1e-6)
        assert got[:, assignment[b]].min() > net.min_rate
        assert (np.diff(path.barrier) <= 0).all() and (path.barrier > 0).all()
        nats = path.sum_rate * np.log(2)  # to which the residual is relative
        assert 0 < path.gap[-1] <= path.residual[-1] * nats[-1] * (1 + 1e-12)
        assert path.step[0] == 0 and (0 < path.step[1:]).all() and (path.step <= 1).all()
        if residual == 0.0:
            # weak duality, where the problem is convex [nats]
            behind = nats[-1] - nats
            centred = path.residual < 1e-3
            assert centred.sum() >= 2
            assert (behind[centred] <= path.gap[centred] * (1 + 1e-2) + 1e-7).all()


def test_restarts_never_lose_and_find_the_takers_at_little_noise():
    """Against the certified optimum: one start is short on average, restarts are within 1e-5."""
    net = Network(noise=1e-3, sic_residual=np.random.default_rng(7).random((10, 10)))
    case = net, *draws(net, 200, 8)
    best = optimum.allocate(*case).sum_rate
    one, many = (
        1 - interior_point.allocate(*case, restarts=restarts).sum_rate / best for restarts in (0, 5)
    )
    assert not (many > one).any()
    assert np.nanmean(one) > 1e-5 and np.nanmean(many) < 1e-5


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", [0.0, 0.01, 1.0, "uneven"])
def test_weighted_draws_end_at_points_of_karush_kuhn_and_tucker(convention, residual):
    rng = np.random.default_rng(9)
    net = Network(
        sic_residual=rng.random((10, 10)) if residual == "uneven" else residual,
        noise=0.01,
        min_rate=rng.choice([0.0, 0.05, 0.2], 10),
        interference_gain=convention,
    )
    case, weights = (net, *draws(net, 1600, 9)), rng.random((1600, 10))
    found = interior_point.allocate(*case, weights=weights)
    assert found.feasible.sum() > 1250
    assert_allocation(*case, found, weights=weights, tolerance=1e-7)
    assert found.converged[found.feasible].all()
    once = interior_point.allocate(*case, restarts=0, weights=weights)
    assert not (found.sum_rate < once.sum_rate).any()
    sum_rate = weighted_sum_rate(*case, found.power, weights)
    np.testing.assert_allclose(found.sum_rate, sum_rate, rtol=1e-12)
