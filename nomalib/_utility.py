"""The utility of a frame's rates by lines above it, and the linear program that they make.

The program grows by parts and lines, and HiGHS solves it anew from where it was.
"""

from typing import NamedTuple

import numpy as np
from highspy import Highs, HighsModelStatus
from numpy.typing import NDArray

from nomalib._checks import Array
from nomalib._parts import Parts, Prices

# of power, in the highest price of rate; the largest slope of a tangent, in that at a usual rate
_LOWEST_PRICE, _STEEPEST = 1e-9, 1e10


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
    usual: Array  # rates that the users' will be near to [nats], (M,)


def utility(x: Array, alpha: float) -> Array:
    """u, shifted to 0 at 1; −∞ of nothing from α = 1 on."""
    with np.errstate(divide="ignore"):
        return np.log(x) if alpha == 1.0 else (x ** (1.0 - alpha) - 1.0) / (1.0 - alpha)


def rate_of(u: Array, alpha: float) -> Array:
    """The rate of this u; inf above what u can be."""
    with np.errstate(divide="ignore", over="ignore"):
        if alpha == 1.0:
            return np.exp(u)
        return np.maximum(1.0 + (1.0 - alpha) * u, 0.0) ** (1.0 / (1.0 - alpha))


def least(users: NDArray[np.int64], due: Array, usual: Array) -> Goal:
    """U = min R/due over these users."""
    lines = Lines(np.zeros_like(users), users, 1.0 / due, np.zeros(len(users)))
    return Goal(np.inf, np.ones(1), lines, usual)


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
    above = _above(goal, rates) ** (1.0 - goal.alpha)
    return float(rate_of(mean, goal.alpha)), float(goal.weights @ above)


def refined(goal: Goal, rates: Array) -> Goal:
    """With tangents at these rates where u is curved."""
    if not 0.0 < goal.alpha < np.inf:
        return goal
    new = tangents(_above(goal, rates), goal.alpha)
    return goal._replace(lines=Lines._make(map(np.append, goal.lines, new)))


def _above(goal: Goal, rates: Array) -> Array:
    """Rates that u and its slope are finite at."""
    return np.maximum(rates, _STEEPEST ** (-1.0 / goal.alpha) * goal.usual if goal.alpha else 0.0)


class Program(NamedTuple):
    """(frame) as HiGHS holds it, in units of which rates and utilities are about 1."""

    solver: Highs
    value: Array  # of each v, (V,)
    worth: float  # of U


def program(goal: Goal, owed: Array, n: int) -> Program:
    """(frame) before its parts and lines: the values v, the limits, and what is owed."""
    lines, count, solver = goal.lines, len(goal.weights), Highs()
    steepness = np.bincount(lines.of, np.log(lines.slope * goal.usual[lines.user]))
    value = np.exp(steepness / np.bincount(lines.of))
    worth = float((goal.weights * value).max())
    solver.silent()
    solver.addVars(count, np.full(count, -np.inf), np.full(count, np.inf))
    cost = -goal.weights * value / worth
    solver.changeColsCost(count, np.arange(count, dtype=np.int32), cost)
    # Σ τ ≤ 1 on each subchannel, Σ τ p ≤ 1, −R ≤ −owed
    limits = np.r_[np.ones(n + 1), -owed / goal.usual]
    _add_rows(solver, np.zeros((len(limits), count)), limits)
    return Program(solver, value, worth)


def master(made: Program, parts: Parts, goal: Goal, owed: Array, n: int) -> tuple[Array, Prices]:
    """The program's shares τ and prices, with the parts and lines that it has not had yet."""
    solver, lines, limits = made.solver, goal.lines, n + 1 + len(owed)
    count, rates = len(goal.weights), parts.rates / goal.usual
    known, height = solver.getNumCol() - count, lines.height / made.value[lines.of]
    # v − s R ≤ c
    new = slice(solver.getNumRow() - limits, None)
    slope = lines.slope * goal.usual[lines.user] / made.value[lines.of]
    of_line = -slope * rates[:, lines.user]
    rows = np.hstack([lines.of[new, None] == np.arange(count), of_line[:known, new].T])
    _add_rows(solver, rows, height[new])
    of_subchannel = parts.subchannel[:, None] == np.arange(n)
    columns = np.column_stack([of_subchannel, parts.power.sum(axis=1), -rates, of_line])[known:]
    zeros = np.zeros(len(columns))
    start, place, entry = _sparse(columns)
    solver.addCols(len(zeros), zeros, zeros, zeros + np.inf, len(entry), start, place, entry)
    if (solver.getNumRow(), solver.getNumCol()) != (limits + len(lines.of), count + len(rates)):
        raise RuntimeError("the linear program was refused: it has a coefficient above 1e15")
    for presolve in ("off", "on"):  # on, it takes longer
        solver.setOptionValue("presolve", presolve)
        solver.solve()
        if solver.getModelStatus() == HighsModelStatus.kOptimal:
            break
        solver.clearSolver()  # it starts from the last solution, rarely in vain
    else:
        raise RuntimeError("the linear program was not solved")
    found = solver.getSolution()
    dual = made.worth * np.maximum(-np.array(found.row_dual), 0.0)
    price, extra, of = dual[n], dual[n + 1 : limits] / goal.usual, dual[limits:]
    of /= made.value[lines.of]
    of *= (goal.weights / np.bincount(lines.of, of))[lines.of]  # they bound U to rounding
    rate = extra + np.bincount(lines.user, of * lines.slope, minlength=len(owed))
    price = max(price, _LOWEST_PRICE * rate.max())
    prices = Prices(rate, price, of @ lines.height - extra @ owed)
    return np.array(found.col_value)[count:], prices


def _add_rows(solver: Highs, table: Array, limits: Array) -> None:
    start, place, entry = _sparse(table)
    lowest = np.full(len(limits), -np.inf)
    solver.addRows(len(limits), lowest, limits, len(entry), start, place, entry)


def _sparse(table: Array) -> tuple[NDArray[np.int32], NDArray[np.int32], Array]:
    """A table row by row as HiGHS reads it: where rows start, places, entries."""
    row, place = np.nonzero(table)
    start = np.searchsorted(row, np.arange(len(table)))
    return start.astype(np.int32), place.astype(np.int32), 1.0 * table[row, place]
