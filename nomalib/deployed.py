"""Runs a trained network from its artefact, as the software of a base station would: no Keras.

An artefact is one .npz file without pickled objects, written by `nomalib.compression.save`:

    version, kind       1; "imitation" or "size_free"
    shape               (N, M) of an imitation network; (K,), the users a subchannel may have
    inputs, outputs     which of the N·M gains the network reads, and which powers it writes
    kernel_l, bias_l    weights of layer l; a kernel of int8 has a scale_l for each output, one of
                        shape (q, r, b) holds the first columns of q × r circulant blocks

A NumPy archive and a compiled kernel need no package beyond those of the solvers.
"""

from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from nomalib import polytope
from nomalib.network import Network
from nomalib.polytope import Allocation

VERSION = 1
# of the size-free network, shared with `nomalib.layers`
NEWTON_STEPS = 4
SMALLEST, LARGEST = 1e-12, 1e12  # of α and Q: products of three stay within single precision
LARGEST_GAIN = 1e20  # that an imitation network reads
LOGIT_BEST, LOGIT_OTHERS = 4.0, -4.0  # of what the slot worth most takes, and the others
# Rows of one matrix product: enough to be fast, too few for BLAS to start threads of its own.
_ROWS = 100


class SizeFree(NamedTuple):
    """Weights of a size-free network: users a subchannel may have, and a pair for each layer."""

    slots: int
    kernels: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]


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
    if artefact.kind == "size_free":
        kernels = tuple(layer.kernel for layer in artefact.layers)
        biases = tuple(layer.bias for layer in artefact.layers)
        network = SizeFree(artefact.shape[0], kernels, biases)
        return allocate(network, net, gains, assignment).power
    gains, assignment, lead = polytope.flat_draws(net, gains, assignment)
    if artefact.shape != gains.shape[1:]:
        raise ValueError(f"artefact is for {artefact.shape}; net has {gains.shape[1:]}")
    seen = single_precision(gains * assignment).reshape(len(gains), prod(artefact.shape))[
        :, artefact.inputs
    ]
    written = forward(artefact.layers, seen)
    out = np.empty(gains.shape)
    constants = polytope.constants(net, assignment)
    polytope.over_draws(
        _normalise,
        len(out),
        gains,
        assignment,
        constants,
        net.budget,
        artefact.outputs,
        written,
        out,
    )
    return out.reshape((*lead, *out.shape[1:]))


def allocate(
    network: SizeFree, net: Network, gains: ArrayLike, assignment: ArrayLike
) -> Allocation:
    """An `Allocation` by a size-free network; `converged` wherever the draw is feasible.

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> widths = (12, 4, 4, 2)      # inputs for 2 users a subchannel, two hidden layers, outputs
    >>> biases = tuple(np.zeros(width, np.float32) for width in widths[1:])
    >>> kernels = tuple(np.zeros(shape, np.float32) for shape in zip(widths, widths[1:]))
    >>> net = Network(n_subchannels=2, n_users=2, power_dbm=30.0)
    >>> gains, everyone = np.array([[2.0, 1.0], [1.0, 0.5]]), np.ones((2, 2), bool)
    >>> round(float(allocate(SizeFree(2, kernels, biases), net, gains, everyone).power.sum()), 9)
    1.0
    """
    if net.max_users_per_subchannel > network.slots:
        _, assigned, _ = polytope.flat_draws(net, gains, assignment)
        fullest = polytope.constants(net, assigned)[4]
        if fullest > network.slots:
            raise ValueError(
                f"assignment puts {fullest} users on a subchannel; the model takes {network.slots}"
            )
    return polytope.allocate_draws(_size_free, net, gains, assignment, np.inf, *network)


def single_precision(gains: NDArray[np.float64]) -> NDArray[np.float32]:
    """Gains as an imitation network reads them; its products of weights and gains stay finite."""
    if gains.max(initial=0.0) > LARGEST_GAIN:
        raise ValueError(
            f"gains holds {gains.max()}; a network that computes in single precision takes "
            f"magnitudes up to {LARGEST_GAIN:g}"
        )
    return gains.astype(np.float32)


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


