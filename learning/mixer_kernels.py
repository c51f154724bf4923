"""The arithmetic of learning/mixer.py: losses of all experts, their running sums, and the context of a bandit."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from learning.metrics import LOSS_P_MIN

__all__ = ["context_of", "losses_of", "tally"]

_SQUARE_MAX = 1e6


@njit(cache=True, nogil=True, error_model="numpy")
def _loss(p, y, squared):  # noqa: ANN001, ANN202
    """Squared error, at most 1e6, or log-loss; a prediction that is NaN is certain and wrong."""
    if squared:
        loss = (p - y) * (p - y)
        return loss if loss <= _SQUARE_MAX else _SQUARE_MAX  # noqa: FURB136 - min() would keep NaN
    if math.isnan(p):
        p = 0.0 if y >= 0.5 else 1.0
    p = min(max(p, LOSS_P_MIN), 1.0 - LOSS_P_MIN)
    return -(y * math.log(p) if y > 0.0 else 0.0) - ((1.0 - y) * math.log1p(-p) if y < 1.0 else 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def losses_of(predictions, labels, squared, out):  # noqa: ANN001, ANN201
    """Losses f64 (n, K) of predictions f64 (n, K) of labels f32 (n,)."""
    for i in range(len(labels)):
        y = np.float64(labels[i])
        for k in range(predictions.shape[1]):
            out[i, k] = _loss(predictions[i, k], y, squared)


@njit(cache=True, nogil=True, error_model="numpy")
def tally(predictions, mixed, labels, squared, sums):  # noqa: ANN001, ANN201
    """Add each record's losses to sums f64 (K + 1,), record after record: of all experts, and last of the mixture."""
    count = predictions.shape[1]
    for i in range(len(labels)):
        y = np.float64(labels[i])
        for k in range(count):
            sums[k] += _loss(predictions[i, k], y, squared)
        sums[count] += _loss(mixed[i], y, squared)


@njit(cache=True, nogil=True, error_model="numpy")
def context_of(keys, values, offsets, wanted, clip, out):  # noqa: ANN001, ANN201
    """out[i, 1 + j] is record i's value under the key wanted[j], clipped to +-clip."""
    for i in range(len(out)):
        for e in range(offsets[i], offsets[i + 1]):
            for j in range(len(wanted)):
                if keys[e] == wanted[j]:
                    out[i, 1 + j] = min(max(np.float64(values[e]), -clip), clip)
