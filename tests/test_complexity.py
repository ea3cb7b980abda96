"""Formulas against counts of what is run, and counts against what is known by hand."""

import numpy as np
import pytest
from numba import njit

from nomalib import central_path, complexity, interior_point, learning, polytope, water_filling
from nomalib.counting import counted
from nomalib.network import Network, draw_gains, random_assignment

HIDDEN = (200, 80, 80)


@njit
def multiply(a, b):
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                out[i, j] += a[i, k] * b[k, j]
    return out[0, 0], np.sqrt(out[1, 1])


def one_draw(**sizes):
    net, rng = Network(min_rate=0.005, **sizes), np.random.default_rng(1)
    gains, assignment = draw_gains(net, 50, rng), random_assignment(net, rng)
    first = np.flatnonzero(polytope.reduce(net, gains, assignment).feasible)[0]
    return net, gains[first], assignment


def test_counting_a_matrix_product_and_a_root():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4)), rng.random((4, 5))
    count, returned = counted(multiply, a, b)
    assert count == (2 * 3 * 4 * 5 + 1, 8 * 3 * 5)
    np.testing.assert_allclose(returned, [(a @ b)[0, 0], (a @ b)[1, 1] ** 0.5], rtol=1e-15)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_counting_the_kernels_whose_structure_is_known(k):
    """The Newton block by its docstring's formula, and LDLᵀ by the sum over its loops."""
    ones, square = np.ones((1, k)), np.ones((1, k, k))
    block, _ = counted(central_path.newton_block, 0, k, ones, square, ones, ones, ones, square)
    assert block.flops == k**3 + 9 * k**2 + 18 * k
    factor, _ = counted(
        central_path.factorise, 0, k, np.eye(k)[None], np.full(1, 0.1), np.zeros((k, k))
    )
    loops = sum(2 * col + 3 for row in range(k) for col in range(row))
    # a pivot has its shift, its inverse and the two operations of its test
    loops += 4 * k
    assert factor.flops == loops


@pytest.mark.parametrize("n_samples", [1, 64])
@pytest.mark.parametrize("sizes", [(10, 10), (5, 20)])
def test_the_compiled_network_agrees_with_24_once_t_multiplies_every_layer(sizes, n_samples):
    net = Network(n_subchannels=sizes[0], n_users=sizes[1])
    model = learning.imitation_network(net)
    nm = sizes[0] * sizes[1]
    widths = [nm, *HIDDEN, nm]
    compiled = complexity.compiled_flops(
        lambda gains: model(gains, training=False), (n_samples, *sizes)
    )
    assert complexity.network_flops(widths, n_samples) == pytest.approx(compiled, rel=0.02)
    # what is left is one addition for each bias, unless XLA fuses it, and one maximum a ReLU
    relu, bias = n_samples * sum(HIDDEN), n_samples * (sum(HIDDEN) + nm)
    rest = compiled - complexity.network_flops(widths, n_samples)
    assert rest in (relu, relu + bias)
    printed = complexity.network_flops_as_printed(widths, n_samples)
    assert (printed == pytest.approx(compiled, rel=0.02)) == (n_samples == 1)


def test_a_layer_without_a_bias_is_a_matrix_product():
    assert complexity.dense_flops(7, 3, bias=False) == 3 * (7 + 6)
    assert complexity.dense_flops(7, 3) == 3 * (7 + 7)


def test_circulant_blocks_of_the_whole_layer_approach_n_log_n():
    small, large = (complexity.circulant_flops(n, n, n) for n in (2**8, 2**16))
    growth = np.log(large / small) / np.log(2**8)
    assert 1.0 < growth < 1.2
    assert complexity.circulant_flops(30, 30, 8) == complexity.circulant_flops(32, 32, 8) - 2


def test_the_papers_orders():
    assert complexity.ipm_bound(10, 10) == pytest.approx(1e7)
    assert complexity.ipm_bound(2, 2, encoding=4) == 4**4.5
    net = Network(n_subchannels=3, n_users=4, max_subchannels_per_user=2)
    none, two = (complexity.paus_flops([12, 5, 12], net, rounds) for rounds in (0, 2))
    assert none == 240
    assert two - none == 2 * 4 * 3 * 2 * 1


@pytest.mark.parametrize(
    "sizes",
    [{}, {"n_subchannels": 20, "n_users": 20}, {"n_users": 20, "max_users_per_subchannel": 6}],
)
def test_iterations_cost_what_their_structure_says(sizes):
    net, gains, assignment = one_draw(**sizes)
    load = int(assignment.sum(axis=-1).max())
    count = complexity.interior_point_count(net, gains, assignment)
    assert count.n_iter == interior_point.allocate(net, gains, assignment, restarts=0).n_iter
    formula = complexity.interior_point_flops(net.n_subchannels, load)
    # blocks are computed once more than there are steps, and once for the price of the start
    ends = 2 * net.n_subchannels * (load**3 + 9 * load**2 + 18 * load)
    assert count.solution - ends == pytest.approx(count.n_iter * formula, rel=0.2)

    count = complexity.water_filling_count(net, gains, assignment)
    assert count.n_iter == water_filling.allocate(net, gains, assignment).n_iter
    # the bracket of the level before the first step takes about as much as a step
    formula = complexity.water_filling_flops(net.n_subchannels)
    assert count.solution / (count.n_iter + 0.5) == pytest.approx(formula, rel=0.3)


def test_the_reduction_is_linear_in_n_and_quadratic_in_k():
    def reduction(n, k):
        net, gains, assignment = one_draw(
            n_subchannels=n, n_users=k, max_users_per_subchannel=k, max_subchannels_per_user=n
        )
        return complexity.water_filling_count(net, gains, assignment).reduction

    by_load = [reduction(4, k) for k in range(2, 8)]
    assert (np.diff(by_load, 3) == 0).all()
    assert (np.diff(by_load, 2) > 0).all()
    assert reduction(8, 3) - reduction(6, 3) == reduction(6, 3) - reduction(4, 3)


def test_memory_holds_the_problem_and_the_newton_blocks():
    net, gains, assignment = one_draw()
    n, k = 10, 3
    count = complexity.interior_point_count(net, gains, assignment)
    blocks = 8 * n * k * k
    problem, iterate = 2 * blocks + 3 * 8 * n * k, blocks + 5 * 8 * n * k
    assert count.memory >= problem + iterate
    assert count.memory == pytest.approx(problem + iterate, rel=0.1)


def test_a_count_is_of_one_feasible_draw():
    net, gains, assignment = one_draw()
    with pytest.raises(ValueError, match="leading axes"):
        complexity.interior_point_count(net, gains[None], assignment)
    with pytest.raises(ValueError, match="infeasible"):
        complexity.water_filling_count(net, gains * 1e-6, assignment)
