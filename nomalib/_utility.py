"""The utility of a frame's rates by lines above it, and the linear program that they make."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from nomalib._checks import Array
from nomalib._parts import Parts, Prices

# of power, in the highest price of rate; the lowest rate of a tangent, of the largest
_LOWEST_PRICE, _LEAST_RATE = 1e-9, 1e-6


class Lines(NamedTuple):
    """U ≤ Σ_v min over its lines of slope R_user + height: what a linear program knows of U."""

    of: NDArray[np.int64]
    user: NDArray[np.int64]
    slope: Array
    height: Array


class Goal(NamedTuple):
    """α-fairness: U = Σ ω_v v, each v below its lines; with α = ∞ there is one v, of weight 1."""

    alpha: float
    weights: Array
    lines: Lines


def utility(x: Array, alpha: float) -> Array:
    """u, shifted to 0 at 1; −∞ of nothing from α = 1 on."""
    with np.errstate(divide="ignore"):
        return np.log(x) if alpha == 1.0 else (x ** (1.0 - alpha) - 1.0) / (1.0 - alpha)


def rate_of(u: Array, alpha: float) -> Array:
    """The rate of this u; inf above what u can be."""
    if alpha == 1.0:
        return np.exp(u)
    with np.errstate(divide="ignore"):
        return np.maximum(1.0 + (1.0 - alpha) * u, 0.0) ** (1.0 / (1.0 - alpha))


def least(users: NDArray[np.int64], due: Array) -> Goal:
    """U = min R/due over these users."""
    lines = Lines(np.zeros_like(users), users, 1.0 / due, np.zeros(len(users)))
    return Goal(np.inf, np.ones(1), lines)


def tangents(rates: Array, alpha: float) -> Lines:
    """Tangents of Σ u at rates (…, M)."""
    users = np.broadcast_to(np.arange(rates.shape[-1]), rates.shape).ravel()
    rates = rates.ravel()
    slope = rates**-alpha
    return Lines(users, users, slope, utility(rates, alpha) - slope * rates)


def level_of(goal: Goal, rates: Array) -> tuple[float, float]:
    """The level of rates (M,), and ∂U/∂log of all rates at once."""
    if goal.alpha == np.inf:
        least = float((goal.lines.slope * rates[goal.lines.user]).min())
        return least, least
    mean = goal.weights @ utility(rates, goal.alpha) / goal.weights.sum()
    above = _above(rates) ** (1.0 - goal.alpha)
    return float(rate_of(mean, goal.alpha)), float(goal.weights @ above)


def refined(goal: Goal, rates: Array) -> Goal:
    """With tangents at these rates where u is curved."""
    if not 0.0 < goal.alpha < np.inf:
        return goal
    new = tangents(_above(rates), goal.alpha)
    return goal._replace(lines=Lines._make(map(np.append, goal.lines, new)))


def _above(rates: Array) -> Array:
    """Rates that u and its slope are finite at."""
    return np.maximum(rates, _LEAST_RATE * rates.max())


def master(parts: Parts, goal: Goal, owed: Array, n: int) -> tuple[Array, Prices]:
    """(frame) over the parts at hand: the shares τ, and the prices."""
    lines, columns, values = goal.lines, len(parts.rates), len(goal.weights)
    of_part = np.vstack(
        [
            parts.subchannel == np.arange(n)[:, None],  # Σ τ ≤ 1
            parts.power.sum(axis=1),  # Σ τ p ≤ 1
            -parts.rates.T,  # −R ≤ −owed
            -lines.slope[:, None] * parts.rates.T[lines.user],  # v − s R ≤ c
        ]
    )
    of_value = np.zeros((len(of_part), values))
    of_value[-len(lines.of) :][np.arange(len(lines.of)), lines.of] = 1.0
    found = linprog(
        np.r_[np.zeros(columns), -goal.weights],
        A_ub=np.hstack([of_part, of_value]),
        b_ub=np.r_[np.ones(n + 1), -owed, lines.height],
        bounds=[(0.0, None)] * columns + [(None, None)] * values,
        options={"presolve": False},  # which takes longer than it saves
    )
    if not found.success:
        raise RuntimeError(f"the linear program was not solved: {found.message}")
    dual = np.maximum(-found.ineqlin.marginals, 0.0)
    power, extra, of_line = dual[n], dual[n + 1 : n + 1 + len(owed)], dual[n + 1 + len(owed) :]
    of_line *= (goal.weights / np.bincount(lines.of, of_line))[lines.of]  # they bound U to rounding
    rate = extra + np.bincount(lines.user, of_line * lines.slope, minlength=len(owed))
    power = max(power, _LOWEST_PRICE * rate.max())
    return found.x[:columns], Prices(rate, power, of_line @ lines.height - extra @ owed)
