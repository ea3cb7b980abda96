"""Smaller networks of the paper's kind (Section IV-E), and the artefacts they are deployed as.

Group lasso with pruning, layers of circulant blocks multiplied by FFT, and 8-bit weights: each
gives an ordinary Keras model that `learning.imitate` trains and `learning.allocate` runs.
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nomalib import _imitated, deployed, layers
from nomalib._checks import checked_count, checked_number
from nomalib._draws import checked_draws
from nomalib.layers import GroupLasso, keras
from nomalib.learning import imitation_network
from nomalib.network import Network

__all__ = ["BlockCirculant", "circulant_network", "prune", "quantise", "save", "with_group_lasso"]

ops = keras.ops
_DENSE = (keras.layers.Dense,)


@keras.saving.register_keras_serializable("nomalib")
class BlockCirculant(keras.layers.Layer):
    """A dense layer of `units` whose kernel is made of circulant blocks, multiplied by FFT.

    It holds 1/block of a dense kernel. Inputs are padded with zeros to whole blocks.
    """

    def __init__(
        self, units: int, block: int, activation: str | None = None, seed: int = 0, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.block = checked_count("units", units, 1), checked_count("block", block, 2)
        if block % 2:
            raise ValueError(f"block is {block!r}; it must be even")
        self.activation, self.seed = keras.activations.get(activation), seed

    def build(self, input_shape):
        self.rows, self.columns = -(-self.units // self.block), -(-input_shape[-1] // self.block)
        # as Glorot's: a weight of the expanded kernel has variance 2/(inputs + units)
        limit = np.sqrt(6.0 / (input_shape[-1] + self.units))
        drawn = keras.initializers.RandomUniform(-limit, limit, self.seed)
        self.circulant = self.add_weight(
            shape=(self.rows, self.columns, self.block),
            # on one axis: XLA takes seconds to compile random numbers whose last axis is no vector
            initializer=lambda shape, dtype: ops.reshape(drawn((prod(shape),), dtype), shape),
            name="circulant",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs):
        missing = self.columns * self.block - inputs.shape[-1]
        padded = ops.pad(inputs, ((0, 0), (0, missing)))
        x_re, x_im = ops.rfft(ops.reshape(padded, (-1, self.columns, self.block)))
        w_re, w_im = ops.rfft(self.circulant)

        def product(x, w):
            return ops.einsum("brf,qrf->bqf", x, w)

        real = product(x_re, w_re) - product(x_im, w_im)
        imaginary = product(x_re, w_im) + product(x_im, w_re)
        y = ops.irfft((real, imaginary), fft_length=self.block)
        y = ops.reshape(y, (-1, self.rows * self.block))[:, : self.units]
        return self.activation(y + self.bias)

    def get_config(self) -> dict:
        activation = keras.activations.serialize(self.activation)
        own = {"units": self.units, "block": self.block, "seed": self.seed}
        return super().get_config() | own | {"activation": activation}


def circulant_network(net: Network, block: int = 10, seed: int = 0) -> keras.Model:
    """The paper's network with circulant blocks, of an even size, for its kernels.

    >>> circulant_network(Network(), block=10).count_params()    # 50,400/10 and the biases
    5500
    """

    def layer(units: int, activation: str | None, seed: int) -> BlockCirculant:
        return BlockCirculant(units, block, activation, seed)

    return imitation_network(net, seed, layer)


def with_group_lasso(model: keras.Model, strength: float) -> keras.Model:
    """A copy of an imitation network that pays for every neuron that the next layer listens to.

    `strength`, from 0 to 10⁹, is that of `GroupLasso`.

    >>> model = with_group_lasso(imitation_network(Network()), 1e-3)
    >>> len(model.losses)
    4
    """
    lasso = GroupLasso(checked_number("strength", strength, 0.0, 1e9))
    _trained(model, "imitation")

    def penalised(layer: keras.layers.Layer) -> keras.layers.Layer:
        extra = {"kernel_regularizer": lasso} if layer.weights else {}
        return type(layer).from_config(layer.get_config() | extra)

    copy = keras.models.clone_model(model, clone_function=penalised)
    copy.set_weights(model.get_weights())
    return copy


def prune(
    model: keras.Model,
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    threshold: float = 0.02,
) -> keras.Model:
    """A smaller network, without the neurons and inputs that hardly reach the next layer.

    A neuron reaches it by its root mean square activation times the norm of its row of weights;
    what is below `threshold` times the largest of its layer goes. So do the outputs of pairs that
    are never assigned, which nobody reads. Inputs and outputs go by weights of zero, which
    `save` leaves out.

    Args:
        model: an imitation network of dense layers, best trained under `GroupLasso`.
        net: the scenario.
        gains: magnitudes |g| to judge by, (B, N, M).
        assignment: bool, (N, M) or (B, N, M).
        threshold: in [0, 1].
    """
    threshold = checked_number("threshold", threshold, 0.0, 1.0)
    trained = _trained(model, "imitation", net=net)
    gains, assignment = checked_draws(net, gains, assignment)
    if gains.ndim != 3 or not len(gains):
        raise ValueError(f"gains has shape {gains.shape}; it must be (draws, N, M), of some draws")
    x = _imitated.read(net, gains, assignment).reshape(len(gains), -1)
    weights = [[np.array(part) for part in layer.get_weights()] for layer in trained]
    for at, (kernel, bias) in enumerate(weights):
        reach = np.sqrt((x**2).mean(axis=0)) * np.linalg.norm(kernel, axis=1)
        kept = reach > threshold * reach.max(initial=0.0)
        if at and not kept.any():
            kept[0] = True
        x = np.maximum(x @ kernel + bias, 0.0)
        if at:
            before_kernel, before_bias = weights[at - 1]
            weights[at - 1] = [before_kernel[:, kept], before_bias[kept]]
            weights[at] = [kernel[kept], bias]
        else:
            kernel[~kept] = 0.0
    unread = ~assignment.reshape(-1, x.shape[1]).any(axis=0)
    weights[-1][0][:, unread], weights[-1][1][unread] = 0.0, 0.0
    smaller = imitation_network(net, hidden=[len(bias) for _, bias in weights[:-1]])
    smaller.set_weights([part for pair in weights for part in pair])
    return smaller


def quantise(model: keras.Model) -> keras.Model:
    """A copy with 8-bit weights and arithmetic, by Keras: a scale for each output of a layer.

    Raises:
        ValueError: the model is no network of dense layers.
    """
    _trained(model, "imitation", "size_free")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in _trained(copy):
        layer.quantize("int8")
    return copy


def save(model: keras.Model, path: str | Path) -> None:
    """Writes a model as the artefact that `nomalib.deployed` runs; the file is replaced as a whole.

    It is read again and has to write what the model does, before it takes its place.

    Raises:
        ValueError: a layer that the artefact has no form for, by its name, or layers not in a row.
    """
    trained = _trained(model, "imitation", "size_free", forms=(*_DENSE, BlockCirculant))
    kind = layers.check_kind(model, None)
    kernels, biases, scales = [], [], {}
    for at, layer in enumerate(trained):
        stored = {variable.name: np.asarray(variable) for variable in layer.variables}
        kernels.append(stored["circulant" if "circulant" in stored else "kernel"])
        biases.append(stored["bias"])
        if "kernel_scale" in stored:
            scales[f"scale_{at}"] = stored["kernel_scale"]
    inputs = outputs = np.empty(0, np.int64)
    if kind == "imitation":
        inputs, outputs = np.arange(prod(model.input_shape[1:])), np.arange(len(biases[-1]))
        if kernels[0].ndim == kernels[-1].ndim == 2:
            _check_run(model, len(kernels[0]) == inputs.size)
            inputs = inputs[kernels[0].any(axis=1)]
            outputs = outputs[kernels[-1].any(axis=0) | (biases[-1] != 0)]
            kernels[0] = kernels[0][inputs]
            kernels[-1], biases[-1] = kernels[-1][:, outputs], biases[-1][outputs]
            for last in {f"scale_{len(kernels) - 1}"} & set(scales):
                scales[last] = scales[last][outputs]
    arrays: dict[str, Any] = {f"kernel_{at}": kernel for at, kernel in enumerate(kernels)}
    arrays |= {f"bias_{at}": bias for at, bias in enumerate(biases)} | scales
    arrays |= {"inputs": inputs.astype(np.int32), "outputs": outputs.astype(np.int32)}
    shape = model.input_shape[1:] if kind == "imitation" else model.output_shape[-1:]
    arrays |= {"version": deployed.VERSION, "kind": kind, "shape": shape}
    unfinished = Path(f"{path}.unfinished")
    try:
        with open(unfinished, "wb") as file:  # given a name, NumPy would add .npz to it
            np.savez(file, **arrays)
        _check_run(model, _agrees(model, deployed.load(unfinished)))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _agrees(model: keras.Model, artefact: deployed.Artefact) -> bool:
    """Whether a model writes what its artefact does."""
    rng, flat = np.random.default_rng(0), artefact.kind == "imitation"
    shape = (8, prod(artefact.shape)) if flat else (8, 1, model.input_shape[-1])
    x = rng.random(shape, np.float32)
    y = layers.run_flat(model, x)[:, artefact.outputs] if flat else layers.run(model, x)
    off = np.abs(deployed.write(artefact, x) - y).max(initial=0.0)
    # 8-bit products are rounded in another order
    scaled = any(layer.scale is not None for layer in artefact.layers)
    return off <= (0.1 if scaled else 1e-4) * max(1e-3, np.abs(y).max(initial=0.0))


def _check_run(model: keras.Model, same: bool) -> None:
    if not same:
        raise ValueError(
            f"model {model.name!r} must run its layers once each, one after the other, on all gains"
        )


def _trained(
    model: keras.Model, *kinds: str, net: Network | None = None, forms: tuple = _DENSE
) -> list[keras.layers.Layer]:
    """Its layers with weights, if all have a bias, one of these forms, and ReLU between them."""
    layers.check_kind(model, net, *kinds)
    bare = keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape
    trained = [layer for layer in model.layers if not isinstance(layer, bare)]
    for layer in trained:
        activation = keras.activations.get("linear" if layer is trained[-1] else "relu")
        fits = isinstance(layer, forms) and layer.activation is activation
        if not fits or layer.bias is None:
            raise ValueError(
                f"model {model.name!r} has {layer.name!r}, a {type(layer).__name__}; it must have "
                f"{' or '.join(form.__name__ for form in forms)} layers with a bias, with ReLU "
                "between them and linear outputs"
            )
    return trained
