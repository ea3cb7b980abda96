"""Runs a trained network from its artefact, as the software of a base station would: no Keras.

An artefact is one .npz file without pickled objects, written by `nomalib.compression.save`:

    version, kind       2; "imitation" or "size_free"
    shape               (N, M) of an imitation network; (K,), the users a subchannel may have
    inputs, outputs     which of the N·M gains the network reads, and which powers it writes
    kernel_l, bias_l    weights of layer l; a kernel of int8 has a scale_l for each output, one of
                        shape (q, r, b) holds the first columns of q × r circulant blocks

What stands between two layers is ReLU. No package is needed beyond those of the solvers.
"""

from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib import _features, _imitated
from nomalib._checks import Array, Weights
from nomalib._draws import flat_draws
from nomalib.network import Network, check_network
from nomalib.polytope import Allocation

__all__ = ["Artefact", "Layer", "VERSION", "allocate", "load", "power"]

VERSION = 2
# Rows of a product: enough to be fast, too few for BLAS to start threads beside ours.
_ROWS = 512
_FLOAT = np.dtype(np.float32)


class Layer(NamedTuple):
    """Weights of one layer; `scale` is that of an int8 kernel, else None."""

    kernel: NDArray
    bias: NDArray[np.float32]
    scale: NDArray[np.float32] | None


class Artefact(NamedTuple):
    """A network as it is deployed.

    Attributes:
        kind: "imitation" or "size_free".
        shape: (N, M), or (K,) of a size-free network.
        inputs: indices of the gains that it reads, of N·M; empty for a size-free network.
        outputs: indices of the powers that it writes, of N·M; empty for a size-free network.
        layers: from input to output.
        n_parameters: how many weights the file holds.
    """

    kind: str
    shape: tuple[int, ...]
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    layers: tuple[Layer, ...]
    n_parameters: int