@njit(cache=True, error_model="numpy", nogil=True)
def _normalise(first, last, gains, assignment, constants, budget, outputs, written, out):
    """Algorithm 1, line 7; a draw without a positive output gets equal power."""
    n, m = gains.shape[1:]
    slots = polytope.empty_slots(n, constants[4])
    for b in range(first, last):
        assigned = assignment[b % assignment.shape[0]]
        spare = polytope.reduce_draw(gains[b], assigned, constants, slots)
        out[b] = 0.0 if spare >= 0.0 else np.nan
        if not spare >= 0.0:
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


@njit(cache=True, error_model="numpy")
def alone(level, strength, own):
    """w(ℓ) and dw/dℓ of a slot that is alone on its subchannel, (slot) of `nomalib.layers`."""
    rho = strength / (strength + 2.0 * own)
    head = max(strength * level - 1.0, 0.0)
    root = np.sqrt(1.0 + (1.0 - rho * rho) * head)
    return 2.0 * rho * head / (strength * (1.0 + root)), rho / root if head > 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def common_level(strength, coupling, counts, slots, fraction):
    """ℓ at which Σ fraction · w(ℓ) = 1 over the first `slots` users of each subchannel."""
    in_use = 0.0
    for i in range(counts.shape[0]):
        in_use += 1.0 if counts[i] else 0.0
    low, high = np.inf, 1e30
    for i in range(counts.shape[0]):
        for k in range(min(slots, counts[i])):
            a, q = strength[i, k], coupling[i, k, k]
            w = 1.0 / in_use
            low = min(low, (1.0 + q * w) * (1.0 / a + (1.0 + q / a) * w))
            if fraction[i, k] > 0.5:
                w = 1.0 / fraction[i, k]
                high = min(high, (1.0 + q * w) * (1.0 / a + (1.0 + q / a) * w))
    level = np.sqrt(low) * np.sqrt(high)
    for _ in range(NEWTON_STEPS):
        total, slope = 0.0, 0.0
        for i in range(counts.shape[0]):
            for k in range(min(slots, counts[i])):
                w, dw = alone(level, strength[i, k], coupling[i, k, k])
                total += fraction[i, k] * w
                slope += fraction[i, k] * dw
        level = min(max(level + (1.0 - total) / max(slope, 1e-30), low), high)
    return level


@njit(cache=True, error_model="numpy")
def signed_log(x):
    return np.sign(x) * np.log1p(abs(x))


@njit(cache=True, error_model="numpy")
def look(strength, coupling, used, level, slots, worth, w, seen):
    """The features of one subchannel at a level, those of `nomalib.layers.AtThePrice`.

    The first `used` slots hold users; `worth` and `w` are workspaces.
    """
    best = 0
    for k in range(used):
        w[k], _ = alone(level, strength[k], coupling[k, k])
        worth[k] = np.log1p(strength[k] * w[k] / (1.0 + coupling[k, k] * w[k])) - w[k] / level
        if worth[k] > worth[best]:
            best = k
    # only the best slot has power, so only its rate is lost to others
    gained = strength[best] * w[best]
    beside = 1.0 + coupling[best, best] * w[best]
    loss = gained / (beside * (beside + gained))
    for k in range(used):
        above = 1.0 + coupling[k, best] * w[best] + (gained if k == best else 0.0)
        slope = strength[k] / above - coupling[best, k] * loss
        seen[k] = 1.0 if k == best else 0.0
        seen[slots + k] = np.log(max(strength[k] * level, 1e-6))
        seen[2 * slots + k] = signed_log(20.0 * (worth[k] - worth[best]))
        seen[3 * slots + k] = signed_log(level * slope - 1.0)
        for other in range(used):
            seen[(4 + k) * slots + other] = np.log1p(coupling[k, other] * w[other])


