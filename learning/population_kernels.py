"""The recursion of a population of FTRL columns over a batch, record after record; equations in learning/population.py.

A row (f32, K + 1 or K + 2): z of each column, the sum of squares n that the still columns share, and m, the fading one
of the restless columns, where there are any. As in learning/ftrl.py a record's rows are gathered into small arrays and
scattered at the end, so that what lies between vectorises; rows and their arithmetic are float32, logits float64, and
nothing is reordered. One column alone computes what learning/ftrl.py does, to the bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from learning.mixing import INPUTS, close_mixture, experts_of, learn_mixture, mix, open_mixture, sigmoid

__all__ = ["learn_population", "predict_population"]

_STORED_MAX = np.float32(3e38)
_TINY = np.float32(1e-30)
_LANES = 8
"""Loops over a record's entries go in steps of one vector register; what lies behind the bias is never stored."""
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _stored(x):  # noqa: ANN001, ANN202
    return min(max(x, -_STORED_MAX), _STORED_MAX)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _weight(z, root, inverse_rate, beta, l1, l2):  # noqa: ANN001, ANN202
    """As in learning/ftrl.py."""
    numerator = max(z - l1, _ZERO) + min(z + l1, _ZERO)
    return -numerator / max((beta + root) * inverse_rate + l2, _TINY)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _padded(count):  # noqa: ANN001, ANN202
    """Entries, the bias among them, in whole registers."""
    return (count + _LANES) // _LANES * _LANES


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _load(rows, row, shape, z, squares, j):  # noqa: ANN001, ANN202
    for k in range(len(shape[0])):
        z[k, j] = rows[row, k]
    for g in range(len(shape[1])):
        squares[g, j] = rows[row, len(shape[0]) + g]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _store(rows, row, shape, z, squares, j):  # noqa: ANN001, ANN202
    for k in range(len(shape[0])):
        rows[row, k] = z[k, j]
    for g in range(len(shape[1])):
        rows[row, len(shape[0]) + g] = squares[g, j]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _gather(rows, index, first, count, bias, shape, z, squares):  # noqa: ANN001, ANN202
    """A record's rows as columns: z (K, entries + 1), squares (1 or 2, entries + 1), the bias behind the entries."""
    for j in range(count):
        _load(rows, np.uint64(index[first + j]), shape, z, squares, j)  # unsigned: none counts from the end
    _load(rows, np.uint64(bias), shape, z, squares, count)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _scatter(rows, index, first, count, bias, shape, z, squares):  # noqa: ANN001, ANN202
    for j in range(count):
        _store(rows, np.uint64(index[first + j]), shape, z, squares, j)
    _store(rows, np.uint64(bias), shape, z, squares, count)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _weigh(z, squares, count, still, inverse_rates, penalties, w):  # noqa: ANN001, ANN202
    """Weights w (K, entries + 1) of all columns. A loop of roots alone would not be vectorised: each takes its own."""
    beta, l1, l2 = penalties
    for k in range(len(z)):
        g, inverse = 0 if k < still else 1, inverse_rates[k]
        for j in range(_padded(count)):
            w[k, j] = _weight(z[k, j], math.sqrt(squares[g, j]), inverse, beta, l1, l2)
        w[k, count] = _weight(z[k, count], math.sqrt(squares[g, count]), inverse, beta, _ZERO, l2)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _add_up(w, x, count, logits, p):  # noqa: ANN001, ANN202
    """Logits and probabilities of all columns; each logit is added up in the order of the entries, the bias first.

    Four chains of additions at a time, of which none waits for another.
    """
    columns = len(w)
    k = 0
    while k + 4 <= columns:
        a, b = np.float64(w[k, count]), np.float64(w[k + 1, count])
        c, d = np.float64(w[k + 2, count]), np.float64(w[k + 3, count])
        for j in range(count):
            xj = np.float64(x[j])
            a += np.float64(w[k, j]) * xj
            b += np.float64(w[k + 1, j]) * xj
            c += np.float64(w[k + 2, j]) * xj
            d += np.float64(w[k + 3, j]) * xj
        logits[k], logits[k + 1], logits[k + 2], logits[k + 3] = a, b, c, d
        k += 4
    while k < columns:
        a = np.float64(w[k, count])
        for j in range(count):
            a += np.float64(w[k, j]) * np.float64(x[j])
        logits[k] = a
        k += 1
    for k in range(columns):
        p[k] = sigmoid(logits[k])


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _columns_mean(shares, columns, p):  # noqa: ANN001, ANN202
    """The columns' own mixture, whose gradients are counted in n and m; one column's is its p to the bit."""
    total = mixed = 0.0
    for k in range(columns):
        total += np.float64(shares[k])
    for k in range(columns):
        mixed += np.float64(shares[k]) / total * p[k]
    return mixed


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _grow(squares, groups, count, x, slope, keep, gains):  # noqa: ANN001, ANN202
    """Add the squared gradients; gains (groups, entries + 1) is by how much each root grows."""
    for g in range(groups):
        left = _ONE if g == 0 else keep
        for j in range(_padded(count)):
            step = slope * x[j]
            square = min(step * step, _STORED_MAX)
            before = squares[g, j]
            after = min(left * before + square, _STORED_MAX)
            grown = square - (_ONE - left) * before
            gains[g, j] = grown / (math.sqrt(after) + math.sqrt(before) + _TINY)
            squares[g, j] = after


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _step(z, w, gains, still, inverse_rates, count, x, p, y, weight, pace):  # noqa: ANN001, ANN202
    """z of all columns, each by its own gradient times `pace`."""
    for k in range(len(z)):
        g, inverse = 0 if k < still else 1, inverse_rates[k]
        slope = pace * np.float32(weight * (p[k] - y))
        for j in range(_padded(count)):
            z[k, j] = _stored(z[k, j] + slope * x[j] - gains[g, j] * inverse * w[k, j])


