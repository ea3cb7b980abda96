"""Learned power allocation: the paper's network, and one for any size that is always feasible.

The paper's network (Algorithm 1, stage II) maps the gains of the assigned pairs to powers [W], and
is trained on an allocator's powers as labels by the mean squared error (12). The unit matters: on
shares p/P_c, some 0.03 each, the first steps are far too long, the last hidden neurons die, and the
network answers with the mean label whatever its input. In testing its output is normalised to spend
the budget (line 7), but nothing makes it respect R_min.

The size-free network reads one subchannel at the price of power (`nomalib.layers`), and says who
takes its spare power: so it meets R_min and the budget whatever its weights are. It is trained
without labels on fresh draws, and one set of weights serves every number of users and subchannels.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib import _features, _imitated, layers, polytope
from nomalib._checks import Weights, check_generator, checked_count, checked_number
from nomalib._imitated import repair
from nomalib.layers import keras
from nomalib.network import InterferenceGain, Network, check_network, draw_gains, random_assignment

__all__ = ["HIDDEN", "allocate", "equivariant_network", "imitate", "imitation_network"]
__all__ += ["maximise_sum_rate", "repair", "training_networks"]

HIDDEN = (200, 80, 80)  # widths of the paper's hidden layers


def imitation_network(
    net: Network,
    seed: int = 0,
    layer: Callable[[int, str | None, int], keras.layers.Layer] = layers.dense,
    hidden: Sequence[int] = HIDDEN,
) -> keras.Model:
    """The paper's network: N·M gains, hidden layers of 200, 80, 80 with ReLU, N·M powers [W].

    What the paper leaves open: Glorot's uniform initialisation, biases 0, a linear output layer.
    `layer` makes a layer of its number of units, activation and seed.

    >>> imitation_network(Network()).count_params()
    50860
    """
    check_network(net)
    if not isinstance(hidden, (list, tuple)):
        raise ValueError(f"hidden is {hidden!r}; it must be a list of widths")
    shape = net.n_subchannels, net.n_users
    widths = [*(checked_count("hidden", width, 1) for width in hidden), prod(shape)]
    activations = [*["relu"] * (len(widths) - 1), None]
    made = map(layer, widths, activations, layers.seeds(seed, len(widths)))
    ends = keras.Input(shape, name="gains"), keras.layers.Reshape(shape)
    return keras.Sequential([ends[0], keras.layers.Flatten(), *made, ends[1]], name="imitation")


def imitate(
    model: keras.Model,
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    labels: ArrayLike,
    epochs: int = 200,
    batch_size: int = 50,
    learning_rate: float = 1e-3,
    validation: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Trains an `imitation_network` on labels by RMSprop with decay 0.9 and the MSE (12) [W²].

    Args:
        model: the network, trained in place.
        net: the scenario.
        gains: magnitudes |g|, (B, N, M).
        assignment: bool, (N, M) or (B, N, M).
        labels: powers [W] to imitate, (B, N, M); draws of NaN (infeasible) are left out.
        epochs: passes over the draws.
        batch_size: draws in a step.
        learning_rate: of RMSprop.
        validation: gains, assignment and labels of draws to validate on after every epoch.
        callbacks: Keras's own, for instance `keras.callbacks.BackupAndRestore`.
        verbose: what Keras prints; 0 is nothing.
        seed: of the order of the draws, which depends on seed and epoch alone: the same seed gives
            the same weights to the bit, also where training stopped and `BackupAndRestore` resumed.

    Returns:
        Under "loss" the MSE after each epoch, under "val_loss" that of the validation, if any.

    >>> net, ones = Network(n_subchannels=1, n_users=2), np.ones((4, 1, 2))
    >>> list(imitate(imitation_network(net), net, ones, ones[0] > 0, ones, epochs=3))
    ['loss']
    """
    epochs, size = checked_count("epochs", epochs, 1), checked_count("batch_size", batch_size, 1)
    rate = checked_number("learning_rate", learning_rate, 1e-30, 1e30)
    seed = checked_count("seed", seed, 0)
    layers.check_kind(model, net, "imitation")
    inputs, targets = _imitated.training_data(net, gains, assignment, labels)

    @lru_cache(1)
    def order(epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch]).permutation(len(inputs))

    def batch(epoch: int, step: int) -> tuple[NDArray, NDArray]:
        chosen = order(epoch)[step * size : (step + 1) * size]
        return inputs[chosen], targets[chosen]

    if validation is not None and len(validation) != 3:
        raise ValueError(f"validation is {len(validation)} arrays; it must be 3, as those before")
    held_out = validation and _imitated.training_data(net, *validation)
    model.compile(keras.optimizers.RMSprop(rate, rho=0.9), loss="mse")
    options = {"epochs": epochs, "verbose": verbose, "validation_data": held_out}
    return layers.fit(model, batch, -(-len(inputs) // size), callbacks, **options)


def equivariant_network(max_users: int = 4, width: int = 16, seed: int = 0) -> keras.Model:
    """The size-free network: for any N, any M, and up to `max_users` on a subchannel.

    Two hidden layers read a subchannel's features (`layers.features`) and correct who takes the
    power; the correction of a network that is not yet trained is 0.

    >>> equivariant_network().count_params()
    868
    """
    k, width = checked_count("max_users", max_users, 1), checked_count("width", width, 1)
    hidden = [layers.dense(width, "relu", layer_seed) for layer_seed in layers.seeds(seed, 2)]
    last = keras.layers.Dense(k, kernel_initializer="zeros")
    seen = keras.Input((None, _features.n_features(k)), name="features")
    return keras.Sequential([seen, *hidden, last], name="size_free")


def maximise_sum_rate(
    model: keras.Model,
    networks: Sequence[Network],
    epochs: int = 8,
    steps_per_epoch: int = 400,
    batch_size: int = 256,
    learning_rate: float = 5e-3,
    loss: keras.losses.Loss | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Trains an `equivariant_network` on the sum rate, without labels, by Adam.

    Every step has fresh draws, randomly assigned, of one of the networks in turn. The learning rate
    falls to 0 along a cosine.

    Args:
        model: the network, trained in place; with `loss`, any of features (B, N, K (4 + K)).
        networks: scenarios to train for, of any sizes; a list of one is enough.
        epochs: passes, after each of which the loss is noted.
        steps_per_epoch: steps of each.
        batch_size: draws in a step.
        learning_rate: of Adam, at the start.
        loss: another objective, of `layers.problem` and the model's output.
        callbacks, verbose, seed: as for `imitate`.

    Returns:
        Under "loss", after each epoch, by how much a subchannel's takers miss the best [nats].

    Raises:
        ValueError: also where all draws of a step are infeasible.
    """
    epochs, size = checked_count("epochs", epochs, 1), checked_count("batch_size", batch_size, 1)
    rate = checked_number("learning_rate", learning_rate, 1e-30, 1e30)
    steps = checked_count("steps_per_epoch", steps_per_epoch, 1)
    seed = checked_count("seed", seed, 0)
    listed = isinstance(networks, (list, tuple)) and networks
    if not (listed and all(isinstance(net, Network) for net in networks)):
        raise ValueError(f"networks is {networks!r}; it must be a list of at least one Network")
    layers.check_kind(model, None, "size_free", "shares")
    slots = model.output_shape[-1]

    def batch(epoch: int, step: int) -> tuple[NDArray, NDArray]:
        rng = np.random.default_rng([seed, epoch, step])
        net = networks[(epoch * steps + step) % len(networks)]
        shares = polytope.reduce(net, draw_gains(net, size, rng), random_assignment(net, rng, size))
        feasible = np.flatnonzero(shares.feasible)
        if not feasible.size:
            raise ValueError(f"networks holds one with {size} infeasible draws: {net}")
        shares = polytope.Shares._make(part[np.resize(feasible, size)] for part in shares)
        seen = _features.look(shares, slots)
        if loss is not None:
            return seen.features, layers.problem(shares, slots)
        return seen.features, np.concatenate([seen.worth, seen.features[..., :slots]], axis=-1)

    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
    model.compile(keras.optimizers.Adam(schedule), loss=loss or layers.SumRate())
    return layers.fit(model, batch, steps, callbacks, epochs=epochs, verbose=verbose)


def training_networks(n_networks: int, rng: np.random.Generator) -> list[Network]:
    """Scenarios to train a size-free network for: of many sizes, noises, ε, R_min, conventions.

    >>> len(training_networks(3, np.random.default_rng(0)))
    3
    """
    check_generator(rng)
    networks = []
    for _ in range(checked_count("n_networks", n_networks, 1)):
        n, m = int(rng.choice([5, 10, 15])), int(rng.choice([10, 20, 30]))
        noise = 10 ** rng.uniform(-3.5, 0.3)
        uniform, shape = rng.choice([0.0, 0.01, 0.1, 0.5]), (n, m)
        epsilons = [np.full(shape, uniform), rng.random(shape), rng.choice([0.0, 1.0], shape)]
        caps = int(rng.choice([3, 4])), int(rng.choice([3, 4, 6]))
        epsilon = epsilons[rng.choice(3, p=[0.2, 0.6, 0.2])]
        # few draws would be feasible with a high R_min beside a high noise
        min_rate = rng.choice([0.0, 0.01, 0.1, 0.3]) * min(1.0, 0.03 / noise)
        gain: InterferenceGain = "receiver" if rng.random() < 0.5 else "interferer"
        networks.append(Network(n, m, *caps, 43.0, noise, epsilon, min_rate, gain))
    return networks


def allocate(
    model: keras.Model,
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    weights: Weights = None,
) -> polytope.Allocation:
    """Power by a trained network, run by Keras; `nomalib.deployed` runs it compiled.

    Args:
        model: an `imitation_network`, an `equivariant_network`, or one with `layers.SpareShares`.
        net, gains, assignment: as of `polytope.reduce`.
        weights: likewise; the paper's network does not ask for them.

    Returns:
        An `Allocation` with an `n_iter` of 1. `converged` says whether the power is feasible, as it
        always is by the size-free network. For the power of an imitation network, which may lie
        outside the feasible set, `residual` is NaN; its last bits depend on the number of draws.
    """
    kind, written = layers.check_kind(model, net), model.output_shape[1:]
    if kind == "imitation":
        run, places = partial(layers.run_flat, model), np.arange(prod(written))
        return _imitated.allocate_by_powers(run, places, net, gains, assignment, weights)
    by = _features.allocate_by_takers if kind == "size_free" else _features.allocate_by_shares
    return by(partial(layers.run, model), written[-1], net, gains, assignment, weights)
