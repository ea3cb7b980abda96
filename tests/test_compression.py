"""Compressed networks against dense ones, and artefacts against the Keras models they come from."""

import subprocess
import sys

import numpy as np
import pytest
from checks import CONVENTIONS
from checks import draws as new_draws
from scipy.linalg import circulant

from nomalib import compression, deployed, layers, learning, polytope, water_filling
from nomalib.layers import keras
from nomalib.network import Network

NET = Network()


@pytest.fixture(scope="module")
def draws():
    gains, assignment = new_draws(NET, 300, one_assignment=True)
    return gains, assignment, water_filling.allocate(NET, gains, assignment).power


@pytest.fixture(scope="module")
def trained(draws):
    model = learning.imitation_network(NET)
    learning.imitate(model, NET, *draws, epochs=2)
    return model


@pytest.fixture(scope="module")
def models(trained, draws):
    """One of each kind."""
    models = {"imitation": trained, "FFT": compression.circulant_network(NET)}
    pruned = compression.prune(trained, NET, *draws[:2], threshold=0.1)
    return models | {
        "int8": compression.quantise(pruned),
        "size-free": learning.equivariant_network(),
    }


@pytest.fixture(scope="module")
def artefacts(models, tmp_path_factory):
    """What is stored of each kind of model."""
    stored, path = {}, tmp_path_factory.mktemp("kinds") / "network"  # without an ending: it is kept
    for kind, model in models.items():
        compression.save(model, path)
        assert deployed.load(path).layers
        with np.load(path) as file:
            stored[kind] = dict(file)
    return stored


def deployed_power(model, net, gains, assignment, folder):
    compression.save(model, folder / "network.npz")
    return deployed.power(deployed.load(folder / "network.npz"), net, gains, assignment)


@pytest.mark.parametrize("inputs, units, block", [(13, 7, 4), (3, 5, 8)])
def test_circulant_blocks_are_a_dense_layer(inputs, units, block):
    layer = compression.BlockCirculant(units, block)
    x = np.random.default_rng(0).standard_normal((6, inputs)).astype(np.float32)
    y = np.asarray(layer(x))
    blocks = np.asarray(layer.circulant)
    dense = np.block([[circulant(first) for first in row] for row in blocks])
    np.testing.assert_allclose(y, x @ dense[:units, :inputs].T, atol=2e-6)
    assert layer.count_params() == -(-units // block) * -(-inputs // block) * block + units


def test_group_lasso_is_the_sum_of_the_norms_of_rows(trained):
    kernel = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]], np.float32)
    assert float(compression.GroupLasso(0.5)(kernel)) == pytest.approx(3.5, abs=1e-5)
    copy = compression.with_group_lasso(trained, 0.5)
    expected = sum(
        0.5 * np.linalg.norm(layer.get_weights()[0], axis=1).sum()
        for layer in trained.layers
        if layer.weights
    )
    assert float(sum(copy.losses)) == pytest.approx(expected, rel=1e-4)


def test_pruning_takes_what_does_nothing_and_no_more(trained, draws):
    """Neurons that are cut off by hand go, and the output stays what it was."""
    gains, assignment, _ = draws
    dense = [layer for layer in trained.layers if layer.weights]
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    weights = [layer.get_weights() for layer in dense]
    weights[1][0][50:], weights[3][0][:40] = 0.0, 0.0
    model.set_weights([part for pair in weights for part in pair])
    pruned = compression.prune(model, NET, gains, assignment, threshold=0.0)
    sizes = [layer.units for layer in pruned.layers if layer.weights]
    assert sizes[0] <= 50 and sizes[2] <= 40 and sizes[3] == 100
    before = learning.allocate(model, NET, gains, assignment).power
    after = learning.allocate(pruned, NET, gains, assignment).power
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_artefacts_equal_keras_and_shrink(models, draws, tmp_path):
    gains, assignment, _ = draws
    size = {}
    for name in ("imitation", "int8", "FFT"):
        model = models[name]
        mine = deployed_power(model, NET, gains, assignment, tmp_path)
        keras_power = learning.allocate(model, NET, gains, assignment).power
        np.testing.assert_allclose(mine / NET.budget, keras_power / NET.budget, atol=1e-5)
        artefact = deployed.load(tmp_path / "network.npz")
        one = deployed.power(artefact, NET, gains[0], assignment)
        np.testing.assert_allclose(one / NET.budget, mine[0] / NET.budget, atol=1e-6)
        if name != "int8":  # whose unread inputs and outputs are left out
            assert artefact.n_parameters == model.count_params()
        size[name] = (tmp_path / "network.npz").stat().st_size
    assert size["int8"] < size["imitation"] / 4
    assert size["FFT"] < size["imitation"] / 5


