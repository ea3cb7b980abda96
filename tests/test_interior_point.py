"""The interior-point method against SLSQP, the exact optimum, and its conditions in watt."""

import itertools

import jax
import numba
import numpy as np
import pytest
from checks import extreme_cases
from hypothesis import given, settings
from scipy.optimize import minimize, nnls

from nomalib import interior_point, optimum, rates, water_filling
from nomalib.network import Network, draw_gains, random_assignment

CONVENTIONS = ("interferer", "receiver")
TOL = 1e-8


def draws(n_draws, seed, **changes):
    net = Network(**{"n_subchannels": 4, "n_users": 4, "max_users_per_subchannel": 2, **changes})
    rng = np.random.default_rng(seed)
    return net, draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)


def interference(net, gains, assignment):
    """SNRs at the whole budget, and weights of (3) between the assigned pairs, for `pair_rates`."""
    pairs = np.argwhere(assignment)
    weight = np.zeros((len(pairs), len(pairs)))
    strength = net.budget * gains**2 / net.noise
    for (row, (i, j)), (col, (other, user)) in itertools.product(
        enumerate(pairs), enumerate(pairs)
    ):
        if i == other and j != user:
            weaker = gains[i, user] < gains[i, j]
            heard = strength[i, user if net.interference_gain == "interferer" else j]
            weight[row, col] = (net.residual[i, user] if weaker else 1.0) * heard
    return strength[assignment], weight


def pair_rates(x, own, weight):
    """R_ij of all assigned pairs of powers x [P_c], in JAX."""
    return jax.numpy.log1p(own * x / (1.0 + weight @ x)) / np.log(2.0)


