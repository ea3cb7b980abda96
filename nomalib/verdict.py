"""Verdicts by a rule: a paired interval, and what it says of a claim.

A scheme is judged by a ratio of mean rates over the same draws, so its error is that of paired
data. Where a network was trained several times, each time on draws of its own, the spread of the
results over these seeds holds both: the training's chance, and the draws'.

A claim is that a number lies in an interval, such as "above 1". It is confirmed if the number's
own interval lies inside, refuted if it lies outside, and undecided otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, t

__all__ = ["interval", "learnt", "paired", "ratio", "share", "verdict", "weakest"]

Interval = tuple[float, float]


def paired(*samples: ArrayLike) -> tuple[list[float], list[list[float]]]:
    """Means of samples over the same draws, and the covariance matrix of these means.

    >>> paired([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])[0]
    [2.0, 4.0]
    """
    data = np.asarray(samples, dtype=float)
    covariance = np.atleast_2d(np.cov(data)) / data.shape[1]
    return data.mean(axis=1).tolist(), covariance.tolist()


def ratio(means: Sequence[float], covariance: ArrayLike, a: int, b: int) -> tuple[float, float]:
    """The ratio of the means a and b of `paired`, and its standard error by the delta method.

    >>> ratio(*paired([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 0, 1)      # no error: always one half
    (0.5, 0.0)
    """
    share, c = means[a] / means[b], np.asarray(covariance)
    variance = c[a][a] - 2.0 * share * c[a][b] + share**2 * c[b][b]
    return share, float(np.sqrt(max(variance, 0.0)) / abs(means[b]))


def interval(values: ArrayLike, errors: ArrayLike = 0.0, level: float = 0.95) -> Interval:
    """Interval of the mean of one value for each seed, where each has a standard error.

    One seed: its error times the normal quantile. Several: Student's t over the seeds, and never
    narrower than their errors alone, for few seeds may agree by chance.

    >>> interval([1.0], [0.1])                            # doctest: +ELLIPSIS
    (0.804..., 1.195...)
    >>> interval([1.0, 1.2, 1.1])                         # doctest: +ELLIPSIS
    (0.851..., 1.348...)
    """
    values = np.atleast_1d(np.asarray(values, dtype=float))
    errors = np.broadcast_to(np.asarray(errors, dtype=float), values.shape)
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
    if low < found[0] and found[1] < high:
        return "confirmed"
    return "refuted" if found[1] <= low or found[0] >= high else "undecided"


def weakest(verdicts: Iterable[str]) -> str:
    """The verdict on a claim that holds only if all its parts do.

    >>> weakest(["confirmed", "undecided"]), weakest(["undecided", "refuted"])
    ('undecided', 'refuted')
    """
    order = ("not comparable", "not trained", "refuted", "undecided", "confirmed")
    return min(verdicts, key=order.index)
