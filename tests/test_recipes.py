"""The recipes of CONTRIBUTING.md, done: an allocator in NumPy, and a rule on each user's rate."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from checks import CONVENTIONS, assert_allocation, better_swap, draws

import nomalib
from nomalib import matching, polytope, rates, water_filling
from nomalib.baselines import equal_power
from nomalib.network import Network

IGNORED = shutil.ignore_patterns("__pycache__")


def equal_spare(net, gains, assignment, weights=None):
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
            allocate(net, gains, assignment) for allocate in (equal_spare, water_filling.allocate)
        )
        assert_allocation(net, gains, assignment, found, optimal=False)
        np.testing.assert_array_equal(found.feasible, best.feasible)
        ok = found.feasible
        assert (found.sum_rate <= best.upper_bound)[ok].all()
        # what the totals are worth is little
        assert found.sum_rate[ok].mean() > 0.97 * best.sum_rate[ok].mean()
        scheduled = matching.paus(net, gains[ok][:20], assignment[ok][:20], equal_spare)
        assert (scheduled.sum_rate >= found.sum_rate[ok][:20] * (1 - 1e-12)).all()


# The recipe's edits for a rule "half": no further pair may fall below half its R_min.
EDITS = {
    "_board.py": (
        ("NONE, QOS, FEASIBLE = range(3)", "NONE, QOS, FEASIBLE, HALF = range(4)"),
        (
            "owed * (1.0 - QOS_TOLERANCE)",
            "owed * (0.5 if rule.guard == HALF else 1.0 - QOS_TOLERANCE)",
        ),
    ),
    "_swaps.py": (
        ("    FEASIBLE,\n", "    FEASIBLE,\n    HALF,\n"),
        ("rule.guard == QOS", "rule.guard == QOS or rule.guard == HALF"),
    ),
    "matching.py": (('"qos": (', '"half": (_board.FIXED, _board.HALF),\n    "qos": ('),),
}
MATCH = """
import sys
import numpy as np
from nomalib import matching
from nomalib.network import Network

net = Network(3, 4, 2, 3, min_rate=0.5, noise=0.3)
given = np.load("given.npz")
m = matching.swap_matching(net, given["gains"], given["assignment"], given["power"], "half")
np.savez("found.npz", assignment=m.assignment, power=m.power)
"""


def test_a_rule_on_each_users_rate(tmp_path):
    shutil.copytree(Path(nomalib.__file__).parent, tmp_path / "nomalib", ignore=IGNORED)
    for name, edits in EDITS.items():
        path = tmp_path / "nomalib" / name
        text = path.read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) == 1, f"{name} has other lines than the recipe"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    net = Network(3, 4, 2, 3, min_rate=0.5, noise=0.3)
    gains, assignment = draws(net, 12, 1)
    power = equal_power(net, assignment)
    np.savez(tmp_path / "given.npz", gains=gains, assignment=assignment, power=power)
    # compiled once, for twelve draws: in half of the time
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_OPT": "0"}
    subprocess.run([sys.executable, "-c", MATCH], cwd=tmp_path, env=environment, check=True)
    found = np.load(tmp_path / "found.npz")
    half, moved = replace(net, min_rate=0.25), 0
    for b in range(12):
        case = found["assignment"][b], found["power"][b]
        assert better_swap(half, gains[b], *case, "qos") is None
        missed = [
            round(float(rates.qos_violation(half, gains[b], *one) * assignment[b].sum()))
            for one in (case, (assignment[b], power[b]))
        ]
        assert missed[0] <= missed[1]
        moved += (case[0] != assignment[b]).any()
    strict = matching.swap_matching(net, gains, assignment, power, "qos")
    assert moved > 6 and (strict.assignment != found["assignment"]).any()
