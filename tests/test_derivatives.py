from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nomalib import derivatives, polytope, rates
from nomalib.network import Network, draw_gains, random_assignment

SMALL = Network(n_subchannels=3, n_users=4, max_users_per_subchannel=3, noise=0.3)
UNEVEN = np.random.default_rng(5).uniform(0, 1, (3, 4))


def draws(net, n_draws=6, seed=0):
    """Gains, assignments and feasible powers well inside the polytope."""
    rng = np.random.default_rng(seed)
    gains, assignment = draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)
    shares = polytope.reduce(net, gains, assignment)
    u = np.where(shares.users >= 0, rng.uniform(0.2, 1.0, shares.users.shape), 0.0)
    power = polytope.power(net, shares, u / u.sum(axis=(-2, -1), keepdims=True))
    keep = shares.feasible
    return gains[keep], assignment[keep], power[keep]


def jax_objective(net, gains, assignment):
    """−R_total by (1)–(7), pair by pair, as a function of the powers."""

    def objective(power):
        total = 0.0
        for i, j in np.argwhere(assignment):
            interference = 0.0
            for k in np.flatnonzero(assignment[i]):
                if k == j:
                    continue
                weight = net.residual[i, k] if gains[i, k] < gains[i, j] else 1.0
                whose = k if net.interference_gain == "interferer" else j
                interference += weight * power[i, k] * gains[i, whose] ** 2
            total += jnp.log2(1.0 + power[i, j] * gains[i, j] ** 2 / (interference + net.noise))
        return -total

    return objective


@pytest.mark.parametrize("gain", ["interferer", "receiver"])
@pytest.mark.parametrize("residual", [0.0, 1.0, UNEVEN])
def test_derivatives_equal_automatic_differentiation(gain, residual):
    net = replace(SMALL, interference_gain=gain, sic_residual=residual)
    gains, assignment, power = draws(net, n_draws=3)
    gains, assignment, power = gains[:1], assignment[:1], power[:1]
    found = derivatives.derivatives(net, gains, assignment, power)
    with jax.enable_x64(True):
        for b in range(len(power)):
            objective = jax_objective(net, gains[b], assignment[b])
            at = jnp.asarray(power[b])
            gradient = np.asarray(jax.grad(objective)(at))
            hessian = np.array(jax.hessian(objective)(at))
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(found.gradient[b], gradient, rtol=1e-8, atol=1e-12 * scale)
            scale = np.abs(hessian).max()
            for i in range(net.n_subchannels):
                block = hessian[i, :, i]
                np.testing.assert_allclose(
                    found.hessian[b, i], block, rtol=1e-8, atol=1e-12 * scale
                )
                hessian[i, :, i] = 0.0
            assert not hessian.any()


@pytest.mark.parametrize("gain", ["interferer", "receiver"])
def test_derivatives_equal_finite_differences(gain):
    net = replace(SMALL, interference_gain=gain, sic_residual=UNEVEN)
    gains, assignment, power = (part[0] for part in draws(net))
    found = derivatives.derivatives(net, gains, assignment, power)
    # Richardson's fourth-order differences: a step h leaves an error of order h⁴
    for i, j in np.argwhere(assignment):
        h = 2e-3 * power[i, j]
        step = np.zeros_like(power)
        step[i, j] = h
        moved = [power + s * step for s in (-2, -1, 1, 2)]
        value = [-rates.sum_rate(net, gains, assignment, p) for p in moved]
        slope = (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12 * h)
        assert slope == pytest.approx(found.gradient[i, j], rel=1e-8, abs=1e-9)
        value = [derivatives.derivatives(net, gains, assignment, p).gradient[i] for p in moved]
        slope = (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12 * h)
        scale = np.abs(found.hessian[i]).max()
        np.testing.assert_allclose(slope, found.hessian[i][:, j], rtol=1e-8, atol=1e-8 * scale)


@pytest.mark.parametrize("gain", ["interferer", "receiver"])
def test_perfect_cancellation_is_convex(gain):
    net = replace(SMALL, interference_gain=gain, sic_residual=0.0)
    gains, assignment, power = draws(net, n_draws=50)
    values = derivatives.eigenvalues(net, gains, assignment, power)
    assert (np.nanmin(values, axis=-1) >= -1e-12 * np.nanmax(values, axis=-1)).all()


