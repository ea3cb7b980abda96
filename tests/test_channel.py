"""Cells with distances, against their laws; conversions of the channels of others."""

import numpy as np
import pytest
from scipy import stats

from nomalib import channel
from nomalib.network import Network, dbm_to_watt


def test_users_are_spread_evenly_over_the_ring():
    distances = channel.draw_distances(20_000, np.random.default_rng(1), 50.0, 299.0)
    law = stats.uniform(50.0**2, 299.0**2 - 50.0**2)
    assert stats.kstest(distances**2, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("exponent", [None, 3.0])
def test_gains_are_fading_shadowing_and_path_loss(exponent):
    net = Network(4, 50, noise=channel.noise_watt(5e5), fading="rayleigh")
    rng = np.random.default_rng(2)
    gains, distances = channel.draw_cell(net, 1000, rng, shadowing_db=8.0, exponent=exponent)
    known_db = 20 * np.log10(gains) + channel.path_loss_db(distances, exponent)[:, None, :]
    # 10 log₁₀ of Exp(1): −10 γ/ln 10 on average, deviation (10/ln 10) π/√6
    fading = 10 / np.log(10) * np.array([-np.euler_gamma, np.pi / np.sqrt(6)])
    of_user = known_db.mean(axis=1)
    assert abs(known_db.mean() - fading[0]) < 5 * of_user.std() / np.sqrt(of_user.size)
    assert of_user.std() == pytest.approx(np.hypot(8.0, fading[1] / 2), rel=0.02)
    within = (known_db - of_user[:, None]).std() * np.sqrt(4 / 3)
    assert within == pytest.approx(fading[1], rel=0.02)


def test_the_link_budget_of_a_textbook():
    # 30 dBm over ten parts of 5 MHz; at 1 km: 20 − 128.1 + 174 − 57 dB
    net = Network(noise=channel.noise_watt(5e5), power_dbm=30.0)
    gain = np.full((10, 10), 10 ** (-channel.path_loss_db(1000.0) / 20))
    expected = 20.0 - 128.1 + 174.0 - 10 * np.log10(5e5)
    np.testing.assert_allclose(channel.snr_db(net, gain), expected, rtol=1e-12)
    assert channel.noise_watt(1.0) == dbm_to_watt(-174.0)


def test_a_damaged_measurement():
    rng = np.random.default_rng(3)
    measured = rng.standard_normal((5, 2, 3)) + 1j * rng.standard_normal((5, 2, 3))
    measured[[1, 4], 0, 2] = np.nan
    kept, left_out = channel.complete_draws(channel.from_complex(measured))
    np.testing.assert_array_equal(left_out, [1, 4])
    np.testing.assert_array_equal(kept, channel.from_power(abs(measured[[0, 2, 3]]) ** 2))
