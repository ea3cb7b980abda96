"""Runs a trained network from its artefact, as the software of a base station would: no Keras.

An artefact is one .npz file without pickled objects, written by `nomalib.compression.save`:

    version, kind       1; "imitation" or "size_free"
    shape               (N, M) of an imitation network; (K,), the users a subchannel may have
    inputs, outputs     which of the N·M gains the network reads, and which powers it writes
    kernel_l, bias_l    weights of layer l; a kernel of int8 has a scale_l for each output, one of
                        shape (q, r, b) holds the first columns of q × r circulant blocks

A NumPy archive and a compiled kernel need no package beyond those of the solvers, and they take
less time for one draw than a general graph runtime takes to be called.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

from nomalib import polytope
from nomalib.network import Network

VERSION = 1
NEWTON_STEPS = 4  # of the level, and the range of α and Q: those of `nomalib.layers`
SMALLEST, LARGEST = 1e-12, 1e12


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
    """

    kind: str
    shape: tuple[int, ...]
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    layers: tuple[Layer, ...]

    @property
    def n_parameters(self) -> int:
        """Numbers that were trained."""
        return sum(layer.kernel.size + layer.bias.size for layer in self.layers)


def load(path: str | Path) -> Artefact:
    """Reads an artefact; it executes nothing that the file holds.

    Raises:
        ValueError: a file of another version or kind, or with pickled objects in it.
    """
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    version, kind = int(stored["version"]), str(stored["kind"])
    if version != VERSION or kind not in ("imitation", "size_free"):
        raise ValueError(
            f"{path} has version {version} and kind {kind!r}; this reads version {VERSION} of "
            "'imitation' and 'size_free'"
        )
    layers: list[Layer] = []
    while f"kernel_{len(layers)}" in stored:
        at = len(layers)
        kernel, scale = stored[f"kernel_{at}"], stored.get(f"scale_{at}")
        # whole numbers up to 2^24 are exact in single precision, whose products are the faster
        kernel = np.fft.rfft(kernel) if kernel.ndim == 3 else kernel.astype(np.float32)
        layers.append(Layer(kernel, stored[f"bias_{at}"], scale))
    shape = tuple(int(size) for size in stored["shape"])
    return Artefact(kind, shape, stored["inputs"], stored["outputs"], tuple(layers))


def power(
    artefact: Artefact, net: Network, gains: ArrayLike, assignment: ArrayLike
) -> NDArray[np.float64]:
    """Power [W] by a deployed network, (…, N, M); NaN for an infeasible draw.

    Args:
        artefact: what `load` read.
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).

    Raises:
        ValueError: naming the argument, the value and what is allowed.
    """
    gains, assignment, lead = polytope.flat_draws(net, gains, assignment)
    constants = polytope.constants(net, assignment)
    if artefact.kind == "size_free":
        if constants[4] > artefact.shape[0]:
            raise ValueError(
                f"assignment puts {constants[4]} users on a subchannel; the artefact takes "
                f"{artefact.shape[0]}"
            )
        kernels = tuple(layer.kernel for layer in artefact.layers)
        biases = tuple(layer.bias for layer in artefact.layers)
        out = _size_free(
            gains, assignment, constants, net.budget, artefact.shape[0], kernels, biases
        )
    else:
        if artefact.shape != gains.shape[1:]:
            raise ValueError(f"artefact is for {artefact.shape}; net has {gains.shape[1:]}")
        seen = (gains * assignment).reshape(len(gains), -1)[:, artefact.inputs]
        written = forward(artefact.layers, seen.astype(np.float32))
        out = _normalised(gains, assignment, constants, net.budget, artefact.outputs, written)
    return out.reshape((*lead, *out.shape[1:]))