def test_imperfect_cancellation_is_not():
    net = replace(SMALL, sic_residual=0.1)
    gains, assignment, power = draws(net, n_draws=50)
    values = derivatives.eigenvalues(net, gains, assignment, power)
    assert (np.nanmin(values, axis=-1) < -1e-6).any()


def test_eigenvalues_are_those_of_the_assigned_block():
    net = replace(SMALL, sic_residual=UNEVEN)
    gains, assignment, power = draws(net)
    values = derivatives.eigenvalues(net, gains, assignment, power)
    hessian = derivatives.derivatives(net, gains, assignment, power).hessian
    for b, i in np.ndindex(values.shape[:2]):
        who = np.flatnonzero(assignment[b, i])
        expected = np.linalg.eigvalsh(hessian[b, i][np.ix_(who, who)])
        np.testing.assert_allclose(
            values[b, i, : who.size], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
        )
        assert np.isnan(values[b, i, who.size :]).all()


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_eigenvalues_do_not_depend_on_the_unit_of_power(unit):
    gains, assignment, power = draws(SMALL)
    values = derivatives.eigenvalues(SMALL, gains, assignment, power)
    scaled = replace(
        SMALL, noise=SMALL.noise * unit, power_dbm=SMALL.power_dbm + 10 * np.log10(unit)
    )
    found = derivatives.eigenvalues(scaled, gains, assignment, power * unit)
    scale = np.nanmax(np.abs(values), axis=-1, keepdims=True)
    np.testing.assert_allclose(found * unit**2 / scale, values / scale, rtol=0, atol=1e-12)


def test_a_draw_of_nan_and_a_power_of_nobody_leave_the_others_alone():
    gains, assignment, power = draws(SMALL)
    expected = derivatives.derivatives(SMALL, gains, assignment, power)
    values = derivatives.eigenvalues(SMALL, gains, assignment, power)
    power[0] = np.nan
    power[~assignment] = np.nan
    found = derivatives.derivatives(SMALL, gains, assignment, power)
    np.testing.assert_array_equal(found.gradient[1:], expected.gradient[1:])
    np.testing.assert_array_equal(found.hessian[1:], expected.hessian[1:])
    many = derivatives.eigenvalues(SMALL, gains, assignment, power)
    np.testing.assert_array_equal(many[1:], values[1:])
    assert np.isnan(many[0]).all()
    first, second = derivatives.printed(SMALL, gains, assignment, power)
    assert not np.isnan(first[1:]).any() and not np.isnan(second[1:]).any()


def test_printed_terms_for_two_users_by_hand():
    net = Network(n_subchannels=1, n_users=2, noise=1.0, sic_residual=0.5)
    gains, power = np.array([[2.0, 1.0]]), np.array([[3.0, 4.0]])
    first, second = derivatives.printed(net, gains, [[True, True]], power)
    below, signal = np.array([1.0, 13.0]), np.array([12.0, 4.0])
    for j in range(2):
        for k in range(2):
            expected = gains[0, k] ** 2 * below[j] / (signal[j] + below[j]) / np.log(2)
            assert first[0, j, k] == pytest.approx(expected)
            expected *= -(gains[0, j] ** 2) / (signal[j] + below[j])
            assert second[0, j, k] == pytest.approx(expected)


def test_printed_derivatives_are_not_the_true_ones():
    net = replace(SMALL, sic_residual=0.0)
    gains, assignment, power = draws(net)
    first, _ = derivatives.printed(net, gains, assignment, power)
    true = -derivatives.derivatives(net, gains, assignment, power).gradient
    assert (np.abs(first.sum(axis=-2) - true) > 0.1 * np.abs(true))[assignment].mean() > 0.9


@pytest.mark.parametrize(
    "function", [derivatives.derivatives, derivatives.eigenvalues, derivatives.printed]
)
def test_errors_name_the_argument(function):
    gains, assignment, power = (part[0] for part in draws(SMALL))
    with pytest.raises(ValueError, match="power has shape"):
        function(SMALL, gains, assignment, power[:-1])
    with pytest.raises(ValueError, match="gains has shape"):
        function(SMALL, gains[:, :-1], assignment, power)
