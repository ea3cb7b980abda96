"""Two users: OMA, the best split and both break-evens against dense grids, and the theorem."""

import numpy as np
import pytest
from scipy.optimize import linprog

from nomalib import breakeven

# SNRs of the weak user at 0, 10 and 20 dB, the strong one 2 to 20 dB above
WEAK = np.repeat([1.0, 10.0, 100.0], 4)
STRONG = WEAK * np.tile([1.6, 4.0, 10.0, 100.0], 3)
# of a whole, dense at both ends
ENDS = np.logspace(-6, -3, 200)
PARTS = np.concatenate([ENDS, np.linspace(0.0015, 0.9985, 998), 1.0 - ENDS[::-1]])


FINE = np.concatenate([ENDS, np.linspace(0.001, 0.999, 20_000), 1.0 - ENDS[::-1]])


def mean_of(strong_rate, weak_rate, alpha):
    if alpha == np.inf:
        return np.minimum(strong_rate, weak_rate)
    return np.sqrt(strong_rate * weak_rate)


def oma_on_a_grid(s, w, alpha, sharing):
    time = PARTS[:, None] if sharing == "averaged" else FINE
    energy = PARTS if sharing == "averaged" else FINE
    rate_s = time * np.log2(1 + energy / time * s)
    rate_w = (1 - time) * np.log2(1 + (1 - energy) / (1 - time) * w)
    return mean_of(rate_s, rate_w, alpha).max()


def split_on_a_grid(s, w, epsilon, alpha):
    left = 1 - FINE
    rate_s = np.log2(1 + FINE * s / (1 + epsilon * s * left))
    rate_w = np.log2(1 + left * w / (1 + FINE * w))
    return mean_of(rate_s, rate_w, alpha).max()


@pytest.mark.parametrize("sharing", ["kept", "averaged"])
@pytest.mark.parametrize("alpha", [1.0, np.inf])
def test_oma_and_the_fixed_split_on_dense_grids(alpha, sharing):
    oma = breakeven.time_shared(STRONG, WEAK, alpha, sharing)
    star = breakeven.fixed(STRONG, WEAK, alpha, sharing)
    for at, (s, w) in enumerate(zip(STRONG, WEAK, strict=True)):
        assert oma.level[at] == pytest.approx(oma_on_a_grid(s, w, alpha, sharing), rel=1e-3)
        for epsilon in (0.0, 0.003, 0.1):
            ours = breakeven.fixed_level(s, w, epsilon, alpha)
            assert ours == pytest.approx(split_on_a_grid(s, w, epsilon, alpha), rel=1e-3)
        target = oma_on_a_grid(s, w, alpha, sharing)
        assert split_on_a_grid(s, w, 0.95 * star[at], alpha) > target
        assert split_on_a_grid(s, w, 1.05 * star[at], alpha) < target
    np.testing.assert_allclose((oma.share * oma.power).sum(axis=-1), 1.0, rtol=1e-12)


def test_adaptive_noma_with_the_power_kept_is_the_theorem_for_every_pair():
    rng = np.random.default_rng(1)
    weak = 10 ** rng.uniform(-2, 4, 4000)
    strong = weak * 10 ** rng.uniform(0.01, 4, 4000)
    epsilon_0 = breakeven.adaptive(strong, weak, sharing="kept")
    share = 1 / (1 + np.exp(np.linspace(-30, 20, 1500)))[:, None]
    capacity = np.log1p(np.stack([strong, weak], axis=-1)) / np.log(2)
    for factor, pays in ((0.98, True), (1.0, False), (1.02, False)):
        at = breakeven.pair_rates(strong, weak, share, np.minimum(1, factor * epsilon_0)) / capacity
        above = at.sum(axis=-1).max(axis=0) - 1
        assert (above > 0).all() if pays else (above < 1e-12).all()


def best_of_parts(rates, power, alpha, around):
    """Parts of time with one budget of each: by a linear program, linearised for alpha = 1."""
    time_and_power = np.vstack([np.ones(len(power)), power])
    if alpha == 1.0:
        found = linprog(-(rates / around).sum(axis=1), A_ub=time_and_power, b_ub=[1, 1])
        return -found.fun
    table = np.zeros((4, len(power) + 1))
    table[:2, :-1], table[2:, :-1], table[2:, -1] = time_and_power, -rates.T, 1.0
    found = linprog(np.eye(1, len(power) + 1, len(power))[0] * -1, A_ub=table, b_ub=[1, 1, 0, 0])
    return -found.fun


@pytest.mark.parametrize("alpha", [1.0, np.inf])
def test_adaptive_noma_with_averaged_power_by_linear_programs(alpha):
    # at OMA's optimum the utility's gradient decides, so that one linear program does
    epsilon_0 = breakeven.adaptive(STRONG, WEAK, alpha)
    lower = breakeven.adaptive(STRONG, WEAK, sharing="kept")
    assert (breakeven.fixed(STRONG, WEAK, alpha) < epsilon_0).all() and (epsilon_0 < lower).all()
    oma = breakeven.time_shared(STRONG, WEAK, alpha)
    share = 1 / (1 + np.exp(np.linspace(-14, 12, 100)))
    near = np.exp(np.linspace(-0.03, 0.03, 13))[:, None]
    for at, (s, w, edge) in enumerate(zip(STRONG, WEAK, epsilon_0, strict=True)):
        power = np.r_[np.geomspace(0.05, 20, 130), (near * oma.power[at]).ravel()]
        alone = np.log2(1 + np.outer(power, [s, w]))
        apart = np.vstack([alone * [1, 0], alone * [0, 1]])
        worth = best_of_parts(apart, np.tile(power, 2), alpha, oma.rates[at])
        assert worth == pytest.approx(2.0 if alpha == 1.0 else oma.level[at], rel=1e-6)
        for factor, gain in ((0.95, 1e-4), (1.05, 0.0)):
            left = power[:, None] * (1 - share)
            clear = s * power[:, None] * share / (1 + factor * edge * s * left)
            noisy = w * left / (1 + w * power[:, None] * share)
            shared = np.log2(1 + np.stack([clear, noisy], axis=-1)).reshape(-1, 2)
            rates = np.vstack([shared, apart])
            budget = np.r_[np.repeat(power, share.size), np.tile(power, 2)]
            found = best_of_parts(rates, budget, alpha, oma.rates[at]) / worth - 1
            assert found > gain if gain else found < 1e-7
