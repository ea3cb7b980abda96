"""Keras layers for the power problem in shares of the spare power (`nomalib.polytope`).

A network here sees, of each subchannel, the strengths α and couplings Q of its users in SIC order,
side by side in one array (…, N, K, 1 + K), and gives shares u (…, N, K) with u ≥ 0 and Σ u = 1:
every such u is a power that meets R_min and spends the budget. Subchannels are on an equal footing:
what one must know of the others is the price of power λ = 1/ℓ, ℓ the level of `water_filling`.
At a price each subchannel stands alone, as in the Lagrangian dual of `optimum`; the price is set
twice, first as if the strongest users took all, then by those worth most at the first price.

A slot that is alone on its subchannel takes, with q = Q_kk, ρ = α/(α + 2q), h = max(0, αℓ − 1),

    w(ℓ) = 2ρh / (α (1 + s)),   dw/dℓ = ρ/s where h > 0,   s = √(1 + (1 − ρ²) h),     (slot)

the root of (level) in a form that does not overflow. Empty slots have α = 0.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before the first import of Keras

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from nomalib.deployed import LOGIT_BEST, LOGIT_CORRECTION, LOGIT_OTHERS, PRICES, SizeFree
from nomalib.polytope import Shares

NEWTON_STEPS = 4
SMALLEST, LARGEST = 1e-12, 1e12  # of α and Q: products of three stay within single precision


def problem(shares: Shares, max_users: int) -> NDArray[np.float32]:
    """α and Q of each subchannel, padded to `max_users` slots; (…, N, K, 1 + K)."""
    *lead, k = shares.users.shape
    if k > max_users:
        raise ValueError(f"assignment puts {k} users on a subchannel; the model takes {max_users}")
    array = np.zeros((*lead, max_users, 1 + max_users), np.float32)
    filled = shares.users >= 0
    array[..., :k, 0] = np.where(filled, np.clip(shares.strength, SMALLEST, LARGEST), 0.0)
    array[..., :k, 1 : 1 + k] = np.minimum(shares.coupling, LARGEST)
    return array


def _parts(problem):
    """Which slots are filled, their α (a tiny one where empty) and Q, and the number in use, n."""
    filled = problem[..., 0] > 0
    in_use = ops.sum(ops.cast(filled[..., :1], "float32"), axis=1, keepdims=True)
    return filled, ops.where(filled, problem[..., 0], SMALLEST), problem[..., 1:], in_use


def _own(coupling):
    return ops.diagonal(coupling, axis1=-2, axis2=-1)


def _alone(level, strength, own):
    """w(ℓ) and dw/dℓ of (slot)."""
    rho = strength / (strength + 2 * own)
    head = ops.maximum(strength * level - 1, 0)
    root = ops.sqrt(1 + (1 - rho**2) * head)
    return 2 * rho * head / (strength * (1 + root)), ops.where(head > 0, rho / root, 0)


def _level(strength, own, fraction, in_use):
    """ℓ at which Σ fraction · w(ℓ) = 1: Newton steps between two levels that enclose it.

    Some slot's fraction must be above a thousandth, and no subchannel's sum above 1.
    """

    def level_of(w):
        return (1 + own * w) * (1 / strength + (1 + own / strength) * w)

    low = ops.min(level_of(1 / in_use), axis=(1, 2), keepdims=True)
    high = ops.where(fraction > 1e-3, level_of(1 / ops.maximum(fraction, 1e-3)), 1e30)
    high = ops.min(high, axis=(1, 2), keepdims=True)
    level = ops.sqrt(low) * ops.sqrt(high)
    for _ in range(NEWTON_STEPS):
        w, slope = _alone(level, strength, own)
        total = ops.sum(fraction * w, axis=(1, 2), keepdims=True)
        slope = ops.sum(fraction * slope, axis=(1, 2), keepdims=True)
        level = ops.clip(level + (1 - total) / ops.maximum(slope, 1e-30), low, high)
    return level


@keras.saving.register_keras_serializable("nomalib")
class AtThePrice(keras.layers.Layer):
    """What each subchannel looks like at the price of power.

    (B, N, K, 1 + K) → (B, N, 4K + K²): which slot alone is worth most; and of each slot log αℓ, by
    how much another slot alone is worth more, how its marginal rate beside the best one compares
    with the price, and its interference with every other, all as x/(1 + |x|). Nothing depends on N.
    """

    def call(self, problem):
        filled, strength, coupling, in_use = _parts(problem)
        own, mask = _own(coupling), ops.cast(filled, "float32")
        best = ops.one_hot(ops.zeros_like(in_use[..., 0], "int32"), mask.shape[-1])
        for _ in range(PRICES):
            level = _level(strength, own, best * mask, in_use)
            w, _ = _alone(level, strength, own)
            worth = ops.log1p(strength * w / (1 + own * w)) - w / level
            best = ops.one_hot(ops.argmax(worth, axis=-1), worth.shape[-1])
        u = best * w
        below = 1 + ops.sum(coupling * u[..., None, :], axis=-1)
        above = below + strength * u
        lost = ops.sum(coupling * (strength * u / (below * above))[..., None], axis=-2)
        slots = [
            best,
            ops.softsign(0.1 * ops.log(ops.maximum(strength * level, 1e-6))),
            ops.softsign(20 * (worth - ops.max(worth, axis=-1, keepdims=True))),
            ops.softsign(level * (strength / above - lost) - 1),
        ]
        pairs = ops.softsign(coupling * w[..., None, :])
        flat = ops.reshape(pairs, (-1, *ops.shape(pairs)[1:-2], worth.shape[-1] ** 2))
        return ops.concatenate([*(slot * mask for slot in slots), flat], axis=-1)


@keras.saving.register_keras_serializable("nomalib")
class Takers(keras.layers.Layer):
    """Logits of who takes the power: the slot worth most alone, unless corrected."""

    def call(self, seen, correction):
        best = seen[..., : correction.shape[-1]]
        prior = LOGIT_OTHERS + (LOGIT_BEST - LOGIT_OTHERS) * best
        return prior + LOGIT_CORRECTION * ops.softsign(correction)


@keras.saving.register_keras_serializable("nomalib")
class WaterLevel(keras.layers.Layer):
    """From logits (B, N, K) of who takes the power: for how much of the time, and what share then.

    (B, N, K, 2): times τ, and shares w(ℓ) with Σ τ w = 1. All the time goes to one slot of each
    subchannel; in training, which needs a slope, the slots share the time, each alone while it has
    it, which is the convex hull of the choices. The level is common to all, and no gradient flows
    through it: there a change of it moves power to where it is worth just the same.
    """

    def call(self, problem, logits, training=None):
        filled, strength, coupling, in_use = _parts(problem)
        own, mask = _own(coupling), ops.cast(filled, "float32")
        logits = ops.where(filled, logits, -1e30)
        if training:
            time = mask * ops.softmax(logits)
        else:
            time = mask * ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1])
        level = ops.stop_gradient(_level(strength, own, time, in_use))
        w, _ = _alone(level, strength, own)
        w = w / ops.maximum(ops.sum(time * w, axis=(1, 2), keepdims=True), 1e-30)
        return ops.stack([time, w], axis=-1)


@keras.saving.register_keras_serializable("nomalib")
class SpareShares(keras.layers.Layer):
    """The feasible head: any logits (B, N, K) to shares of the spare power over filled slots."""

    def call(self, problem, logits):
        filled = problem[..., 0] > 0
        logits = ops.where(filled, logits, -1e30)
        weight = ops.exp(logits - ops.max(logits, axis=(1, 2), keepdims=True))
        weight = ops.where(filled, weight, 0)
        return weight / ops.sum(weight, axis=(1, 2), keepdims=True)


# the last layers under which any weights give a feasible power
HEADS = (SpareShares, WaterLevel)


@keras.saving.register_keras_serializable("nomalib")
class SumRate(keras.losses.Loss):
    """Minus the sum rate above the minimal rates, (shares), per subchannel [bps/Hz].

    Of `problem` and what `WaterLevel` gives: the rate of each slot alone, for its time.
    """

    def call(self, y_true, y_pred):
        strength, own = y_true[..., 0], _own(y_true[..., 1:])
        time, w = y_pred[..., 0], y_pred[..., 1]
        return -ops.sum(time * ops.log2(1 + strength * w / (1 + own * w)), axis=-1)


def size_free(model: keras.Model) -> SizeFree | None:
    """The weights of a `learning.equivariant_network`, for `nomalib.deployed`.

    None for a model of any other layers, which only Keras can run.
    """
    first, last = (keras.layers.InputLayer, AtThePrice), (Takers, WaterLevel)
    dense = model.layers[len(first) : -len(last)]
    kinds = [*first, *[keras.layers.Dense] * len(dense), *last]
    if not dense or [type(layer) for layer in model.layers] != kinds:
        return None
    if [layer.activation.__name__ for layer in dense] != ["relu"] * (len(dense) - 1) + ["linear"]:
        return None
    weights = [[np.array(weight) for weight in layer.get_weights()] for layer in dense]
    if any(len(pair) != 2 for pair in weights):  # as 8-bit ones, with their scales
        return None
    kernels, biases = zip(*weights, strict=True)
    return SizeFree(model.input_shape[-2], kernels, biases)
