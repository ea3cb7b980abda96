"""Parts of a frame (`nomalib.fairness`): who shares a subchannel, and how."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nomalib import _sets, polytope
from nomalib._checks import Array
from nomalib._draws import Shares
from nomalib.network import Network
from nomalib.optimum import Certified, certified_split
from nomalib.rates import pair_rates

NATS = np.log(2.0)  # in a bit


class Parts(NamedTuple):
    """Columns of (frame)."""

    subchannel: NDArray[np.int64]  # (C,)
    power: Array  # [P_c], (C, M)
    rates: Array  # [nats], (C, M)


class Sets(NamedTuple):
    """Every set on every subchannel as one of its own, (N S, …): as it is, and at ε = 0."""

    shares: Shares
    perfect: Shares
    exact: NDArray[np.bool_]  # where both are alike


class Prices(NamedTuple):
    rate: Array  # w, (M,)
    power: float  # λ P_c
    fixed: float  # Σ c − Σ y owed


def every_set(net: Network, gains: Array) -> Sets:
    n, (_, member) = len(gains), _sets.every_set(net)
    of_row, largest = np.repeat(np.arange(n), len(member)), int(member.sum(axis=1).max())
    rows = replace(stacked(net, of_row), max_users_per_subchannel=largest)
    perfect = replace(rows, sic_residual=0.0)
    member = np.tile(member, (n, 1))

    def problem(rows: Network) -> Shares:
        shares = polytope.reduce(rows, gains[of_row], member)
        # what holds for all weights: with one ε, the theorem of `nomalib.takers`
        single = (np.ptp(rows.epsilon, axis=1) == 0.0) & (net.interference_gain == "interferer")
        return shares._replace(strongest=np.zeros_like(single), single=single)

    exact = (member.sum(axis=1) == 1) | ~np.any(member & (rows.epsilon > 0.0), axis=1)
    return Sets(problem(rows), problem(perfect), exact)


def alone(net: Network, gains: Array) -> Parts:
    """Every user alone on every subchannel, at an even power and its double: power has a price."""
    n, m = gains.shape
    double, subchannel, user = np.indices((2, n, m)).reshape(3, -1)
    power = np.zeros((len(user), m))
    power[np.arange(len(user)), user] = (1.0 + double) / n
    return joined(net, gains, None, subchannel, power)


def joined(
    net: Network, gains: Array, parts: Parts | None, subchannel: NDArray[np.int64], power: Array
) -> Parts:
    """Parts, and others at these powers [P_c], with their rates by (4)."""
    rates = NATS * pair_rates(stacked(net, subchannel), gains[subchannel], net.budget * power)
    new = Parts(subchannel, power, rates)
    return new if parts is None else Parts._make(map(np.concatenate, zip(parts, new, strict=True)))


def stacked(net: Network, subchannel: NDArray[np.int64]) -> Network:
    """A scenario with a subchannel for each part, without R_min."""
    count = len(subchannel)
    epsilon = net.epsilon[subchannel]
    return replace(
        net, n_subchannels=count, max_subchannels_per_user=count, sic_residual=epsilon, min_rate=0.0
    )


def best_parts(sets: Sets, prices: Prices, slack: float, n: int) -> tuple[Array, Array]:
    """Of every subchannel the part that is worth most, (N, M) [P_c], and a bound on that, (N,).

    Rates fall as ε grows: a set worth less at ε = 0 than another is now need not be looked at.
    """
    heaviest, most = prices.rate.max(), sets.shares.users.shape[-1]
    # φ spends at most Σ_S w/λ, which is to be a share of at most 1
    unit, weights = most * heaviest / prices.power, prices.rate / heaviest
    slack = min(slack / heaviest, 0.5)

    def solve(shares: Shares, rows: NDArray[np.int64]) -> Certified:
        return certified_split(_at(shares, rows, unit, weights), most, slack)

    rows = np.arange(len(sets.perfect.users))
    found = solve(sets.perfect, rows)
    ideal = np.where(sets.exact, -np.inf, found.value).reshape(n, -1)
    exact = np.where(sets.exact, found.value, -np.inf).reshape(n, -1)
    row = rows.reshape(n, -1)[np.arange(n), exact.argmax(axis=1)]
    best, bound, u = found.value[row], found.value[row], found.u[row]
    for s in np.argsort(-ideal, axis=1).T:
        at = np.flatnonzero(ideal[np.arange(n), s] > best + slack)
        if not at.size:
            break
        trial = solve(sets.shares, at * ideal.shape[1] + s[at])
        bound[at] = np.maximum(bound[at], trial.bound)
        better = trial.value > best[at]
        at, s = at[better], s[at][better]
        best[at], u[at], row[at] = trial.value[better], trial.u[better], at * ideal.shape[1] + s
    power, users = np.zeros((n, len(weights))), sets.shares.users[row]
    place = users >= 0
    power[np.nonzero(place)[0], users[place]] = unit * u[place]
    return power, heaviest * np.maximum(bound, best + slack * ~sets.exact.all())


def _at(shares: Shares, rows: NDArray[np.int64], unit: float, weights: Array) -> Shares:
    """Some rows of a problem without R_min, with `unit` budgets to spend and these weights."""
    row = Shares(*(part[rows] if np.ndim(part) else part for part in shares))  # type: ignore[arg-type]
    weight = np.where(row.users >= 0, weights[row.users], 0.0)
    strength, coupling = row.strength * unit, row.coupling * unit
    return row._replace(strength=strength, coupling=coupling, weight=weight)
