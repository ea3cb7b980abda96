"""Schedules with weights. Oracles: every exchange, JSPA's gradient method; test_joint_bound."""

from itertools import combinations

import numpy as np
import pytest
from checks import draws, exchanges, same, weighted

from nomalib import channel, matching, rates, schedules, takers
from nomalib.network import Network

RULES = ("rate", "qos", "feasible", "optimum")


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_one_change_no_bit_and_others_scale_the_rate(rule):
    net = Network(6, 6)
    gains, start = draws(net, 20, 1)
    plain = matching.paus(net, gains, start, rule=rule)
    same(matching.paus(net, gains, start, rule=rule, weights=np.ones(6)), plain)
    half = matching.paus(net, gains, start, rule=rule, weights=np.full((20, 6), 0.5))
    np.testing.assert_array_equal(half.assignment, plain.assignment)
    np.testing.assert_allclose(half.trace, 0.5 * plain.trace, rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gain", ["interferer", "receiver"])
def test_a_weighted_matching_is_monotone_within_the_caps_and_keeps_r_min(rule, gain):
    net = Network(6, 8, 3, 3, sic_residual=0.05, interference_gain=gain)
    gains, start, weights = weighted(net, 20, 2)
    m = matching.paus(net, gains, start, rule=rule, weights=weights)
    assert (m.assignment.sum(axis=1) <= 3).all() and (m.assignment.sum(axis=2) <= 3).all()
    assert not (np.diff(m.trace, axis=1) <= 0.0).any()
    found = rates.sum_rate(net, gains, m.assignment, m.power, weights)
    np.testing.assert_array_equal(m.sum_rate, found)
    plain = matching.paus(net, gains, start, rule=rule)
    other = rates.sum_rate(net, gains, plain.assignment, plain.power, weights)
    assert np.nanmean(m.sum_rate) > np.nanmean(other)
    if rule in ("qos", "optimum"):
        assert np.nanmax(rates.qos_violation(net, gains, m.assignment, m.power)) == 0.0


# gain, ε, and by how much an exchange may be better: the duality gap of single takers
EXACT = [("interferer", 0.0, 1e-3), ("interferer", 0.1, 1e-3), ("receiver", 0.0, 1e-8)]


@pytest.mark.parametrize("gain, epsilon, slack", EXACT)
def test_no_exchange_within_the_caps_is_better(gain, epsilon, slack):
    net = Network(6, 6, 3, 3, sic_residual=epsilon, interference_gain=gain)
    gains, start, weights = weighted(net, 4, 3)
    m = matching.paus(net, gains, start, weights=weights)
    for b in range(4):
        after = exchanges(net, m.assignment[b])
        copies = np.broadcast_to(gains[b], after.shape)
        rate = takers.allocate(net, copies, after, weights[b]).sum_rate
        assert not (rate > m.sum_rate[b] * (1 + slack)).any()


def jspa(net, gains, weights, users, steps=200):
    """JSPA's gradient method (Salaün, Coupechoux and Chen, 2020), written from the paper.

    The best set of at most `users` users of a subchannel at a given power is found by trying all;
    the powers of the subchannels follow the gradient, projected on the budget, by halved steps.
    """
    noise = np.sort(net.noise / gains**2 / net.budget, axis=1)
    weight = weights[np.argsort(-gains, axis=1, kind="stable")]
    ones = np.array(list(combinations(range(net.n_users), users)))
    n, w = noise[:, ones], weight[:, ones]  # (N, sets, users)

    def value(p):
        """Σ over subchannels of the best ∫ max_j w_j/(n_j + z) dz from 0 to p_i, and slopes."""
        cuts = [np.zeros(n.shape[:2]), np.broadcast_to(p[:, None], n.shape[:2])]
        for a, b in combinations(range(users), 2):
            with np.errstate(divide="ignore", invalid="ignore"):
                z = (w[..., a] * n[..., b] - w[..., b] * n[..., a]) / (w[..., b] - w[..., a])
            cuts.append(np.clip(np.nan_to_num(z, posinf=0.0, neginf=0.0), 0.0, p[:, None]))
        cuts, total = np.sort(np.stack(cuts), axis=0), 0.0
        for low, high in zip(cuts[:-1], cuts[1:], strict=True):
            middle = 0.5 * (low + high)[..., None]
            last = (w / (n + middle)).argmax(axis=-1)[..., None]
            a, v = (np.take_along_axis(x, last, -1)[..., 0] for x in (n, w))
            total = total + v * np.log((a + high) / (a + low))
        chosen = total.argmax(axis=1)
        rows = np.arange(len(p))
        slope = (w[rows, chosen] / (n[rows, chosen] + p[:, None])).max(axis=1)
        return total[rows, chosen].sum(), slope

    p = np.full(len(gains), 1.0 / len(gains))
    best, slope = value(p)
    step = 1.0 / (len(gains) * np.abs(slope).max())
    for _ in range(steps):
        found, step = False, 4.0 * step
        while not found and step * np.abs(slope).max() > 1e-12:
            trial = on_simplex(p + step * slope)
            reached, new = value(trial)
            found = reached > best + 1e-4 * slope @ (trial - p) and reached > best * (1 + 1e-12)
            step *= 1.0 if found else 0.5
        if not found:
            break
        p, best, slope = trial, reached, new
    return best / np.log(2.0)


def on_simplex(p):
    """The closest point of nonnegative powers of sum 1."""
    high_first = np.sort(p)[::-1]
    over = (np.cumsum(high_first) - 1.0) / np.arange(1, len(p) + 1)
    return np.maximum(p - over[high_first > over][-1], 0.0)


def cell_of_jspa(users, per_subchannel, n_draws, seed):
    """Its setting: a cell of 1 km, 5 MHz, 1 W, weights uniform in (0, 1), no R_min, no cap V."""
    rng = np.random.default_rng(seed)
    options = dict(power_dbm=30.0, noise=channel.noise_watt(5e5), fading="rayleigh")
    options |= dict(sic_residual=0.0, min_rate=0.0, interference_gain="receiver")
    net = Network(10, users, per_subchannel, 10, **options)
    gains = channel.draw_cell(net, n_draws, rng, shadowing_db=10.0).gains
    return net, gains, rng.random((n_draws, users))


@pytest.mark.parametrize("users, per_subchannel", [(10, 2), (10, 3), (20, 2)])
def test_paus_is_as_good_as_jspa_in_its_setting(users, per_subchannel):
    net, gains, weights = cell_of_jspa(users, per_subchannel, 12, users)
    start = schedules.at_price(net, gains, weights)
    found = matching.paus(net, gains, start, weights=weights).sum_rate
    pairs = zip(gains, weights, strict=True)
    theirs = np.array([jspa(net, g, w, per_subchannel) for g, w in pairs])
    assert found.mean() >= theirs.mean() * (1 - 1e-6)
    assert (found >= theirs * (1 - 3e-3)).all()
