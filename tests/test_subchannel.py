"""φ, a subchannel at a price: its derivatives, its closed forms, and who takes the spare power."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import CONVENTIONS, draws
from scipy.optimize import minimize

from nomalib import optimum, polytope, subchannel
from nomalib._draws import flat_shares, view
from nomalib.network import Network


def one(rng, k, **changes):
    """A subchannel of k users of any kind, with weights, in shares; None where infeasible."""
    options = dict(
        sic_residual=rng.random((1, k)),
        noise=10 ** rng.uniform(-5, 1),
        min_rate=np.where(rng.random(k) < 0.3, 0.0, rng.uniform(1e-6, 0.5, k)),
        interference_gain=rng.choice(CONVENTIONS),
    )
    net = Network(1, k, k, **(options | changes))
    gains, weights = 10 ** rng.uniform(-1, 1, (1, k)), rng.random(k)
    shares = polytope.reduce(net, gains, np.ones((1, k), bool), weights)
    return shares if shares.feasible else None


def excess(u, shares, log1p=np.log1p):
    """R(u) as it is written."""
    return shares.weight[0] @ log1p(shares.strength[0] * u / (1.0 + shares.coupling[0] @ u))


@jax.jit
def derived(u, shares):
    def value(u):
        return excess(u, shares, jnp.log1p)

    return jax.grad(value)(u), jax.hessian(value)(u)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_value_gradient_and_curvature_equal_automatic_differentiation(k):
    rng, checked = np.random.default_rng(k), 0
    for _ in range(20):
        shares = one(rng, k)
        if shares is None:
            continue
        u = rng.dirichlet(np.ones(k))[None]
        below, slopes, block = np.ones((1, k)), np.ones((1, k)), np.ones((1, k, k))
        draw = view(flat_shares(shares)[0], 0)
        subchannel.hear(0, k, draw, u, below)
        subchannel.slope(0, k, draw, u, below, slopes)
        subchannel.curvature(0, k, draw, u, below, block)
        with jax.enable_x64(True):
            gradient, hessian = map(np.asarray, derived(u[0], shares))
        value = subchannel.rate(0, k, draw, u, below)
        assert value == pytest.approx(excess(u[0], shares), rel=1e-12)
        np.testing.assert_allclose(slopes[0], gradient, atol=1e-9 * np.abs(gradient).max())
        lower, close = np.tril_indices(k), 1e-9 * np.abs(hessian).max()
        np.testing.assert_allclose(block[0][lower], -hessian[lower], atol=close)
        checked += 1
    assert checked > 10


def climbed(shares, price, rng, starts=12):
    """The most that local searches find at a price, in logarithms of the shares."""
    k = shares.users.shape[-1]
    strength, coupling, weight = shares.strength[0], shares.coupling[0], shares.weight[0]

    def lost(logs):
        u = np.exp(logs)
        below = 1.0 + coupling @ u
        signal = strength * u
        slope = strength * weight / (below + signal)
        slope -= coupling.T @ (weight * signal / (below * (below + signal)))
        return price * u.sum() - weight @ np.log1p(signal / below), (price - slope) * u

    many = [
        minimize(lost, start, jac=True, method="L-BFGS-B", bounds=[(-40.0, 10.0)] * k).fun
        for start in rng.uniform(-12.0, 3.0, (starts, k))
    ]
    return max(0.0, -min(many))


# scenarios in which the best split at a price is known, whatever the weights and R_min
KNOWN = {
    "perfect SIC": dict(sic_residual=0.0, interference_gain="receiver"),
    "interferer, one ε": dict(interference_gain="interferer"),
    "receiver, ε = 1": dict(sic_residual=1.0, interference_gain="receiver"),
}


@pytest.mark.parametrize("changes", KNOWN.values(), ids=KNOWN)
def test_the_closed_form_at_a_price_is_never_below_a_search(changes):
    rng, checked = np.random.default_rng(0), 0
    for _ in range(30):
        one_epsilon = {"sic_residual": rng.choice([0.0, 1e-3, 1.0, rng.random()])} | changes
        shares = one(rng, int(rng.integers(2, 5)), **one_epsilon)
        price = 10 ** rng.uniform(-1.5, 1)
        if shares is None or shares.strongest[0]:
            continue
        found = optimum.certified_split(shares, price)
        u = found.u[0]
        assert found.value[0] == found.bound[0] and (u >= 0).all()
        assert excess(u, shares) - price * u.sum() == pytest.approx(found.value[0], abs=1e-9)
        assert shares.single[0] <= ((u > 0.0).sum() <= 1)
        own = np.diagonal(shares.coupling[0])
        alone = [
            subchannel.share_at(w / price, a, q)[0]
            for w, a, q in zip(shares.weight[0], shares.strength[0], own, strict=True)
        ]
        if max(alone) < 1.0:  # one user stops at all the spare power, the search does not
            assert climbed(shares, price, rng) <= found.value[0] + 1e-9
            checked += 1
    assert checked > 6


@pytest.mark.parametrize("gain", CONVENTIONS)
def test_at_any_power_one_user_takes_all_where_it_is_said(gain):
    """The theorem of `nomalib.takers` at a given power: no edge, no random split is better."""
    rng, checked = np.random.default_rng(2), 0
    along = np.linspace(0.0, 1.0, 41)[:, None]
    for _ in range(300):
        k = int(rng.integers(2, 6))
        epsilon = rng.choice([0.0, 1e-3, 0.1, rng.random(), 1.0]) if gain != "receiver" else 1.0
        shares = one(rng, k, sic_residual=epsilon, interference_gain=gain)
        if shares is None:
            continue
        assert shares.single[0]
        corners = rng.uniform(0.01, 1.0) * np.eye(k)
        edges = [along * corners[a] + (1 - along) * corners[b] for a in range(k) for b in range(a)]
        u = np.concatenate([corners, rng.dirichlet(np.full(k, 0.3), 200) @ corners, *edges])
        u = u[np.isclose(u.sum(axis=1), corners[0, 0])]
        rate = (
            np.log1p(shares.strength[0] * u / (1.0 + u @ shares.coupling[0].T)) @ shares.weight[0]
        )
        assert rate.max() <= rate[:k].max() * (1 + 1e-11)
        checked += 1
    assert checked > 200


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_strongest_takes_all_where_it_is_said(convention):
    """No split, on a grid of edges or at random, is worth more; and it is said where it should."""
    rng, said = np.random.default_rng(1), 0
    for kind in range(600):
        k = int(rng.integers(2, 5))
        changes = dict(interference_gain=convention)
        if kind % 3 < 2:
            changes["sic_residual"] = (0.0, 10 ** rng.uniform(-4, 0))[kind % 3]
        if kind % 3 > 0 and kind % 2:
            changes["min_rate"] = 0.0 if kind % 3 == 2 else rng.uniform(0, 0.4) + 1e-6
        shares = one(rng, k, **changes)
        if shares is None:
            continue
        # the same problem with the weight of the strongest raised to the others'
        shares = shares._replace(weight=np.minimum(shares.weight, shares.weight[:, :1]))
        net_says = polytope.reduce(
            Network(1, k, k, **changes), np.arange(k, 0.0, -1)[None], np.ones((1, k), bool)
        ).strongest[0]
        if not (shares.strongest[0] or net_says and "min_rate" in changes):
            continue
        said += 1
        u = rng.dirichlet(np.full(k, 0.3), 300)
        u[:k] = np.eye(k)
        best = (
            np.log1p(shares.strength[0] * u / (1.0 + u @ shares.coupling[0].T)) @ shares.weight[0]
        )
        assert best.max() <= best[0] * (1 + 1e-12)
    assert said > 100


def test_where_r_min_differs_the_strongest_need_not_take_all():
    """The example that keeps the theorem's condition: ε = 1, the weaker user owed 1 bps/Hz."""
    net = Network(1, 2, 2, sic_residual=1.0, min_rate=[0.0, 1.0], noise=1.0)
    shares = polytope.reduce(net, [[1.0, 0.9]], [[True, True]])
    assert shares.feasible and not shares.strongest[0]
    one_each = subchannel.excess_rate(
        polytope.Shares(*(np.stack([part, part]) for part in shares)), np.eye(2)[:, None]
    )
    assert one_each[1, 0] > one_each[0, 0]


def test_a_price_has_the_share_of_a_taker():
    net = Network(6, 6, 3, sic_residual=0.1)
    shares = polytope.reduce(net, *(part[0] for part in draws(net, 1, 3)))
    found = optimum.certified_split(shares, 2.0)
    alpha, q, x = shares.strength[:, 0], shares.coupling[:, 0, 0], found.u[:, 0]
    slope = alpha / ((1 + q * x) * (1 + (q + alpha) * x))
    np.testing.assert_allclose(slope[(x > 0) & (x < 1)], 2.0, rtol=1e-12)
    assert (slope[x == 0] <= 2.0).all() and (slope[x == 1] >= 2.0).all()
