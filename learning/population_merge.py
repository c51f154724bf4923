"""Merging walks over the rows of a population, and over the row of its mixture, into rows that others have moved.

Columns merge as learning/merge.py says, each with its own rate. The way of d squared gradients is counted in n, which
all columns share: for a still column this is its rule, and for a restless one, whose m fades and tells no way,

    s(d) = kappa c 2 alpha d / (2 beta + sqrt(m0) + sqrt(mk)),     m <- r m + (1 - r) mk,    r = no / (no + dn)

Of the mixture's row (learning/mixing.py), base -> end, at the shard now:

    v, averages   the middle of both            counts     add
    stackers      z, n as columns: with their rate, and their number of inputs for the coupling

Increments of log v must not be added: a loser's fall ends at share / E, what lifts it now and then in one walk does
not, and over several walks the lifts multiply. Four workers from a cold start on test_population_merge.py's stream,
second half: 2.8 % above sequential when they are added, 0.1 % as they are (FTRL with one rate: 0.4 %).

A row that nobody moved becomes its end to the bit; two walks merge to the same in either order. Arithmetic is float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from learning.mixing import AVERAGE, INPUTS, close_mixture, open_mixture
from learning.walk_rows import same_row

__all__ = ["merge_mixture", "merge_population"]

_TINY = 1e-30
_STORED_MAX = 3e38


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _weight(z, n_root, alpha, beta, l1, l2):  # noqa: ANN001, ANN202
    numerator = max(z - l1, 0.0) + min(z + l1, 0.0)
    return -numerator / max((beta + n_root) / alpha + l2, _TINY)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _merge_z(z, zk, z0, roots, ways, alpha, penalties, strength):  # noqa: ANN001, ANN202
    """learning/merge.py for one coordinate: z now, at the end, at the base; `roots` of now, end, base and after."""
    beta, l1, l2 = penalties
    root, root_end, root0, root_new = roots
    no, dn = ways
    lifted0 = z0 - _weight(z0, root0, alpha, beta, l1, l2) * (root_new - root0) / alpha
    others = z - _weight(z, root, alpha, beta, l1, l2) * (root_new - root) / alpha - lifted0
    walk = zk - _weight(zk, root_end, alpha, beta, l1, l2) * (root_new - root_end) / alpha - lifted0
    rate = 2.0 * alpha * strength
    others_left = math.exp(-rate * dn / (2.0 * beta + root0 + root_end + _TINY))
    walk_left = math.exp(-rate * no / (2.0 * beta + root0 + root + _TINY))
    part = no / (no + dn + _TINY)
    z_new = lifted0 + (part + (1.0 - part) * others_left) * others + (1.0 - part + part * walk_left) * walk
    return np.float32(min(max(z_new, -_STORED_MAX), _STORED_MAX))


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_row(now, base, end, alphas, still, penalties, strength):  # noqa: ANN001, ANN202
    columns = len(alphas)
    n, n0, nk = np.float64(now[columns]), np.float64(base[columns]), np.float64(end[columns])
    no, dn = max(n - n0, 0.0), max(nk - n0, 0.0)
    n_new = min(n + dn, _STORED_MAX)
    roots = (math.sqrt(n), math.sqrt(nk), math.sqrt(n0), math.sqrt(n_new))
    for k in range(still):
        z, zk, z0 = np.float64(now[k]), np.float64(end[k]), np.float64(base[k])
        now[k] = _merge_z(z, zk, z0, roots, (no, dn), alphas[k], penalties, strength)
    if still < columns:
        m, m0, mk = np.float64(now[columns + 1]), np.float64(base[columns + 1]), np.float64(end[columns + 1])
        part = no / (no + dn) if no + dn > 0.0 else 0.5
        m_new = part * m + (1.0 - part) * mk
        roots = (math.sqrt(m), math.sqrt(mk), math.sqrt(m0), math.sqrt(m_new))
        for k in range(still, columns):
            z, zk, z0 = np.float64(now[k]), np.float64(end[k]), np.float64(base[k])
            now[k] = _merge_z(z, zk, z0, roots, (no, dn), alphas[k], penalties, strength)
        now[columns + 1] = np.float32(m_new)
    now[columns] = np.float32(n_new)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_population(rows, at, base, end, bias, alphas, still, penalties, strength):  # noqa: ANN001, ANN201
    """Merge walks base -> end (f32 (k, width)) into rows[at]; returns how many rows others had moved since the pull.

    `bias` is the bias's row, which takes no L1; `strength` is kappa times the coupling; `penalties` beta, l1, l2.
    """
    moved = 0
    beta, l1, l2 = penalties
    for k in range(len(at)):
        row = at[k]
        if same_row(rows, row, base, k):
            rows[row] = end[k]
            continue
        moved += 1
        threshold = 0.0 if row == bias else l1
        _merge_row(rows[row], base[k], end[k], alphas, still, (beta, threshold, l2), strength)
    return moved


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_shares(now, end):  # noqa: ANN001, ANN202
    """The middle of both."""
    for e in range(len(now)):
        now[e] = np.float32(0.5 * (np.float64(now[e]) + np.float64(end[e])))


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_labels(now, base, end):  # noqa: ANN001, ANN202
    for c in range(AVERAGE):
        least = min(
            now[c], end[c]
        )  # counts are halved now and then: what is left must not fall below either's
        now[c] = np.float32(
            max(np.float64(now[c]) + np.float64(end[c]) - np.float64(base[c]), np.float64(least))
        )
    for c in range(AVERAGE, len(now)):
        now[c] = np.float32(0.5 * (np.float64(now[c]) + np.float64(end[c])))


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_stacker(merged, start, final, s, rate, strength):  # noqa: ANN001, ANN202
    """z and n of stacker s: FTRL with beta 1."""
    z_now, n_now = merged[2][0, s], merged[2][1, s]
    for i in range(len(z_now)):
        n, n0, nk = np.float64(n_now[i]), np.float64(start[2][1, s, i]), np.float64(final[2][1, s, i])
        no, dn = max(n - n0, 0.0), max(nk - n0, 0.0)
        n_new = min(n + dn, _STORED_MAX)
        roots = (math.sqrt(n), math.sqrt(nk), math.sqrt(n0), math.sqrt(n_new))
        z, zk, z0 = np.float64(z_now[i]), np.float64(final[2][0, s, i]), np.float64(start[2][0, s, i])
        z_now[i] = _merge_z(z, zk, z0, roots, (no, dn), rate, (1.0, 0.0, 0.0), strength)
        n_now[i] = np.float32(n_new)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_mixture(rows, at, base, end, columns, rates, kappa):  # noqa: ANN001, ANN201
    """The same for the mixture's row; `rates` f64 (S,) are the stackers'."""
    moved = 0
    for k in range(len(at)):
        now = rows[at[k]]
        if same_row(rows, at[k], base, k):
            now[:] = end[k]
            continue
        moved += 1
        merged = open_mixture(now, columns, len(rates))
        start, final = open_mixture(base[k], columns, len(rates)), open_mixture(end[k], columns, len(rates))
        _merge_shares(merged[0], final[0])
        if len(rates) > 0:
            _merge_labels(merged[1], start[1], final[1])
            # A stacker's inputs move its logit together, and all of them are there in every record.
            strength = kappa * np.float64(columns + INPUTS)
            for s in range(len(rates)):
                _merge_stacker(merged, start, final, s, rates[s], strength)
        close_mixture(merged, now)
    return moved
