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
from nomalib.water_filling import fill, share_at

VERSION = 1
# of the size-free network, shared with `nomalib.layers`
PRICES = 2  # times that a price is set, and takers looked for at it
LARGEST_GAIN = 1e20  # that an imitation network reads
LOGIT_BEST, LOGIT_OTHERS = 4.0, -4.0  # of the slot worth most alone, and of the others
LOGIT_CORRECTION = 6.0  # of the hidden layers, at most: a slot is never out of reach of training
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
    file = np.load(path, allow_pickle=False)
    stored = dict(file) if isinstance(file, np.lib.npyio.NpzFile) else {}
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
    places = stored["inputs"], stored["outputs"]
    return Artefact(kind, shape, *places, tuple(layers), n_parameters)


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
    if kind == "size_free":  # what it sees of a subchannel, and a logit for each user
        width, last = shape[0] * (4 + shape[0]), shape[0]
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
    out = normalised(net, gains, assignment, artefact.outputs, written)
    return out.reshape((*lead, *out.shape[1:]))


def normalised(
    net: Network,
    gains: NDArray[np.float64],
    assignment: NDArray[np.bool_],
    outputs: NDArray[np.integer],
    written: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Powers [W] (B, N, M) of what a network wrote (B, O) at places `outputs` (O) of N·M.

    Algorithm 1, line 7: negative powers and those of unassigned pairs are 0, the others are scaled
    to spend the budget. Where none is left, all pairs get the same; NaN where infeasible.
    """
    out = np.empty(gains.shape)
    constants = polytope.constants(net, assignment)
    draws = gains, assignment, constants, net.budget, outputs, written, out
    polytope.over_draws(_normalise, len(out), *draws)
    return out


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
def softsign(x):
    return x / (1.0 + abs(x))


@njit(cache=True, error_model="numpy", inline="always")
def worth_most(i, strength, coupling, used, level, worth, w):
    """The slot of subchannel i that is worth most alone at a level; fills `worth` and `w`."""
    best, price = 0, 1.0 / level
    for k in range(used):
        a, q = strength[i, k], coupling[i, k, k]
        w[k], _ = share_at(level, a, q)
        worth[k] = np.log1p(a * w[k] / (1.0 + q * w[k])) - price * w[k]
        if worth[k] > worth[best]:
            best = k
    return best


@njit(cache=True, error_model="numpy", inline="always")
def look(i, strength, coupling, used, level, slots, worth, w, seen):
    """The features of subchannel i at a level, those of `nomalib.layers.AtThePrice`.

    The first `used` slots hold users; `worth` and `w` are workspaces.
    """
    best = worth_most(i, strength, coupling, used, level, worth, w)
    # only the best slot has power, so only its rate is lost to others
    gained = strength[i, best] * w[best]
    beside = 1.0 + coupling[i, best, best] * w[best]
    loss = gained / (beside * (beside + gained))
    for k in range(used):
        above = 1.0 + coupling[i, k, best] * w[best] + (gained if k == best else 0.0)
        slope = strength[i, k] / above - coupling[i, best, k] * loss
        seen[i, k] = 1.0 if k == best else 0.0
        seen[i, slots + k] = softsign(0.1 * np.log(max(strength[i, k] * level, 1e-6)))
        seen[i, 2 * slots + k] = softsign(20.0 * (worth[k] - worth[best]))
        seen[i, 3 * slots + k] = softsign(level * slope - 1.0)
        for other in range(used):
            seen[i, (4 + k) * slots + other] = softsign(coupling[i, k, other] * w[other])


@njit(cache=True, error_model="numpy")
def dense(x, kernels, biases):
    """The dense layers, ReLU between them."""
    for at in range(len(kernels)):
        x, bias = np.dot(x, kernels[at]), biases[at]
        lowest = np.float32(0.0 if at + 1 < len(kernels) else -np.inf)
        for row in range(x.shape[0]):
            for col in range(x.shape[1]):
                x[row, col] = max(x[row, col] + bias[col], lowest)
    return x


@njit(cache=True, error_model="numpy")
def level_of(taker, strength, coupling, counts, alone, w):
    """ℓ at which slot `taker` (N) of every subchannel takes its due, all of it together 1.

    The dues are left in `w` (N); `alone` (2, N) is a workspace.
    """
    for i in range(counts.shape[0]):
        alone[0, i] = strength[i, taker[i]] if counts[i] else 0.0
        alone[1, i] = coupling[i, taker[i], taker[i]] if counts[i] else 0.0
    level, _ = fill(alone[0], alone[1], w)
    if level == np.inf:  # power buys no rate: all powers are alike
        level = 1.0
        for i in range(counts.shape[0]):
            w[i] = 1.0 if counts[i] else 0.0
    return level


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
    n, fullest, floor = gains.shape[1], constants[4], np.log1p(constants[1])
    size = max(1, _ROWS // n)
    problems = [polytope.empty_slots(n, fullest) for _ in range(size)]
    counts = np.zeros((size, n), np.int64)
    u, terms = np.empty((n, fullest)), np.empty((2, n, fullest))
    worth, due = np.empty(fullest), np.empty(fullest)
    takers, dues, alone = np.empty((size, n), np.int64), np.empty((size, n)), np.empty((2, n))
    seen = np.empty((size, n, slots * (4 + slots)), np.float32)
    for start in range(first, last, size):
        n_draws = min(size, last - start)
        seen[:] = 0.0
        for at in range(n_draws):
            b = start + at
            assigned, problem, used = assignment[b % assignment.shape[0]], problems[at], counts[at]
            spare[b] = polytope.reduce_draw(gains[b], assigned, constants, problem)
            if not spare[b] >= 0.0:
                continue
            strength, coupling, features = problem.strength, problem.coupling, seen[at]
            taker, w = takers[at], dues[at]
            for i in range(n):
                taker[i], used[i] = 0, 0
                for k in range(fullest):
                    used[i] += problem.users[i, k] >= 0
            level = level_of(taker, strength, coupling, used, alone, w)
            for _ in range(PRICES - 1):
                changed = False
                for i in range(n):
                    best = worth_most(i, strength, coupling, used[i], level, worth, due)
                    changed, taker[i] = changed or best != taker[i], best
                if not changed:
                    break
                level = level_of(taker, strength, coupling, used, alone, w)
            for i in range(n):
                if used[i]:
                    look(i, strength, coupling, used[i], level, slots, worth, due, features)
        rows = seen[:n_draws].reshape(n_draws * n, seen.shape[2])
        logits = dense(rows, kernels, biases)
        for at in range(n_draws):
            b, problem, used, features = start + at, problems[at], counts[at], seen[at]
            n_iter[b], residual[b] = 1, np.nan
            if not spare[b] >= 0.0:
                power[b] = np.nan
                continue
            taker, w, changed = takers[at], dues[at], False
            for i in range(n):
                best, most = 0, -np.inf
                for k in range(used[i]):
                    prior = LOGIT_BEST if features[i, k] == 1.0 else LOGIT_OTHERS
                    logit = prior + LOGIT_CORRECTION * softsign(logits[at * n + i, k])
                    if logit > most:
                        best, most = k, logit
                changed, taker[i] = changed or best != taker[i], best
            if changed:
                level_of(taker, problem.strength, problem.coupling, used, alone, w)
            u[:], total = 0.0, w.sum()
            for i in range(n):
                u[i, taker[i]] = w[i] / total
            residual[b] = polytope.certify(problem, u, floor, terms)
            polytope.write_power(budget, spare[b], problem, u, power[b])
