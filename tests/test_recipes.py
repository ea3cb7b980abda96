"""The recipes of CONTRIBUTING.md, done: an allocator in NumPy (another rule: test_matching)."""

import numpy as np
from checks import CONVENTIONS, assert_allocation, draws

from nomalib import matching, polytope, water_filling
from nomalib.network import Network


def equal_totals(net, gains, assignment, weights=None):
    """The spare power shared equally by the subchannels that serve somebody, to the strongest."""
    shares = polytope.reduce(net, gains, assignment, weights)
    u = np.zeros(shares.users.shape)
    u[..., 0] = shares.count > 0
    return polytope.allocation(net, shares, u)


def test_an_allocator_in_numpy_stands_in_for_any_other():
    for convention in CONVENTIONS:
        net = Network(interference_gain=convention)
        gains, assignment = draws(net, 200)
        found, best = (
            allocate(net, gains, assignment) for allocate in (equal_totals, water_filling.allocate)
        )
        assert_allocation(net, gains, assignment, found, optimal=False)
        np.testing.assert_array_equal(found.feasible, best.feasible)
        ok = found.feasible
        assert (found.sum_rate <= best.upper_bound)[ok].all()
        # what the totals are worth is little
        assert found.sum_rate[ok].mean() > 0.97 * best.sum_rate[ok].mean()
        scheduled = matching.paus(net, gains[ok][:20], assignment[ok][:20], equal_totals)
        assert (scheduled.sum_rate >= found.sum_rate[ok][:20] * (1 - 1e-12)).all()
