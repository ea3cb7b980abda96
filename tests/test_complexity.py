"""Formulas against counts of what is run, and counts against what is known by hand."""

import numpy as np
import pytest
from checks import CONVENTIONS, draws
from counting import counted
from numba import njit

from nomalib import complexity, learning, polytope, water_filling
from nomalib._central_path import follow
from nomalib._draws import empty_shares, flat_draws, flat_shares, view
from nomalib._newton import workspace
from nomalib._reduction import reduce_draws, write_power
from nomalib.network import Network

HIDDEN = (200, 80, 80)


@njit
def multiply(a, b):
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                out[i, j] += a[i, k] * b[k, j]
    return out[0, 0], np.sqrt(out[1, 1])


def test_counting_a_matrix_product_and_a_root():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4)), rng.random((4, 5))
    flops, returned = counted(multiply, a, b)
    assert flops == 2 * 3 * 4 * 5 + 1
    np.testing.assert_allclose(returned, [(a @ b)[0, 0], (a @ b)[1, 1] ** 0.5], rtol=1e-15)


SIZES = [{}, dict(n_subchannels=20, n_users=20), dict(n_users=20, max_users_per_subchannel=6)]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("sizes", SIZES)
def test_operations_are_what_their_structure_says(sizes, convention):
    """Our kernels, which this test knows by name, on one feasible draw."""
    net = Network(min_rate=0.005, interference_gain=convention, **sizes)
    n, (gains, pairs) = net.n_subchannels, draws(net, 50, 1, one_assignment=True)
    b = np.flatnonzero(polytope.reduce(net, gains, pairs).feasible)[0]
    case, _ = flat_draws(net, gains[b], pairs)
    k = case.slots

    there, _ = counted(reduce_draws, case, 0, empty_shares(1, n, k))
    shares = view(flat_shares(polytope.reduce(net, gains[b], pairs))[0], 0)
    u = np.full((n, k), 1 / (n * k))
    back, _ = counted(write_power, net.budget, shares, u, gains[b])
    assert there + back == pytest.approx(complexity.reduction_flops(n, k), rel=0.1)

    takers = shares.strength[:, 0], shares.coupling[:, 0, 0], shares.weight[:, 0]
    flops, (_, steps) = counted(water_filling.fill, *takers, np.empty(n))
    assert steps == water_filling.allocate(net, gains[b], pairs).n_iter
    # the bracket of the level before the first step takes about as much as a step
    assert flops / (steps + 0.5) == pytest.approx(complexity.water_filling_flops(n), rel=0.3)

    # from equal shares, which no structure suggests: many iterations
    flops, (n_iter, _, _) = counted(follow, shares, u, workspace(n, k), 0.5, 1e-8)
    assert n_iter > 5
    formula = complexity.interior_point_flops(n, k)
    assert flops / (n_iter + 1) == pytest.approx(formula, rel=0.25)


@pytest.mark.parametrize("n_samples", [1, 64])
@pytest.mark.parametrize("sizes", [(10, 10), (5, 20)])
def test_the_compiled_network_agrees_with_24_once_t_multiplies_every_layer(sizes, n_samples):
    model = learning.imitation_network(Network(*sizes))
    nm = sizes[0] * sizes[1]
    widths = [nm, *HIDDEN, nm]
    compiled = complexity.compiled_flops(
        lambda gains: model(gains, training=False), (n_samples, *sizes)
    )
    flops = complexity.network_flops(widths, n_samples)
    assert flops == pytest.approx(compiled, rel=0.02)
    # what is left is one addition for each bias, unless XLA fuses it, and one maximum a ReLU
    relu, bias = n_samples * sum(HIDDEN), n_samples * (sum(HIDDEN) + nm)
    assert compiled - flops in (relu, relu + bias)
    printed = complexity.network_flops_as_printed(widths, n_samples)
    assert (printed == pytest.approx(compiled, rel=0.02)) == (n_samples == 1)


def test_circulant_blocks_of_the_whole_layer_approach_n_log_n():
    small, large = (complexity.circulant_flops(n, n, n) for n in (2**8, 2**16))
    growth = np.log(large / small) / np.log(2**8)
    assert 1.0 < growth < 1.2
    assert complexity.circulant_flops(30, 30, 8) == complexity.circulant_flops(32, 32, 8) - 2


def test_the_papers_orders():
    assert complexity.dense_flops(7, 3, bias=False) == 3 * (7 + 6)
    assert complexity.dense_flops(7, 3) == 3 * (7 + 7)
    assert complexity.ipm_bound(10, 10) == pytest.approx(1e7)
    assert complexity.ipm_bound(2, 2, encoding=4) == 4**4.5
    net = Network(n_subchannels=3, n_users=4, max_subchannels_per_user=2)
    none, two = (complexity.paus_flops([12, 5, 12], net, rounds) for rounds in (0, 2))
    assert none == 240
    assert two - none == 2 * 4 * 3 * 2 * 1
