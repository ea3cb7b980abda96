"""Schedules by simple rules, to start from and to compare with.

A user's *score* on a subchannel is its weighted rate there, alone, with 1/N of the budget:
w_j log₂(1 + P_c |g_ij|²/(N σ₀²)). Without weights that orders pairs as their gains do. No rule but
`at_price` looks at who shares a subchannel, and none at R_min.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from nomalib import _best_sets, takers
from nomalib._checks import Array, Weights, checked_count
from nomalib._draws import checked_gains, flat_draws, pair_weights
from nomalib.network import Network, check_network
from nomalib.polytope import over_draws

__all__ = ["at_price", "deferred_acceptance", "greedy", "linear_assignment", "near_far", "one_each"]

Schedule = NDArray[np.bool_]


def greedy(net: Network, gains: ArrayLike, weights: Weights = None) -> Schedule:
    """Pair after pair in the order of their scores, as long as the caps allow; (…, N, M).

    Arguments are those of `joint_bound.upper_bound`, here and below.

    >>> net = Network(2, 2, max_users_per_subchannel=1, max_subchannels_per_user=1)
    >>> greedy(net, [[3.0, 2.0], [2.0, 0.1]])
    array([[ True, False],
           [False,  True]])
    """
    return _fill(net, _scores(net, gains, weights))


def linear_assignment(net: Network, gains: ArrayLike, weights: Weights = None) -> Schedule:
    """One user on each subchannel, of the largest sum of scores; (…, N, M).

    >>> net = Network(2, 2, max_users_per_subchannel=1, max_subchannels_per_user=1)
    >>> linear_assignment(net, [[3.0, 2.0], [2.0, 0.1]])
    array([[False,  True],
           [ True, False]])
    """
    return _assign(_scores(net, gains, weights), net.max_subchannels_per_user)


def one_each(net: Network, gains: ArrayLike, weights: Weights = None, rounds: int = 20) -> Schedule:
    """One user on each subchannel, as OFDMA at powers of its own: a linear assignment at a price.

    The price is that of the schedule's own optimum, found by turns from equal powers.

    >>> one_each(Network(2, 2), [[3.0, 2.0], [2.0, 0.1]])
    array([[ True, False],
           [ True, False]])
    """
    rounds = checked_count("rounds", rounds, 0)
    score, weight = _scores(net, gains, weights), pair_weights(net, weights, np.shape(gains)[:-2])
    noise = net.noise / net.budget / np.maximum(np.asarray(gains, float), 1e-150) ** 2
    found = best = _assign(score, net.max_subchannels_per_user)
    alone = replace(net, min_rate=0.0)
    spent = takers.allocate(alone, gains, best, weights)
    rate = spent.sum_rate
    for _ in range(rounds):
        power = spent.power / net.budget
        # w/(x + 1/γ) of every subchannel with power
        price = (weight * found / (power + noise)).max(axis=(-2, -1), keepdims=True)
        x = np.maximum(0.0, weight / price - noise)
        worth = weight * np.log1p(x / noise) - price * x
        found = _assign(worth, net.max_subchannels_per_user)
        spent = takers.allocate(alone, gains, found, weights)
        better = spent.sum_rate > rate * (1 + 1e-12)
        if not np.any(better):
            break
        best = np.where(better[..., None, None], found, best)
        rate = np.maximum(rate, spent.sum_rate)
    return best


def near_far(net: Network, gains: ArrayLike, weights: Weights = None) -> Schedule:
    """Near users share with far ones: groups of H, each on up to V subchannels; (…, N, M).

    Of M/H groups the k-th has user k, and every (M/H)-th from there on, in the order of their mean
    gains in dB. Groups take subchannels by the largest sum of their scores.

    >>> near_far(Network(1, 4, max_users_per_subchannel=2), [[4.0, 3.0, 2.0, 1.0]])
    array([[ True, False,  True, False]])
    """
    score, strong = _scores(net, gains, weights), np.asarray(gains, float)
    flat = score.reshape(-1, *score.shape[-2:])
    order = np.argsort(-np.log(np.maximum(strong, 1e-300)).mean(axis=-2), axis=-1)
    n_groups = -(-net.n_users // net.max_users_per_subchannel)
    member = np.zeros((len(flat), n_groups, net.n_users), bool)
    for rank in range(net.n_users):
        member[np.arange(len(flat)), rank % n_groups, order.reshape(-1, net.n_users)[:, rank]] = (
            True
        )
    of_group = np.einsum("bnm,bgm->bng", flat, member)
    chosen = _assign(of_group, net.max_subchannels_per_user)
    return (chosen.astype(int) @ member.astype(int) > 0).reshape(score.shape)


def deferred_acceptance(net: Network, gains: ArrayLike, weights: Weights = None) -> Schedule:
    """Gale and Shapley's matching, by gain: users propose where they are strong; (…, N, M).

    A user with fewer than V subchannels proposes to the strongest that has not refused it; a
    subchannel keeps the H proposals of the largest scores. The result is stable if nobody minds
    who shares a subchannel.

    >>> net = Network(2, 2, max_users_per_subchannel=1, max_subchannels_per_user=1)
    >>> deferred_acceptance(net, [[3.0, 2.0], [2.0, 0.1]])
    array([[ True, False],
           [False,  True]])
    """
    score = _scores(net, gains, weights)
    flat = score.reshape(-1, *score.shape[-2:])
    strong = np.asarray(gains, float).reshape(flat.shape)
    kept = np.zeros(flat.shape, bool)
    for found, gain, of_pair in zip(kept, strong, flat, strict=True):
        asked = np.argsort(-gain, axis=0).T.tolist()
        free = list(range(net.n_users))
        while free:
            j = free.pop()
            while asked[j] and found[:, j].sum() < net.max_subchannels_per_user:
                i = asked[j].pop(0)
                found[i, j] = True
                if found[i].sum() > net.max_users_per_subchannel:
                    refused = int(np.where(found[i], of_pair[i], np.inf).argmin())
                    found[i, refused] = False
                    if refused != j:
                        free.append(refused)
    return kept.reshape(score.shape)


def at_price(net: Network, gains: ArrayLike, weights: Weights = None) -> Schedule:
    """The sets of users that are worth most at the price of the budget; (…, N, M).

    The pairs of the largest weighted rates come first, and what V leaves empty goes to the best
    scores. Where V does not bind, with perfect SIC and no R_min, this is the optimum; else it is a
    start for `matching.paus`.

    >>> at_price(Network(1, 3, sic_residual=0.0), [[3.0, 2.0, 1.0]])
    array([[ True, False, False]])
    """
    check_network(net)
    eased = replace(net, min_rate=0.0)
    everyone = np.ones((1, net.n_users), bool)
    draws, lead = flat_draws(eased, gains, np.eye(net.n_subchannels, net.n_users) > 0, weights)
    score = np.empty(draws.gains.shape)
    most = min(net.max_users_per_subchannel, net.n_users)

    def some(first: int, last: int) -> None:
        space = _best_sets.space(net.n_subchannels, net.n_users, most)
        _best_sets.choose_draws(draws, first, everyone, space, score[first:last])

    over_draws(some, len(score))
    found = _fill(net, score.reshape((*lead, *score.shape[1:])))
    single = replace(net, max_users_per_subchannel=1)
    return _fill(single, _scores(net, gains, weights), found)


def _scores(net: Network, gains: ArrayLike, weights: Weights) -> Array:
    strong = checked_gains(net, gains)
    snr = net.budget / net.n_subchannels / net.noise * strong**2
    return pair_weights(net, weights, strong.shape[:-2]) * np.log2(1.0 + snr)


def _fill(net: Network, score: Array, start: Schedule | None = None) -> Schedule:
    """Pairs by descending score, but none below 0, within the caps, added to a start."""
    flat = score.reshape(-1, net.n_subchannels * net.n_users)
    taken = np.zeros((len(flat), net.n_subchannels, net.n_users), bool)
    if start is not None:
        taken |= start.reshape(taken.shape)
    every = np.arange(len(flat))
    for at in np.argsort(-flat, axis=1, kind="stable").T:
        i, j = np.divmod(at, net.n_users)
        fits = flat[every, at] >= 0.0
        fits &= taken[every, i].sum(axis=1) < net.max_users_per_subchannel
        fits &= taken[every, :, j].sum(axis=1) < net.max_subchannels_per_user
        taken[every, i, j] |= fits
    return taken.reshape(score.shape)


def _assign(score: Array, copies: int) -> Schedule:
    """One column for each row, no column more than `copies` times, of the largest sum."""
    flat = score.reshape(-1, *score.shape[-2:])
    taken = np.zeros(flat.shape, bool)
    for found, one in zip(taken, flat, strict=True):
        row, column = linear_sum_assignment(np.tile(one, copies), maximize=True)
        found[row, column % one.shape[1]] = True
    return taken.reshape(score.shape)
