"""Learned allocation: feasibility whatever the weights, symmetry, seeds, and the exact optimum."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from checks import CONVENTIONS, assert_allocation, assert_feasible, draws, same
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from nomalib import (
    _features,
    interior_point,
    layers,
    learning,
    optimum,
    polytope,
    rates,
    water_filling,
)
from nomalib.layers import keras
from nomalib.network import Network

SMALL = Network(n_subchannels=3, n_users=4)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="module")
def untrained():
    """One size-free network for all tests that give it weights of their own: it compiles once."""
    return learning.equivariant_network()


@pytest.fixture(scope="module")
def trained():
    """A size-free network after a short training on uniform and heterogeneous ε."""
    rng = np.random.default_rng(1)
    model = learning.equivariant_network()
    networks = [Network(), Network(sic_residual=rng.random((10, 10)))]
    learning.maximise_sum_rate(model, networks, epochs=1, steps_per_epoch=120)
    return model


def randomised(model, rng, size):
    """The model with weights that no training would give."""
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0.0, size, weight.shape))
    return model


def flat_weights(model):
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def with_output_bias(model, bias):
    weights = model.get_weights()
    weights[-1][:] = bias
    model.set_weights(weights)
    return model


def labelled(net, n_draws, rng):
    gains, assignment = draws(net, n_draws, rng, one_assignment=True)
    return gains, assignment, water_filling.allocate(net, gains, assignment).power


# the paper's network


def test_imitation_network_is_the_papers_and_its_seeds():
    net = Network(n_subchannels=4, n_users=7)
    model, other, again = (learning.imitation_network(net, seed) for seed in (0, 1, 0))
    assert (flat_weights(model) != flat_weights(other)).any()
    np.testing.assert_array_equal(flat_weights(model), flat_weights(again))
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [200, 80, 80, 28]
    assert [layer.activation.__name__ for layer in dense] == ["relu"] * 3 + ["linear"]
    assert model.input_shape == model.output_shape == (None, 4, 7)


def test_imitated_power_is_normalised_and_only_on_assigned_places(rng):
    net = Network(n_subchannels=5, n_users=6)
    gains, assignment = draws(net, 200, rng, one_assignment=True)
    model = learning.imitation_network(net)
    found = learning.allocate(model, net, gains, assignment)
    served = found.feasible
    assert 0 < served.sum() < 200
    output = np.maximum(model.predict_on_batch((gains * assignment).astype(np.float32)), 0)
    shares = output * assignment / (output * assignment).sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found.power[served], net.budget * shares[served], rtol=1e-5)
    np.testing.assert_allclose(found.power[served].sum(axis=(1, 2)), net.budget, rtol=1e-12)
    assert np.isnan(found.power[~served]).all() and not found.converged[~served].any()
    violated = rates.qos_violation(net, gains, assignment, found.power)
    np.testing.assert_array_equal(found.converged, violated == 0)
    assert (found.n_iter == 1).all() and np.isnan(found.residual).all()


@pytest.mark.parametrize("bias", [-1e3, np.nan])
def test_a_draw_without_positive_output_gets_equal_power(rng, bias):
    """So does every feasible draw where the weights are not numbers."""
    model = with_output_bias(learning.imitation_network(SMALL), bias)
    gains, assignment, labels = labelled(SMALL, 5, rng)
    found = learning.allocate(model, SMALL, gains, assignment)
    np.testing.assert_array_equal(found.feasible, ~np.isnan(labels).any(axis=(1, 2)))
    equal = np.where(assignment, SMALL.budget / assignment.sum(), 0.0)
    power = found.power[found.feasible]
    np.testing.assert_allclose(power, np.broadcast_to(equal, power.shape))


def test_imitation_learns_more_than_the_mean_label(rng):
    gains, assignment, labels = labelled(SMALL, 4000, rng)
    model = learning.imitation_network(SMALL)
    held_out = gains[3000:], assignment, labels[3000:]
    train = gains[:3000], assignment, labels[:3000]
    history = learning.imitate(model, SMALL, *train, epochs=20, validation=held_out)
    assert set(history) == {"loss", "val_loss"} and len(history["loss"]) == 20
    watt = model.predict_on_batch((held_out[0] * assignment).astype(np.float32))
    mse = np.nanmean((watt - held_out[2]) ** 2)
    np.testing.assert_allclose(history["val_loss"][-1], mse, rtol=1e-3)
    assert mse < 0.6 * np.nanmean((labels - np.nanmean(labels, axis=0)) ** 2)


def test_imitation_leaves_infeasible_draws_out_and_repeats_to_the_bit(rng):
    gains, assignment, labels = labelled(SMALL, 300, rng)
    known = ~np.isnan(labels).any(axis=(1, 2))
    assert not known.all()

    def weights(seed, kept):
        model = learning.imitation_network(SMALL)
        learning.imitate(model, SMALL, gains[kept], assignment, labels[kept], epochs=2, seed=seed)
        return flat_weights(model)

    first = weights(3, slice(None))
    np.testing.assert_array_equal(first, weights(3, known))
    assert (first != weights(4, known)).any()


def test_repair_is_feasible_and_keeps_what_is_feasible(rng):
    net = Network(sic_residual=rng.random((10, 10)), min_rate=0.1)
    gains, assignment = draws(net, 300, rng)
    repaired = learning.repair(net, gains, assignment, rng.exponential(size=gains.shape))
    feasible = polytope.reduce(net, gains, assignment).feasible
    assert_feasible(net, gains, assignment, repaired, feasible)
    np.testing.assert_allclose(repaired[feasible].sum(axis=(1, 2)), net.budget, rtol=1e-9)
    again = learning.repair(net, gains, assignment, repaired)
    np.testing.assert_allclose(again, repaired, rtol=1e-6, atol=1e-9)


# the feasible head and the layers before it


def check_feasible(net, gains, assignment, found):
    """R_min and the whole budget on every feasible draw, NaN on the others."""
    assert_allocation(net, gains, assignment, found, optimal=False)
    same([found.converged, np.isnan(found.residual)], [found.feasible, ~found.feasible])
    spent = found.power[found.feasible].sum(axis=(1, 2))
    np.testing.assert_allclose(spent, net.budget, rtol=1e-5)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([0.1, 1.0, 30.0]),
    span=st.sampled_from([0.0, 1.0, 3.0]),
    spare=st.sampled_from([0.5, 1e-3, 1e-6, 1e-9]),
    min_rate=st.sampled_from([1e-3, 0.1, 1.0]),
    gain=st.sampled_from(CONVENTIONS),
)
def test_any_weights_meet_rates_and_budget(untrained, seed, size, span, spare, min_rate, gain):
    rng = np.random.default_rng(seed)
    model = randomised(untrained, rng, size)
    options = dict(sic_residual=rng.random((3, 5)), min_rate=min_rate, interference_gain=gain)
    net = Network(3, 5, noise=1e-3, **options)
    gains, assignment = draws(net, 16, rng)
    gains *= 10 ** rng.uniform(-span, span, gains.shape)
    # the least power is proportional to the noise: a noise that leaves one draw just this spare
    need = 1.0 - polytope.reduce(net, gains, assignment).spare
    need = need[np.isfinite(need) & (need > 0)]
    if need.size:
        net = Network(3, 5, noise=net.noise * (1 - spare) / np.median(need), **options)
    check_feasible(net, gains, assignment, learning.allocate(model, net, gains, assignment))


def test_the_head_is_feasible_on_any_layers(rng):
    """On layers of one's own; the shares are what they write."""
    seen = keras.Input((None, 32))
    model = keras.Model(seen, layers.SpareShares()(seen, keras.layers.Dense(4)(seen)))
    net, model = Network(sic_residual=rng.random((10, 10))), randomised(model, rng, 1.0)
    gains, assignment = draws(net, 500, rng)
    found = learning.allocate(model, net, gains, assignment)
    check_feasible(net, gains, assignment, found)
    shares = polytope.reduce(net, gains, assignment)
    u = model.predict_on_batch(layers.features(shares, 4))[..., :3]
    same_power = polytope.allocation(net, shares, np.asarray(u, float)).power
    np.testing.assert_allclose(found.power, same_power, rtol=1e-5, atol=1e-6)


