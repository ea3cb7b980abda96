"""What an allocation costs in floating-point operations, by formula.

The formulas are those of Section IV-D, (22)–(25), and the structure of our own methods. The tests
compare them with counts of what is run: XLA's analysis of a compiled network (`compiled_flops`),
and our kernels' own sources, run on numbers that count (`tests/counting.py`).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from nomalib._checks import checked_count, checked_flag, checked_number
from nomalib.network import Network, check_network

__all__ = ["circulant_flops", "compiled_flops", "dense_flops", "interior_point_flops", "ipm_bound"]
__all__ += ["network_flops", "network_flops_as_printed", "paus_flops", "reduction_flops"]
__all__ += ["water_filling_flops"]


def dense_flops(inputs: int, outputs: int, bias: bool = True) -> int:
    """Operations of one dense layer: (22) without and (23) with a bias; activations are not in it.

    >>> dense_flops(100, 200, bias=False), dense_flops(100, 200)
    (39800, 40000)
    """
    inputs, outputs = checked_count("inputs", inputs, 0), checked_count("outputs", outputs, 0)
    return (2 * inputs - (not checked_flag("bias", bias))) * outputs


def network_flops(widths: Sequence[int], n_samples: int = 1) -> int:
    """(24) as it must be: 2T Σ I O. Every layer, not the outer two alone, runs for each sample.

    Args:
        widths: inputs, the hidden layers' widths, outputs.
        n_samples: T.

    >>> network_flops([100, 200, 80, 80, 100])
    100800
    """
    return checked_count("n_samples", n_samples, 1) * sum(_of_layers(widths))


def network_flops_as_printed(widths: Sequence[int], n_samples: int = 1) -> int:
    """(24) as printed: T multiplies the first and the last layer only.

    >>> network_flops_as_printed([100, 200, 80, 80, 100], n_samples=2)
    156800
    """
    first, *inner, last = _of_layers(widths)
    return checked_count("n_samples", n_samples, 1) * (first + last) + sum(inner)


def circulant_flops(inputs: int, outputs: int, block: int) -> float:
    """Operations of a dense layer with a bias whose weights are circulant blocks, by FFT.

    A real FFT of length b takes 2.5 b log₂ b operations, and the product of two complex numbers
    added to a sum takes 8; b/2 + 1 frequencies of a real signal are independent.

    >>> circulant_flops(100, 200, 20) < dense_flops(100, 200) / 3
    True
    """
    inputs, outputs = checked_count("inputs", inputs, 1), checked_count("outputs", outputs, 1)
    block = checked_count("block", block, 2)
    rows, columns = -(-outputs // block), -(-inputs // block)
    transforms = (rows + columns) * 2.5 * block * np.log2(block)
    return float(transforms + 8 * rows * columns * (block // 2 + 1) + outputs)


def ipm_bound(n_subchannels: int, n_users: int, encoding: float = 1.0) -> float:
    """(NM)^3.5 L', the bound of (25) up to a constant; L' ≤ NM is the length of the encoding."""
    nm = checked_count("n_subchannels", n_subchannels, 1) * checked_count("n_users", n_users, 1)
    return float(nm) ** 3.5 * checked_number("encoding", encoding, 0.0, 1e30)


def paus_flops(widths: Sequence[int], net: Network, n_rounds: int) -> int:
    """PAUS by Section IV-D: one pass of the network and S·M·V·H·(N − H) candidate swaps.

    H is the number of subchannels of a user and V that of users on a subchannel, as in C1 and C2.
    A swap counts as one operation there, although to compare two matchings takes the rates of two
    subchannels, and the network's pass counts once, although each of the S rounds has one.
    """
    check_network(net)
    held, shared = net.max_subchannels_per_user, net.max_users_per_subchannel
    swaps = net.n_users * shared * held * max(net.n_subchannels - held, 0)
    return network_flops(widths) + checked_count("n_rounds", n_rounds, 0) * swaps


def reduction_flops(n_subchannels: int, load: int) -> float:
    """The reduction of a draw to shares, and from shares back to powers: about N (22K² + 26K).

    >>> reduction_flops(10, 3)
    2760.0
    """
    n, k = checked_count("n_subchannels", n_subchannels, 1), checked_count("load", load, 1)
    return n * (22.0 * k**2 + 26.0 * k)


def interior_point_flops(n_subchannels: int, load: int) -> float:
    """One iteration of `interior_point` on N subchannels of K users, with one trial step.

    For each subchannel: the Newton block takes K³ + 9K² (each of K users adds two operations to the
    K(K+1)/2 entries of a symmetric matrix), its factorisation K³/3 + K²/2 and two solutions 4K²,
    the rates of the trial 2K², and what is done for each user alone about 78K. Where the problem
    is not convex some steps factorise more than once.

    >>> interior_point_flops(20, 3) == 2 * interior_point_flops(10, 3)
    True
    """
    n, k = checked_count("n_subchannels", n_subchannels, 1), checked_count("load", load, 1)
    return n * (4.0 / 3.0 * k**3 + 15.5 * k**2 + 78.0 * k)


def water_filling_flops(n_subchannels: int) -> float:
    """One step of `water_filling` to the common level: on each subchannel its share and slope."""
    return 26.0 * checked_count("n_subchannels", n_subchannels, 1)


def compiled_flops(function: Callable, *shapes: tuple[int, ...]) -> float:
    """Operations that XLA counts in `function` compiled for single-precision inputs of `shapes`.

    A root, exponential or logarithm is not in XLA's count.

    >>> compiled_flops(lambda x, w: x @ w, (5, 100), (100, 200))
    200000.0
    """
    inputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    analysis: Any = jax.jit(function).lower(*inputs).compile().cost_analysis()
    return float(analysis["flops"])


def _of_layers(widths: Sequence[int]) -> list[int]:
    if not isinstance(widths, (list, tuple)) or len(widths) < 3:
        raise ValueError(f"widths is {widths!r}; it must be a list of inputs, widths and outputs")
    # pruning may leave no neuron
    widths = [checked_count("widths", width, 0) for width in widths]
    return [dense_flops(*sizes) for sizes in pairwise(widths)]
