"""Solvers of (10)–(11) side by side, in one run, on the same draws and the same objective.

    python benchmarks/solvers.py            # N = M = 10, K = 3, then how the time grows
    python benchmarks/solvers.py --labels 1000 --external 5   # a quick look

Every solver gets the same gains and the same assignment and maximises R_total over the powers
under R_ij ≥ R_min and Σ p = P_c. SLSQP, trust-constr and IPOPT get exact gradients and Hessians,
only the assigned powers as variables, R_ij ≥ R_min in its affine form, a feasible start, and one
BLAS thread, for 30 variables are too few for more. A label counts as converged where the solver
reports success and is feasible to 1e-6; it is then made feasible exactly, and "short" is the
relative distance of its sum rate below the best of all solvers.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from typing import NamedTuple  # noqa: E402

import casadi  # noqa: E402
import clarabel  # noqa: E402
import numba  # noqa: E402
import numpy as np  # noqa: E402
from scipy import optimize, sparse  # noqa: E402

from nomalib import interior_point, optimum, rates, water_filling  # noqa: E402
from nomalib.derivatives import derivatives  # noqa: E402
from nomalib.network import Network, draw_gains, random_assignment  # noqa: E402
from nomalib.records import seconds  # noqa: E402

VIOLATION = 1e-6


class Problem(NamedTuple):
    """(10)–(11) of one draw in x = p/P_c of its assigned pairs: at @ x ≥ floor, Σ x = 1.

    Interference plus noise over noise is 1 + below @ x, and 1 + above @ x with the signal.
    """

    gains: np.ndarray
    below: np.ndarray
    above: np.ndarray
    at: np.ndarray
    floor: np.ndarray
    start: np.ndarray


def problem(net: Network, gains: np.ndarray, assigned: np.ndarray) -> Problem:
    """Writes R_ij ≥ R_min, with t = 2^R_min − 1, as signal − t·interference ≥ t σ₀².

    The start meets every R_min, by the same margin in all the affine constraints.
    """
    where = np.argwhere(assigned)
    size = len(where)
    below = np.zeros((size, size))
    for a, (i, j) in enumerate(where):
        for b, (other, k) in enumerate(where):
            if i == other and j != k:
                share = net.epsilon[i, k] if gains[i, k] < gains[i, j] else 1.0
                whose = k if net.interference_gain == "interferer" else j
                below[a, b] = share * gains[i, whose] ** 2 * net.budget / net.noise
    signal = gains[assigned] ** 2 * net.budget / net.noise
    t = 2.0**net.min_rate - 1.0
    at, floor = (np.diag(signal) - t * below) / signal[:, None], t / signal
    least, inward = np.linalg.solve(at, np.array([floor, np.ones(size)]).T).T
    start = least + inward * (1.0 - least.sum()) / inward.sum()
    return Problem(gains, below, below + np.diag(signal), at, floor, start)


def objective(given: Problem, x: np.ndarray) -> tuple[float, np.ndarray]:
    """−R_total and its gradient in x."""
    denominator, total = 1.0 + given.below @ x, 1.0 + given.above @ x
    value = (np.log(denominator) - np.log(total)).sum()
    gradient = (1.0 / denominator) @ given.below - (1.0 / total) @ given.above
    return value / np.log(2), gradient / np.log(2)


def hessian(given: Problem, x: np.ndarray) -> np.ndarray:
    by_below = given.below / (1.0 + given.below @ x)[:, None]
    by_above = given.above / (1.0 + given.above @ x)[:, None]
    return (by_above.T @ by_above - by_below.T @ by_below) / np.log(2)


def feasible_rate(given: Problem, x: np.ndarray) -> float:
    """R_total at x, moved towards the start until it is feasible; NaN where x is far off.

    A solver that undercuts R_min within its tolerance would else beat the optimum.
    """
    x = x / x.sum()
    slack, inside = given.at @ x - given.floor, given.at @ given.start - given.floor
    if slack.min() < -VIOLATION:
        return np.nan
    short = slack < 0
    back = (slack[short] / (slack[short] - inside[short])).max() if short.any() else 0.0
    return -objective(given, x + back * (given.start - x))[0]


def by_slsqp(given: Problem) -> tuple[np.ndarray, bool]:
    size = len(given.floor)
    found = optimize.minimize(
        lambda x: objective(given, x),
        given.start,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * size,
        constraints=[
            {
                "type": "ineq",
                "fun": lambda x: given.at @ x - given.floor,
                "jac": lambda x: given.at,
            },
            {"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(size)},
        ],
        options={"ftol": 1e-6, "maxiter": 500},
    )
    return found.x, found.success


def by_trust_constr(given: Problem) -> tuple[np.ndarray, bool]:
    size = len(given.floor)
    found = optimize.minimize(
        lambda x: objective(given, x),
        given.start,
        jac=True,
        hess=lambda x: hessian(given, x),
        method="trust-constr",
        bounds=optimize.Bounds(0, 1, keep_feasible=True),
        constraints=[
            optimize.LinearConstraint(given.at, given.floor, np.inf),
            optimize.LinearConstraint(np.ones((1, size)), 1, 1),
        ],
        options={"gtol": 1e-8, "xtol": 1e-10, "maxiter": 1000},
    )
    return found.x, found.status in (1, 2)


def by_ipopt(net: Network, assigned: np.ndarray) -> Callable[[Problem], tuple[np.ndarray, bool]]:
    """IPOPT on a problem built once, its data being parameters; CasADi derives it exactly."""
    size = int(assigned.sum())
    where = np.argwhere(assigned)
    pairs = [
        (a, b) for a in range(size) for b in range(size) if a != b and where[a][0] == where[b][0]
    ]
    x, signal = casadi.MX.sym("x", size), casadi.MX.sym("signal", size)
    weight = casadi.MX.sym("weight", len(pairs))
    sparsity = casadi.Sparsity.triplet(size, size, *map(list, zip(*pairs, strict=True)))
    order = np.lexsort(np.array(pairs).T)
    below = casadi.MX(sparsity, weight)
    denominator = 1 + below @ x
    t = 2.0**net.min_rate - 1.0
    solver = casadi.nlpsol(
        "solver",
        "ipopt",
        {
            "x": x,
            "p": casadi.vertcat(signal, weight),
            "f": -casadi.sum1(casadi.log(1 + signal * x / denominator)) / np.log(2),
            "g": casadi.vertcat(x - t * denominator / signal, casadi.sum1(x)),
        },
        {
            "ipopt.print_level": 0,
            "print_time": False,
            "ipopt.sb": "yes",
            "ipopt.tol": 1e-8,
            "ipopt.bound_relax_factor": 0.0,
        },
    )
    at = tuple(np.array(pairs)[order].T)

    def solve(given: Problem) -> tuple[np.ndarray, bool]:
        strength = given.gains[assigned] ** 2 * net.budget / net.noise
        found = solver(
            x0=given.start,
            p=np.concatenate([strength, given.below[at]]),
            lbx=0,
            ubx=1,
            lbg=np.append(np.zeros(size), 1),
            ubg=np.append(np.full(size, np.inf), 1),
        )
        return np.array(found["x"]).ravel(), solver.stats()["success"]

    return solve


def compare(net: Network, n_labels: int, n_external: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains, assignment = draw_gains(net, n_labels, rng), random_assignment(net, rng)
    allocators = {
        "water-filling": lambda: water_filling.allocate(net, gains, assignment),
        "interior point": lambda: interior_point.allocate(net, gains, assignment),
    }
    reached: dict[str, np.ndarray] = {}
    share, rows = {}, {}
    cores = min(2, os.cpu_count() or 1)
    for name, run in allocators.items():
        found = run()
        reached[name] = found.sum_rate
        share[name] = found.converged[found.feasible].mean()
        numba.set_num_threads(1)
        # the processor's time is what stays the same while others use the machine
        one, processor = seconds(run), seconds(run, clock=time.process_time)
        numba.set_num_threads(cores)
        several = seconds(run)
        rows[name] = (processor / n_labels, n_labels / one, n_labels / several)
    usable = np.flatnonzero(found.feasible)[:n_external]
    print(
        f"N = {net.n_subchannels}, M = {net.n_users}, K = {net.max_users_per_subchannel}, "
        f"ε = {net.sic_residual}, σ₀² = {net.noise} W, R_min = {net.min_rate}: {n_labels} labels, "
        f"{found.feasible.mean():.1%} feasible; the others on the first {len(usable)} of them"
    )
    solvers = {
        "IPOPT (CasADi)": by_ipopt(net, assignment),
        "SLSQP (SciPy)": by_slsqp,
        "trust-constr": by_trust_constr,
    }
    for name, solve in solvers.items():
        few = usable[: max(1, n_external // 20)] if name == "trust-constr" else usable
        took, good = [], []
        reached[name] = np.full(n_labels, np.nan)
        solve(problem(net, gains[few[0]], assignment))
        for b in few:
            given = problem(net, gains[b], assignment)
            start = time.perf_counter(), time.process_time()
            x, success = solve(given)
            took.append((time.perf_counter() - start[0], time.process_time() - start[1]))
            reached[name][b] = feasible_rate(given, x) if success else np.nan
            good.append(np.isfinite(reached[name][b]))
        share[name] = np.mean(good)
        # one process for each core: what a user of these solvers can reach at best
        (wall, _), (_, processor) = np.mean(took, axis=0), np.median(took, axis=0)
        rows[name] = (processor, 1 / wall, cores / wall)
    show(rows, share, {name: rate[usable] for name, rate in reached.items()}, cores)


def show(rows: dict, share: dict, reached: dict[str, np.ndarray], cores: int) -> None:
    best = np.nanmax(np.array(list(reached.values())), axis=0)
    print(
        f"\n{'solver':16} {'CPU/label':>12} {'× ours':>9} {'labels/s, 1 core':>17} "
        f"{f'{cores} cores':>10} {'× ours':>9} {'short, worst':>13} {'mean':>8} {'converged':>10}"
    )
    ours = rows["interior point"]
    for name, (processor, one, two) in rows.items():
        short = np.maximum(1 - reached[name] / best, 0.0)
        short = short[np.isfinite(short)] if np.isfinite(short).any() else np.array([np.nan])
        print(
            f"{name:16} {1e6 * processor:9,.1f} µs {processor / ours[0]:9,.2f} {one:17,.0f} "
            f"{two:10,.0f} {two / ours[2]:9.2g} {short.max():13.1e} {short.mean():8.1e} "
            f"{share[name]:10.2%}"
        )
    print(
        "CPU/label: median time of one core; × ours: over the interior point's; labels/s: by the "
        f"wall clock,\n{cores} cores: ours with {cores} threads, the others' on one core times "
        f"{cores}; short: of the best sum rate of all"
    )


def check_derivatives(net: Network, seed: int) -> None:
    """What the external solvers maximise is what nomalib does, to the second derivative."""
    rng = np.random.default_rng(seed)
    gains, assignment = draw_gains(net, 1, rng)[0], random_assignment(net, rng)
    given = problem(net, gains, assignment)
    power = np.zeros_like(gains)
    power[assignment] = net.budget * given.start
    value, gradient = objective(given, given.start)
    exact = derivatives(net, gains, assignment, power)
    assert np.isclose(-value, rates.sum_rate(net, gains, assignment, power), rtol=1e-12)
    assert np.allclose(gradient, exact.gradient[assignment] * net.budget, rtol=1e-9)
    where = np.argwhere(assignment)
    blocks = [
        [exact.hessian[i, j, k] * net.budget**2 if i == other else 0.0 for other, k in where]
        for i, j in where
    ]
    curvature = hessian(given, given.start)
    assert np.allclose(curvature, blocks, rtol=1e-9, atol=1e-9 * np.abs(curvature).max())


def grow(title: str, nets: dict[int, Network], labels: Callable[[int], int], seed: int) -> None:
    """Time per label over a size, with the exponent of a power law fitted to it."""
    print(f"\n{title:>10} {'interior point':>16} {'water-filling':>16}   µs of CPU a label")
    sizes, times = np.array(list(nets)), []
    for size, net in nets.items():
        rng = np.random.default_rng(seed)
        gains, assignment = draw_gains(net, labels(size), rng), random_assignment(net, rng)
        calls = [
            partial(method, net, gains, assignment)
            for method in (interior_point.allocate, water_filling.allocate)
        ]
        took = [seconds(call, repeats=3, clock=time.process_time) for call in calls]
        times.append(np.divide(took, labels(size)))
        print(f"{size:10} {1e6 * times[-1][0]:16.2f} {1e6 * times[-1][1]:16.2f}", flush=True)
    slopes = np.polyfit(np.log(sizes), np.log(times), 1)[0]
    print(f"{'exponent':>10} {slopes[0]:16.2f} {slopes[1]:16.2f}")


def large(n: int) -> Network:
    """N subchannels and as many users, whose number does not enter; power grows with N."""
    return Network(
        n_subchannels=n,
        n_users=10,
        max_subchannels_per_user=n,
        power_dbm=43 + 10 * np.log10(n / 10),
    )


def latency(net: Network, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains, assignment = draw_gains(net, 1, rng)[0], random_assignment(net, rng)
    print("\none draw through the public function, input checks included")
    for name, method in (
        ("water-filling", water_filling.allocate),
        ("interior point", interior_point.allocate),
    ):
        call = partial(method, net, gains, assignment)
        median, tail = seconds(call, repeats=3000, quantile=(0.5, 0.99))
        print(f"{name:16} median {1e6 * median:7.1f} µs   99 % within {1e6 * tail:7.1f} µs")


def mixed_residuals(net: Network, n_labels: int, seed: int) -> None:
    """ε ~ U(0, 1), different for every pair: the certified optimum, and the local method."""
    rng = np.random.default_rng(seed)
    uneven = Network(
        sic_residual=rng.uniform(0, 1, (net.n_subchannels, net.n_users)), noise=net.noise
    )
    gains, assignment = draw_gains(uneven, n_labels, rng), random_assignment(uneven, rng)
    search = partial(optimum.allocate, uneven, gains, assignment)
    best, took = search(), seconds(search, repeats=1, clock=time.process_time)
    print(f"\nε ~ U(0, 1) for each pair, {n_labels} labels, σ₀² = {net.noise} W")
    print(
        f"certified optimum: {1e3 * took / n_labels:.2f} ms of CPU a label, "
        f"gap {np.nanmean(best.gap):.1e} on average, {np.nanmax(best.gap):.1e} at most"
    )
    for restarts in (0, 5):
        local = interior_point.allocate(uneven, gains, assignment, restarts=restarts)
        short = 1 - local.sum_rate / best.sum_rate
        print(
            f"interior point, {restarts} restarts: short by {np.nanmean(short):.1e} on average, "
            f"{np.nanmax(short):.1e} at most"
        )


def by_cones(given: Problem, subchannel: np.ndarray) -> np.ndarray:
    """ε = 0 and the interferer's gain as an exponential cone program, by Clarabel.

    The rates of a subchannel telescope to log(1 + signal @ x): w ≤ that is (w, 1, 1 + signal @ x)
    in the exponential cone, and Σ w is maximised.
    """
    size, n = len(given.floor), subchannel.max() + 1
    signal = np.zeros((n, size))
    signal[subchannel, np.arange(size)] = np.diag(given.above)
    cones = np.zeros((3 * n, size + n))
    cones[0::3, size:], cones[2::3, :size] = -np.eye(n), -signal
    rows = [
        np.hstack([np.ones((1, size)), np.zeros((1, n))]),
        np.hstack([-np.vstack([given.at, np.eye(size)]), np.zeros((2 * size, n))]),
        cones,
    ]
    right = np.concatenate([[1.0], -given.floor, np.zeros(size), np.tile([0.0, 1.0, 1.0], n)])
    kinds = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(2 * size)]
    kinds += [clarabel.ExponentialConeT()] * n
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.tol_feas = False, 1e-11
    settings.tol_gap_abs = settings.tol_gap_rel = 1e-10
    aim = np.concatenate([np.zeros(size), -np.ones(n)])
    empty = sparse.csc_matrix((size + n, size + n))
    system = sparse.csc_matrix(np.vstack(rows))
    found = clarabel.DefaultSolver(empty, aim, system, right, kinds, settings).solve()
    return np.array(found.x[:size])


def perfect_sic(n_labels: int, n_external: int, seed: int) -> None:
    """The convex case, ε = 0, against a published solver for cones."""
    net, rng = Network(sic_residual=0.0), np.random.default_rng(seed)
    gains, assignment = draw_gains(net, n_labels, rng), random_assignment(net, rng)
    run = partial(water_filling.allocate, net, gains, assignment)
    best, took = run(), seconds(run, repeats=3, clock=time.process_time) / n_labels
    subchannel, short, each = np.nonzero(assignment)[0], [], []
    for b in np.flatnonzero(best.feasible)[:n_external]:
        given, start = problem(net, gains[b], assignment), time.process_time()
        x = by_cones(given, subchannel)
        each.append(time.process_time() - start)
        short.append(1 - feasible_rate(given, x) / best.sum_rate[b])
    print(
        f"\nε = 0 as an exponential cone program, Clarabel: {1e6 * np.median(each):,.0f} µs of CPU"
        f" a label, short by {np.nanmax(short):.1e} at most; water-filling {1e6 * took:.1f} µs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument("--external", type=int, default=200, help="labels of the others' solvers")
    parser.add_argument("--seed", type=int, default=2020)
    options = parser.parse_args()
    net = Network()
    check_derivatives(net, options.seed)
    compare(net, options.labels, options.external, options.seed)
    numba.set_num_threads(min(2, os.cpu_count() or 1))
    latency(net, options.seed)
    perfect_sic(options.labels, options.external, options.seed)
    some = max(2, options.labels // 20)
    grow(
        "N", {n: large(n) for n in (10, 30, 100, 300, 1000, 3000)},
        lambda n: max(8, 10 * some // n), options.seed,
    )  # fmt: skip
    grow("K", {k: Network(max_users_per_subchannel=k) for k in (2, 3, 4)},
         lambda k: options.labels // 4, options.seed)  # fmt: skip
    grow("batch", {b: net for b in (1, 10, 100, 1000, 10_000)}, lambda b: b, options.seed)
    for noise in (0.1, 1e-3):
        mixed_residuals(Network(noise=noise), max(20, options.labels // 20), options.seed)


if __name__ == "__main__":
    main()