def test_permuting_permutes_and_subchannels_that_serve_nobody_change_nothing(untrained, rng):
    model, residual = randomised(untrained, rng, 0.3), rng.random((6, 5))
    net = Network(6, 5, sic_residual=residual)
    gains, assignment = draws(net, 50, rng)
    assignment[:, 4:] = False
    power = learning.allocate(model, net, gains, assignment).power
    i, j = rng.permutation(6), rng.permutation(5)
    for part in np.ix_(i, range(5)), np.ix_(range(6), j), np.ix_(range(4), range(5)):
        moved = Network(*residual[part].shape, sic_residual=residual[part])
        case = gains[:, *part], assignment[:, *part]
        found = learning.allocate(model, moved, *case).power
        np.testing.assert_allclose(found, power[:, *part], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise, residual", [(0.01, 0.5), (30.0, 0.0), (30.0, 0.01)])
def test_untrained_it_is_the_exact_optimum_where_epsilon_is_uniform(rng, noise, residual):
    net = Network(noise=noise, sic_residual=residual, min_rate=1e-4)
    case = net, *draws(net, 300, rng)
    exact = water_filling.allocate(*case)
    found = learning.allocate(learning.equivariant_network(), *case)
    assert (found.residual <= 1e-8)[found.feasible].all()
    np.testing.assert_allclose(found.sum_rate, exact.sum_rate, rtol=1e-10)


GRID = np.linspace(0.0, 1.0, 20_001)[:, None]


def worths(alpha, q, price):
    """Of every share on a grid."""
    return np.log1p(alpha * GRID / (1 + q * GRID)) - price * GRID


def priced(alpha, q):
    """The price at which the best shares of takers, found on a grid, make up one."""

    def spent(log_price):
        return GRID[worths(alpha, q, np.exp(log_price)).argmax(axis=0), 0].sum() - 1

    return np.exp(optimize.brentq(spent, -20, 20, xtol=1e-12))


def test_worths_are_those_at_the_price_and_the_loss_is_what_a_choice_costs(rng):
    """By search on a grid, at a price set twice; and the loss by hand."""
    net = Network(sic_residual=rng.random((10, 10)), noise=0.01)
    shares = polytope.reduce(net, *draws(net, 12, rng))
    shares = polytope.Shares(*(part[shares.feasible] for part in shares))
    seen = _features.look(shares, 3)
    standing = seen.features[..., :3]
    for draw, alpha in enumerate(shares.strength):
        q, takers = np.diagonal(shares.coupling[draw], axis1=1, axis2=2), np.zeros((10, 1), int)
        for _ in range(2):
            price = priced(*(np.take_along_axis(part, takers, 1)[:, 0] for part in (alpha, q)))
            worth = np.stack([worths(alpha[:, k], q[:, k], price).max(axis=0) for k in range(3)], 1)
            takers = worth.argmax(axis=1)[:, None]
        expected = worth - worth.max(axis=1, keepdims=True)
        np.testing.assert_allclose(seen.worth[draw], expected, atol=2e-3)
        np.testing.assert_array_equal(standing[draw].argmax(axis=1), takers[:, 0])
    correction = rng.normal(size=seen.worth.shape)
    time = np.exp(4 * standing + 6 * correction / (1 + np.abs(correction)))
    cost = -(seen.worth * time).sum(axis=-1) / time.sum(axis=-1)
    loss = layers.SumRate()(np.concatenate([seen.worth, standing], axis=-1), correction)
    np.testing.assert_allclose(float(loss), cost.mean(), rtol=1e-5)


def test_users_that_weigh_more_get_their_due(rng):
    net = Network(sic_residual=0.1, noise=0.01)
    case, weights = (net, *draws(net, 60, rng)), rng.random((60, 10))
    model = learning.equivariant_network()
    found = learning.allocate(model, *case, weights)
    best = optimum.allocate(*case, weights=weights)
    ratio = (found.sum_rate / best.upper_bound)[found.feasible]
    assert ratio.mean() > 1 - 1e-4 and ratio.max() < 1 + 1e-9
    deaf = rates.rates(*case, learning.allocate(model, *case).power)
    deaf = (deaf * weights[:, None]).sum(axis=(1, 2))
    assert (found.sum_rate > deaf)[found.feasible].mean() > 0.9


# sum-rate training


def ratios(model, net, reference, rng):
    """Sum rate relative to the reference's on the feasible draws of 600."""
    gains, assignment = draws(net, 600, rng)
    found = learning.allocate(model, net, gains, assignment)
    check_feasible(net, gains, assignment, found)
    kept = found.feasible
    assert kept.sum() > 30
    case = net, gains[kept], assignment[kept]
    return rates.sum_rate(*case, found.power[kept]) / rates.sum_rate(*case, reference(*case).power)


@pytest.mark.parametrize(
    "net, n_draws, short", [(Network(), 600, 1e-8), (Network(60, 60, noise=0.03), 60, 1e-3)]
)
def test_training_keeps_the_optimum_of_uniform_epsilon_at_any_size(
    trained, rng, net, n_draws, short
):
    case = net, *draws(net, n_draws, rng)
    found, best = learning.allocate(trained, *case), water_filling.allocate(*case)
    same([found.feasible], [best.feasible])
    ratio = (rates.sum_rate(*case, found.power) / rates.sum_rate(*case, best.power))[found.feasible]
    assert ratio.size > 5 and ratio.min() > 1 - short and ratio.max() < 1 + 1e-8


@pytest.mark.parametrize("noise", [0.1, 0.01, 0.001])
def test_the_network_beats_the_interior_point_from_one_start(trained, rng, noise):
    """Heterogeneous ε, for which the method is local."""
    net = Network(noise=noise, sic_residual=rng.random((10, 10)))
    one_start = partial(interior_point.allocate, restarts=0)
    assert ratios(trained, net, one_start, np.random.default_rng(2)).mean() > 1
    ratio = ratios(trained, net, optimum.allocate, np.random.default_rng(2))
    assert ratio.mean() > 0.999 and ratio.max() < 1 + 1e-6


def test_training_finds_who_takes_the_power():
    """From random weights, which often pick the wrong user."""
    rng = np.random.default_rng(23)
    net = Network(noise=0.001, sic_residual=rng.random((10, 10)))
    model = randomised(learning.equivariant_network(seed=1), rng, 1.0)
    before = ratios(model, net, optimum.allocate, np.random.default_rng(2))
    learning.maximise_sum_rate(model, [net], epochs=1, steps_per_epoch=200, batch_size=128)
    after = ratios(model, net, optimum.allocate, np.random.default_rng(2))
    assert before.mean() < 0.9 and after.mean() > 0.999


def test_residual_tells_how_far_from_optimal_a_power_is(trained, rng):
    net = Network()
    gains, assignment = draws(net, 500, rng)
    # who is next to the strongest takes
    second = with_output_bias(learning.equivariant_network(), [-1e3, 1e3, 0.0, 0.0])
    wrong, right = (learning.allocate(model, net, gains, assignment) for model in (second, trained))
    assert (right.n_iter == 1).all()
    assert (right.residual <= 1e-8)[right.feasible].all()
    assert (wrong.residual > 1e-3)[wrong.feasible].all()


def test_saved_model_gives_the_same_power(trained, rng, tmp_path):
    gains, assignment = draws(Network(), 20, rng, one_assignment=True)
    for model in (trained, learning.imitation_network(Network())):
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        same(*(learning.allocate(one, Network(), gains, assignment) for one in (model, loaded)))


def train_imitation(callbacks):
    gains, assignment, labels = labelled(SMALL, 60, np.random.default_rng(0))
    model = learning.imitation_network(SMALL)
    options = dict(epochs=3, batch_size=20, callbacks=callbacks)
    learning.imitate(model, SMALL, gains, assignment, labels, **options)
    return flat_weights(model)


def train_size_free(callbacks):
    model = learning.equivariant_network(width=4)
    options = dict(epochs=3, steps_per_epoch=4, batch_size=8, callbacks=callbacks)
    learning.maximise_sum_rate(model, [SMALL, Network(n_subchannels=3, n_users=5)], **options)
    return flat_weights(model)


@pytest.mark.parametrize("train", [train_imitation, train_size_free])
def test_training_that_stopped_goes_on_as_if_it_had_not(train, tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = str(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        train([keras.callbacks.BackupAndRestore(backup), Crash()])
    resumed = train([keras.callbacks.BackupAndRestore(backup)])
    np.testing.assert_array_equal(resumed, train([]))


def test_another_backend_of_keras_is_refused():
    code = "import os; os.environ['KERAS_BACKEND'] = 'numpy'; from nomalib import learning"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "need Keras on JAX, and it runs on 'numpy': set KERAS_BACKEND=jax" in found.stderr


def test_models_that_map_something_else_are_refused(untrained, rng):
    case = SMALL, *draws(SMALL, 3, rng, one_assignment=True)
    labels, papers = np.ones((3, 3, 4)), learning.imitation_network(SMALL)
    strange = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    for match, call in (
        ("it must be imitation", lambda: learning.imitate(untrained, *case, labels)),
        ("it must be size_free", lambda: learning.maximise_sum_rate(papers, [SMALL])),
        ("model is 'x.keras'", lambda: learning.allocate("x.keras", *case)),
        (r"model maps \(7,\)", lambda: learning.allocate(strange, *case)),
        ("validation is", lambda: learning.imitate(papers, *case, labels, validation=case[1:])),
    ):
        with pytest.raises(ValueError, match=match):
            call()
