"""What a user passes to an allocator: checked once, and laid out for the kernels."""

from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import Array, Weights, any_array, check_inside, real_array
from nomalib._compile import compiled
from nomalib.network import MAX_SNR, Network, check_network


class Draws(NamedTuple):
    """Checked draws with one batch axis, and the scenario, as kernels read them."""

    gains: Array  # (B, N, M)
    assignment: NDArray[np.bool_]  # (B or 1, N, M)
    weights: Array  # (B or 1, M)
    snr: float  # P_c/σ₀²
    t: Array  # 2^R_min − 1 of each user, (M,)
    min_rate: Array  # R_min of each user [nats], (M,)
    epsilon: Array  # (N, M)
    receiver: bool  # whether an interfering signal weighs the receiver's gain
    slots: int  # K, the most users on a subchannel
    alike: bool  # whether all users have one weight, one ε and one R_min


class Shares(NamedTuple):
    """The power problem in shares; users of a subchannel stand in SIC order, padded to K slots.

    Attributes:
        count: users on the subchannel; (…, N).
        users: user of each slot, −1 where empty; (…, N, K).
        minimal: least powers x_min, as shares of the budget; NaN where none is enough; (…, N, K).
        spread: B, how a share of the spare power spreads over the subchannel; (…, N, K, K).
        strength: α, (…, N, K); 0 in empty slots, and for an SNR below 1e-15.
        coupling: Q, (…, N, K, K); 0 in empty slots.
        weight: of the slot's user; 0 in empty slots; (…, N, K).
        strongest: whether the best split gives all to the strongest user (`name_takers`); (…, N).
        single: whether the best split gives all to one user, of whatever power; (…, N).
        least_rate: weighted sum rate at the least powers [nats]; (…).
        spare: 1 − Σ x_min, (…); negative or NaN where no power meets R_min.
    """

    count: NDArray[np.int64]  # type: ignore[assignment]  # hides that of tuples
    users: NDArray[np.int64]
    minimal: Array
    spread: Array
    strength: Array
    coupling: Array
    weight: Array
    strongest: NDArray[np.bool_]
    single: NDArray[np.bool_]
    least_rate: Array
    spare: Array

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether R_min can be met within the budget, decided to rounding; (…)."""
        return self.spare >= 0


def flat_draws(
    net: Network, gains: ArrayLike, assignment: ArrayLike, weights: Weights = None
) -> tuple[Draws, tuple[int, ...]]:
    """The draws, and the leading axes (…) that results are to get back."""
    gains, assigned = checked_draws(net, gains, assignment)
    lead = gains.shape[:-2]
    alike = weights is None and type(net.sic_residual) is type(net.min_rate) is float
    weights = checked_weights(net, weights, lead)
    flat = gains.reshape((-1, *gains.shape[-2:])), assigned.reshape((-1, *gains.shape[-2:]))
    for array in (*flat, weights):
        # views; kernels are compiled for one kind of array, and write to none
        array.setflags(write=False)
    receiver = net.interference_gain == "receiver"
    slots = max(1, loads(flat[1])[0])
    snr = net.budget / net.noise
    of_users = net.min_sinr, net.min_nats, net.epsilon
    return Draws(*flat, weights, snr, *of_users, receiver, slots, alike), lead


def checked_draws(
    net: Network, gains: ArrayLike, assignment: ArrayLike
) -> tuple[Array, NDArray[np.bool_]]:
    """The one check of what a user passes to a solver: gains (…, N, M) and assignment."""
    gains = checked_gains(net, gains)
    return gains, checked_assignment(net, assignment, gains.shape)


def checked_gains(net: Network, gains: ArrayLike) -> Array:
    check_network(net)
    gains = real_array("gains", gains)
    nm = (net.n_subchannels, net.n_users)
    if gains.shape[-2:] != nm:
        raise ValueError(f"gains has shape {gains.shape}; its last two axes must be {nm}")
    largest = sqrt(MAX_SNR * net.noise / net.budget)
    if gains.size and not (gains.min() >= 0.0 and gains.max() <= largest):
        rule = f"magnitudes must lie in [0, {largest:.3g}], up to an SNR P_c g²/σ₀² of {MAX_SNR:g}"
        check_inside("gains", gains, (gains >= 0.0) & (gains <= largest), rule)
    return gains


def checked_weights(net: Network, weights: Weights, lead: tuple[int, ...]) -> Array:
    """Weights of the users, (M,) or (…, M), with one batch axis: (1, M) or (B, M); None is ones."""
    if weights is None:
        return np.ones((1, net.n_users))
    weights = real_array("weights", weights)
    if weights.shape not in ((net.n_users,), (*lead, net.n_users)):
        raise ValueError(
            f"weights has shape {weights.shape}; it must be {(net.n_users,)} or "
            f"{(*lead, net.n_users)}"
        )
    inside = (weights == 0.0) | (weights >= 1e-9) & (weights <= 1e9)
    inside &= weights.any(axis=-1, keepdims=True)
    rule = "each must be 0 or in [1e-9, 1e9], and not all of a draw 0"
    check_inside("weights", weights[..., None, :], inside[..., None, :], rule)
    return weights.reshape(-1, net.n_users)


def pair_weights(net: Network, weights: Weights, lead: tuple[int, ...]) -> Array:
    """The same to multiply pairs (…, N, M) with: (1, M) or (…, 1, M)."""
    checked = checked_weights(net, weights, lead)
    return checked if len(checked) == 1 else checked.reshape(*lead, 1, net.n_users)


def checked_assignment(
    net: Network, assignment: ArrayLike, shape: tuple[int, ...] | None = None
) -> NDArray[np.bool_]:
    """The assignment as bool, within the caps, of the shape (…, N, M) of the draws if given."""
    check_network(net)
    assignment = any_array("assignment", assignment)
    if assignment.dtype != bool:
        raise ValueError(f"assignment has dtype {assignment.dtype}; it must be bool")
    if shape is None:
        shape = (*assignment.shape[:-2], net.n_subchannels, net.n_users)
    one_for_all = assignment.shape == (1, *shape[-2:]) and len(shape) > 2
    if assignment.shape not in (shape, shape[-2:]) and not one_for_all:
        raise ValueError(
            f"assignment has shape {assignment.shape}; it must be {shape[-2:]} or {shape}"
        )
    if not assignment.size:
        return assignment
    draws = assignment.reshape(-1, *shape[-2:])
    fullest, busiest, fewest = loads(draws)
    for load, cap, axis, what in (
        (fullest, "max_users_per_subchannel", 2, "users on subchannel"),
        (busiest, "max_subchannels_per_user", 1, "subchannels for user"),
    ):
        if load > getattr(net, cap):
            draw, at = np.argwhere(draws.sum(axis=axis) == load)[0].tolist()
            raise ValueError(
                f"assignment has {load} {what} {at}, draw {draw}; {cap} allows {getattr(net, cap)}"
            )
    if fewest == 0:
        draw = int(np.argmin(draws.any(axis=(1, 2))))
        raise ValueError(f"assignment serves 0 users in draw {draw}; it must serve at least one")
    return assignment


@compiled
def loads(assignment):
    """Most users on a subchannel, most subchannels of a user, fewest places filled in a draw.

    One compiled pass over assignments (B, N, M): sums over their axes take NumPy longer than
    water-filling takes to solve a draw.
    """
    n_draws, n, m = assignment.shape
    fullest, busiest, fewest = 0, 0, n * m
    of_user = np.empty(m, np.int64)
    for b in range(n_draws):
        filled = 0
        of_user[:] = 0
        for i in range(n):
            on_subchannel = 0
            for j in range(m):
                on_subchannel += assignment[b, i, j]
                of_user[j] += assignment[b, i, j]
            fullest = max(fullest, on_subchannel)
            filled += on_subchannel
        for j in range(m):
            busiest = max(busiest, of_user[j])
        fewest = min(fewest, filled)
    return fullest, busiest, fewest


def empty_shares(n_draws: int, n: int, slots: int) -> Shares:
    """What a reduction fills."""
    row, slot, pair = (n_draws, n), (n_draws, n, slots), (n_draws, n, slots, slots)
    shapes = (row, slot, slot, pair, slot, pair, slot, row, row, (n_draws,), (n_draws,))
    kinds = (np.int64, np.int64, *5 * [float], np.bool_, np.bool_, float, float)
    return Shares._make(map(np.empty, shapes, kinds))


def with_axes(lead: tuple[int, ...], result: Any) -> Any:
    """A named tuple of arrays whose batch axis is unfolded to the leading axes (…)."""
    return result._make(part.reshape(lead + part.shape[1:]) for part in result)


def check_shares(shares: object) -> None:
    if not isinstance(shares, Shares):
        raise ValueError(f"shares is {shares!r}; it must be what polytope.reduce returns")


def flat_shares(shares: Shares) -> tuple[Shares, tuple[int, ...]]:
    """Shares with one batch axis, and the leading axes (…) that they had."""
    check_shares(shares)
    lead = shares.spare.shape
    parts = (part.reshape(-1, *part.shape[len(lead) :]) for part in map(np.asarray, shares))
    return Shares._make(map(np.ascontiguousarray, parts)), lead


@compiled
def view(shares, b):
    """The problem of draw b."""
    return Shares(
        shares.count[b],
        shares.users[b],
        shares.minimal[b],
        shares.spread[b],
        shares.strength[b],
        shares.coupling[b],
        shares.weight[b],
        shares.strongest[b],
        shares.single[b],
        shares.least_rate[b],
        shares.spare[b],
    )
