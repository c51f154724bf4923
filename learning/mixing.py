"""Fixed share over experts, per record: their weights, and two experts' ways of learning from what the others said.

Herbster and Warmuth, "Tracking the Best Expert", 1998, over log-loss (learning rate 1, the Bayes mixture). For a record
of label y and weight omega, the weights v standing before the label was seen:

    p = sum_e v_e p_e;    v_e <- (1 - share) v_e l_e / sum_j v_j l_j + share / E;    l_e = (p_e^y (1 - p_e)^(1-y))^omega

Experts are the K columns of the population, and, if there are stackers, a base rate (Krichevsky and Trofimov 1981:
(ones + 1/2) / (records + 1)), and S stackers. A stacker is a logistic regression of the label on what is known before:

    L, the logit of the mixture of columns and base rate;     each column's logit less L;     1;
    4 (a_i - a_i+1), the labels' moving averages a_1 (the last one) to a_4 (of 333 records), then the base rate

It starts as weight 1 on L and 0 on the rest, and learns by FTRL (z, n as in learning/ftrl.py, beta 1, no penalty) from
there, each stacker with its own rate: it calibrates, mixes in the logit, and follows streams whose labels come in runs.
As everything is again mixed by fixed share, a stacker that does not pay costs at most ln E / n a record.

The state is one row of float32: v (E), counts of zeros and ones, the four averages, z (S, d), n (S, d), d = K + 6.
A row of zeros is the beginning (uniform v). Every record's results are rounded to float32, so that it does not matter
where batches are cut.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "AVERAGE",
    "AVERAGES",
    "INPUTS",
    "close_mixture",
    "experts_of",
    "learn_mixture",
    "mix",
    "open_mixture",
    "share_out",
    "sigmoid",
    "width_of",
]

INPUTS = 6
"""Inputs of a stacker beside the columns: L, 1 and the four averages."""

AVERAGES = np.array([1.0, 0.2, 0.03, 0.003], np.float32)
"""Rates of the moving averages of labels."""

ZEROS, ONES, AVERAGE = 0, 1, 2
"""Places behind the experts' weights; the averages are the last of them."""

COUNT_MAX = np.float32(2.0**22)
"""From here on both counts are halved: they stay exact, and a base rate may change within millions of records."""

_LOGIT_MAX = 35.0
_INPUT_MAX = 8.0
_STORED_MAX = np.float32(3e38)
_TINY = np.float32(1e-30)
_LEAST = 1e-300
_ONE = np.float32(1.0)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def experts_of(columns, stackers):  # noqa: ANN001, ANN201
    """Experts: the columns and, if there are stackers, the base rate and the stackers."""
    return columns + 1 + stackers if stackers > 0 else columns


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def width_of(columns, stackers):  # noqa: ANN001, ANN201
    """Columns of the mixture's row."""
    if stackers == 0:
        return columns
    return experts_of(columns, stackers) + AVERAGE + len(AVERAGES) + 2 * stackers * (columns + INPUTS)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def sigmoid(logit):  # noqa: ANN001, ANN201
    """1 / (1 + e^-logit), the logit clipped to +-35."""
    clipped = min(max(logit, -_LOGIT_MAX), _LOGIT_MAX)
    return 1.0 / (1.0 + math.exp(-clipped))


@njit(cache=True, nogil=True, error_model="numpy")
def open_mixture(state, columns, stackers):  # noqa: ANN001, ANN201
    """Copies of a row's parts: v (E), counts and averages (6), z and n (2, S, d); of zeros, the beginning."""
    experts = experts_of(columns, stackers)
    labels_end = experts + (AVERAGE + len(AVERAGES) if stackers > 0 else 0)
    shares, labels = state[:experts].copy(), state[experts:labels_end].copy()
    stack = state[labels_end:].copy().reshape((2, stackers, columns + INPUTS))
    if shares.max() == 0.0:
        shares[:] = np.float32(1.0 / experts)
        labels[AVERAGE:] = np.float32(0.5)
    return shares, labels, stack


