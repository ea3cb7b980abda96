"""Weighted rates: are the gaps as small, and the allocator and PAUS as fast, as they should be?

    python benchmarks/weights.py                # some minutes
    python benchmarks/weights.py --draws 500    # at full size

For each gain, ε and noise (N = M = 10, K = 3, weights uniform in (0, 1)): the certified gap of
`optimum.allocate`, mean and largest; by how much the best of 12 random starts of the interior-point
method, which may never exceed the bound, is above it; and how far below it. Then small cells
against SciPy's SLSQP and differential evolution; and allocations and runs of PAUS a second.
"""

import argparse
import itertools
import time

import numpy as np
from scipy.optimize import differential_evolution, minimize

from nomalib import matching, optimum, polytope, schedules, takers
from nomalib._central_path import follow
from nomalib._draws import view
from nomalib._newton import workspace
from nomalib._starts import KEPT, pull_inside
from nomalib.channel import draw_cell, noise_watt
from nomalib.network import Network, draw_gains, random_assignment

EPSILONS = (0.0, 0.01, 0.1, "uniform")


def weighted(net, n_draws, rng):
    gains, assignment = draw_gains(net, n_draws, rng), random_assignment(net, rng, n_draws)
    return gains, assignment, rng.random((n_draws, net.n_users))


def random_starts(net, given, rng, n_starts=12):
    """The best weighted rate [bps/Hz] of interior-point runs from random shares, each draw."""
    shares = polytope.reduce(net, *given)
    work = workspace(*shares.strength.shape[1:])
    best = np.full(len(shares.spare), np.nan)
    for b in np.flatnonzero(shares.feasible):
        draw, ends = view(shares, b), []
        for _ in range(n_starts):
            u = rng.dirichlet(np.full(draw.strength.size, 0.2)).reshape(draw.strength.shape)
            pull_inside(draw, u, 1.0 - 1e-3)
            _, _, f = follow(draw, u, work, 1.0 - KEPT, 1e-8)
            ends.append(draw.least_rate - f)
        best[b] = max(ends) / np.log(2.0)
    return best


def gaps(draws, rng):
    print(
        "gain        ε        noise   gap, mean  largest    starts above the bound  short of ours"
    )
    for gain, epsilon, noise in itertools.product(
        ("interferer", "receiver"), EPSILONS, (0.1, 0.001)
    ):
        residual = rng.random((10, 10)) if epsilon == "uniform" else epsilon
        net = Network(noise=noise, sic_residual=residual, interference_gain=gain)
        given = weighted(net, draws, rng)
        found = optimum.allocate(net, *given)
        here, started = found.feasible, random_starts(net, given, rng)
        above = (started / found.upper_bound - 1.0)[here].max()
        print(
            f"{gain:10}  {epsilon!s:7}  {noise:5}  {found.gap[here].mean():10.1e}"
            f"  {found.gap[here].max():7.1e}  {above:18.1e}"
            f"  {(1.0 - started / found.sum_rate)[here].mean():13.1e}",
            flush=True,
        )
        assert above < 1e-9, "a bound is exceeded"


def small_cells(draws, rng):
    """Largest excess of SLSQP and of differential evolution over the bound, on small cells."""
    worst = {"SLSQP": -np.inf, "differential evolution": -np.inf}
    for at in range(draws):
        epsilon = rng.choice([0.0, 0.01, 0.1, rng.random()])
        gain = ("interferer", "receiver")[at % 2]
        net = Network(2, 3, 3, 2, sic_residual=float(epsilon), interference_gain=gain)
        given = [part[0] for part in weighted(net, 1, rng)]
        found, shares = optimum.allocate(net, *given), polytope.reduce(net, *given)
        if not found.feasible:
            continue

        def lost(logits, shares=shares, net=net):
            u = np.exp(logits - logits.max()).reshape(shares.strength.shape)
            return -float(polytope.allocation(net, shares, u).sum_rate)

        limits = [(-12.0, 12.0)] * shares.strength.size
        local = min(
            minimize(lost, rng.uniform(-5, 5, len(limits)), method="SLSQP", bounds=limits).fun
            for _ in range(3)
        )
        wide = differential_evolution(lost, limits, maxiter=60, seed=at, polish=False).fun
        for name, value in zip(worst, (local, wide), strict=True):
            worst[name] = max(worst[name], -value / found.upper_bound - 1.0)
    for name, excess in worst.items():
        print(f"{name}: above the bound by at most {excess:.1e}")
        assert excess < 1e-9


def speed(rng):
    for gain, epsilon in (("interferer", 0.01), ("receiver", 0.0)):
        net = Network(sic_residual=epsilon, interference_gain=gain)
        given = weighted(net, 40_000, rng)
        took = min(timed(lambda net=net, given=given: takers.allocate(net, *given)))
        print(f"{gain}, ε = {epsilon}: {40_000 / took:.0f} allocations a second")
    options = dict(power_dbm=30.0, noise=noise_watt(5e5), fading="rayleigh", min_rate=0.0)
    options |= dict(sic_residual=0.0, interference_gain="receiver")
    for users, together in itertools.product((10, 20), (2, 3)):
        net = Network(10, users, together, 10, **options)
        gains = draw_cell(net, 200, rng, shadowing_db=10.0).gains
        weights = rng.random((200, users))
        start = schedules.at_price(net, gains, weights)
        took = min(
            timed(
                lambda net=net, start=start, gains=gains, weights=weights: matching.paus(
                    net, gains, start, weights=weights
                ),
                time.process_time,
            )
        )
        print(f"cell of 1 km, M = {users}, H = {together}: {200 / took:.0f} runs of PAUS a second")


def timed(call, clock=time.perf_counter, repeats=4):
    for _ in range(repeats):
        begin = clock()
        call()
        yield clock() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=60, help="draws in each cell")
    parser.add_argument("--seed", type=int, default=2020)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    speed(rng)
    gaps(options.draws, rng)
    small_cells(options.draws, rng)


if __name__ == "__main__":
    main()
