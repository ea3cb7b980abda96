"""Resource management in downlink NOMA networks: allocation, learning and scheduling.

In reading order; what is indented is a part of what stands above it. Imports go one way.

    network         the cell: N subchannels, M users, budget, ε, R_min; draws of gains
    rates           (1)–(7): SIC order, interference, SINR, rates, violation, score
    polytope        R_min eliminated: shares of the spare power in, certified allocations out
      _chain          the recursion behind it; _reduction, the reduction by it
    subchannel      φ, a subchannel at a price: value, derivatives, best split; all else uses it
      _perfect_sic    its closed form at ε = 0 and the receiver's gain; _pairs, of two users
    water_filling   the exact optimum where the strongest user takes all
    interior_point  the method of (10)–(11) for any ε and weights
      _starts         where it starts; _central_path, the method itself; _newton, its linear system
    matching        scheduling by swaps, Algorithm 2 (PAUS)
      _swaps          its compiled loop; _board, a schedule in the making; _sets, what it is worth
    learning        the paper's network, and one that is feasible by construction
      layers          what both need of Keras beyond its own
      _imitated       what surrounds the former's output; _features, the latter's

These nine are the core. Beside them:

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

`_draws` checks and lays out what a user passes, `_checks` has the rules of single arguments, and
`_compile` says how kernels are compiled.
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