def forward(layers: tuple[Layer, ...], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The layers' output for inputs (B, I), with ReLU between them."""
    for at, layer in enumerate(layers):
        if at:
            x = np.maximum(x, 0.0)
        if layer.kernel.ndim == 3:
            x = _circulant(layer, x)
        elif layer.scale is not None:
            # 8-bit arithmetic as Keras's: the inputs, too, are rounded, to 127 steps a sample
            step = 127.0 / (np.abs(x).max(axis=1, keepdims=True) + np.float32(1e-7))
            x = (np.clip(np.round(x * step), -127, 127) @ layer.kernel) / (layer.scale * step)
        else:
            x = x @ layer.kernel
        x = x + layer.bias
    return x


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


@njit(cache=True, parallel=True)
def _normalised(gains, assignment, constants, budget, outputs, written):
    """Algorithm 1, line 7; a draw without a positive output gets equal power."""
    n_draws, n, m = gains.shape
    out = np.zeros((n_draws, n, m))
    for b in prange(n_draws):
        assigned = assignment[np.intp(b) % np.intp(assignment.shape[0])]
        users, minimal, spread, strength, coupling = polytope.empty_shares(n, constants[4])
        spare = polytope.reduce_draw(
            gains[b], assigned, constants, users, minimal, spread, strength, coupling
        )
        if not spare >= 0.0:
            out[b] = np.nan
            continue
        total = 0.0
        for at in range(outputs.shape[0]):
            i, j = outputs[at] // m, outputs[at] % m
            if assigned[i, j] and written[b, at] > 0.0:
                out[b, i, j] = written[b, at]
                total += written[b, at]
        if total == 0.0:
            out[b] = assigned * 1.0
            total = out[b].sum()
        out[b] *= budget / total
    return out


@njit(cache=True)
def alone(level, strength, own):
    """w(ℓ) and dw/dℓ of a slot that is alone on its subchannel, (slot) of `nomalib.layers`."""
    rho = strength / (strength + 2.0 * own)
    head = max(strength * level - 1.0, 0.0)
    root = np.sqrt(1.0 + (1.0 - rho * rho) * head)
    return 2.0 * rho * head / (strength * (1.0 + root)), rho / root if head > 0.0 else 0.0


@njit(cache=True)
def common_level(strength, coupling, fraction, in_use, slots):
    """ℓ at which Σ fraction · w(ℓ) = 1 over the first `slots` of each subchannel."""
    low, high = np.inf, 1e30
    for i in range(strength.shape[0]):
        for k in range(slots):
            a, q = strength[i, k], coupling[i, k, k]
            w = 1.0 / in_use
            low = min(low, (1.0 + q * w) * (1.0 / a + (1.0 + q / a) * w))
            if fraction[i, k] > 0.5:
                w = 1.0 / fraction[i, k]
                high = min(high, (1.0 + q * w) * (1.0 / a + (1.0 + q / a) * w))
    level = np.sqrt(low) * np.sqrt(high)
    for _ in range(NEWTON_STEPS):
        total, slope = 0.0, 0.0
        for i in range(strength.shape[0]):
            for k in range(slots):
                w, dw = alone(level, strength[i, k], coupling[i, k, k])
                total += fraction[i, k] * w
                slope += fraction[i, k] * dw
        level = min(max(level + (1.0 - total) / max(slope, 1e-30), low), high)
    return level


@njit(cache=True)
def signed_log(x):
    return np.sign(x) * np.log1p(abs(x))


@njit(cache=True)
def look(strength, coupling, filled, level, seen):
    """The features of one subchannel at a level, those of `nomalib.layers.AtThePrice`."""
    slots = strength.shape[0]
    worth, w = np.empty(slots), np.empty(slots)
    for k in range(slots):
        w[k], _ = alone(level, strength[k], coupling[k, k])
        worth[k] = np.log1p(strength[k] * w[k] / (1.0 + coupling[k, k] * w[k])) - w[k] / level
    best = np.argmax(worth)
    below = 1.0 + coupling[:, best] * w[best]
    # only the best slot has power, so only its rate is lost to others
    above = below.copy()
    above[best] += strength[best] * w[best]
    lost = coupling[best] * (strength[best] * w[best] / (below[best] * above[best]))
    seen[:] = 0.0
    for k in range(slots):
        if filled[k]:
            seen[k] = 1.0 if k == best else 0.0
            seen[slots + k] = np.log(max(strength[k] * level, 1e-6))
            seen[2 * slots + k] = signed_log(20.0 * (worth[k] - worth[best]))
            seen[3 * slots + k] = signed_log(level * (strength[k] / above[k] - lost[k]) - 1.0)
        for other in range(slots):
            seen[(4 + k) * slots + other] = np.log1p(coupling[k, other] * w[other])


@njit(cache=True)
def _size_free_draw(gains, assigned, constants, budget, slots, kernels, biases, out):
    n, fullest = gains.shape[0], constants[4]
    users, minimal, spread, alpha, beside = polytope.empty_shares(n, fullest)
    spare = polytope.reduce_draw(gains, assigned, constants, users, minimal, spread, alpha, beside)
    if not spare >= 0.0:
        out[:] = np.nan
        return
    strength, coupling = np.full((n, slots), SMALLEST), np.zeros((n, slots, slots))
    filled, fraction = np.zeros((n, slots), np.bool_), np.zeros((n, slots))
    in_use = 0.0
    for i in range(n):
        for k in range(fullest):
            if users[i, k] >= 0:
                filled[i, k] = True
                strength[i, k] = min(max(alpha[i, k], SMALLEST), LARGEST)
            for other in range(fullest):
                coupling[i, k, other] = min(beside[i, k, other], LARGEST)
        fraction[i, 0] = 1.0 if filled[i, 0] else 0.0
        in_use += fraction[i, 0]
    level = common_level(strength, coupling, fraction, in_use, 1)
    seen = np.empty((n, slots * (4 + slots)), np.float32)
    for i in range(n):
        look(strength[i], coupling[i], filled[i], level, seen[i])
    hidden = seen
    for at in range(len(kernels)):
        if at:
            hidden = np.maximum(hidden, np.float32(0.0))
        hidden = np.dot(hidden, kernels[at]) + biases[at]
    largest = -np.inf
    for i in range(n):
        for k in range(slots):
            if filled[i, k]:
                largest = max(largest, 8.0 * seen[i, k] - 4.0 + hidden[i, k])
    for i in range(n):
        for k in range(slots):
            logit = 8.0 * seen[i, k] - 4.0 + hidden[i, k] + max(1.0 - largest, 0.0)
            fraction[i, k] = 1.0 / (1.0 + np.exp(-logit)) if filled[i, k] else 0.0
    level = common_level(strength, coupling, fraction, in_use, slots)
    u = np.zeros((n, fullest))
    for i in range(n):
        for k in range(fullest):
            if filled[i, k]:
                w, _ = alone(level, strength[i, k], coupling[i, k, k])
                u[i, k] = fraction[i, k] * max(w, 1e-30)
    polytope.write_power(budget, spare, users, minimal, spread, u / u.sum(), out)


@njit(cache=True, parallel=True)
def _size_free(gains, assignment, constants, budget, slots, kernels, biases):
    out = np.empty(gains.shape)
    for b in prange(gains.shape[0]):
        assigned = assignment[np.intp(b) % np.intp(assignment.shape[0])]
        _size_free_draw(gains[b], assigned, constants, budget, slots, kernels, biases, out[b])
    return out
