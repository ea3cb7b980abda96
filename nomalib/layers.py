"""What Keras needs beyond its own layers: inputs, a feasible head, and the loss of the sum rate.

Every model is an ordinary Keras model, trained by Keras's own `fit` on JAX, and one that was saved
loads where this module has been imported.

A size-free network reads of each subchannel the features of its K slots (`features`). It gives
corrections of who takes the spare power, or, with `SpareShares` as its last layer, shares u
(…, N, K) of it with u ≥ 0 and Σ u = 1. Both are powers that meet R_min and spend the budget,
whatever the weights.

At the price of power each subchannel stands alone, as in the Lagrangian dual of `nomalib.optimum`.
Who takes the power there is a choice among K, each with a worth v_k, and with the softmax τ of the
logits the loss is

    −Σ_k τ_k (v_k − v of the taker at the price)   [nats], on average over subchannels:    (loss)

a classification that pays for each mistake what it costs. Worths and features depend on no weight
of the network, and are computed before it.
"""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")  # where the user chose none

try:
    import jax
    import keras
    from keras import ops

    if keras.config.backend() != "jax":
        raise ImportError(f"it runs on {keras.config.backend()!r}")
except ImportError as error:
    raise ImportError(
        f"these networks need Keras on JAX, and {error}: set KERAS_BACKEND=jax, or unset it and "
        "import nomalib.layers before keras; then start Python anew"
    ) from error

import numpy as np
from numpy.typing import NDArray

from nomalib import _features
from nomalib._checks import checked_count
from nomalib._draws import check_shares, flat_shares
from nomalib.network import Network, check_network
from nomalib.polytope import Shares

__all__ = ["GroupLasso", "SpareShares", "SumRate", "features", "problem"]

Batch = Callable[[int, int], tuple[NDArray, NDArray]]


def features(shares: Shares, max_users: int) -> NDArray[np.float32]:
    """What a size-free network reads of each subchannel, (…, N, K (4 + K)) for K = `max_users`.

    The first K say which slot is the taker at the price: 1 for it, −1 for the others, 0 for empty
    slots. All are 0 in an infeasible draw, and where power buys no rate.

    Args:
        shares: the problem, of `polytope.reduce`.
        max_users: K, at least as many as share a subchannel.

    >>> from nomalib import polytope
    >>> shares = polytope.reduce(Network(1, 2), [[2.0, 1.0]], [[True, True]])
    >>> features(shares, 3)[0, :3]
    array([ 1., -1.,  0.], dtype=float32)
    """
    flat, lead = flat_shares(shares)
    seen = _features.look(flat, checked_count("max_users", max_users, 1)).features
    return seen.reshape(lead + seen.shape[1:])


def problem(shares: Shares, max_users: int) -> NDArray[np.float32]:
    """α and Q of each subchannel side by side, (…, N, K, 1 + K), for a loss of one's own.

    0 in empty slots, and α > 0 in all others. Arguments and errors are those of `features`.

    >>> from nomalib import polytope
    >>> net = Network(1, 1, noise=1.0, power_dbm=30.0, min_rate=0.0)
    >>> problem(polytope.reduce(net, [[3.0]], [[True]]), 2)[0, :, 0]
    array([9., 0.], dtype=float32)
    """
    check_shares(shares)
    *lead, k = shares.users.shape
    max_users = checked_count("max_users", max_users, k)
    array = np.zeros((*lead, max_users, 1 + max_users), np.float32)
    # products of three stay within single precision
    array[..., :k, 0] = np.where(shares.users >= 0, np.clip(shares.strength, 1e-12, 1e12), 0.0)
    array[..., :k, 1 : 1 + k] = np.minimum(shares.coupling, 1e12)
    return array


@keras.saving.register_keras_serializable("nomalib")
class SpareShares(keras.layers.Layer):
    """The feasible head: of features and logits (B, N, K), shares of the spare power."""

    def call(self, features, logits):
        filled = features[..., : logits.shape[-1]] != 0
        logits = ops.where(filled, logits, -1e30)
        weight = ops.exp(logits - ops.max(logits, axis=(1, 2), keepdims=True))
        weight = ops.where(filled, weight, 0)
        return weight / ops.sum(weight, axis=(1, 2), keepdims=True)


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
class SumRate(keras.losses.Loss):
    """(loss): of worths above the taker's beside who it is, (B, N, 2K), and of corrections."""

    def call(self, y_true, y_pred):
        worth, standing = ops.split(y_true, 2, axis=-1)
        logits = _features.PRIOR * standing + _features.CORRECTION * ops.softsign(y_pred)
        return -ops.sum(worth * ops.softmax(ops.where(standing != 0, logits, -1e30)), axis=-1)


