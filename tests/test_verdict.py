"""Intervals hold what they promise, on data whose truth is known."""

import numpy as np
import pytest

from nomalib import verdict


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def test_the_paired_interval_of_a_ratio_of_means_covers_the_truth(rng):
    covered = 0
    for _ in range(1000):
        base = rng.gamma(4.0, size=150)
        scheme = 0.9 * base + rng.normal(0.4, 0.3, 150)  # means 4 and 0.9 · 4 + 0.4 = 4
        found = verdict.ratio(*verdict.paired(scheme, base), 0, 1)
        low, high = verdict.interval([found[0]], [found[1]])
        covered += low < 1.0 < high
    assert 930 <= covered <= 970


def test_the_interval_over_seeds_covers_the_truth_whatever_their_spread_is(rng):
    for spread, least, most in ((0.3, 930, 975), (0.0, 930, 1000)):
        error, hits = 0.1, 0
        for _ in range(1000):
            seeds = 2.0 + rng.normal(0.0, np.hypot(spread, error), 3)
            low, high = verdict.interval(seeds, [error] * 3)
            hits += low < 2.0 < high
        assert least <= hits <= most, (spread, hits)


def test_a_claim_is_undecided_only_where_its_bound_lies_inside_the_interval():
    assert verdict.verdict((0.88, 0.91), 0.8767, 0.9167) == "confirmed"
    assert verdict.verdict((0.90, 0.95), 0.8767, 0.9167) == "undecided"
    assert verdict.verdict((0.92, 0.95), 0.8767, 0.9167) == "refuted"