@njit(cache=True, error_model="numpy")
def dense(x, kernels, biases):
    """The dense layers, ReLU between them."""
    for at in range(len(kernels)):
        x = np.dot(x, kernels[at])
        lowest = np.float32(0.0 if at + 1 < len(kernels) else -np.inf)
        for row in range(x.shape[0]):
            for col in range(x.shape[1]):
                x[row, col] = max(x[row, col] + biases[at][col], lowest)
    return x


@njit(cache=True, error_model="numpy")
def take(strength, coupling, counts, logits, fraction, u):
    """Shares u of logits of how much of its due each slot takes: `layers.WaterLevel`."""
    largest = -np.inf
    for i in range(counts.shape[0]):
        for k in range(counts[i]):
            largest = max(largest, logits[i, k])
    for i in range(counts.shape[0]):
        for k in range(counts[i]):
            fraction[i, k] = 1.0 / (1.0 + np.exp(-(logits[i, k] + max(1.0 - largest, 0.0))))
    level = common_level(strength, coupling, counts, u.shape[1], fraction)
    total = 0.0
    for i in range(counts.shape[0]):
        for k in range(u.shape[1]):
            u[i, k] = 0.0
            if k < counts[i]:
                w, _ = alone(level, strength[i, k], coupling[i, k, k])
                u[i, k] = fraction[i, k] * max(w, 1e-30)
                total += u[i, k]
    for i in range(counts.shape[0]):
        for k in range(u.shape[1]):
            u[i, k] /= total


@njit(cache=True, error_model="numpy", nogil=True)
def _size_free(
    first,
    last,
    gains,
    assignment,
    constants,
    budget,
    power,
    spare,
    n_iter,
    residual,
    slots,
    kernels,
    biases,
):
    n, fullest = gains.shape[1], constants[4]
    size = max(1, _ROWS // n)
    problems = [polytope.empty_slots(n, fullest) for _ in range(size)]
    counts = np.zeros((size, n), np.int64)
    alpha, q = np.empty((size, n, fullest)), np.empty((size, n, fullest, fullest))
    u, fraction, gradient = np.empty((n, fullest)), np.empty((n, fullest)), np.empty((n, fullest))
    worth, w = np.empty(fullest), np.empty(fullest)
    seen = np.empty((size, n, slots * (4 + slots)), np.float32)
    for start in range(first, last, size):
        n_draws = min(size, last - start)
        for at in range(n_draws):
            b = start + at
            assigned, problem = assignment[b % assignment.shape[0]], problems[at]
            spare[b] = polytope.reduce_draw(gains[b], assigned, constants, problem)
            seen[at] = 0.0
            if not spare[b] >= 0.0:
                continue
            for i in range(n):
                counts[at, i] = 0
                for k in range(fullest):
                    counts[at, i] += problem.users[i, k] >= 0
                    fraction[i, k] = 1.0
                    alpha[at, i, k] = min(max(problem.strength[i, k], SMALLEST), LARGEST)
                    for other in range(fullest):
                        q[at, i, k, other] = min(problem.coupling[i, k, other], LARGEST)
            level = common_level(alpha[at], q[at], counts[at], 1, fraction)
            for i in range(n):
                if counts[at, i]:
                    look(alpha[at, i], q[at, i], counts[at, i], level, slots, worth, w, seen[at, i])
        rows = seen[:n_draws].reshape(n_draws * n, seen.shape[2])
        logits = dense(rows, kernels, biases).reshape(n_draws, n, slots)
        for at in range(n_draws):
            b = start + at
            n_iter[b], residual[b] = 1, np.nan
            if not spare[b] >= 0.0:
                power[b] = np.nan
                continue
            for i in range(n):
                for k in range(counts[at, i]):
                    prior = LOGIT_BEST if seen[at, i, k] == 1.0 else LOGIT_OTHERS
                    logits[at, i, k] += np.float32(prior)
            take(alpha[at], q[at], counts[at], logits[at], fraction, u)
            floor = np.log1p(constants[1]) * counts[at].sum()
            residual[b] = polytope.certify(problems[at], u, floor, gradient)
            polytope.write_power(budget, spare[b], problems[at], u, power[b])