def load(path: str | Path) -> Artefact:
    """Reads an artefact; it executes nothing that the file holds.

    Raises:
        ValueError: a file that is no artefact, of another version or kind, with pickled objects in
            it, or with layers or indices that do not fit each other: compiled code trusts them.
    """
    try:
        with open(path, "rb") as file:
            # NumPy does not check the sum of a part whose size is damaged too
            if damaged := ZipFile(file).testzip():
                raise ValueError(f"{damaged} is damaged")
            file.seek(0)
            stored = dict(np.load(file, allow_pickle=False))
        version, kind = int(stored["version"]), str(stored["kind"])
        shape = tuple(int(size) for size in stored["shape"])
    except KeyError as error:
        raise ValueError(f"{path} is no artefact: it lacks {error}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # there is no such file, or it must not be read
        # what a damaged file raises depends on where it is damaged
        raise ValueError(f"{path} is no artefact: {error!r}") from error
    if version != VERSION or kind not in ("imitation", "size_free"):
        raise ValueError(
            f"{path} has version {version} and kind {kind!r}; this reads version {VERSION} of "
            "'imitation' and 'size_free'"
        )
    if not _fits(kind, shape, stored):
        raise ValueError(f"{path} holds layers or indices that do not fit its shape {shape}")
    layers: list[Layer] = []
    n_parameters = 0
    while f"kernel_{len(layers)}" in stored:
        at = len(layers)
        kernel, bias, scale = stored[f"kernel_{at}"], stored[f"bias_{at}"], f"scale_{at}"
        n_parameters += kernel.size + bias.size
        # whole numbers up to 2^24 are exact in single precision, whose products are the faster
        kernel = np.fft.rfft(kernel) if kernel.ndim == 3 else kernel.astype(np.float32)
        layers.append(Layer(kernel, bias.astype(np.float32), stored.get(scale)))
    return Artefact(kind, shape, stored["inputs"], stored["outputs"], tuple(layers), n_parameters)


def _fits(kind: str, shape: tuple[int, ...], stored: dict[str, NDArray]) -> bool:
    """Whether nothing is missing, too much, infinite or of another type, and all sizes agree."""
    if len(shape) != (1 if kind == "size_free" else 2) or min(shape) < 1:
        return False
    depth = sum(name.startswith("kernel_") for name in stored)
    expected = {"version", "kind", "shape", "inputs", "outputs"}
    for at in range(depth):
        expected |= {f"kernel_{at}", f"bias_{at}"}
        if stored.get(f"kernel_{at}", np.empty(0)).dtype == np.int8:
            expected.add(f"scale_{at}")
    if depth == 0 or set(stored) != expected:
        return False
    inputs, outputs = stored["inputs"], stored["outputs"]
    for indices in (inputs, outputs):
        inside = (indices >= 0) & (indices < prod(shape))
        if indices.dtype.kind != "i" or indices.ndim != 1 or not inside.all():
            return False
        if np.unique(indices).size != indices.size:
            return False
    width, last = len(inputs), len(outputs)
    if kind == "size_free":
        width, last = _features.n_features(shape[0]), shape[0]
    for at in range(depth):
        kernel, bias = stored[f"kernel_{at}"], stored[f"bias_{at}"]
        sizes: tuple[int, ...] = (width, bias.size)
        if kernel.ndim == 3 and kind == "imitation" and kernel.dtype != np.int8:
            block = kernel.shape[2]
            if block < 2 or block % 2:
                return False
            sizes = (-(-bias.size // block), -(-width // block), block)
        scale = stored.get(f"scale_{at}", bias)
        if bias.ndim != 1 or scale.shape != bias.shape or kernel.shape != sizes:
            return False
        if kernel.dtype not in (np.int8, np.float32) or {bias.dtype, scale.dtype} != {_FLOAT}:
            return False
        if not all(np.isfinite(part).all() for part in (kernel, bias, scale)):
            return False
        width = bias.size
    return width == last


def allocate(
    artefact: Artefact,
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    weights: Weights = None,
) -> Allocation:
    """Power by a deployed network, as `nomalib.learning.allocate` by the Keras model.

    Args:
        artefact: what `load` read.
        net, gains, assignment, weights: as of `polytope.reduce`.

    >>> zero = Layer(np.zeros((12, 2), np.float32), np.zeros(2, np.float32), None)
    >>> nothing = np.zeros(0, np.int64)
    >>> artefact = Artefact("size_free", (2,), nothing, nothing, (zero,), 26)   # as `load` returns
    >>> net = Network(n_subchannels=2, n_users=2, power_dbm=30.0)
    >>> gains, everyone = [[2.0, 1.0], [1.0, 0.5]], np.ones((2, 2), bool)
    >>> round(float(allocate(artefact, net, gains, everyone).power.sum()), 9)
    1.0
    """
    draws = net, gains, assignment, weights
    kind, run = _check(artefact, net), partial(write, artefact)
    if kind == "size_free":
        return _features.allocate_by_takers(run, artefact.shape[0], *draws)
    return _imitated.allocate_by_powers(run, artefact.outputs, *draws)


def power(artefact: Artefact, net: Network, gains: ArrayLike, assignment: ArrayLike) -> Array:
    """The power [W] of `allocate` alone, (…, N, M), with the same arguments and errors."""
    if _check(artefact, net) == "size_free":
        return allocate(artefact, net, gains, assignment).power
    draws, lead = flat_draws(net, gains, assignment)
    out = _imitated.normalised(partial(write, artefact), artefact.outputs, net, draws)
    return out.reshape((*lead, *out.shape[1:]))


def write(artefact: Artefact, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network writes of gains (B, N·M), or of features (B, N, F)."""
    if artefact.kind == "imitation":
        return forward(artefact.layers, x[:, artefact.inputs])
    return forward(artefact.layers, x.reshape(-1, x.shape[2])).reshape((*x.shape[:2], -1))


def _check(artefact: Artefact, net: Network) -> str:
    """Its kind, if it is an artefact that can serve this scenario."""
    if not isinstance(artefact, Artefact):
        raise ValueError(f"artefact is {artefact!r}; it must be what load returns")
    check_network(net)
    shape = net.n_subchannels, net.n_users
    if artefact.kind == "imitation" and artefact.shape != shape:
        raise ValueError(f"artefact is for {artefact.shape}; net has {shape}")
    return artefact.kind


def forward(layers: tuple[Layer, ...], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The layers' output (B, O) for inputs (B, I), with ReLU between them."""
    out = np.empty((len(x), len(layers[-1].bias)), np.float32)
    for first in range(0, len(x), _ROWS):
        part = x[first : first + _ROWS]
        for at, layer in enumerate(layers):
            if at:
                np.maximum(part, 0.0, out=part)
            part = _product(layer, part)
            part += layer.bias
        out[first : first + _ROWS] = part
    return out


def _product(layer: Layer, x: NDArray[np.float32]) -> NDArray[np.float32]:
    if layer.kernel.ndim == 3:
        return _circulant(layer, x)
    if layer.scale is None:
        return x @ layer.kernel
    # 8-bit arithmetic as Keras's: the inputs, too, are rounded, to 127 steps a sample
    step = 127.0 / (np.abs(x).max(axis=1, keepdims=True) + np.float32(1e-7))
    return (np.clip(np.round(x * step), -127, 127) @ layer.kernel) / (layer.scale * step)


def _circulant(layer: Layer, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blocks of the output, Σ_r IFFT(FFT(w_qr) FFT(x_r))."""
    q, r, frequencies = layer.kernel.shape
    block = 2 * (frequencies - 1)
    padded = np.zeros((len(x), r * block), np.float32)
    padded[:, : x.shape[1]] = x
    spectrum = np.fft.rfft(padded.reshape(len(x), r, block))
    # one matrix product a frequency
    product = np.matmul(spectrum.transpose(2, 0, 1), layer.kernel.transpose(2, 1, 0))
    y = np.fft.irfft(product.transpose(1, 2, 0), n=block).reshape(len(x), q * block)
    return y[:, : len(layer.bias)].astype(np.float32)