cost_and_gradient = jax.jit(jax.value_and_grad(lambda *case: -pair_rates(*case).sum()))
rates_of = jax.jit(pair_rates)
jacobian_of = jax.jit(jax.jacobian(pair_rates))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_slsqp_agrees_on_random_feasible_draws(convention):
    """25 draws of each convention; SLSQP has exact derivatives and our start."""
    net, gains, assignment = draws(60, 1, interference_gain=convention, noise=1.0)
    found = interior_point.allocate(net, gains, assignment)
    feasible = np.flatnonzero(found.feasible)[:25]
    assert len(feasible) == 25
    for b in feasible:
        case = interference(net, gains[b], assignment[b])
        start = interior_point.trace(net, gains[b], assignment[b]).power[0][assignment[b]]
        solved = minimize(
            lambda x, case=case: tuple(map(np.asarray, cost_and_gradient(x, *case))),
            start / net.budget,
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * len(start),
            constraints=[
                {"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
                {
                    "type": "ineq",
                    "fun": lambda x, case=case: np.asarray(rates_of(x, *case)) - net.min_rate,
                    "jac": lambda x, case=case: np.asarray(jacobian_of(x, *case)),
                },
            ],
            options={"ftol": 1e-13, "maxiter": 300},
        )
        best = rates.sum_rate(net, gains[b], assignment[b], found.power[b])
        assert -solved.fun == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("residual", [0.0, 0.1, 1.0])
def test_kkt_conditions_of_the_original_problem(convention, residual):
    """In watt: ∇R_total = price·1 − Σ_j multiplier_j ∇R_j with multipliers ≥ 0 on tight pairs."""
    net, gains, assignment = draws(
        10, 2, sic_residual=residual, interference_gain=convention, min_rate=0.02
    )
    found = interior_point.allocate(net, gains, assignment)
    assert found.feasible.sum() >= 5
    for b in np.flatnonzero(found.feasible):
        case = interference(net, gains[b], assignment[b])
        x = found.power[b][assignment[b]] / net.budget
        rate, jacobian = np.asarray(rates_of(x, *case)), np.asarray(jacobian_of(x, *case))
        assert x.sum() == pytest.approx(1.0, rel=1e-12) and (x > 0).all()
        assert rate.min() >= net.min_rate * (1 - 1e-9)
        np.testing.assert_allclose(
            rate, rates.rates(net, gains[b], assignment[b], found.power[b])[assignment[b]]
        )
        tight = rate < net.min_rate + 1e-5
        # in units of what all the budget buys; columns: the price, and tight pairs' multipliers
        conditions = np.column_stack([np.ones(len(x)), -jacobian[tight].T])
        scale = np.abs(conditions).max(axis=0)
        _, miss = nnls(conditions / scale, jacobian.sum(axis=0))
        assert miss <= 1e-4 * np.abs(jacobian.sum(axis=0)).max()


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
        net, gains, assignment = draws(
            6,
            seed,
            n_subchannels=n,
            n_users=max(n, load),
            max_users_per_subchannel=load,
            sic_residual=residual,
            noise=noise,
            min_rate=min_rate,
            interference_gain=convention,
        )
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


def test_restarts_never_lose_and_repair_a_local_optimum():
    residual = np.random.default_rng(3).random((10, 10))
    net, gains, assignment = draws(
        400, 4, n_subchannels=10, n_users=10, max_users_per_subchannel=4, sic_residual=residual
    )
    one, many = (
        interior_point.allocate(net, gains, assignment, restarts=restarts) for restarts in (0, 5)
    )
    ok = one.feasible
    first, last = (
        rates.sum_rate(net, gains[ok], assignment[ok], found.power[ok]) for found in (one, many)
    )
    assert (last >= first * (1 - 1e-10)).all()
    assert (last > first * (1 + 1e-6)).any()


def test_a_search_over_takers_closes_the_gap_at_little_noise():
    """Against the certified optimum: one start is short on average, restarts are within 0.01 %."""
    residual = np.random.default_rng(7).random((10, 10))
    size = {"n_subchannels": 10, "n_users": 10, "max_users_per_subchannel": 3}
    net, gains, assignment = draws(60, 8, **size, sic_residual=residual, noise=1e-3)
    best = optimum.allocate(net, gains, assignment).sum_rate
    one, many = (
        1 - rates.sum_rate(net, gains, assignment, found.power) / best
        for found in (
            interior_point.allocate(net, gains, assignment, restarts=restarts)
            for restarts in (0, 5)
        )
    )
    assert np.nanmean(one) > 5e-4
    assert np.nanmean(many) < 1e-4


@pytest.mark.parametrize(
    ("allocate", "residual"),
    [
        (interior_point.allocate, 0.01),
        (interior_point.allocate, np.random.default_rng(9).random((10, 10))),
        (water_filling.allocate, 0.01),
    ],
    ids=["interior point", "interior point, ε by user", "water-filling"],
)
def test_a_draw_is_solved_to_the_same_bits_in_any_batch_and_on_any_number_of_threads(
    allocate, residual
):
    size = {"n_subchannels": 10, "n_users": 10, "max_users_per_subchannel": 3}
    net, gains, assignment = draws(300, 5, **size, sic_residual=residual, noise=1e-2)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = [allocate(net, gains[b], assignment[b]) for b in range(300)]
        batches = [allocate(net, gains, assignment)]
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        batches.append(allocate(net, gains, assignment))
        batches.append(allocate(net, gains[::-1], assignment[::-1]))
    finally:
        numba.set_num_threads(threads)
    reverse = (slice(None), slice(None), slice(None, None, -1))
    for batch, order in zip(batches, reverse, strict=True):
        for name in batch._fields:
            expected = np.array([getattr(draw, name) for draw in alone])
            np.testing.assert_array_equal(getattr(batch, name)[order], expected)


def test_a_trace_from_the_middle_is_longer_and_ends_at_the_same_optimum():
    net, gains, assignment = draws(40, 6)
    b = np.flatnonzero(interior_point.allocate(net, gains, assignment).feasible)[0]
    short, long = (
        interior_point.trace(net, gains[b], assignment[b], **start) for start in ({}, {"kept": 0.5})
    )
    assert len(long.step) > len(short.step) and long.residual[-1] <= TOL
    assert long.barrier[0] > 1e5 * short.barrier[0]
    np.testing.assert_allclose(long.power[-1], short.power[-1], atol=1e-6 * net.budget)
    for kept in (0.0, 1.0, True, np.nan):
        with pytest.raises(ValueError, match=f"^kept is {kept}; it must lie in"):
            interior_point.trace(net, gains[b], assignment[b], kept=kept)


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_trace_is_the_path_to_what_allocate_returns(residual):
    net, gains, assignment = draws(40, 6, sic_residual=residual)
    found = interior_point.allocate(net, gains, assignment, restarts=0)
    for b in np.flatnonzero(found.feasible)[:5]:
        path = interior_point.trace(net, gains[b], assignment[b])
        assert {len(part) for part in path} == {found.n_iter[b] + 1}
        np.testing.assert_array_equal(path.power[-1], found.power[b])
        assert path.residual[-1] == found.residual[b] <= TOL
        assert (path.residual[:-1] > TOL).all()
        for power, rate in zip(path.power, path.sum_rate, strict=True):
            assert power.sum() == pytest.approx(net.budget, rel=1e-12)
            assert rate == pytest.approx(rates.sum_rate(net, gains[b], assignment[b], power))
            assert rates.rates(net, gains[b], assignment[b], power)[assignment[b]].min() > (
                net.min_rate
            )
        assert (np.diff(path.barrier) <= 0).all() and (path.barrier > 0).all()
        bound = path.residual[-1] * path.sum_rate[-1] * np.log(2)  # the residual is relative to it
        assert 0 < path.gap[-1] <= bound * (1 + 1e-12)
        assert path.step[0] == 0 and (0 < path.step[1:]).all() and (path.step <= 1).all()
        if residual == 0.0:
            # weak duality, where the problem is convex [nats]
            exact = path.sum_rate[-1]
            behind = (exact - path.sum_rate) * np.log(2)
            centred = path.residual < 1e-3
            assert centred.sum() >= 2
            assert (behind[centred] <= path.gap[centred] * (1 + 1e-2) + 1e-7).all()


@settings(derandomize=True, deadline=None, max_examples=80)
@given(extreme_cases())
def test_extreme_gains(case):
    net, gains, _ = case
    found, exact = interior_point.allocate(*case), water_filling.allocate(*case)
    assert found.feasible == exact.feasible
    if not found.feasible:
        assert np.isnan(found.power).all() and np.isnan(found.residual) and not found.converged
        return
    assert (found.power >= 0).all()
    assert found.power.sum() == pytest.approx(net.budget, rel=1e-12)
    if gains.max() > 1e3:  # an SNR near 1e98: it may stop short of the optimum, and then says so
        assert found.converged == (found.residual <= 1e-8)
        return
    assert found.converged
    best = rates.sum_rate(*case, exact.power)
    assert rates.sum_rate(*case, found.power) == pytest.approx(best, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_closed_forms_of_the_smallest_networks(convention):
    one = Network(n_subchannels=1, n_users=1, interference_gain=convention)
    assert interior_point.allocate(one, [[0.7]], [[True]]).power == pytest.approx(one.budget)
    # equal gains on subchannels of one user each: equal power
    several = Network(n_subchannels=5, n_users=5, interference_gain=convention)
    power = interior_point.allocate(several, np.ones((5, 5)), np.eye(5, dtype=bool)).power
    np.testing.assert_allclose(power, np.eye(5) * several.budget / 5, rtol=1e-6, atol=1e-12)


def test_bad_options_and_draws_are_named():
    net, gains, assignment = draws(2, 0)
    for tol in (0.0, 1.0, np.nan, True, "1e-8", None):
        with pytest.raises(ValueError, match=f"^tol is {tol!r}"):
            interior_point.allocate(net, gains, assignment, tol=tol)
    for restarts in (-1, 1.5, True):
        with pytest.raises(ValueError, match=f"^restarts is {restarts}"):
            interior_point.allocate(net, gains, assignment, restarts=restarts)
    with pytest.raises(ValueError, match="^gains holds nan"):
        interior_point.allocate(net, gains * np.nan, assignment)
    with pytest.raises(ValueError, match="^gains has leading axes"):
        interior_point.trace(net, gains, assignment)
    with pytest.raises(ValueError, match="infeasible"):
        interior_point.trace(net, 1e-6 * gains[0], assignment[0])
