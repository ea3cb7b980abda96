"""The utility of a frame's rates by lines above it, and the linear program that they make."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from nomalib._checks import Array
from nomalib._parts import Parts, Prices

# of power, in the highest price of rate
_LOWEST_PRICE = 1e-9


class Lines(NamedTuple):
    """U ≤ Σ_v min over its lines of slope R_user + height: what a linear program knows of U."""

    of: NDArray[np.int64]
    user: NDArray[np.int64]
    slope: Array
    height: Array


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


def least(users: NDArray[np.int64], slope: Array) -> Lines:
    """U = min slope R over these users."""
    return Lines(np.zeros_like(users), users, slope, np.zeros(len(users)))


def tangents(rates: Array, alpha: float) -> Lines:
    """Tangents of Σ u at rates (…, M)."""
    users = np.broadcast_to(np.arange(rates.shape[-1]), rates.shape).ravel()
    rates = rates.ravel()
    slope = rates**-alpha
    return Lines(users, users, slope, utility(rates, alpha) - slope * rates)


def master(parts: Parts, lines: Lines, owed: Array, n: int) -> tuple[Array, Prices]:
    """(frame) over the parts at hand, U by its lines: the shares τ, and the prices."""
    columns, values = len(parts.rates), lines.of.max() + 1
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
        np.r_[np.zeros(columns), -np.ones(values)],
        A_ub=np.hstack([of_part, of_value]),
        b_ub=np.r_[np.ones(n + 1), -owed, lines.height],
        bounds=[(0.0, None)] * columns + [(None, None)] * values,
        options={"presolve": False},  # which takes longer than it saves
    )
    if not found.success:
        raise RuntimeError(f"the linear program was not solved: {found.message}")
    dual = np.maximum(-found.ineqlin.marginals, 0.0)
    power, extra, of_line = dual[n], dual[n + 1 : n + 1 + len(owed)], dual[n + 1 + len(owed) :]
    of_line /= np.bincount(lines.of, of_line)[lines.of]  # so that the lines bound U, to rounding
    rate = extra + np.bincount(lines.user, of_line * lines.slope, minlength=len(owed))
    power = max(power, _LOWEST_PRICE * rate.max())
    return found.x[:columns], Prices(rate, power, of_line @ lines.height - extra @ owed)
