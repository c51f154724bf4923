"""The scale of the ratings seen so far, as one float32 row: count, mean, squares about the mean, least, greatest.

Welford's recursion for a rating r of weight w, and Chan, Golub and LeVeque's rule (1979) for two parts a and b:

    n += w;   d = r - mean;   mean += w d / n;   M2 += w d (r - mean)
    n = na + nb;   d = mean_b - mean_a;   mean = mean_a + d nb / n;   M2 = M2a + M2b + d^2 na nb / n

The row has eight columns: n, mean and M2 as two float32 each (the nearest one, and the nearest one of what it leaves:
48 bits), then least and greatest. One float32 would stop counting at 16,777,216. Rounding after every record is what
makes the numbers independent of how the stream is cut into batches. All arithmetic is float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["SCALE_WIDTH", "add_rating", "deviation", "merge_scale", "read_scale"]

SCALE_WIDTH = 8


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _pair(rows, row, column):  # noqa: ANN001, ANN202
    return np.float64(rows[row, column]) + np.float64(rows[row, column + 1])


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _set_pair(rows, row, column, x):  # noqa: ANN001, ANN202
    high = np.float32(x)
    rows[row, column] = high
    rows[row, column + 1] = np.float32(x - np.float64(high))


@njit(cache=True, nogil=True, error_model="numpy")
def read_scale(rows, row):  # noqa: ANN001, ANN201
    """(n, mean, M2, least, greatest) of rows[row], float64."""
    return (
        _pair(rows, row, 0),
        _pair(rows, row, 2),
        _pair(rows, row, 4),
        np.float64(rows[row, 6]),
        np.float64(rows[row, 7]),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _write(rows, row, n, mean, squares, least, greatest):  # noqa: ANN001, ANN202
    _set_pair(rows, row, 0, n)
    _set_pair(rows, row, 2, mean)
    _set_pair(rows, row, 4, squares)
    rows[row, 6], rows[row, 7] = np.float32(least), np.float32(greatest)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def deviation(n, squares):  # noqa: ANN001, ANN201
    """Standard deviation of the ratings seen; 0 while none has differed from another."""
    return math.sqrt(squares / n) if n > 0.0 and squares > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def add_rating(rows, row, rating, weight):  # noqa: ANN001, ANN201
    """Take one rating into rows[row]."""
    n, mean, squares, least, greatest = read_scale(rows, row)
    if n == 0.0:
        least = greatest = rating
    n += weight
    way = rating - mean
    mean += weight * way / n
    squares += weight * way * (rating - mean)
    _write(rows, row, n, mean, squares, min(least, rating), max(greatest, rating))


@njit(cache=True, nogil=True, error_model="numpy")
def merge_scale(rows, row, base, end, k):  # noqa: ANN001, ANN201
    """Take the ratings that lie between base[k] and end[k] into rows[row], as if it had seen them itself."""
    n0, mean0, squares0, _, _ = read_scale(base, k)
    nk, mean_k, squares_k, least_k, greatest_k = read_scale(end, k)
    n, mean, squares, least, greatest = read_scale(rows, row)
    own = nk - n0
    if own <= 0.0:
        return
    own_mean = mean0 + (mean_k - mean0) * nk / own
    way = own_mean - mean0
    own_squares = max(squares_k - squares0 - way * way * n0 * own / nk, 0.0)
    way = own_mean - mean
    total = n + own
    least = min(least, least_k) if n > 0.0 else least_k
    greatest = max(greatest, greatest_k) if n > 0.0 else greatest_k
    squares += own_squares + way * way * n * own / total
    _write(rows, row, total, mean + way * own / total, squares, least, greatest)