@pytest.mark.parametrize("gain", CONVENTIONS)
@pytest.mark.parametrize("n, m, k", [(10, 10, 3), (4, 12, 4), (6, 3, 1)])
def test_the_size_free_artefact_equals_keras(n, m, k, gain, tmp_path):
    rng = np.random.default_rng(3)
    net = Network(n, m, k, interference_gain=gain, sic_residual=rng.random((n, m)), noise=0.03)
    model = learning.equivariant_network()
    gains, assignment = new_draws(net, 200, rng)
    shares = polytope.reduce(net, gains, assignment)
    untrained = deployed_power(model, net, gains, assignment, tmp_path)
    # untrained, its last kernel is zero and would hide the hidden layers
    *others, kernel, _ = model.get_weights()
    bias = np.array([-20.0, 40.0, 20.0, 10.0])
    model.set_weights([*others, 10 * rng.standard_normal(kernel.shape), bias])
    mine = deployed_power(model, net, gains, assignment, tmp_path)
    theirs = learning.allocate(model, net, gains, assignment).power
    np.testing.assert_array_equal(np.isnan(mine).any(axis=(1, 2)), ~shares.feasible)
    np.testing.assert_allclose(mine / net.budget, theirs / net.budget, atol=1e-5)
    moved = np.abs(mine - untrained).max(axis=(1, 2))[shares.feasible] > 1e-3 * net.budget
    assert k == 1 or moved.mean() > 0.2


def test_artefacts_hold_no_pickle_and_say_what_they_are(trained, tmp_path):
    path = tmp_path / "network.npz"
    compression.save(trained, path)
    artefact = deployed.load(path)
    assert artefact.kind == "imitation" and artefact.shape == (10, 10)
    assert artefact.n_parameters == trained.count_params()
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert all(array.dtype.kind in "ifuU" for array in arrays.values())
    np.savez(path, **(arrays | {"version": 1}))
    with pytest.raises(ValueError, match="has version 1"):
        deployed.load(path)
    np.savez(path, **(arrays | {"kind": np.array([{}], object)}))
    with pytest.raises(ValueError, match="allow_pickle"):
        deployed.load(path)
    with pytest.raises(ValueError, match="artefact is for"):
        deployed.power(artefact, Network(1, 1), [[1.0]], [[True]])


@pytest.mark.parametrize(
    "kind, name, damage",
    [
        ("imitation", "outputs", lambda part: part + 10**9),
        ("imitation", "outputs", lambda part: part - 1),
        ("imitation", "outputs", lambda part: np.zeros_like(part)),
        ("imitation", "inputs", lambda part: part[:-1]),
        ("imitation", "shape", lambda part: part[:1]),
        ("imitation", "kernel_1", lambda part: part[:-1]),
        ("imitation", "bias_3", lambda part: part[:-1]),
        ("FFT", "kernel_0", lambda part: part[:, :-1]),
        ("int8", "scale_0", lambda part: part[:-1]),
        ("size-free", "bias_0", lambda part: part[:-1]),
        ("size-free", "kernel_2", lambda part: part[:, :1]),
        ("size-free", "shape", lambda part: part + 1),
        ("imitation", "version", None),
        ("imitation", "bias_0", None),
    ],
)
def test_a_damaged_artefact_is_refused(artefacts, tmp_path, kind, name, damage):
    """Compiled code trusts its indices: what does not fit must not come that far."""
    arrays = artefacts[kind].copy()
    part = arrays.pop(name)
    if damage is not None:
        arrays[name] = damage(part)
    np.savez(tmp_path / "damaged.npz", **arrays)
    with pytest.raises(ValueError, match="do not fit|it lacks 'version'"):
        deployed.load(tmp_path / "damaged.npz")
    np.save(tmp_path / "array.npy", part)
    with pytest.raises(ValueError, match="is no artefact"):
        deployed.load(tmp_path / "array.npy")


def test_a_network_without_an_artefact_is_refused_before_a_file_is_written(tmp_path):
    kept, dense = tmp_path / "network.npz", keras.layers.Dense
    compression.save(learning.imitation_network(NET), kept)
    before, seen = kept.read_bytes(), keras.Input((None, 32))
    shares = keras.Model(seen, layers.SpareShares()(seen, dense(4)(seen)), name="own")

    def papers(*hidden):
        flat = keras.Input((10, 10)), keras.layers.Flatten()
        return keras.Sequential([*flat, *hidden, keras.layers.Reshape((10, 10))])

    for match, model in (
        ("'own' is of kind 'shares'", shares),
        ("a Dense; it must", papers(dense(8, activation="tanh"), dense(100))),
        ("a Dense; it must", papers(dense(8), dense(100))),
        ("a Dense; it must", papers(dense(100, activation="softplus"))),
        ("a Dense; it must", papers(dense(100, use_bias=False))),
        ("a Dropout; it must", papers(keras.layers.Dropout(0.5), dense(100))),
    ):
        with pytest.raises(ValueError, match=match):
            compression.save(model, kept)
    assert kept.read_bytes() == before and [*tmp_path.iterdir()] == [kept]


def test_models_that_do_not_serve_are_refused(trained, draws):
    blocks = compression.circulant_network(NET)
    for match, call in (
        ("a BlockCirculant; it", lambda: compression.prune(blocks, NET, *draws[:2])),
        ("a BlockCirculant; it", lambda: compression.quantise(blocks)),
        (
            "must be imitation",
            lambda: compression.with_group_lasso(learning.equivariant_network(), 1),
        ),
        ("artefact is None", lambda: deployed.power(None, NET, *draws[:2])),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_running_an_artefact_needs_no_keras(trained, tmp_path):
    compression.save(trained, tmp_path / "network.npz")
    code = (
        "import sys; from nomalib import deployed; deployed.load(sys.argv[1]);"
        "assert not {'keras', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "network.npz"], check=True)
