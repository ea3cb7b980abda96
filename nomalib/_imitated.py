"""What an imitation network reads, and what becomes of what it writes; by Keras and deployed alike.

It reads the gains of the assigned pairs, and writes powers, which by Algorithm 1, line 7, are made
to spend the budget: negative ones and those of unassigned pairs count as 0, the others are scaled.
Gains are read in units of noise, so that their physical size does not matter; as they are where
σ₀² is 0.1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib import rates
from nomalib._checks import Array, Weights
from nomalib._compile import compiled
from nomalib._draws import Draws, checked_draws, empty_shares, flat_draws
from nomalib._reduction import reduce_draws
from nomalib.baselines import split_totals
from nomalib.network import Network
from nomalib.polytope import Allocation, over_draws

_NOISE = 0.1  # at which gains are read as they are

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def allocate_by_powers(
    run: Run,
    outputs: NDArray[np.integer],
    net: Network,
    gains: ArrayLike,
    assignment: ArrayLike,
    weights: Weights,
) -> Allocation:
    """By an imitation network; `converged` says whether the power meets R_min."""
    draws, lead = flat_draws(net, gains, assignment, weights)
    power = normalised(run, outputs, net, draws)
    scored = net, draws.gains, draws.assignment, power
    sum_rate = (rates.rates(*scored) * draws.weights[:, None]).sum(axis=(1, 2))
    feasible = ~np.isnan(sum_rate)
    return Allocation(
        power.reshape((*lead, *power.shape[1:])),
        feasible.reshape(lead),
        (rates.qos_violation(*scored) == 0).reshape(lead),
        np.ones(lead, np.int64),
        np.full(lead, np.nan),
        sum_rate.reshape(lead),
        np.where(feasible, np.inf, np.nan).reshape(lead),
    )


def normalised(run: Run, outputs: NDArray[np.integer], net: Network, draws: Draws) -> Array:
    """Powers [W] (B, N, M); NaN where infeasible.

    `run` gives what is written (B, O), at places `outputs` (O) of N·M, of gains (B, N·M). Where
    nothing positive is left, all pairs get the same.
    """
    out = np.empty(draws.gains.shape)
    n_pairs = net.n_subchannels * net.n_users
    written = run(read(net, draws.gains, draws.assignment).reshape(len(out), n_pairs))

    def some(first: int, last: int) -> None:
        shares = empty_shares(last - first, net.n_subchannels, draws.slots)
        reduce_draws(draws, first, shares)
        part = slice(first, last)
        assigned = draws.assignment[part if len(draws.assignment) > 1 else slice(None)]
        _normalise(net.budget, assigned, shares.spare, outputs, written[part], out[part])

    over_draws(some, len(out))
    return out


def read(net: Network, gains: Array, assignment: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What the network reads of gains (…, N, M)."""
    return (gains * assignment * np.sqrt(_NOISE / net.noise)).astype(np.float32)


def training_data(
    net: Network, gains: ArrayLike, assignment: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the network reads, and its targets [W]; (B, N, M) each."""
    gains, assignment = checked_draws(net, gains, assignment)
    if gains.ndim != 3:
        raise ValueError(
            f"gains has shape {gains.shape}; it must be (draws, {net.n_subchannels}, {net.n_users})"
        )
    labels = rates.checked_power(net, gains, labels, "labels")
    labelled = ~np.isnan(labels).any(axis=(-2, -1))
    if not labelled.any():
        raise ValueError("labels holds NaN in every draw; at least one must be feasible")
    return read(net, gains, assignment)[labelled], labels[labelled].astype(np.float32)


def repair(net: Network, gains: ArrayLike, assignment: ArrayLike, power: ArrayLike) -> Array:
    """The totals of a power that may break R_min, split by `baselines.split_totals` [W]; (…, N, M).

    What is then short of the optimum is what the totals are worth. NaN where infeasible. Arguments
    as of `rates.rates`.

    >>> net = Network(n_subchannels=1, n_users=2, noise=1.0, power_dbm=30.0, min_rate=1.0)
    >>> repair(net, [[9.0, 3.0]], [[True, True]], [[1.0, 0.0]]).round(4)   # user 1 gets R_min
    array([[0.0889, 0.9111]])
    """
    gains, _, spent = rates.checked(net, gains, assignment, power)
    return split_totals(net, gains, assignment, spent.sum(axis=-1)).power


@compiled
def _normalise(budget, assignment, spare, outputs, written, out):
    n, m = out.shape[1:]
    for b in range(len(out)):
        assigned = assignment[b % len(assignment)]
        out[b] = 0.0 if spare[b] >= 0.0 else np.nan
        if not spare[b] >= 0.0:
            continue
        total = 0.0
        for at in range(len(outputs)):
            i, j = outputs[at] // m, outputs[at] % m
            if assigned[i, j] and written[b, at] > 0.0:
                out[b, i, j] = written[b, at]
                total += written[b, at]
        if total == 0.0:
            for i in range(n):
                for j in range(m):
                    out[b, i, j] = assigned[i, j]
                    total += assigned[i, j]
        out[b] *= budget / total
