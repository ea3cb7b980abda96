"""Learned power allocation: the paper's network, and networks that are feasible by construction.

Keras 3 on its JAX backend, which this module chooses; import it before any other use of Keras.
Every model is an ordinary Keras model, trained by Keras's own `fit`; one that was saved loads
where this module has been imported.

The paper's network (Algorithm 1, stage II) maps the gains of the assigned pairs to powers [W], and
is trained on an allocator's powers as labels by the mean squared error (12). The unit matters: on
shares p/P_c, some 0.03 each, the first steps are far too long, the last hidden neurons die, and the
network answers with the mean label whatever its input.
In testing its output is normalised: negative outputs count as 0, so do the places of unassigned
pairs, the rest is divided by its sum and multiplied by P_c. So it spends exactly the budget, but
nothing makes it respect R_min.

The size-free network splits the spare power of `nomalib.polytope` and so meets R_min and the budget
whatever its weights are. It is trained on the sum rate itself, without labels, on fresh draws of
any networks, and one set of weights serves every number of users and subchannels.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from nomalib import deployed, layers, polytope, rates
from nomalib.layers import keras
from nomalib.network import (
    Network,
    checked_count,
    checked_draws,
    draw_gains,
    is_number,
    random_assignment,
)
from nomalib.polytope import Allocation, Slots

History = dict[str, list[float]]


def imitation_network(net: Network, seed: int = 0) -> keras.Model:
    """The paper's network: N·M gains, hidden layers of 200, 80, 80 with ReLU, N·M powers [W].

    What the paper leaves open: Glorot's uniform initialisation, biases 0, a linear output layer.

    >>> imitation_network(Network()).count_params()
    50860
    """
    keras.utils.set_random_seed(seed)
    shape = (net.n_subchannels, net.n_users)
    hidden = [keras.layers.Dense(width, activation="relu") for width in (200, 80, 80)]
    return keras.Sequential(
        [
            keras.Input(shape, name="gains"),
            keras.layers.Flatten(),
            *hidden,
            keras.layers.Dense(shape[0] * shape[1]),
            keras.layers.Reshape(shape),
        ],
        name="imitation",
    )


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
) -> History:
    """Trains an `imitation_network` on labels by RMSprop with decay 0.9 and the MSE (12) [W²].

    Args:
        model: the network, trained in place.
        net: the scenario.
        gains: magnitudes |g|, (B, N, M).
        assignment: bool, (N, M) or (B, N, M).
        labels: powers [W] to imitate, (B, N, M); draws of NaN (infeasible) are left out.
        epochs, batch_size, learning_rate: of the training.
        validation: gains, assignment and labels of draws to validate on after every epoch.
        callbacks: Keras callbacks, for instance `keras.callbacks.BackupAndRestore`.
        verbose: 1 shows Keras's progress bars.
        seed: of the order of the draws, which depends on seed and epoch alone: the same seed gives
            the same weights to the bit, also where training stopped and `BackupAndRestore` resumed.

    Returns:
        The MSE after each epoch: "loss", and "val_loss" where there is validation.

    Raises:
        ValueError: naming the argument, the value and what is allowed.

    >>> net = Network(n_subchannels=1, n_users=2)
    >>> gains, both, half = np.ones((4, 1, 2)), np.array([[True, True]]), np.full((4, 1, 2), 10.0)
    >>> list(imitate(imitation_network(net), net, gains, both, half, epochs=3))
    ['loss']
    """
    _check_training(learning_rate, epochs=epochs, batch_size=batch_size)
    inputs, targets = _imitation_data(net, gains, assignment, labels)
    seeds = np.random.SeedSequence(seed).generate_state(epochs)
    reorder = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: keras.utils.set_random_seed(int(seeds[epoch]))
    )
    model.compile(keras.optimizers.RMSprop(learning_rate, rho=0.9), loss="mse")
    fitted = model.fit(
        inputs,
        targets,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=validation and _imitation_data(net, *validation),
        callbacks=[*callbacks, reorder],
        verbose=verbose,
    )
    return fitted.history


def equivariant_network(max_users: int = 4, width: int = 16, seed: int = 0) -> keras.Model:
    """The size-free network: for any N, any M, and up to `max_users` on a subchannel.

    Every subchannel is seen at the price of power and passes the same two hidden layers, which
    correct who of its users takes the spare power; a water level common to all says how much. The
    correction of a network that is not yet trained is 0.

    >>> equivariant_network().count_params()
    868
    """
    keras.utils.set_random_seed(seed)
    problem = keras.Input((None, max_users, 1 + max_users), name="problem")
    seen = hidden = layers.AtThePrice()(problem)
    for _ in range(2):
        hidden = keras.layers.Dense(width, activation="relu")(hidden)
    correction = keras.layers.Dense(max_users, kernel_initializer="zeros")(hidden)
    logits = layers.Takers()(seen, correction)
    return keras.Model(problem, layers.WaterLevel()(problem, logits), name="size_free")


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
) -> History:
    """Trains an `equivariant_network` on the sum rate, without labels, by Adam.

    Every step has fresh draws, with random assignments, of one of the networks in turn. The
    learning rate falls to 0 along a cosine.

    Args:
        model: the network, trained in place.
        networks: scenarios to train for, of any sizes; a list of one is enough.
        epochs, steps_per_epoch, batch_size, learning_rate: of the training.
        loss: another objective, of `layers.problem` and the model's output, as `layers.SumRate` is.
        callbacks, verbose, seed: as for `imitate`.

    Returns:
        "loss" after each epoch: minus the rate above R_min per subchannel [bps/Hz],
        or the loss that was given.

    Raises:
        ValueError: naming the argument, the value and what is allowed; also where all draws of a
            step are infeasible.
    """
    _check_training(
        learning_rate, epochs=epochs, steps_per_epoch=steps_per_epoch, batch_size=batch_size
    )
    if isinstance(networks, Network) or not len(networks):
        raise ValueError(f"networks is {networks!r}; it must be a list of at least one Network")
    draws = _Draws(networks, steps_per_epoch, batch_size, model.input_shape[-2], seed)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps_per_epoch)
    model.compile(keras.optimizers.Adam(schedule), loss=loss or layers.SumRate())
    resume = keras.callbacks.LambdaCallback(on_epoch_begin=draws.start_epoch)
    fitted = model.fit(
        draws, epochs=epochs, callbacks=[*callbacks, resume], verbose=verbose, shuffle=False
    )
    return fitted.history


def training_networks(n_networks: int, rng: np.random.Generator) -> list[Network]:
    """Scenarios to train a size-free network for: of many sizes, noises, ε, R_min, conventions.

    >>> len(training_networks(3, np.random.default_rng(0)))
    3
    """
    networks = []
    for _ in range(n_networks):
        n, m = int(rng.choice([5, 10, 15])), int(rng.choice([10, 20, 30]))
        noise = 10 ** rng.uniform(-3.5, 0.3)
        uniform = np.full((n, m), rng.choice([0.0, 0.01, 0.1, 0.5]))
        residuals = [uniform, rng.random((n, m)), rng.choice([0.0, 1.0], (n, m))]
        networks.append(
            Network(
                n_subchannels=n,
                n_users=m,
                max_users_per_subchannel=int(rng.choice([3, 4])),
                max_subchannels_per_user=int(rng.choice([3, 4, 6])),
                noise=noise,
                sic_residual=residuals[rng.choice(3, p=[0.2, 0.6, 0.2])],
                # few draws would be feasible with a high R_min beside a high noise
                min_rate=rng.choice([0.0, 0.01, 0.1, 0.3]) * min(1.0, 0.03 / noise),
                interference_gain="receiver" if rng.random() < 0.5 else "interferer",
            )
        )
    return networks


class _Draws(keras.utils.PyDataset):
    """Feasible draws of each network in turn, a function of seed, epoch and step alone."""

    def __init__(self, networks, steps, batch_size, max_users, seed):
        super().__init__()
        self.networks, self.steps, self.batch_size = networks, steps, batch_size
        self.max_users, self.seed, self.epoch = max_users, seed, 0

    def start_epoch(self, epoch, logs=None):
        self.epoch = epoch

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, self.epoch, step])
        net = self.networks[(self.epoch * self.steps + step) % len(self.networks)]
        gains = draw_gains(net, self.batch_size, rng)
        shares = polytope.reduce(net, gains, random_assignment(net, rng, self.batch_size))
        feasible = np.flatnonzero(shares.feasible)
        if not feasible.size:
            raise ValueError(f"networks holds one with {self.batch_size} infeasible draws: {net}")
        problem = layers.problem(shares, self.max_users)[np.resize(feasible, self.batch_size)]
        return problem, problem


def allocate(
    model: keras.Model, net: Network, gains: ArrayLike, assignment: ArrayLike
) -> Allocation:
    """Power by a trained network, one pass for all draws.

    Args:
        model: an `imitation_network`, an `equivariant_network`, which `nomalib.deployed` runs
            compiled, or any other model that ends in one of `layers.HEADS`.
        net: the scenario.
        gains: magnitudes |g|, (…, N, M).
        assignment: bool, (N, M) or (…, N, M).

    Returns:
        An `Allocation`. `n_iter` is 1; `converged` says whether the power meets R_min (relative
        tolerance 1e-5) and the budget: always with the feasible head. `residual` is how far from
        optimal it is, NaN for an imitation network, whose power may lie outside the feasible set.

    Raises:
        ValueError: naming the argument, the value and what is allowed.
    """
    size_free = layers.size_free(model)
    if size_free is not None:
        return deployed.allocate(size_free, net, gains, assignment)
    gains, assignment, lead = polytope.flat_draws(net, gains, assignment)
    if isinstance(model.layers[-1], layers.HEADS):
        shares = polytope.reduce(net, gains, assignment)
        feasible, k = shares.feasible, shares.users.shape[-1]
        u = _predict(model, layers.problem(shares, model.input_shape[-2]))
        u = (u if u.ndim == 3 else u.prod(axis=-1))[..., :k].astype(np.float64)
        floor = np.log(2.0) * net.min_rate
        power, residual = np.full(gains.shape, np.nan), np.full(len(gains), np.nan)
        polytope.over_draws(_spend, len(gains), *shares, u, floor, net.budget, power, residual)
        met = feasible
    else:
        if model.input_shape[1:] != gains.shape[1:]:
            raise ValueError(
                f"model takes gains of shape {model.input_shape[1:]}; net has {gains.shape[1:]}"
            )
        written = _predict(model, deployed.single_precision(gains * assignment))
        places = np.arange(net.n_subchannels * net.n_users, dtype=np.int32)
        written = written.reshape(len(gains), places.size)
        power = deployed.normalised(net, gains, assignment, places, written)
        feasible = np.asarray(~np.isnan(power).any(axis=(-2, -1)))
        met = rates.qos_violation(net, gains, np.broadcast_to(assignment, gains.shape), power) == 0
        residual = np.full(len(gains), np.nan)
    return Allocation(
        power.reshape((*lead, *power.shape[1:])),
        feasible.reshape(lead),
        met.reshape(lead),
        np.ones(lead, np.int64),
        residual.reshape(lead),
    )


def repair(
    net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike
) -> NDArray[np.float64]:
    """A feasible power near a power that may break R_min [W], (…, N, M); NaN where infeasible.

    In shares of the spare power a broken R_min shows as a negative share: it counts as 0, and the
    others are scaled to spend the budget.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, power_dbm=30.0, min_rate=1.0)
    >>> repair(net, [[9.0, 3.0]], [[True, True]], [[1.0, 0.0]]).round(4)   # user 1 gets R_min
    array([[0.0889, 0.9111]])
    """
    shares = polytope.reduce(net, gains, assignment)
    x = rates.checked_power(net, np.asarray(gains), power) / net.budget
    x = np.take_along_axis(x, np.maximum(shares.users, 0), axis=-1)
    # an idle slot stands alone, and an infeasible draw has no columns
    filled = shares.users >= 0
    known = filled & shares.feasible[..., None, None]
    spread = np.where(known[..., None], shares.spread, np.eye(known.shape[-1]))
    u = np.linalg.solve(spread, (x - shares.minimal)[..., None])[..., 0]
    u = np.where(filled, np.maximum(u, 0.0), 0.0)
    # where nobody is above R_min all users get the same
    u = np.where((u == 0.0).all(axis=(-2, -1), keepdims=True), filled, u)
    return polytope.power(net, shares, u / u.sum(axis=(-2, -1), keepdims=True))


def _predict(model: keras.Model, inputs: NDArray) -> NDArray[np.float32]:
    """The model's outputs; padded draws keep the number of shapes that are compiled small."""
    n_draws = max(len(inputs), 1)
    size = 1 << (n_draws - 1).bit_length()
    size = min(size, -(-n_draws // 1024) * 1024, 8192)
    padded = np.zeros((-(-n_draws // size) * size, *inputs.shape[1:]), np.float32)
    padded[: len(inputs)] = inputs
    if len(padded) == size:
        output = model.predict_on_batch(padded)
    else:
        output = model.predict(padded, batch_size=size, verbose=0)
    return np.asarray(output[: len(inputs)], np.float32)


@njit(cache=True, error_model="numpy", nogil=True)
def _spend(
    first,
    last,
    users,
    minimal,
    spread,
    strength,
    coupling,
    spare,
    u,
    floor,
    budget,
    power,
    residual,
):
    """Powers of the shares u, scaled to unit sum, and their scaled KKT residuals."""
    terms = np.empty((2, *u.shape[1:]))
    for b in range(first, last):
        if spare[b] >= 0.0:
            u[b] /= u[b].sum()
            slots = Slots(users[b], minimal[b], spread[b], strength[b], coupling[b])
            residual[b] = polytope.certify(slots, u[b], floor, terms)
            polytope.write_power(budget, spare[b], slots, u[b], power[b])


def _imitation_data(
    net: Network, gains: ArrayLike, assignment: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the network sees, gains of the assigned pairs, and its targets [W]; (B, N, M) each."""
    gains, assignment = checked_draws(net, gains, assignment)
    if gains.ndim != 3:
        raise ValueError(
            f"gains has shape {gains.shape}; it must be (draws, {net.n_subchannels}, {net.n_users})"
        )
    labels = rates.checked_power(net, gains, labels, "labels")
    labelled = ~np.isnan(labels).any(axis=(-2, -1))
    if not labelled.any():
        raise ValueError("labels holds NaN in every draw; at least one must be feasible")
    inputs = (gains * assignment)[labelled]
    return deployed.single_precision(inputs), labels[labelled].astype(np.float32)


def _check_training(learning_rate: float, **counts: int) -> None:
    for name, count in counts.items():
        checked_count(name, count, 1)
    if not is_number(learning_rate) or not 0.0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate!r}; it must be finite and above 0")
