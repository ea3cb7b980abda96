"""Derivatives against automatic and finite differentiation; the printed ones beside them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import CONVENTIONS, draws, pairs_of

from nomalib import derivatives, polytope
from nomalib.network import Network

SMALL = Network(n_subchannels=3, n_users=4, max_users_per_subchannel=3, noise=0.3)
UNEVEN = np.random.default_rng(5).uniform(0, 1, (3, 4))


def inside(net, n_draws=6):
    """Gains, assignments and feasible powers well inside the polytope."""
    gains, assignment = draws(net, n_draws)
    shares = polytope.reduce(net, gains, assignment)
    rng = np.random.default_rng(0)
    u = np.where(shares.users >= 0, rng.uniform(0.2, 1.0, shares.users.shape), 0.0)
    power = polytope.power(net, shares, u / u.sum(axis=(-2, -1), keepdims=True))
    keep = shares.feasible
    return gains[keep], assignment[keep], power[keep]


@pytest.mark.parametrize("gain", CONVENTIONS)
@pytest.mark.parametrize("residual", [0.0, 1.0, UNEVEN])
def test_derivatives_equal_automatic_differentiation(gain, residual):
    net = replace(SMALL, interference_gain=gain, sic_residual=residual)
    gains, assignment, power = (part[0] for part in inside(net))
    found = derivatives.derivatives(net, gains, assignment, power)
    pairs, x = pairs_of(net, gains, assignment), power[assignment] / net.budget
    with jax.enable_x64(True):
        at = jnp.asarray(x)
        jacobian = np.asarray(jax.jacobian(lambda y: pairs.rates(y, jnp.log1p))(at))
        hessian = np.array(jax.hessian(lambda y: -pairs.rates(y, jnp.log1p).sum())(at))
    # the oracle's own, of which SLSQP makes use elsewhere
    close = dict(rtol=1e-8, atol=1e-12 * np.abs(jacobian).max())
    np.testing.assert_allclose(pairs.jacobian(x), jacobian, **close)
    unit = net.budget * np.log(2.0)
    np.testing.assert_allclose(found.gradient[assignment] * unit, -jacobian.sum(axis=0), **close)
    close["atol"] = 1e-12 * np.abs(hessian).max()
    on, user = np.nonzero(assignment)
    together = on[:, None] == on
    assert not hessian[~together].any()
    block = found.hessian[on[:, None], user[:, None], user] * unit * net.budget
    np.testing.assert_allclose(block[together], hessian[together], **close)


@pytest.mark.parametrize(
    "gain, residual", [("interferer", 0), ("receiver", 0), ("interferer", 0.1)]
)
def test_perfect_cancellation_is_convex_and_imperfect_is_not(gain, residual):
    net = replace(SMALL, interference_gain=gain, sic_residual=residual)
    values = derivatives.eigenvalues(net, *inside(net, 50))
    least, most = np.nanmin(values, axis=-1), np.nanmax(values, axis=-1)
    assert (least >= -1e-12 * most).all() if residual == 0 else (least < -1e-6).any()


def test_eigenvalues_are_those_of_the_assigned_block():
    net = replace(SMALL, sic_residual=UNEVEN)
    gains, assignment, power = inside(net)
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
    gains, assignment, power = inside(SMALL)
    values = derivatives.eigenvalues(SMALL, gains, assignment, power)
    scaled = replace(
        SMALL, noise=SMALL.noise * unit, power_dbm=SMALL.power_dbm + 10 * np.log10(unit)
    )
    found = derivatives.eigenvalues(scaled, gains, assignment, power * unit)
    scale = np.nanmax(np.abs(values), axis=-1, keepdims=True)
    np.testing.assert_allclose(found * unit**2 / scale, values / scale, rtol=0, atol=1e-12)


def test_a_draw_of_nan_and_a_power_of_nobody_leave_the_others_alone():
    gains, assignment, power = inside(SMALL)
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
    gains, assignment, power = inside(net)
    first, _ = derivatives.printed(net, gains, assignment, power)
    true = -derivatives.derivatives(net, gains, assignment, power).gradient
    assert (np.abs(first.sum(axis=-2) - true) > 0.1 * np.abs(true))[assignment].mean() > 0.9
