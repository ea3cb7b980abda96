"""Ten million draws through the allocators: is what they return right, and does memory stay flat?

    python benchmarks/soak.py                   # about ten minutes on two cores
    python benchmarks/soak.py --draws 1000000   # a quick look

Every batch has fresh gains and assignments. Memory is looked at after every batch. Its peak over
all draws may exceed that over the first tenth by 10 %; otherwise the script fails.
"""

import argparse
import time

import numpy as np
import psutil

from nomalib import interior_point, rates, water_filling
from nomalib.network import Network, draw_gains, random_assignment

BATCH = 10_000
ALLOCATORS = {"water-filling": water_filling.allocate, "interior point": interior_point.allocate}


def check(net, gains, assignment, allocation):
    """The share of draws that are feasible; fails where one of them breaks the budget or R_min."""
    power = allocation.power[allocation.feasible]
    spent = power.sum(axis=(-2, -1))
    np.testing.assert_allclose(spent, net.budget, rtol=1e-9)
    pairs = assignment[allocation.feasible]
    violation = rates.qos_violation(net, gains[allocation.feasible], pairs, power)
    assert (violation == 0).all(), "R_min"
    assert np.isnan(allocation.power[~allocation.feasible]).all()
    return allocation.feasible.mean(), allocation.converged[allocation.feasible].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=2020)
    options = parser.parse_args()
    net, rng = Network(), np.random.default_rng(options.seed)
    process = psutil.Process()
    n_batches = max(10, options.draws // BATCH)
    resident = np.empty(n_batches)
    shares = {name: np.empty((n_batches, 2)) for name in ALLOCATORS}
    seconds = dict.fromkeys(ALLOCATORS, 0.0)
    for batch in range(n_batches):
        gains, assignment = draw_gains(net, BATCH, rng), random_assignment(net, rng, BATCH)
        for name, allocate in ALLOCATORS.items():
            start = time.perf_counter()
            found = allocate(net, gains, assignment)
            seconds[name] += time.perf_counter() - start
            shares[name][batch] = check(net, gains, assignment, found)
        resident[batch] = process.memory_info().rss / 1e6
        if batch + 1 in (1, n_batches // 10, n_batches):
            print(
                f"{(batch + 1) * BATCH:>10,} draws: {resident[batch]:.1f} MB resident, "
                f"at most {resident[: batch + 1].max():.1f} MB after a batch",
                flush=True,
            )
    for name, each in shares.items():
        feasible, converged = each.mean(axis=0)
        print(
            f"{name}: {n_batches * BATCH / seconds[name]:,.0f} draws/s, {feasible:.2%} feasible, "
            f"all of them within budget and R_min, {converged:.6%} converged"
        )
    growth = resident.max() / resident[: n_batches // 10].max() - 1.0
    print(f"growth of the peak after the first tenth: {growth:.2%}")
    if growth > 0.1:
        raise SystemExit("memory grows")


if __name__ == "__main__":
    main()
