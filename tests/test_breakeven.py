"""Two users: OMA, the best split and both break-evens against dense grids, and the theorem."""

import numpy as np
import pytest

from nomalib import breakeven, fairness
from nomalib.network import Network

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


@pytest.mark.parametrize("alpha", [1.0, np.inf])
def test_adaptive_noma_with_averaged_power_by_frames(alpha):
    # around ε₀ frames gain on OMA or do not; their columns are generated, not bisected
    chosen = [0, 2, 5, 6, 7, 9, 10]
    strong, weak = STRONG[chosen], WEAK[chosen]
    epsilon_0 = breakeven.adaptive(strong, weak, alpha)
    lower = breakeven.adaptive(strong, weak, sharing="kept")
    assert (breakeven.fixed(strong, weak, alpha) < epsilon_0).all() and (epsilon_0 < lower).all()
    for s, w, edge in zip(strong, weak, epsilon_0, strict=True):
        gains = np.sqrt([[s, w]])
        cell = {"n_subchannels": 1, "n_users": 2, "power_dbm": 30.0, "noise": 1.0}
        cell |= {"interference_gain": "receiver", "max_users_per_subchannel": 2}
        oma = breakeven.time_shared(s, w, alpha).level
        found = {
            part: fairness.optimum(
                Network(**cell, sic_residual=part * edge), gains, alpha, tol=1e-6
            )
            for part in (0.8, 1.05)
        }
        assert found[0.8].level > oma * (1 + 1e-6)
        assert found[1.05].upper_bound <= oma * (1 + 2e-6)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: breakeven.time_shared(1.0, 2.0), "strong and weak hold 1 and 2"),
        (lambda: breakeven.fixed(10.0, -3.0), "strong and weak hold 10 and -3"),
        (lambda: breakeven.pair_rates(10.0, 1.0, 1.5, 0.0), "share is 1.5"),
        (lambda: breakeven.fixed_level(10.0, 1.0, 2.0), "epsilon is 2"),
        (lambda: breakeven.time_shared(10.0, 1.0, 0.0), "alpha is 0"),
        (lambda: breakeven.adaptive(10.0, 1.0, 1.0, "shared"), "sharing is 'shared'"),
    ],
)
def test_a_bad_argument_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
