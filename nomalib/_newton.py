"""One Newton step towards the central path of `nomalib._central_path`, for one draw.

    (H + Z/U) du + dy·1 = −(∇f − μ/u + y·1),    1ᵀdu = 0,                              (newton)

where H has one K × K block for each subchannel and only the budget couples them. Eliminating the
blocks leaves one scalar equation for dy: O(N K³) an iteration. The unknowns are the relative steps
r = du/u, in which the blocks are U H U + U Z, near μ·I at the boundary.

f is not convex in general. Where the system has the wrong inertia, the blocks at fault are shifted
by a multiple of I until the step descends.
"""

from typing import NamedTuple

import numpy as np

from nomalib._checks import Array
from nomalib._compile import borrowing, inlined

TRACED = 5


class Work(NamedTuple):
    """Arrays of one path."""

    below: Array  # D at the iterate, (N, K)
    slopes: Array  # −∇f, (N, K)
    z: Array  # multipliers of u ≥ 0, (N, K)
    trial: Array  # the next iterate, (N, K)
    direction: Array  # what `eliminate` solves for, and then du and dz, (N, K) each
    towards: Array
    block: Array  # U H U + U Z, (N, K, K)
    factor: Array  # LDLᵀ of one block, (K, K)
    shift: Array  # of each block, (N,)
    log: Array  # a record of each iterate, (T, 5), and its u, (T, N, K); of length 0 for none
    path: Array


def workspace(n: int, slots: int, traced: int = 0) -> Work:
    flat = [np.zeros((n, slots)) for _ in range(6)]
    others = [(n, slots, slots), (slots, slots), (n,), (traced, TRACED), (traced, n, slots)]
    return Work(*flat, *map(np.zeros, others))


@inlined
def copy(source, target):
    """Loops: for an assignment Numba compiles the errors of shapes too."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@borrowing
def factorise(i, k, block, shift, factor):
    """LDLᵀ of block i + shift·I into `factor`; returns how many pivots are negative or vanish.

    L is the strict lower triangle, DLᵀ the strict upper one; the diagonal holds the inverse of D.
    """
    negative = 0
    for row in range(k):
        pivot = block[i, row, row] + shift[i]
        for col in range(row):
            value = block[i, row, col]
            for mid in range(col):
                value -= factor[mid, row] * factor[col, mid]
            factor[col, row] = value
            factor[row, col] = value * factor[col, col]
            pivot -= value * factor[row, col]
        if abs(pivot) <= 1e-14 * (abs(block[i, row, row]) + shift[i]):
            negative += k + 1
            pivot = 1.0
        negative += pivot < 0.0
        factor[row, row] = 1.0 / pivot
    return negative


@borrowing
def substitute(i, k, factor, rhs):
    """Solves L D Lᵀ x = rhs for row i of rhs, in place."""
    for row in range(k):
        for col in range(row):
            rhs[i, row] -= factor[row, col] * rhs[i, col]
    for row in range(k - 1, -1, -1):
        rhs[i, row] *= factor[row, row]
        for below in range(row + 1, k):
            rhs[i, row] -= factor[below, row] * rhs[i, below]


@borrowing
def eliminate(shares, u, work, barrier, price):
    """Block elimination of the Newton step: r = direction − dy·towards; returns (dy, descends).

    The step descends where the inertia is (slots, 1): no block has a negative pivot and the
    border is positive, or one has one and the border is negative.
    """
    negative, border, constant = 0, 0.0, 0.0
    for i in range(u.shape[0]):
        k = shares.count[i]
        negative += factorise(i, k, work.block, work.shift, work.factor)
        for row in range(k):
            work.direction[i, row] = barrier + u[i, row] * (work.slopes[i, row] - price)
            work.towards[i, row] = u[i, row]
        substitute(i, k, work.factor, work.direction)
        substitute(i, k, work.factor, work.towards)
        for row in range(k):
            constant += u[i, row] * work.direction[i, row]
            border += u[i, row] * work.towards[i, row]
    descends = (negative == 0 and border > 0.0) or (negative == 1 and border < 0.0)
    return constant / border, descends


@inlined
def newton_direction(shares, u, work, barrier, price, keep):
    """Step 3: a direction that descends and is not cut short by the boundary.

    Returns dy and the longest primal step; blocks at fault are shifted until both hold.
    """
    # doubling does not lift 0, which μ may round to
    least_shift = max(barrier, 1e-300)
    for i in range(u.shape[0]):
        work.shift[i] = 0.0
    d_price, step = 0.0, 0.0
    for _ in range(31):
        d_price, descends = eliminate(shares, u, work, barrier, price)
        step, tight = 1.0, -1
        for i in range(u.shape[0]):
            for j in range(shares.count[i]):
                relative = work.direction[i, j] - d_price * work.towards[i, j]
                if relative * step < -keep:
                    step, tight = -keep / relative, i
        if descends and step >= 0.1:
            break
        if descends:
            work.shift[tight] = max(least_shift, 2.0 * work.shift[tight])
        else:
            for i in range(u.shape[0]):
                k = shares.count[i]
                while factorise(i, k, work.block, work.shift, work.factor) > 0:
                    work.shift[i] = max(least_shift, 2.0 * work.shift[i])
    return d_price, step