def check_settings() -> None:
    """Refuses a setting of Keras, JAX or XLA under which the same seed trains another network."""
    settings = {
        "keras.config.floatx()": (keras.config.floatx(), "float32"),
        "keras.config.dtype_policy().name": (keras.config.dtype_policy().name, "float32"),
        "keras.config.max_epochs()": (keras.config.max_epochs(), None),
        "keras.config.max_steps_per_epoch()": (keras.config.max_steps_per_epoch(), None),
        "XLA's fast_math": ("fast_math=true" in os.environ.get("XLA_FLAGS", ""), False),
    }
    flags = {"jax_enable_x64": False, "jax_threefry_partitionable": True, "jax_disable_jit": False}
    settings |= {f"jax.config.{f}": (getattr(jax.config, f), ours) for f, ours in flags.items()}
    for name, (value, ours) in settings.items():
        if value != ours:
            raise ValueError(
                f"{name} is {value!r}, set by keras.json, the environment or a call; it must be "
                f"{ours!r}, or the same seed would train another network"
            )


def dense(units: int, activation: str | None, seed: int) -> keras.layers.Layer:
    """A layer as the paper's network has it, drawn by a seed of its own."""
    check_settings()
    drawn = keras.initializers.GlorotUniform(seed)
    return keras.layers.Dense(units, activation=activation, kernel_initializer=drawn)


def seeds(seed: int, n: int) -> list[int]:
    """Seeds of n layers."""
    state = np.random.SeedSequence(checked_count("seed", seed, 0)).generate_state(n)
    return [int(value) for value in state >> 1]


def check_kind(model: keras.Model, net: Network | None, *kinds: str) -> str:
    """What a model maps, by its shapes and its head: "imitation", "size_free" or "shares".

    Refuses what is none of these, or of `kinds` where there are some, or does not serve `net`.
    """
    check_settings()
    if net is not None:
        check_network(net)
    if not isinstance(model, keras.Model):
        raise ValueError(f"model is {model!r}; it must be a Keras model")
    read, written, kind = model.input_shape[1:], model.output_shape[1:], "size_free"
    if len(read) == 2 and None not in read and read == written:
        kind, shape = "imitation", read if net is None else (net.n_subchannels, net.n_users)
        if read != shape:
            raise ValueError(f"model takes gains of shape {read}; net has {shape}")
    elif len(written) != 2 or read != (None, _features.n_features(written[1])):
        raise ValueError(
            f"model maps {read} to {written}; it must map gains (N, M) to powers (N, M), or "
            "features (None, K (4 + K)) to (None, K)"
        )
    elif isinstance(model.layers[-1], SpareShares):
        kind = "shares"
    if kinds and kind not in kinds:
        raise ValueError(
            f"model {model.name!r} is of kind {kind!r}; it must be {' or '.join(kinds)}"
        )
    return kind


@lru_cache(16)
def _step(model: keras.Model) -> Callable:
    return jax.jit(partial(model.stateless_call, training=False))


def run(model: keras.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's outputs; padding keeps the number of shapes that are compiled small.

    It is compiled at its first run: its weights may change then, what its layers compute may not.
    Not by `predict`, which lends its weights to the compiled step, and so serves one thread only.
    """
    found, kinds = [], (model.trainable_variables, model.non_trainable_variables)
    weights = [[variable.value for variable in variables] for variables in kinds]
    for first in range(0, max(1, len(x)), 4096):
        part = x[first : first + 4096]
        missing = (1 << (max(1, len(part)) - 1).bit_length()) - len(part)
        if missing:
            part = np.concatenate([part, np.zeros((missing, *x.shape[1:]), np.float32)])
        written, _ = _step(model)(*weights, part)
        found.append(np.asarray(written, np.float32)[: len(part) - missing])
    return np.concatenate(found)


def run_flat(model: keras.Model, gains: NDArray[np.float32]) -> NDArray[np.float32]:
    """What an imitation network writes (B, N·M) of gains (B, N·M)."""
    return run(model, gains.reshape(-1, *model.input_shape[1:])).reshape(gains.shape)


def fit(
    model: keras.Model, batch: Batch, steps: int, callbacks: Sequence, **options: Any
) -> dict[str, list[float]]:
    """Trains by batch(epoch, step), also from the epoch on at which `BackupAndRestore` resumes."""
    data = _Batches(batch, steps)
    told = keras.callbacks.LambdaCallback(on_epoch_begin=data.start_epoch)
    return model.fit(data, shuffle=False, callbacks=[*callbacks, told], **options).history


class _Batches(keras.utils.PyDataset):
    def __init__(self, batch: Batch, steps: int) -> None:
        super().__init__()
        self.batch, self.steps, self.epoch = batch, steps, 0

    def start_epoch(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[NDArray, NDArray]:
        return self.batch(self.epoch, step)
