"""Resource management in downlink NOMA networks: allocation, learning and scheduling.

In reading order; what is indented is a part of what stands above it. No import goes in a circle.

    network         the cell of (8)–(9): N subchannels, M users, budget, ε, R_min, caps; its draws
    rates           (1)–(7): SIC order, interference, SINR, rates, violation, score
    polytope        C4, C5 eliminated: shares of the spare power in, certified allocations out
      _draws          what a user passes, checked and laid out; the problem in shares
      _chain          the recursion behind it; _reduction, the reduction by it
    subchannel      φ, a subchannel at a price: value, derivatives, best split; all else uses it
      _perfect_sic    its closed form at ε = 0 and the receiver's gain; _pairs, of two users
    water_filling   the exact optimum where the strongest user takes all
    interior_point  the method of (10)–(11) for any ε and weights
      _starts         where it starts; _central_path, the method itself; _newton, its linear system
    matching        (13)–(14), Algorithm 2 (PAUS): swaps, each of which raises the rate (20)–(21)
      _swaps          its compiled loop; _board, a schedule in the making; _sets, what it is worth
    learning        (12), (15)–(16), Algorithm 1: the paper's network; and one that is feasible
      layers          what both need of Keras beyond its own
      _imitated       what surrounds the former's output; _features, the latter's

(5)–(6) are (4) at two and three users. (17)–(19) claim that some network comes near, and have no
code. The labels of Algorithm 1 are those of `interior_point`. These eight, with
`_central_path`, are the core. Beside them:

    baselines       Max and Rand; any totals, split exactly
    channel         cells with distances, and channels of others
    takers          weighted rates at one price: exact where a split is known in closed form
    optimum         any ε and weights, under a certified bound (_search; _stages for many users)
    derivatives     gradient, Hessian and curvature in watt; the paper's (26)–(27)
    joint_bound     a bound on all schedules
    schedules       schedules by simple rules (_best_sets)
    compression     smaller networks, and their artefacts; deployed runs these without Keras
    fairness        frames: rates over time, α-fair or owed, NOMA and OMA, under a bound
      _parts          who shares a subchannel; _utility, what the program knows of fairness
    orthogonal      OMA by whole subchannels
    breakeven       two users: up to which ε NOMA beats OMA
    complexity      operations, (22)–(25)
    records, plots  what the book's runs write and show
    verdict         intervals of paired means, and what they say of a claim

A public function checks its arguments once and raises a ValueError that names the argument, the
value, the draw and what is allowed; what stands under "Raises" comes on top. Only `records` and
`plots`, the book's own, check no more than that. Arrays are float64,
the batch first: gains (…, N, M), magnitudes; assignment bool; power [W], NaN where infeasible.

`_checks` has the rules of single arguments, and `_compile` says how kernels are compiled.
"""

import importlib as _importlib
import importlib.metadata as _metadata
import pkgutil as _pkgutil

__version__ = _metadata.version("nomalib")

_MODULES = [found.name for found in _pkgutil.iter_modules(__path__) if found.name[0] != "_"]


def __getattr__(name: str):  # modules are imported when they are asked for: Keras takes seconds
    if name in _MODULES:
        return _importlib.import_module(f"nomalib.{name}")
    raise AttributeError(f"module 'nomalib' has no attribute {name!r}; it has {_MODULES}")


def __dir__() -> list[str]:
    return [*_MODULES, "__doc__", "__version__"]
