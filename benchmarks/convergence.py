"""Does the interior-point method always converge? Every draw of a grid, against two references.

    python benchmarks/convergence.py                 # 100 draws in each of 1,080 cells: minutes
    python benchmarks/convergence.py --draws 10000   # as many as the paper's smallest data set

For each interference convention and ε the table gives, over all cells of noise, R_min, K and N:
the feasible share; disagreements with a linear program about feasibility on a sample; converged
draws; the most iterations and the worst residual; and, against the exact optimum by water-filling,
the worst relative shortfall and the share of draws that miss by more than 1e-7, from one start
and with restarts. It ends with the peak memory of a million draws.
"""

import argparse
import itertools
import resource
import sys

import numpy as np
from scipy.optimize import linprog

from nomalib import interior_point, rates, water_filling
from nomalib.network import Network, draw_gains, random_assignment

CONVENTIONS = ("interferer", "receiver")
RESIDUALS = (0.0, 0.01, 0.1, 0.5, 1.0)
NOISES = (1e-6, 1e-3, 0.1, 1.0)
MIN_RATES = (0.0, 0.01, 0.06)
LOADS = (2, 3, 4)
SUBCHANNELS = (1, 10, 25)
MISS = 1e-7
N_CHECKED = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100, help="draws in each cell")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--million", type=int, default=1_000_000, help="draws of the memory test")
    options = parser.parse_args()
    print(
        "gain        ε     draws  feasible  LP≠  converged  n_iter  residual"
        "  shortfall(1)  missed(1)  shortfall  missed"
    )
    for convention, residual in itertools.product(CONVENTIONS, RESIDUALS):
        cells = [
            run_cell(convention, residual, *cell, options.draws, options.seed)
            for cell in itertools.product(NOISES, MIN_RATES, LOADS, SUBCHANNELS)
        ]
        total = {key: np.array([cell[key] for cell in cells]) for key in cells[0]}
        feasible = total["feasible"].sum()
        print(
            f"{convention:10} {residual:5}  {total['draws'].sum():7}"
            f"  {feasible / total['draws'].sum():7.2%}  {total['disagree'].sum():3}"
            f"  {total['converged'].sum() / feasible:9.5%}  {total['n_iter'].max():6}"
            f"  {total['residual'].max():8.1e}  {total['shortfall_one'].max():12.1e}"
            f"  {total['missed_one'].sum() / feasible:9.4%}  {total['shortfall'].max():9.1e}"
            f"  {total['missed'].sum() / feasible:8.4%}",
            flush=True,
        )
    print(f"{options.million} draws, N = 10, K = 3: peak {peak_memory(options.million):.2f} GiB")


def run_cell(
    convention: str,
    residual: float,
    noise: float,
    min_rate: float,
    load: int,
    n_subchannels: int,
    n_draws: int,
    seed: int,
) -> dict[str, float]:
    """Counts and worst values over the draws of one cell."""
    net = Network(
        n_subchannels=n_subchannels,
        n_users=max(n_subchannels, load),
        max_users_per_subchannel=load,
        max_subchannels_per_user=load,
        noise=noise,
        sic_residual=residual,
        min_rate=min_rate,
        interference_gain=convention,
    )
    rng = np.random.default_rng(seed)
    gains, assignment = draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)
    one = interior_point.allocate(net, gains, assignment, restarts=0)
    many = interior_point.allocate(net, gains, assignment)
    exact = water_filling.allocate(net, gains, assignment)
    ok = many.feasible

    runs = (one, many)
    few = np.flatnonzero(ok)[:N_CHECKED]
    for found in (exact, *runs):
        by_power = rates.sum_rate(net, gains[few], assignment[few], found.power[few])
        assert np.allclose(found.sum_rate[few], by_power, rtol=1e-12)
    short_one, short = (1.0 - run.sum_rate[ok] / exact.sum_rate[ok] for run in runs)
    return {
        "draws": n_draws,
        "feasible": ok.sum(),
        "disagree": sum(
            ok[b] != meets_min_rate(net, gains[b], assignment[b])
            for b in range(min(n_draws, N_CHECKED))
        ),
        "converged": (one.converged & many.converged).sum(),
        "n_iter": max(run.n_iter.max() for run in runs),
        "residual": max(run.residual[ok].max(initial=0.0) for run in runs),
        "shortfall_one": short_one.max(initial=0.0),
        "missed_one": (short_one > MISS).sum(),
        "shortfall": short.max(initial=0.0),
        "missed": (short > MISS).sum(),
    }


def meets_min_rate(net: Network, gains: np.ndarray, assignment: np.ndarray) -> bool:
    """Feasibility by linear programming: the least power that gives every pair R_min [shares]."""
    threshold = 2.0**net.min_rate - 1.0
    rows, cost = [], []
    pairs = np.argwhere(assignment)
    strength = net.budget * gains**2 / net.noise
    for i, j in pairs:
        row = np.zeros(len(pairs))
        for at, (other, user) in enumerate(pairs):
            if other != i:
                continue
            if user == j:
                row[at] = 1.0
                continue
            weight = 1.0 if gains[i, user] > gains[i, j] else net.epsilon[i, user]
            if net.interference_gain == "receiver":
                weight *= strength[i, j] / strength[i, user]
            row[at] = -threshold * weight
        rows.append(row)
        cost.append(1.0 / strength[i, j])
    # in received powers y = x·strength, where the constraints do not depend on the noise
    cost = np.array(cost)
    solved = linprog(
        cost / cost.max(),
        A_ub=-np.array(rows),
        b_ub=np.full(len(pairs), -threshold),
        method="highs",
    )
    return solved.status == 0 and solved.fun * cost.max() <= 1.0


def peak_memory(n_draws: int) -> float:
    """Peak memory of this process [GiB] once it has allocated power for `n_draws` draws."""
    net, rng = Network(), np.random.default_rng(0)
    gains = draw_gains(net, n_draws, rng)
    interior_point.allocate(net, gains, random_assignment(net, rng))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main()
