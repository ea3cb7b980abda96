"""Smaller networks of the paper's kind (Section IV-E), and the artefacts they are deployed as.

Group lasso with pruning, layers of circulant blocks multiplied by FFT, and 8-bit weights: each
gives an ordinary Keras model that `learning.imitate` trains and `learning.allocate` runs.
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nomalib import deployed, layers
from nomalib.layers import keras
from nomalib.network import Network, checked_draws, is_number

ops = keras.ops


@keras.saving.register_keras_serializable("nomalib")
class GroupLasso(keras.regularizers.Regularizer):
    """strength · Σ ‖row‖₂ of a kernel: a row is all that the next layer hears of one neuron."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, kernel):
        # the constant keeps the gradient finite where a row is zero
        return self.strength * ops.sum(ops.sqrt(ops.sum(kernel**2, axis=1) + 1e-12))

    def get_config(self) -> dict:
        return {"strength": self.strength}


@keras.saving.register_keras_serializable("nomalib")
class BlockCirculant(keras.layers.Layer):
    """A dense layer of `units` whose kernel is made of circulant blocks, multiplied by FFT.

    It holds 1/block of a dense kernel. Inputs are padded with zeros to whole blocks.
    """

    def __init__(self, units: int, block: int, activation: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if block < 2 or block % 2:
            raise ValueError(f"block is {block!r}; it must be an even number of at least 2")
        self.units, self.block = units, block
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.rows, self.columns = -(-self.units // self.block), -(-input_shape[-1] // self.block)
        # as Glorot's: a weight of the expanded kernel has variance 2/(inputs + units)
        limit = np.sqrt(6.0 / (input_shape[-1] + self.units))
        drawn = keras.initializers.RandomUniform(-limit, limit)
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
        own = {"units": self.units, "block": self.block, "activation": activation}
        return super().get_config() | own


def circulant_network(net: Network, block: int = 10, seed: int = 0) -> keras.Model:
    """The paper's network with circulant blocks for its kernels.

    >>> circulant_network(Network(), block=10).count_params()    # 50,400/10 and the biases
    5500
    """
    keras.utils.set_random_seed(seed)
    shape = (net.n_subchannels, net.n_users)
    hidden = [BlockCirculant(width, block, "relu") for width in (200, 80, 80)]
    last = BlockCirculant(shape[0] * shape[1], block)
    return _between(shape, [*hidden, last])


def with_group_lasso(model: keras.Model, strength: float) -> keras.Model:
    """A copy of an imitation network that pays for every neuron that the next layer listens to."""
    copies = []
    for layer in _trained(model):
        config = layer.get_config() | {"kernel_regularizer": GroupLasso(strength)}
        copies.append(keras.layers.Dense.from_config(config))
    copy = _between(model.input_shape[1:], copies)
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
        threshold: in [0, 1).

    Raises:
        ValueError: naming the argument, the value and what is allowed.
    """
    if not is_number(threshold) or not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold is {threshold!r}; it must be a number in [0, 1)")
    gains, assignment = checked_draws(net, gains, assignment)
    if gains.ndim != 3 or not len(gains):
        raise ValueError(f"gains has shape {gains.shape}; it must be (draws, N, M), of some draws")
    x = (gains * assignment).reshape(len(gains), -1).astype(np.float32)
    weights = [[np.array(part) for part in layer.get_weights()] for layer in _trained(model)]
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
    sizes = [len(bias) for _, bias in weights]
    hidden = [keras.layers.Dense(size, activation="relu") for size in sizes[:-1]]
    smaller = _between(model.input_shape[1:], [*hidden, keras.layers.Dense(sizes[-1])])
    smaller.set_weights([part for pair in weights for part in pair])
    return smaller


def quantise(model: keras.Model) -> keras.Model:
    """A copy with 8-bit weights and arithmetic, by Keras: a scale for each output of a layer."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in _trained(copy):
        layer.quantize("int8")
    return copy


def save(model: keras.Model, path: str | Path) -> None:
    """Writes a model as the artefact that `nomalib.deployed` runs.

    Raises:
        ValueError: a layer that the artefact has no form for, naming it.
    """
    size_free = isinstance(model.layers[-1], layers.HEADS)
    if size_free and layers.size_free(model) is None:
        raise ValueError(
            f"model {model.name!r} ends in {type(model.layers[-1]).__name__} but is no equivariant "
            "network of dense layers in single precision, which alone has an artefact"
        )
    arrays: dict[str, Any] = {
        "version": deployed.VERSION,
        "kind": "size_free" if size_free else "imitation",
        "shape": [model.input_shape[-2]] if size_free else model.input_shape[1:],
    }
    kernels, biases = [], []
    for at, layer in enumerate(_trained(model)):
        stored = {variable.name: np.asarray(variable) for variable in layer.variables}
        quantised = "kernel_scale" in stored
        kernels.append(stored["circulant" if "circulant" in stored else "kernel"])
        biases.append(stored["bias"])
        if quantised:
            arrays[f"scale_{at}"] = stored["kernel_scale"]
    inputs = outputs = np.empty(0, np.int64)
    if not size_free:
        inputs = np.arange(int(np.prod(model.input_shape[1:])))
        outputs = np.arange(len(biases[-1]))
        if kernels[0].ndim == 2:
            inputs = inputs[kernels[0].any(axis=1)]
            outputs = outputs[kernels[-1].any(axis=0) | (biases[-1] != 0)]
            kernels[0] = kernels[0][inputs]
            kernels[-1], biases[-1] = kernels[-1][:, outputs], biases[-1][outputs]
            last = f"scale_{len(kernels) - 1}"
            if last in arrays:
                arrays[last] = np.asarray(arrays[last])[outputs]
    arrays |= {f"kernel_{at}": kernel for at, kernel in enumerate(kernels)}
    arrays |= {f"bias_{at}": bias for at, bias in enumerate(biases)}
    arrays |= {"inputs": inputs.astype(np.int32), "outputs": outputs.astype(np.int32)}
    with open(path, "wb") as file:  # given a name, NumPy would add .npz to it
        np.savez(file, **arrays)


def _between(shape: tuple[int, int], trained: list[keras.layers.Layer]) -> keras.Model:
    """Layers between gains (N, M) and powers [W] (N, M)."""
    return keras.Sequential(
        [
            keras.Input(shape, name="gains"),
            keras.layers.Flatten(),
            *trained,
            keras.layers.Reshape(shape),
        ],
        name="imitation",
    )


def _trained(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if layer.weights]