@njit(cache=True, nogil=True, error_model="numpy")
def learn_population(  # noqa: ANN201
    rows, index, bias, state, values, offsets, labels, weights,  # noqa: ANN001
    inverse_rates, still, penalties, shape, keep, stack_rates, share, pace, out,  # noqa: ANN001
):  # fmt: skip
    """Predict, then learn, record after record, on rows[index], the bias's row and the mixture's row `state`."""
    columns, groups = len(shape[0]), len(shape[1])
    longest = 0
    for i in range(len(labels)):
        longest = max(longest, _padded(offsets[i + 1] - offsets[i]))
    z, w = np.zeros((columns, longest), np.float32), np.zeros((columns, longest), np.float32)
    squares, gains = np.zeros((2, longest), np.float32), np.zeros((2, longest), np.float32)
    x = np.zeros(longest, np.float32)
    experts = experts_of(columns, len(stack_rates))
    p, logits, likelihoods = np.empty(experts), np.empty(columns), np.empty(experts)
    inputs = np.empty(columns + INPUTS, np.float32)
    scratch = np.empty((2, len(stack_rates), len(inputs)), np.float32)
    shares, seen, stack = open_mixture(state, columns, len(stack_rates))
    for i in range(len(labels)):
        first = offsets[i]
        count = offsets[i + 1] - first
        for j in range(count):
            x[j] = values[first + j]
        x[count] = _ONE
        y, weight = np.float64(labels[i]), np.float64(weights[i])
        _gather(rows, index, first, count, bias, shape, z, squares)
        _weigh(z, squares, count, still, inverse_rates, penalties, w)
        _add_up(w, x, count, logits, p)
        out[i] = mix(shares, seen, stack, columns, stack_rates, logits, p, inputs, scratch)
        slope = np.float32(weight * (_columns_mean(shares, columns, p) - y))
        _grow(squares, groups, count, x, slope, keep, gains)
        _step(z, w, gains, still, inverse_rates, count, x, p, y, weight, pace)
        _scatter(rows, index, first, count, bias, shape, z, squares)
        learn_mixture(
            shares, seen, stack, columns, stack_rates, p, inputs, scratch, y, weight, share, likelihoods
        )
    close_mixture((shares, seen, stack), state)


@njit(cache=True, nogil=True, error_model="numpy")
def predict_population(  # noqa: ANN201
    rows, index, bias, state, values, offsets, inverse_rates, still, penalties, stack_rates, out,  # noqa: ANN001
):  # fmt: skip
    """Predict only, all records as of now; an index or a bias of -1 is a key without a row, whose weight is 0."""
    beta, l1, l2 = penalties
    columns, stackers = len(inverse_rates), len(stack_rates)
    p, logits = np.empty(experts_of(columns, stackers)), np.empty(columns)
    inputs = np.empty(columns + INPUTS, np.float32)
    scratch = np.empty((2, stackers, len(inputs)), np.float32)
    shares, seen, stack = open_mixture(state, columns, stackers)
    for i in range(len(out)):
        logits[:] = 0.0
        for j in range(offsets[i] - 1, offsets[i + 1]):
            entry = j >= offsets[i]
            row = index[j] if entry else bias
            if row < 0:
                continue
            value = np.float64(values[j]) if entry else 1.0
            for k in range(columns):
                root = math.sqrt(rows[row, columns + (0 if k < still else 1)])
                w = _weight(rows[row, k], root, inverse_rates[k], beta, l1 if entry else _ZERO, l2)
                logits[k] += np.float64(w) * value
        for k in range(columns):
            p[k] = sigmoid(logits[k])
        out[i] = mix(shares, seen, stack, columns, stack_rates, logits, p, inputs, scratch)
