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
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib import _features, _imitated
from nomalib._checks import Array, Weights
from nomalib._draws import flat_draws
from nomalib._imitated import LARGEST_GAIN
from nomalib.network import Network
from nomalib.polytope import Allocation

__all__ = ["Artefact", "LARGEST_GAIN", "Layer", "VERSION", "allocate", "load", "power"]

VERSION = 2
# Rows of a product: enough to be fast, too few for BLAS to start threads beside ours.
_ROWS = 512


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
        file = np.load(path, allow_pickle=False)
        stored = dict(file) if isinstance(file, np.lib.npyio.NpzFile) else {}
    except (ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is no artefact: {error}") from error
    missing = {"version", "kind", "shape", "inputs", "outputs", "kernel_0", "bias_0"} - set(stored)
    if missing:
        raise ValueError(f"{path} is no artefact: it lacks {sorted(missing)}")
    version, kind = int(stored["version"]), str(stored["kind"])
    if version != VERSION or kind not in ("imitation", "size_free"):
        raise ValueError(
            f"{path} has version {version} and kind {kind!r}; this reads version {VERSION} of "
            "'imitation' and 'size_free'"
        )
    shape = tuple(int(size) for size in stored["shape"])
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
    """Whether the indices of an artefact lie within its shape, and its layers fit each other."""
    if len(shape) != (1 if kind == "size_free" else 2) or min(shape) < 1:
        return False
    inputs, outputs = stored["inputs"], stored["outputs"]
    for indices in (inputs, outputs):
        inside = (indices >= 0) & (indices < prod(shape))
        if indices.ndim != 1 or not inside.all() or np.unique(indices).size != indices.size:
            return False
    width, last = len(inputs), len(outputs)
    if kind == "size_free":
        width, last = _features.n_features(shape[0]), shape[0]
    at = 0
    while f"kernel_{at}" in stored:
        kernel, bias = stored[f"kernel_{at}"], stored.get(f"bias_{at}", np.empty(()))
        expected: tuple[int, ...] = (width, bias.size)
        if kernel.ndim == 3 and kind == "imitation" and kernel.shape[2] > 0:
            block = kernel.shape[2]
            expected = (-(-bias.size // block), -(-width // block), block)
        if bias.ndim != 1 or kernel.shape != expected:
            return False
        if stored.get(f"scale_{at}", bias).shape != bias.shape:
            return False
        width, at = bias.size, at + 1
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
    if _check(artefact, net) == "size_free":
        run = partial(_correct, artefact)
        return _features.allocate_by_takers(run, artefact.shape[0], *draws)
    return _imitated.allocate_by_powers(partial(_write, artefact), artefact.outputs, *draws)


def power(artefact: Artefact, net: Network, gains: ArrayLike, assignment: ArrayLike) -> Array:
    """The power [W] of `allocate` alone, (…, N, M), with the same arguments and errors."""
    if _check(artefact, net) == "size_free":
        return allocate(artefact, net, gains, assignment).power
    draws, lead = flat_draws(net, gains, assignment)
    out = _imitated.normalised(partial(_write, artefact), artefact.outputs, net, draws)
    return out.reshape((*lead, *out.shape[1:]))


def _correct(artefact: Artefact, features: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = features.reshape(-1, features.shape[2])
    return forward(artefact.layers, rows).reshape((*features.shape[:2], -1))


def _write(artefact: Artefact, gains: NDArray[np.float32]) -> NDArray[np.float32]:
    return forward(artefact.layers, gains[:, artefact.inputs])


def _check(artefact: Artefact, net: Network) -> str:
    """Its kind, if it is an artefact that can serve this scenario."""
    if not isinstance(artefact, Artefact):
        raise ValueError(f"artefact is {artefact!r}; it must be what load returns")
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
