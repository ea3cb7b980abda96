"""Rates that users have over time, at their fairest: a frame of NOMA or of OMA, under a bound.

On each subchannel the time (or the band) is divided into parts. A part (i, S, p) lets a set S of at
most H users share subchannel i at powers p, and they have the rates r(p) of (4) in it; parts of one
user are OMA, so H = 1 is the best OMA, and NOMA with H ≥ 2 may choose it wherever that is better.
Shares τ of the parts, with power averaged over them, give user l the rate R_l = Σ τ_c r_cl:

    max U(R)   with   Σ_{c on i} τ_c ≤ 1,   Σ τ_c p_c ≤ P_c,   R_l ≥ owed_l,   τ ≥ 0,        (frame)
    U = Σ_l ω_l u(R_l),   u(x) = x^{1−α}/(1−α)   (log x at α = 1),   U = min_l R_l/ω_l at α = ∞.

α = 0 is the sum rate, 1 proportional fairness, ∞ max–min. (frame) is concave, with a column for
each part there could be; columns are generated where they pay. A linear program over those at hand,
with tangents s R_l + c for u, prices rate (w_l), power (λ) and the rates owed (y_l). The part that
improves it most is the best split at a price, φ of `nomalib.subchannel` with weights w, and

    U ≤ Σ_i max_S φ_i(S; w, λ) + λ P_c + Σ c − Σ_l y_l owed_l                        (frame-bound)

holds for any prices: it certifies what has been found. R_min of the scenario plays no part.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nomalib._checks import Array, Weights, checked_alpha, checked_number, real_array
from nomalib._draws import checked_gains
from nomalib._parts import NATS, Parts, Sets, alone, best_parts, every_set, joined
from nomalib._utility import (
    Goal,
    least,
    level_of,
    master,
    program,
    rate_of,
    refined,
    tangents,
    utility,
)
from nomalib.network import Network

__all__ = ["Frame", "jain_index", "mean_rate", "optimum"]

_MAX_ROUNDS = 200
# of the gap, what the searches for a split may leave
_OF_SEARCH = 0.2
# to which part of what is owed it is decided whether it can be paid
_DECIDED = 1e-6


class Frame(NamedTuple):
    """Parts of the time or of the band, and what they add up to.

    Attributes:
        subchannel: of each part, (C,).
        share: of the subchannel's time that a part takes, (C,).
        power: of the users while it lasts [W], (C, M).
        rates: of the users, over all subchannels and parts [bps/Hz], (M,).
        level: α-mean of the rates (`mean_rate`) [bps/Hz]; NaN where infeasible.
        upper_bound: what no frame's level exceeds [bps/Hz]; NaN where infeasible.
        feasible: whether the rates owed can be met, to 10⁻⁶; if not, by (frame-bound) none can.
    """

    subchannel: NDArray[np.int64]
    share: Array
    power: Array
    rates: Array
    level: float
    upper_bound: float
    feasible: bool

    @property
    def gap(self) -> float:
        """upper_bound/level − 1."""
        return self.upper_bound / self.level - 1.0


class _Found(NamedTuple):
    parts: Parts
    share: Array
    level: float  # [nats], or of what is owed
    bound: float


def mean_rate(rates: ArrayLike, alpha: float = 1.0, weights: Weights = None) -> Array:
    """The α-mean of rates (…, M), u⁻¹ of the mean of u: arithmetic (0), geometric (1), least (∞).

    `weights` (M,) are above 0, None is 1 for all; at α = ∞ they make it the least R_l/ω_l.

    >>> [round(float(mean_rate([1.0, 4.0], alpha)), 2) for alpha in (0, 1, 2, np.inf)]
    [2.5, 2.0, 1.6, 1.0]
    """
    rates, alpha = _checked_rates(rates), checked_alpha(alpha, 0.0)
    weights = _checked_weights(weights, rates.shape[-1])
    if alpha == np.inf:
        return np.asarray((rates / weights).min(axis=-1))
    return rate_of(utility(rates, alpha) @ weights / weights.sum(), alpha)


def jain_index(rates: ArrayLike) -> Array:
    """Jain's index (Σ R)²/(M Σ R²) of rates (…, M): 1 where all are equal, 1/M where one has all.

    1 too where nobody has any.

    >>> float(jain_index([1.0, 0.0]))
    0.5
    """
    rates = _checked_rates(rates)
    squares = rates.shape[-1] * (rates**2).sum(axis=-1)
    return np.divide(rates.sum(axis=-1) ** 2, squares, np.ones_like(squares), where=squares != 0.0)


def optimum(
    net: Network,
    gains: ArrayLike,
    alpha: float = 1.0,
    owed: ArrayLike = 0.0,
    tol: float = 1e-3,
    start: Frame | None = None,
    weights: Weights = None,
) -> Frame:
    """The fairest frame of one draw, within `tol` of a bound on all frames of NOMA and OMA.

    Args:
        net: the scenario; of its caps only H, `max_users_per_subchannel`, counts. H = 1 is OMA.
        gains: magnitudes |g|, (N, M).
        alpha: fairness in [0, 4], or inf for max–min.
        owed: rates owed to the users over all their subchannels [bps/Hz], a number or (M,).
        tol: gap of the level at which it stops, in [1e-6, 0.5].
        start: a frame, of OMA say, whose parts may be taken: then the level is no lower.
        weights: ω of the users, (M,), each in [10⁻⁶, 10⁶]; None is 1 for all.

    Raises:
        ValueError: also for a user whose gains are all 0, who can have no rate.
        RuntimeError: the gap is not reached.

    >>> cell = {"n_subchannels": 1, "n_users": 2, "interference_gain": "receiver"}
    >>> oma = optimum(Network(**cell, max_users_per_subchannel=1), [[1.2, 0.4]])
    >>> noma = optimum(Network(**cell, sic_residual=0.0), [[1.2, 0.4]], start=oma)
    >>> bool(noma.gap <= 1e-3), float(round(noma.level / oma.level, 2))
    (True, 1.19)
    """
    gains, owed = _checked_frame(net, gains, owed)
    alpha, tol = checked_alpha(alpha, 0.0), checked_number("tol", tol, 1e-6, 0.5)
    weights = _checked_weights(weights, net.n_users)
    sets, parts = every_set(net, gains), alone(net, gains)
    if start is not None:
        if not isinstance(start, Frame) or start.power.shape[1:] != gains.shape[1:]:
            raise ValueError(f"start is {start!r}; it must be a Frame of {net.n_users} users")
        parts = joined(net, gains, parts, start.subchannel, start.power / net.budget)
    usual = len(gains) * parts.rates.mean(axis=0)
    if owed.any():
        # the least rate, as a part of what is owed: a bound below 1 proves that it cannot be met
        goal = least(np.flatnonzero(owed), owed[owed > 0.0], usual)
        found = _generate(net, gains, sets, parts, goal, 0.0 * owed, _DECIDED, 1.0)
        parts = found.parts
        if found.level < 1.0:
            return _frame(net, found, np.nan, np.nan)
    if alpha == np.inf:
        goal = least(np.arange(net.n_users), weights, usual)
    else:
        around = np.geomspace(1 / 16, 16, 9)[:, None] * usual
        goal = Goal(alpha, weights, tangents(around, alpha), usual)
    found = _generate(net, gains, sets, parts, goal, owed, tol, np.inf)
    frame = _frame(net, found, found.level / NATS, found.bound / NATS)
    if start is not None and (start.rates >= owed / NATS * (1.0 - _DECIDED)).all():
        level = float(mean_rate(start.rates, alpha, weights))
        if level > frame.level:
            frame = start._replace(level=level, upper_bound=frame.upper_bound, feasible=True)
    return frame


def _generate(
    net: Network,
    gains: Array,
    sets: Sets,
    parts: Parts,
    goal: Goal,
    owed: Array,
    tol: float,
    enough: float,
) -> _Found:
    """Columns until the gap is at most `tol`, or the level `enough` is reached or out of reach."""
    bound, made = np.inf, program(goal, owed, len(gains))
    for _ in range(_MAX_ROUNDS):
        share, prices = master(made, parts, goal, owed, len(gains))
        rates = share @ parts.rates
        level, scale = level_of(goal, rates)
        goal = refined(goal, rates)
        # U gains tol · scale where all rates grow by the factor 1 + tol
        slack = float(_OF_SEARCH * tol * scale / len(gains))
        power, worth = best_parts(sets, prices, slack, len(gains))
        bound = min(bound, worth.sum() + prices.power + prices.fixed)
        most = bound if goal.alpha == np.inf else rate_of(bound / goal.weights.sum(), goal.alpha)
        if most <= (1.0 + tol) * level or level >= enough or most < enough < np.inf:
            return _Found(parts, share, float(level), float(most))
        parts = joined(net, gains, parts, np.arange(len(gains)), power)
    raise RuntimeError(f"level {level:.6g}, bound {most:.6g} after {_MAX_ROUNDS} rounds")


def _frame(net: Network, found: _Found, level: float, bound: float) -> Frame:
    used = np.flatnonzero(found.share > 1e-12)
    share, parts = found.share[used], Parts._make(part[used] for part in found.parts)
    # the program keeps its limits to its tolerance only
    share /= max(1.0, share @ parts.power.sum(axis=1), np.bincount(parts.subchannel, share).max())
    rates = share @ parts.rates / NATS
    return Frame(
        parts.subchannel, share, net.budget * parts.power, rates, level, bound, level == level
    )


def _checked_rates(rates: ArrayLike) -> Array:
    rates = real_array("rates", rates)
    if not rates.ndim or not rates.shape[-1] or (rates < 0.0).any():
        raise ValueError(f"rates is {rates}; it must be (…, M), each at least 0")
    return rates


def _checked_weights(weights: Weights, m: int) -> Array:
    weights = np.ones(m) if weights is None else real_array("weights", weights)
    if weights.shape != (m,) or not ((weights >= 1e-6) & (weights <= 1e6)).all():
        raise ValueError(f"weights is {weights}; it must be ({m},), each in [1e-6, 1e6]")
    return weights


def _checked_frame(net: Network, gains: ArrayLike, owed: ArrayLike) -> tuple[Array, Array]:
    """Gains of one draw, and the rates owed [nats], (M,)."""
    gains = checked_gains(net, gains)
    if gains.ndim != 2:
        raise ValueError(f"gains has shape {gains.shape}; it must be one draw, (N, M)")
    if not gains.any(axis=0).all():
        raise ValueError(
            f"gains of user {gains.any(axis=0).argmin()} are all 0; it can have no rate"
        )
    owed = real_array("owed", owed)
    if owed.shape not in ((), (net.n_users,)) or not ((owed >= 0.0) & (owed <= 400.0)).all():
        raise ValueError(
            f"owed is {owed}; it must be a number or ({net.n_users},), in [0, 400] bps/Hz"
        )
    return gains, np.full(net.n_users, owed) * NATS
