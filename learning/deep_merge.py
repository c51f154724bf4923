"""The shard's side of the torch learner: how walks of several workers over the same rows are merged.

A walk leads from base (p0, ..) to end (pk, ..); others have moved the row to (p, ..) meanwhile. Rows that nobody moved
become the end rows to the bit. Else, with O = p - p0 the way of the others and G = pk - p0 that of the walk:

Adagrad's rows, whose sums of squares a add: a' = a + ak - a0, and each way is what it would have been with all squares
counted, the way of a step being as 1 over its root:

    p' = p0 + r(a) / r(a') O + r(ak) / r(a') G;    r(x) = beta + sqrt(x), beta 1 for the weight and 0.03 for the vector

On a new row, two equal walks so come to sqrt(2) of one; on one that has seen much, they add.

Adam's (dense blocks, rows of keys) have no such sums. Ways that point in different directions add, and ways that point
the same way, which would overshoot, are averaged; moments forget what both saw, in either order, and are averaged:

    p' = p0 + (O + G) / (1 + kappa max(0, cos(O, G)))
    m' = 1/2 (q m + mk - q m0) + 1/2 (u mk + m - u m0),  q = keep^(steps of the walk), u = keep^(steps of the others)

Both rules give the same for two walks in either order. Steps add.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from learning.walk_rows import same_row

__all__ = ["VECTOR_BETA", "WEIGHT_BETA", "merge_adagrad", "merge_adam", "merge_dense"]

WEIGHT_BETA, VECTOR_BETA = 1.0, 0.03
"""What Adagrad adds to the root of its sums: first steps are small where gradients are."""

_FIRST, _SECOND = 0.9, 0.999
_TINY = 1e-30


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _add_damped(rows, row, base, end, k, first, last, kappa):  # noqa: ANN001, ANN202
    """Columns first to last: ways added, and averaged as far as they point the same way."""
    product = others = own = 0.0
    for c in range(first, last):
        o = np.float64(rows[row, c]) - np.float64(base[k, c])
        g = np.float64(end[k, c]) - np.float64(base[k, c])
        product += o * g
        others += o * o
        own += g * g
    alike = max(product, 0.0) / (math.sqrt(others * own) + _TINY)
    share = 1.0 / (1.0 + kappa * alike)
    for c in range(first, last):
        p0 = np.float64(base[k, c])
        both = (np.float64(rows[row, c]) - p0) + (np.float64(end[k, c]) - p0)
        rows[row, c] = np.float32(p0 + share * both)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _average_moments(rows, row, base, end, k, first, last, of_walk, of_others):  # noqa: ANN001, ANN202
    for c in range(first, last):
        m0, m, mk = np.float64(base[k, c]), np.float64(rows[row, c]), np.float64(end[k, c])
        rows[row, c] = np.float32(0.5 * (of_walk * (m - m0) + mk) + 0.5 * (of_others * (mk - m0) + m))


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _join_moments(rows, row, base, end, k, steps, first, second, last):  # noqa: ANN001, ANN202
    """Adam's first moments in columns first to second, second ones (never below 0) up to last, and the steps."""
    n0, n, nk = np.float64(base[k, steps]), np.float64(rows[row, steps]), np.float64(end[k, steps])
    _average_moments(rows, row, base, end, k, first, second, _FIRST ** (nk - n0), _FIRST ** (n - n0))
    _average_moments(rows, row, base, end, k, second, last, _SECOND ** (nk - n0), _SECOND ** (n - n0))
    for c in range(second, last):
        rows[row, c] = max(rows[row, c], np.float32(0.0))
    rows[row, steps] = np.float32(n + (nk - n0))


@njit(cache=True, nogil=True, error_model="numpy")
def merge_adagrad(rows, at, base, end, width):  # noqa: ANN001, ANN201
    """Merge walks over rows (weight, vector, a of the weight, a of the vector); returns how many rows had moved."""
    moved = 0
    for k in range(len(at)):
        row = at[k]
        if same_row(rows, row, base, k):
            rows[row] = end[k]
            continue
        moved += 1
        for part in range(2):
            first, last = (0, 1) if part == 0 else (1, width)
            of = width + part
            a0, a, ak = np.float64(base[k, of]), np.float64(rows[row, of]), np.float64(end[k, of])
            beta = WEIGHT_BETA if part == 0 else VECTOR_BETA
            after = max(a + (ak - a0), 0.0)
            root = beta + math.sqrt(after)
            others, own = (beta + math.sqrt(a)) / root, (beta + math.sqrt(ak)) / root
            for c in range(first, last):
                p0 = np.float64(base[k, c])
                o, g = np.float64(rows[row, c]) - p0, np.float64(end[k, c]) - p0
                rows[row, c] = np.float32(p0 + others * o + own * g)
            rows[row, of] = np.float32(after)
    return moved


@njit(cache=True, nogil=True, error_model="numpy")
def merge_adam(rows, at, base, end, width, kappa):  # noqa: ANN001, ANN201
    """The same for rows (weight, vector, their first moments, two second moments, steps)."""
    moved = 0
    for k in range(len(at)):
        row = at[k]
        if same_row(rows, row, base, k):
            rows[row] = end[k]
            continue
        moved += 1
        _add_damped(rows, row, base, end, k, 0, 1, kappa)
        _add_damped(rows, row, base, end, k, 1, width, kappa)
        steps = 2 * width + 2
        _join_moments(rows, row, base, end, k, steps, width, 2 * width, steps)
    return moved


@njit(cache=True, nogil=True, error_model="numpy")
def merge_dense(rows, at, base, end, kappa):  # noqa: ANN001, ANN201
    """The same for blocks (steps, parameters, first moments, second moments)."""
    block = (base.shape[1] - 1) // 3
    moved = 0
    for k in range(len(at)):
        row = at[k]
        if same_row(rows, row, base, k):
            rows[row] = end[k]
            continue
        moved += 1
        _add_damped(rows, row, base, end, k, 1, 1 + block, kappa)
        _join_moments(rows, row, base, end, k, 0, 1 + block, 1 + 2 * block, 1 + 3 * block)
    return moved
