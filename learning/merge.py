"""Merging a worker's walk over FTRL rows into rows that other workers have moved since it pulled them.

A pushed key has a base row (z0, n0), an end row (zk, nk) and, at the shard, a present row (z, n). The others added
no = n - n0 squared gradients, the walk dn = nk - n0, together n' = n + dn. Each row is lifted to n', which changes its
learning rate and leaves its weight as it is; then both ways are in the same unit:

    lift(z, n) = z - w(z, n) (sqrt(n') - sqrt(n)) / alpha
    O = lift(z, n) - lift(z0, n0)          the way that others went
    G = lift(zk, nk) - lift(z0, n0)        the way of this walk

Squared gradients estimate the curvature of the logistic loss, so a walk of d squared gradients from n0 goes the share
1 - e^-s(d) of the way from where it starts to where it pulls, AdaGrad's rate being alpha / (beta + sqrt(n)):

    s(d) = kappa c 2 alpha d / (2 beta + sqrt(n0) + sqrt(n0 + d))

Had this walk come after the others, theirs would have shrunk: G + e^-s(dn) O. Had theirs come after it: O + e^-s(no) G.
The merge is the mean of the two by their share of squared gradients, r = no / (no + dn):

    z <- lift(z0, n0) + (r + (1 - r) e^-s(dn)) O + (1 - r + r e^-s(no)) G;     n <- n'

So short walks add up, long ones are averaged, two walks merge to the same in any order, and a row that nobody moved
becomes (zk, nk) to the bit. No walk counts more than in full, none less than its share of squared gradients.

c is the walk's coupling: coordinates of one record move its logit together, so along the walk the curvature is larger
than each coordinate's own. The worker measures it, D = w(end) - w(base), over a sample of its records t, q = p (1 - p):

    c = max(1, sum_t q_t (x_t . D)^2 / sum_t q_t sum_i (x_ti D_i)^2)

Coordinates that come once in the sample are left out: their step points along their own record. benchmarks/merge.py
compares this with adding, averaging and others. Arithmetic is float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["COUPLING_RECORDS", "merge_walks", "walk_coupling"]

COUPLING_RECORDS = 64
"""Records, evenly spaced over the batch, from which the coupling is measured: about 20 microseconds."""

_TINY = 1e-30
_STORED_MAX = 3e38
_LOGIT_MAX = 35.0


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _weight(z, n_root, alpha, beta, l1, l2):  # noqa: ANN001, ANN202
    numerator = max(z - l1, 0.0) + min(z + l1, 0.0)
    return -numerator / max((beta + n_root) / alpha + l2, _TINY)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _stored(x):  # noqa: ANN001, ANN202
    return min(max(x, -_STORED_MAX), _STORED_MAX)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_walks(rows, at, base, end, bias, alpha, beta, l1, l2, strength):  # noqa: ANN001, ANN201
    """Merge walks base -> end (f32 (k, 2)) into rows[at]; returns how many rows others had moved since the pull.

    `bias` is the bias coordinate's row, which takes no L1; `strength` is kappa times the coupling.
    """
    moved = 0
    for k in range(len(at)):
        row = at[k]
        z, n = np.float64(rows[row, 0]), np.float64(rows[row, 1])
        z0, n0 = np.float64(base[k, 0]), np.float64(base[k, 1])
        if z == z0 and n == n0:
            rows[row, 0], rows[row, 1] = end[k, 0], end[k, 1]
            continue
        moved += 1
        zk, nk = np.float64(end[k, 0]), np.float64(end[k, 1])
        threshold = 0.0 if row == bias else l1
        no, dn = max(n - n0, 0.0), max(nk - n0, 0.0)
        n_new = n + dn
        root, root0, root_end, root_new = math.sqrt(n), math.sqrt(n0), math.sqrt(nk), math.sqrt(n_new)
        lifted0 = z0 - _weight(z0, root0, alpha, beta, threshold, l2) * (root_new - root0) / alpha
        others = z - _weight(z, root, alpha, beta, threshold, l2) * (root_new - root) / alpha - lifted0
        walk = (
            zk - _weight(zk, root_end, alpha, beta, threshold, l2) * (root_new - root_end) / alpha - lifted0
        )
        rate = 2.0 * alpha * strength
        others_left = math.exp(-rate * dn / (2.0 * beta + root0 + root_end + _TINY))
        walk_left = math.exp(-rate * no / (2.0 * beta + root0 + root + _TINY))
        part = no / (no + dn + _TINY)
        z_new = (
            lifted0 + (part + (1.0 - part) * others_left) * others + (1.0 - part + part * walk_left) * walk
        )
        rows[row, 0], rows[row, 1] = _stored(z_new), _stored(n_new)
    return moved


@njit(cache=True, nogil=True, error_model="numpy")
def walk_coupling(base, end, index, bias, values, offsets, alpha, beta, l1, l2):  # noqa: ANN001, ANN201
    """c of a walk base -> end (f32 (rows, 2)) over a batch whose entry j has row index[j]; 1 for an empty batch."""
    records = len(offsets) - 1
    stride = max(1, records // COUPLING_RECORDS)
    seen = np.zeros(len(base), np.int8)
    entries_max = 1
    for i in range(0, records, stride):
        entries_max = max(entries_max, offsets[i + 1] - offsets[i] + 1)
        for j in range(offsets[i], offsets[i + 1]):
            seen[index[j]] = min(seen[index[j]] + 1, 2)
    joint = single = 0.0
    bias_w = _weight(np.float64(end[bias, 0]), math.sqrt(end[bias, 1]), alpha, beta, 0.0, l2)
    bias_step = bias_w - _weight(np.float64(base[bias, 0]), math.sqrt(base[bias, 1]), alpha, beta, 0.0, l2)
    for i in range(0, records, stride):
        logit, way, squares = bias_w, bias_step, bias_step * bias_step
        for j in range(offsets[i], offsets[i + 1]):
            row = index[j]
            w = _weight(np.float64(end[row, 0]), math.sqrt(end[row, 1]), alpha, beta, l1, l2)
            logit += w * values[j]
            if seen[row] == 2:
                w0 = _weight(np.float64(base[row, 0]), math.sqrt(base[row, 1]), alpha, beta, l1, l2)
                step = (w - w0) * values[j]
                way += step
                squares += step * step
        p = 1.0 / (1.0 + math.exp(-min(max(logit, -_LOGIT_MAX), _LOGIT_MAX)))
        joint += p * (1.0 - p) * way * way
        single += p * (1.0 - p) * squares
    # The quotient is at most the number of entries; absurd values that overflow it count as fully coupled.
    ratio = joint / single if single > 0.0 else 1.0
    return min(max(ratio, 1.0), np.float64(entries_max)) if math.isfinite(ratio) else np.float64(entries_max)