@njit(cache=True, nogil=True, error_model="numpy")
def close_mixture(mixture, state):  # noqa: ANN001, ANN201
    """Write the parts back into their row."""
    at = 0
    shares, labels, stack = mixture
    for part in (shares, labels, stack.ravel()):
        state[at : at + len(part)] = part
        at += len(part)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _inputs(shares, labels, columns, logits, p, inputs):  # noqa: ANN001, ANN202
    """What the stackers look at, f32 (columns + 6); sets p of the base rate."""
    base = (np.float64(labels[ONES]) + 0.5) / (np.float64(labels[ZEROS]) + np.float64(labels[ONES]) + 1.0)
    p[columns] = base
    total = mixed = 0.0
    for e in range(columns + 1):
        total += np.float64(shares[e])
        mixed += np.float64(shares[e]) * p[e]
    odds = max(mixed, _LEAST) / max(total - mixed, _LEAST)
    center = min(max(math.log(odds), -_INPUT_MAX), _INPUT_MAX)
    inputs[0] = center
    for k in range(columns):
        inputs[1 + k] = min(max(logits[k], -_INPUT_MAX), _INPUT_MAX) - center
    inputs[columns + 1] = _ONE
    for a in range(len(AVERAGES)):
        behind = np.float64(labels[AVERAGE + a + 1]) if a + 1 < len(AVERAGES) else base
        inputs[columns + 2 + a] = 4.0 * (np.float64(labels[AVERAGE + a]) - behind)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _stack(stack, s, inverse_rate, inputs, scratch):  # noqa: ANN001, ANN202
    """Stacker s's probability; scratch[:, s] becomes its weights less where they started, and the roots of n."""
    for i in range(len(inputs)):
        scratch[1, s, i] = math.sqrt(stack[1, s, i])
        scratch[0, s, i] = -stack[0, s, i] / ((_ONE + scratch[1, s, i]) * inverse_rate)
    logit = np.float64(inputs[0])
    for i in range(len(inputs)):
        logit += np.float64(scratch[0, s, i]) * np.float64(inputs[i])
    return sigmoid(logit)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def mix(shares, labels, stack, columns, inverse_rates, logits, p, inputs, scratch):  # noqa: ANN001, ANN201
    """The mixture's probability before the label; p[:columns] are the columns', the others are filled in here."""
    if len(inverse_rates) > 0:
        _inputs(shares, labels, columns, logits, p, inputs)
    for s in range(len(inverse_rates)):
        p[columns + 1 + s] = _stack(stack, s, inverse_rates[s], inputs, scratch)
    total = mixed = 0.0
    for e in range(len(shares)):
        total += np.float64(shares[e])
        mixed += np.float64(shares[e]) * p[e]
    return mixed / total


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _likelihoods(p, y, weight, out):  # noqa: ANN001, ANN202
    """l_e up to a common factor, f64 (experts,)."""
    if weight == 1.0 and y in (0.0, 1.0):
        for e in range(len(p)):
            out[e] = p[e] if y == 1.0 else 1.0 - p[e]
        return
    best = -np.inf
    for e in range(len(p)):
        out[e] = weight * (y * math.log(p[e]) + (1.0 - y) * math.log(1.0 - p[e]))
        best = max(best, out[e])
    for e in range(len(p)):
        out[e] = math.exp(out[e] - best)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def share_out(shares, likelihoods, share):  # noqa: ANN001, ANN201
    """The experts' weights after a record; `likelihoods` f64 (E,) is used up."""
    total = 0.0
    for e in range(len(shares)):
        likelihoods[e] *= np.float64(shares[e])
        total += likelihoods[e]
    kept, dealt = (1.0 - share) / total, share / len(shares)
    for e in range(len(shares)):
        shares[e] = max(np.float32(likelihoods[e] * kept + dealt), _TINY)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _learn_stacker(stack, s, inverse_rate, inputs, scratch, slope):  # noqa: ANN001, ANN202
    for i in range(len(inputs)):
        g = slope * inputs[i]
        square = min(g * g, _STORED_MAX)
        z, after = stack[0, s, i], min(stack[1, s, i] + square, _STORED_MAX)
        sigma = square / (math.sqrt(after) + scratch[1, s, i] + _TINY) * inverse_rate
        stack[0, s, i] = min(max(z + g - sigma * scratch[0, s, i], -_STORED_MAX), _STORED_MAX)
        stack[1, s, i] = after


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _remember(labels, y, weight):  # noqa: ANN001, ANN202
    """Take the label into counts and averages."""
    labels[ZEROS] += np.float32(weight * (1.0 - y))
    labels[ONES] += np.float32(weight * y)
    seen = labels[ZEROS] + labels[ONES]
    if seen > COUNT_MAX:
        scale = np.float32(0.5) * (COUNT_MAX / seen)
        labels[ZEROS] *= scale
        labels[ONES] *= scale
    for a in range(len(AVERAGES)):
        labels[AVERAGE + a] += AVERAGES[a] * (np.float32(y) - labels[AVERAGE + a])


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def learn_mixture(  # noqa: ANN201
    shares, labels, stack, columns, inverse_rates, p, inputs, scratch, y, weight, share, likelihoods,  # noqa: ANN001
):  # fmt: skip
    """Take the label into the parts: the experts' weights, the stackers, counts and averages."""
    _likelihoods(p, y, weight, likelihoods)
    share_out(shares, likelihoods, share)
    for s in range(len(inverse_rates)):
        slope = np.float32(weight * (p[columns + 1 + s] - y))
        _learn_stacker(stack, s, inverse_rates[s], inputs, scratch, slope)
    if len(inverse_rates) > 0:
        _remember(labels, y, weight)
