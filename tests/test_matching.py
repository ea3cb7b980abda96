"""Oracle: exchange stability by trying every exchange."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from checks import CONVENTIONS, better_swap, draws, exchanges, loads, same
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nomalib import baselines, interior_point, matching, rates, water_filling
from nomalib.network import Network

ALL_RULES = get_args(matching.Rule)


@st.composite
def scenarios(draw):
    """A small network with one draw of its fading and a balanced assignment at the caps."""
    net = Network(
        n_subchannels=draw(st.integers(2, 4)),
        n_users=draw(st.integers(2, 5)),
        max_users_per_subchannel=draw(st.integers(1, 3)),
        max_subchannels_per_user=draw(st.integers(1, 3)),
        noise=draw(st.sampled_from([0.01, 0.1, 1.0])),
        sic_residual=draw(st.sampled_from([0.0, 0.01, 0.3, 1.0])),
        min_rate=draw(st.sampled_from([0.0, 0.01, 0.5])),
        interference_gain=draw(st.sampled_from(CONVENTIONS)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):  # R_min of each user, where the strongest still takes all
        net = replace(net, sic_residual=0.0, min_rate=rng.choice([0.0, 0.01, 0.5], net.n_users))
    gains, start = draws(net, 1, rng, one_assignment=True)
    return net, gains[0], start, rng


def equal(net, gains, assignment):
    """An allocator that gives equal power; NaN where infeasible."""
    exact = water_filling.allocate(net, gains, assignment)
    power = np.where(exact.feasible[:, None, None], 1.0, np.nan)
    return exact._replace(power=power * baselines.equal_power(net, assignment))


@settings(derandomize=True, deadline=None, max_examples=80)
@given(scenarios(), st.sampled_from(ALL_RULES), st.booleans())
def test_swaps_keep_the_places_raise_the_rate_and_end_exchange_stable(scenario, rule, random_power):
    net, gains, start, rng = scenario
    power = baselines.equal_power(net, start)
    if random_power:
        power = baselines.random_power(net, start, rng)
    m = matching.swap_matching(net, gains, start, power, rule)
    same(loads(m.assignment), loads(start))
    assert m.trace.shape == (m.n_swaps + 1,)
    if rule == "optimum":
        before = rates.sum_rate(net, gains, start, water_filling.allocate(net, gains, start).power)
        assert (np.diff(np.isnan(m.trace).astype(int)) <= 0).all()  # never infeasible again
    else:
        before = rates.sum_rate(net, gains, start, power)
        stable = matching.is_exchange_stable(net, gains, start, power, rule)
        assert stable == (better_swap(net, gains, start, power, rule) is None)
        # the powers stayed with the places
        for i in range(net.n_subchannels):
            np.testing.assert_allclose(
                np.sort(m.power[i][m.assignment[i]]), np.sort(power[i][start[i]]), rtol=1e-14
            )
        assert (m.power[~m.assignment] == 0).all()
    np.testing.assert_allclose(m.trace[0], before, rtol=1e-9)
    np.testing.assert_allclose(m.trace[-1], m.sum_rate, rtol=1e-9)
    np.testing.assert_array_equal(m.sum_rate, rates.sum_rate(net, gains, m.assignment, m.power))
    assert not (np.diff(m.trace) <= 0).any()
    if not np.isnan(m.sum_rate):
        assert better_swap(net, gains, m.assignment, m.power, rule) is None
    stable = matching.is_exchange_stable(net, gains, m.assignment, m.power, rule)
    assert stable == ~np.isnan(m.sum_rate)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(scenarios(), st.sampled_from(ALL_RULES), st.booleans())
def test_paus_is_monotone_within_the_caps_and_stable(scenario, rule, moves):
    net, gains, start, _ = scenario
    found = water_filling.allocate(net, gains, start)
    m = matching.paus(net, gains, start, rule=rule, moves=moves)
    same(m, matching.paus(net, gains, start, rule=rule, moves=moves))
    load, held = loads(m.assignment)
    assert (held <= net.max_subchannels_per_user).all()
    assert (load <= net.max_users_per_subchannel).all()
    assert (held >= np.minimum(start.sum(axis=0), 1)).all()  # nobody loses its last subchannel
    if not moves:
        same([load, held], loads(start))
    rate = rates.sum_rate(net, gains, m.assignment, m.power)
    np.testing.assert_array_equal(m.sum_rate, rate)
    trace = m.trace[~np.isnan(m.trace)]
    assert (np.diff(trace) > 0).all()
    assert (trace.size == 0) == np.isnan(rate) <= ~found.feasible
    assume(trace.size)
    np.testing.assert_array_equal(trace[-1], rate)
    np.testing.assert_array_equal(m.trace[0], rates.sum_rate(net, gains, start, found.power))
    np.testing.assert_allclose(m.power.sum(), net.budget, rtol=1e-9)
    if rule in ("qos", "optimum"):
        assert rates.qos_violation(net, gains, m.assignment, m.power) == 0
    assert better_swap(net, gains, m.assignment, m.power, rule) is None
    if rule != "feasible":  # the others imply stability under the default rule, "qos"
        assert matching.is_exchange_stable(net, gains, m.assignment, m.power)


CELLS = {
    "caps of C1, C2": Network(max_users_per_subchannel=4, max_subchannels_per_user=3),
    "M = 20, N = 25": Network(n_users=20, n_subchannels=25),
    "default": Network(),
    "crowded": Network(n_users=25, n_subchannels=4, interference_gain="receiver"),
}


@pytest.mark.parametrize("net", CELLS.values(), ids=CELLS)
def test_no_exchange_within_the_caps_is_better_in_cells_of_the_papers_sizes(net):
    gains, start = draws(net, 3, 6)
    initial = water_filling.allocate(net, gains, start)
    m = matching.paus(net, gains, start)
    same(m, matching.paus(net, gains, start))
    assert (m.sum_rate > rates.sum_rate(net, gains, start, initial.power))[initial.feasible].all()
    np.testing.assert_array_equal(rates.qos_violation(net, gains, m.assignment, m.power), 0.0)
    for b in range(3):
        load, held = loads(m.assignment[b])
        assert (held <= net.max_subchannels_per_user).all()
        assert (load <= net.max_users_per_subchannel).all()
        assert m.assignment[b].any(axis=0).sum() >= start[b].any(axis=0).sum()
        after = exchanges(net, m.assignment[b])
        copies = np.broadcast_to(gains[b], after.shape)
        power = water_filling.allocate(net, copies, after).power
        assert not (rates.sum_rate(net, copies, after, power) > m.sum_rate[b] * (1 + 1e-8)).any()
        swapped = matching.swap_matching(net, gains[b], start[b], None, "optimum", moves=True)
        assert not (np.diff(swapped.trace) <= 0).any()
        same([swapped.sum_rate, swapped.n_swaps], [m.sum_rate[b], m.n_swaps[b]])


@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", list(CELLS)[:2])
def test_swaps_are_stable_in_cells_of_the_papers_sizes(cell, rule):
    net = CELLS[cell]
    gains, start = (part[0] for part in draws(net, 1, 7))
    m = matching.paus(net, gains, start, rule=rule, moves=False)
    same(loads(m.assignment), loads(start))
    assert better_swap(net, gains, m.assignment, m.power, rule) is None


@pytest.mark.parametrize("rule", ["rate", "qos", "feasible"])
def test_paus_counts_its_swaps(rule):
    """Equal power depends on no gain: its second power step raises nothing, one matching is all."""
    net = Network(n_subchannels=5, n_users=6)
    gains, start = draws(net, 20, 7)
    power = equal(net, gains, start).power
    known = ~np.isnan(power).any(axis=(1, 2))
    once = matching.swap_matching(net, gains, start, power, rule)
    whole = matching.paus(net, gains, start, equal, rule, moves=False)
    assert known.sum() > 5
    np.testing.assert_array_equal(whole.n_swaps[known], once.n_swaps[known])
    assert rule == "qos" or once.n_swaps[known].sum() > 20


def test_scheduling_makes_infeasible_draws_feasible():
    net = Network()
    gains, start = draws(net, 200, 4)
    stuck = ~water_filling.allocate(net, gains, start).feasible
    assert 0.05 < stuck.mean() < 0.3
    for rule in ALL_RULES:
        m = matching.paus(net, gains, start, rule=rule, moves=False)
        assert not np.isnan(m.sum_rate).any()
        assert np.isnan(m.trace[stuck, 0]).all()


@pytest.mark.parametrize("rule", ALL_RULES)
def test_any_allocator_and_a_power_step_that_would_lower_the_rate_is_not_taken(rule):
    net = Network(n_subchannels=5, n_users=6)
    gains, start = draws(net, 30, 5)

    for allocate in (equal, interior_point.allocate):
        m = matching.paus(net, gains, start, allocate, rule=rule)
        assert not (np.diff(m.trace, axis=1) <= 0).any()
        before = rates.sum_rate(net, gains, start, allocate(net, gains, start).power)
        same([m.trace[:, 0]], [before])
        assert not (m.sum_rate < before).any()
        # the last power step was tried: it does not raise what was kept
        again = rates.sum_rate(net, gains, m.assignment, allocate(net, gains, m.assignment).power)
        assert not (again > m.sum_rate * (1 + 1e-8)).any()
