"""The recursions of learning/experts.py, record after record: mix with the weights as they are, then see the label."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from learning.metrics import LOSS_P_MIN

__all__ = [
    "BEST_RECENT",
    "COUNT",
    "INVERSE_ERROR",
    "RAMP",
    "SCORE",
    "SHARE",
    "WEIGHT",
    "advance",
    "mix_all",
    "run",
]

SHARE, INVERSE_ERROR, BEST_RECENT = range(3)
"""Rules: exponential weights (fixed share; Hedge is the share 0), by inverse loss, the best alone."""
SCORE, WEIGHT, COUNT, RAMP = range(4)
"""Rows of the state f64 (4, K): log weight (hedge), nothing (fixed share) or decayed sum of losses; weight; decayed
number of losses; how much of its weight an expert may have, from 0 for one that has just come to 1."""

_LOSS_MAX = 1e6
_ETA_MAX = 10.0
"""Up to it, 1e-15 to the power of eta is far from the smallest float."""


@njit(cache=True, nogil=True, error_model="numpy")
def _exponential(state, losses, eta, share, hedge):  # noqa: ANN001, ANN202
    """w <- (1 - share) w exp(-eta loss) / Z + share / K, in logarithms."""
    count = state.shape[1]
    most = -np.inf
    for k in range(count):
        # Without a share a weight may become too small for a float, its logarithm not: so that is what hedge keeps.
        score = state[SCORE, k] if hedge else math.log(state[WEIGHT, k])
        state[SCORE, k] = score - eta * losses[k]
        most = max(most, state[SCORE, k])
    total = 0.0
    for k in range(count):
        state[WEIGHT, k] = math.exp(state[SCORE, k] - most)
        total += state[WEIGHT, k]
    for k in range(count):
        state[WEIGHT, k] = (1.0 - share) * state[WEIGHT, k] / total + share / count
        if not hedge:
            state[SCORE, k] = 0.0
        else:
            state[SCORE, k] = (
                math.log(state[WEIGHT, k]) if share > 0.0 else state[SCORE, k] - most - math.log(total)
            )


@njit(cache=True, nogil=True, error_model="numpy")
def _by_likelihood(state, predictions, y, eta, share):  # noqa: ANN001, ANN202
    """The same for the log-loss of a label of 0 or 1, whose exp(-loss) is the probability that the label was given.

    It is at least 1e-15, and after any step a weight at least share / K: nothing is too small for a float.
    """
    count = state.shape[1]
    total = 0.0
    for k in range(count):
        p = predictions[k]
        q = (p if y == 1.0 else 1.0 - p) if not math.isnan(p) else 0.0
        q = min(max(q, LOSS_P_MIN), 1.0)
        state[WEIGHT, k] *= q if eta == 1.0 else q**eta
        total += state[WEIGHT, k]
    for k in range(count):
        state[WEIGHT, k] = (1.0 - share) * state[WEIGHT, k] / total + share / count


@njit(cache=True, nogil=True, error_model="numpy")
def _by_record(state, rule, losses, records, offset, keep, ramp_step):  # noqa: ANN001, ANN202
    """Weights from each expert's decayed mean loss."""
    count = state.shape[1]
    kept = keep if records == 1.0 else keep**records
    best, ready = np.inf, False
    for k in range(count):
        state[SCORE, k] = kept * state[SCORE, k] + losses[k]
        state[COUNT, k] = kept * state[COUNT, k] + records
        state[RAMP, k] = min(state[RAMP, k] + ramp_step * records, 1.0)
        ready = ready or state[RAMP, k] == 1.0
    for k in range(count):
        if state[RAMP, k] == 1.0 or not ready:
            best = min(best, state[SCORE, k] / state[COUNT, k])
    total = 0.0
    for k in range(count):
        mean = state[SCORE, k] / state[COUNT, k]
        if rule == INVERSE_ERROR:
            state[WEIGHT, k] = state[RAMP, k] / (max(mean, 0.0) + offset)
        else:
            state[WEIGHT, k] = 1.0 if mean <= best and (state[RAMP, k] == 1.0 or not ready) else 0.0
        total += state[WEIGHT, k]
    for k in range(count):
        state[WEIGHT, k] /= total


@njit(cache=True, nogil=True, error_model="numpy")
def advance(state, losses, records, rule, numbers):  # noqa: ANN001, ANN201
    """One step with losses f64 (K,) that are the sums over `records` records.

    `numbers` are eta, share, offset, keep and ramp_step.
    """
    eta, share, offset, keep, ramp_step = numbers
    if rule == SHARE:
        rate = share
        if records != 1.0:
            rate = -math.expm1(records * math.log1p(-rate)) if rate < 1.0 else 1.0
        _exponential(state, losses, eta, rate, share == 0.0)
    else:
        _by_record(state, rule, losses, records, offset, keep, ramp_step)


@njit(cache=True, nogil=True, error_model="numpy")
def _mix(state, predictions):  # noqa: ANN001, ANN202
    """Mean of predictions f64 (K,) by weight, those that are NaN left out; NaN if all with weight are."""
    total, mixed = 0.0, 0.0
    for k in range(state.shape[1]):
        if not math.isnan(predictions[k]):
            total += state[WEIGHT, k]
            mixed += state[WEIGHT, k] * predictions[k]
    return mixed / total if total > 0.0 else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def mix_all(state, predictions, out):  # noqa: ANN001, ANN201
    """`_mix` of each row of predictions f64 (n, K), all with the same weights."""
    for i in range(len(out)):
        out[i] = _mix(state, predictions[i])


@njit(cache=True, nogil=True, error_model="numpy")
def run(state, predictions, labels, rule, numbers, squared, out):  # noqa: ANN001, ANN201
    """out[i] from the weights before record i; only then its label f32 is looked at."""
    losses = np.empty(state.shape[1])
    eta, share = numbers[0], numbers[1]
    by_likelihood = rule == SHARE and share > 0.0 and eta <= _ETA_MAX and not squared
    for i in range(len(labels)):
        out[i] = _mix(state, predictions[i])
        y = np.float64(labels[i])
        if by_likelihood and y in (0.0, 1.0):
            _by_likelihood(state, predictions[i], y, eta, share)
            continue
        for k in range(len(losses)):
            p = predictions[i, k]
            if squared:
                loss = (p - y) * (p - y)
                losses[k] = loss if loss <= _LOSS_MAX else _LOSS_MAX  # noqa: FURB136 - min() would keep NaN
                continue
            if math.isnan(p):
                p = 0.0 if y >= 0.5 else 1.0
            p = min(max(p, LOSS_P_MIN), 1.0 - LOSS_P_MIN)
            losses[k] = -(y * math.log(p) if y > 0.0 else 0.0) - (
                (1.0 - y) * math.log1p(-p) if y < 1.0 else 0.0
            )
        advance(state, losses, 1.0, rule, numbers)
