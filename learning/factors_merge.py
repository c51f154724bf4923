"""Merging a worker's walk over rows of factors into rows that other workers have moved since it pulled them.

A parameter with prior information L and information a about it has the rate 1 / (L + a). An observation that tells i
moves it the share i / (L + a + i) of the way to where it pulls, and a becomes rho a + i. So of where a row stood, d
observations that tell i each leave

    e = ((L + a0) / (L + a0 + d i))^kappa                                                     for rho = 1
    e = exp(-kappa A / (L + A) (-d ln rho + ln((L + ad) / (L + a0)))),   A = i / (1 - rho)    for rho < 1

(the product over the steps, and its integral; ad = rho^d a0 + (1 - rho^d) A). With the others' way O = m - m0, told Io
in do observations, and this walk's G = mk - m0, Iw in dw, both from a0, r = Io / (Io + Iw) and e over all do + dw:

    m <- m0 + (r + (1 - r) e) O + (1 - r + r e) G

For rho = 1 and kappa = 1 this adds natural parameters, ((L + a) m + (L + ak) mk - (L + a0) m0) / (L + a + ak - a0):
what one worker would have found if the other side of every rating had stood still. Short walks add up, long ones are
averaged; no way counts more than in full, and together they never count less than once. Of the two orders in which a
could have grown the mean is taken. Two walks merge to the same in any order (up to rounding), and a row that nobody
moved becomes its end to the bit. Arithmetic is float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from learning.factors_kernels import BIAS, COUNT, FACTORS, OF_BIAS, OF_FACTORS
from learning.factors_scale import merge_scale
from learning.walk_rows import same_row

__all__ = ["merge_factors", "merge_newest", "merge_scales"]

_TINY = 1e-30


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _told(a0, a, d, rho):  # noqa: ANN001, ANN202
    """What d observations told together, undiminished by the forgetting in between."""
    kept = rho**d
    stretch = (1.0 - rho) * d / (1.0 - kept) if rho < 1.0 else 1.0
    return max(a - kept * a0, 0.0) * stretch


@njit(cache=True, nogil=True, error_model="numpy")
def _shares(prior, rho, a0, a, do, ak, dw, kappa):  # noqa: ANN001, ANN202
    """(weight of the others' way, weight of the walk, information after both)."""
    others, walk = _told(a0, a, do, rho), _told(a0, ak, dw, rho)
    together, d = others + walk, do + dw
    if rho < 1.0:
        level = together / d / (1.0 - rho)
        kept = rho**d
        grown = math.log((prior + kept * a0 + (1.0 - kept) * level) / (prior + a0))
        left = math.exp(-kappa * level / (prior + level) * (grown - d * math.log(rho)))
    else:
        left = ((prior + a0) / (prior + a0 + together)) ** kappa
    part = others / together if together > _TINY else 0.5
    after = 0.5 * (rho**dw * (a - a0) + ak) + 0.5 * (rho**do * (ak - a0) + a)
    return part + (1.0 - part) * left, 1.0 - part + part * left, max(after, 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_factors(rows, at, base, end, prior, keep_bias, keep_factors, observed, kappa):  # noqa: ANN001, ANN201
    """Merge walks base -> end (f32 (k, width)) into rows[at] of users or items; returns how many had moved.

    `observed`: observations for each one counted (a choice comes with its negatives).
    """
    moved = 0
    for k in range(len(at)):
        row = at[k]
        if same_row(rows, row, base, k):
            rows[row] = end[k]
            continue
        moved += 1
        if same_row(end, k, base, k):
            continue
        n0, n, nk = np.float64(base[k, COUNT]), np.float64(rows[row, COUNT]), np.float64(end[k, COUNT])
        # A count stands still at 2^24, and a negative is not counted: at least one observation moved the row.
        do, dw = observed * max(n - n0, 1.0), observed * max(nk - n0, 1.0)
        of_others, of_walk, after = _shares(
            prior[0], keep_bias, np.float64(base[k, OF_BIAS]), np.float64(rows[row, OF_BIAS]), do,
            np.float64(end[k, OF_BIAS]), dw, kappa,
        )  # fmt: skip
        b0 = np.float64(base[k, BIAS])
        rows[row, BIAS] = np.float32(b0 + of_others * (rows[row, BIAS] - b0) + of_walk * (end[k, BIAS] - b0))
        rows[row, OF_BIAS] = np.float32(after)
        of_others, of_walk, after = _shares(
            prior[1], keep_factors, np.float64(base[k, OF_FACTORS]), np.float64(rows[row, OF_FACTORS]), do,
            np.float64(end[k, OF_FACTORS]), dw, kappa,
        )  # fmt: skip
        for c in range(FACTORS, rows.shape[1]):
            f0 = np.float64(base[k, c])
            rows[row, c] = np.float32(f0 + of_others * (rows[row, c] - f0) + of_walk * (end[k, c] - f0))
        rows[row, OF_FACTORS] = np.float32(after)
        rows[row, COUNT] = np.float32(n + (nk - n0))
    return moved


@njit(cache=True, nogil=True, error_model="numpy")
def merge_scales(rows, at, base, end):  # noqa: ANN001, ANN201
    """The same for the row of rating statistics: exact, see learning/factors_scale.py."""
    moved = 0
    for k in range(len(at)):
        if same_row(rows, at[k], base, k):
            rows[at[k]] = end[k]
        else:
            moved += 1
            merge_scale(rows, at[k], base, end, k)
    return moved


@njit(cache=True, nogil=True, error_model="numpy")
def merge_newest(rows, at, base, end):  # noqa: ANN001, ANN201
    """The same where the newest value is the truth: what comes last stays."""
    moved = 0
    for k in range(len(at)):
        moved += not same_row(rows, at[k], base, k)
        rows[at[k]] = end[k]
    return moved
