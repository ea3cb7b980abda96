"""Verdicts by a rule: a paired interval, and what it says of a claim.

A scheme is judged by a ratio of mean rates over the same draws, so its error is that of paired
data. Where a network was trained several times, each time on draws of its own, the spread of the
results over these seeds holds both: the training's chance, and the draws'.

A claim is that a number lies in an interval, such as "above 1". It is confirmed if the number's
own interval lies inside, refuted if it lies outside, and undecided otherwise.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, t

from nomalib._checks import (
    check_choice,
    checked_count,
    checked_fraction,
    checked_number,
    real_array,
)

__all__ = ["interval", "learnt", "paired", "ratio", "share", "verdict", "weakest"]

Interval = tuple[float, float]

# from the weakest on
_WORDS = ("not comparable", "not trained", "refuted", "undecided", "confirmed")


def paired(*samples: ArrayLike) -> tuple[list[float], list[list[float]]]:
    """Means of samples over the same draws, and the covariance matrix of these means.

    A draw that one of them cannot serve (NaN) counts for none.

    >>> paired([1.0, 2.0, 3.0, 9.0], [2.0, 4.0, 6.0, np.nan])[0]
    [2.0, 4.0]
    """
    data = real_array("samples", list(samples))  # type: ignore[arg-type]
    if data.ndim == 2:
        data = data[:, ~np.isnan(data).any(axis=0)]
    if data.ndim != 2 or data.shape[1] < 2:
        raise ValueError(f"samples have the shape {data.shape}; it must be of at least two draws")
    covariance = np.atleast_2d(np.cov(data)) / data.shape[1]
    return data.mean(axis=1).tolist(), covariance.tolist()


def ratio(means: ArrayLike, covariance: ArrayLike, a: int, b: int) -> tuple[float, float]:
    """The ratio of the means a and b of `paired`, and its standard error by the delta method.

    >>> ratio(*paired([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 0, 1)      # no error: always one half
    (0.5, 0.0)
    """
    a, b = checked_count("a", a, 0), checked_count("b", b, 0)
    mean, c = real_array("means", means), real_array("covariance", covariance)
    if mean.ndim != 1 or c.shape != 2 * mean.shape or max(a, b) >= len(mean):
        raise ValueError(
            f"means and covariance have shapes {mean.shape} and {c.shape}, with a = {a} and "
            f"b = {b}; they must be of `paired`"
        )
    share = float(mean[a] / mean[b])
    variance = c[a, a] - 2.0 * share * c[a, b] + share**2 * c[b, b]
    return share, float(np.sqrt(max(variance, 0.0)) / abs(mean[b]))


def interval(values: ArrayLike, errors: ArrayLike = 0.0, level: float = 0.95) -> Interval:
    """Interval of the mean of one value for each seed, where each has a standard error.

    One seed: its error times the normal quantile. Several: Student's t over the seeds, and never
    narrower than their errors alone, for few seeds may agree by chance.

    >>> interval([1.0], [0.1])                            # doctest: +ELLIPSIS
    (0.804..., 1.195...)
    >>> interval([1.0, 1.2, 1.1])                         # doctest: +ELLIPSIS
    (0.851..., 1.348...)
    """
    values, errors = np.atleast_1d(real_array("values", values)), real_array("errors", errors)
    if values.ndim != 1 or not len(values) or errors.shape not in ((), values.shape):
        raise ValueError(
            f"values and errors have shapes {values.shape} and {errors.shape}; both must be (n,)"
        )
    if not (errors >= 0.0).all():
        raise ValueError(f"errors is {errors}; each must be at least 0")
    errors, level = np.broadcast_to(errors, values.shape), checked_fraction("level", level)
    n, tail = len(values), (1.0 + level) / 2.0
    half = norm.ppf(tail) * np.sqrt((errors**2).sum()) / n
    if n > 1:
        half = max(half, t.ppf(tail, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return float(values.mean() - half), float(values.mean() + half)


def share(rows: Iterable[Mapping[str, Any]], a: str, b: str) -> Interval:
    """Interval of the ratio of the mean rates of scheme `a` and `b`, over all rows.

    Args:
        rows: of records with `schemes`, a `sum_rate_` of each and their `covariance`.
        a, b: names among the schemes.

    >>> row = {"schemes": ["x", "y"], "sum_rate_x": 9.0, "sum_rate_y": 10.0}
    >>> share([row | {"covariance": np.zeros((2, 2))}], "x", "y")
    (0.9, 0.9)
    """
    found = []
    for row in rows:
        means = [row[f"sum_rate_{name}"] for name in row["schemes"]]
        at = [row["schemes"].index(name) for name in (a, b)]
        found.append(ratio(means, row["covariance"], *at))
    values, errors = zip(*found, strict=True)
    return interval(values, errors)


def learnt(rows: Iterable[Mapping[str, Any]]) -> float:
    """A network's validation error over that of the mean label; mean of the rows.

    Above 1 the network is worse than a constant. The book calls it trained, and judges it, below
    0.9.

    >>> learnt([{"validation_mse": [0.4, 0.2], "mean_label_mse": 0.25}])
    0.8
    """
    return float(np.mean([row["validation_mse"][-1] / row["mean_label_mse"] for row in rows]))


def verdict(found: Interval, low: float = -np.inf, high: float = np.inf) -> str:
    """What an interval says of the claim that the number lies between `low` and `high`.

    >>> [verdict(found, low=1.0) for found in ((1.1, 1.2), (0.8, 0.9), (0.9, 1.1))]
    ['confirmed', 'refuted', 'undecided']
    """
    low = checked_number("low", low, -np.inf, np.inf)
    high = checked_number("high", high, -np.inf, np.inf)
    ends = real_array("found", found)
    if ends.shape != (2,):
        raise ValueError(f"found is {found!r}; it must be an interval")
    if low < ends[0] and ends[1] < high:
        return "confirmed"
    return "refuted" if ends[1] <= low or ends[0] >= high else "undecided"


def weakest(verdicts: Iterable[str]) -> str:
    """The verdict on a claim that holds only if all its parts do.

    >>> weakest(["confirmed", "undecided"]), weakest(["undecided", "refuted"])
    ('undecided', 'refuted')
    """
    words = list(verdicts) if isinstance(verdicts, Iterable) else []
    if not words:
        raise ValueError(f"verdicts is {verdicts!r}; it must hold at least one")
    for word in words:
        check_choice("verdicts", word, _WORDS)
    return min(words, key=_WORDS.index)
