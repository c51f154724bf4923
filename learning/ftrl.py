"""FTRL-Proximal logistic regression, run as the exact per-record recursion over a batch.

McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, Algorithm 1. A coordinate keeps (z, n):

    w = 0                                                     if |z| <= l1
      = -(z - sgn(z) l1) / ((beta + sqrt(n)) / alpha + l2)    otherwise
    p = sigmoid(sum_i w_i x_i);   g_i = omega (p - y) x_i
    z_i += g_i - (sqrt(n_i + g_i^2) - sqrt(n_i)) / alpha * w_i;   n_i += g_i^2

The w of the z-update is the very w of the prediction; the bias takes no L1; the logit is clipped to +-35. Each
prediction is made before its record's label is used, so progressive validation costs nothing.

Rows and their arithmetic are float32, logits float64. Nothing is reordered (no fastmath): no cut into batches shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numba import njit

from learning.forgetting import forget_columns
from learning.learner import TableSpec
from learning.merge import merge_walks, walk_coupling
from learning.metrics import Prequential

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.learner import TableRows

__all__ = ["Ftrl"]

_LOGIT_MAX = 35.0
_STORED_MAX = np.float32(3e38)
"""Rows saturate below float32's infinity: one absurd value must not turn a weight into NaN for ever."""
_TINY = np.float32(1e-30)
_ZERO = np.float32(0.0)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _weight(z, n_root, inverse_alpha, beta, l1, l2):  # noqa: ANN001, ANN202
    """w of a coordinate, from z and sqrt(n). The numerator is -(z - sgn(z) l1) outside of [-l1, l1] and 0 inside."""
    numerator = max(z - l1, _ZERO) + min(z + l1, _ZERO)
    denominator = (beta + n_root) * inverse_alpha + l2
    return -numerator / max(denominator, _TINY)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _stored(x):  # noqa: ANN001, ANN202
    return min(max(x, -_STORED_MAX), _STORED_MAX)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _sigmoid(logit):  # noqa: ANN001, ANN202
    clipped = min(max(logit, -_LOGIT_MAX), _LOGIT_MAX)
    return 1.0 / (1.0 + math.exp(-clipped))


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _step(z, n, n_root, w, g, rate, inverse_alpha):  # noqa: ANN001, ANN202
    """(z, n) after gradient g; sqrt(n + g^2) - sqrt(n) is g^2 / (sqrt(n + g^2) + sqrt(n)), so that nothing cancels."""
    square = min(g * g, _STORED_MAX)
    n_next = min(n + square, _STORED_MAX)
    sigma = square / (math.sqrt(n_next) + n_root + _TINY) * inverse_alpha
    return _stored(z + rate * g - sigma * w), n_next


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(rows, index, bias, values, offsets, labels, weights, rate, inverse_alpha, beta, l1, l2, out):  # noqa: ANN001, ANN202
    """Predict, then learn, record after record, on rows[index]; `bias` is the bias coordinate's row number.

    `rate` multiplies the gradient in z and not its square in n: steps grow, and what is remembered of them does not.

    A record's rows are gathered into small arrays first and scattered last, so that what lies between is arithmetic
    on neighbours, which the compiler vectorises. That is why keys must be unique within a record.
    """
    length_max = 1
    for i in range(len(labels)):
        length_max = max(length_max, offsets[i + 1] - offsets[i])
    z, n = np.empty(length_max, np.float32), np.empty(length_max, np.float32)
    w, root = np.empty(length_max, np.float32), np.empty(length_max, np.float32)
    no_l1 = np.float32(0.0)
    for i in range(len(labels)):
        first = offsets[i]
        count = offsets[i + 1] - first
        x = values[first : first + count]
        at = index[first : first + count]
        for j in range(count):
            row = np.uint64(at[j])  # unsigned: no test for an index that counts from the end
            z[j], n[j] = rows[row, 0], rows[row, 1]
        for j in range(count):
            root[j] = math.sqrt(n[j])
            w[j] = _weight(z[j], root[j], inverse_alpha, beta, l1, l2)
        bias_z, bias_n = rows[bias, 0], rows[bias, 1]
        bias_root = math.sqrt(bias_n)
        bias_w = _weight(bias_z, bias_root, inverse_alpha, beta, no_l1, l2)
        logit = np.float64(bias_w)
        for j in range(count):
            logit += np.float64(w[j]) * np.float64(x[j])
        p = _sigmoid(logit)
        out[i] = p
        slope = np.float32(weights[i] * (p - labels[i]))
        for j in range(count):
            z[j], n[j] = _step(z[j], n[j], root[j], w[j], slope * x[j], rate, inverse_alpha)
        for j in range(count):
            row = np.uint64(at[j])
            rows[row, 0], rows[row, 1] = z[j], n[j]
        rows[bias, 0], rows[bias, 1] = _step(bias_z, bias_n, bias_root, bias_w, slope, rate, inverse_alpha)


@njit(cache=True, nogil=True, error_model="numpy")
def _predict(rows, index, bias, values, offsets, inverse_alpha, beta, l1, l2, out):  # noqa: ANN001, ANN202
    """Predict only; an index of -1 is a key without a row, whose weight is 0."""
    no_l1 = np.float32(0.0)
    bias_w = no_l1
    if bias >= 0:
        bias_w = _weight(rows[bias, 0], math.sqrt(rows[bias, 1]), inverse_alpha, beta, no_l1, l2)
    for i in range(len(out)):
        logit = np.float64(bias_w)
        for j in range(offsets[i], offsets[i + 1]):
            row = index[j]
            if row >= 0:
                w = _weight(rows[row, 0], math.sqrt(rows[row, 1]), inverse_alpha, beta, l1, l2)
                logit += np.float64(w) * np.float64(values[j])
        out[i] = _sigmoid(logit)


@dataclass(frozen=True, slots=True)
class Ftrl:
    """The FTRL learner: one table, `weights`, of rows (z, n), the bias among them.

    `alpha` > 0 learning rate, `beta` >= 0, `l1`, `l2` >= 0 regularisation, `kappa` >= 0 strength of the merge.
    """

    alpha: float = 0.1
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    kappa: float = 1.0
    """Walks of several workers over the same key: 0 adds them, more averages them sooner. One worker: no effect."""

    kind: ClassVar[str] = "ftrl"
    encodes: ClassVar[bool] = True
    reacts: ClassVar[frozenset[str]] = frozenset({"raise_rates", "forget"})
    width: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not self.alpha > 0.0:
            raise ValueError(f"alpha should be above 0, but is {self.alpha}")
        for name in ("beta", "l1", "l2", "kappa"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} should be 0 or more, but is {getattr(self, name)}")

    @property
    def label_range(self) -> tuple[float, float]:
        """Labels are probabilities: 0, 1, or between."""
        return 0.0, 1.0

    @property
    def roles(self) -> tuple[str, ...]:
        """No feature is special."""
        return ()

    @property
    def named(self) -> dict[str, int]:
        """Nobody asks for a weight by its name."""
        return {}

    def specs(self) -> tuple[TableSpec, ...]:
        """The table of weights."""
        return (TableSpec("weights", self.width, bias=True, learnt=1),)

    def keys(self, batch: Batch) -> tuple[NDArray[np.uint64], ...]:
        """Every entry has a weight."""
        return (batch.keys,)

    def learn(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[Any]:
        """Predict and learn each record in order; changes the rows f32 (r, 2) in place.

        Returns:
            f64 (n,): each record's probability of label 1, as of before the record was learnt.

        """
        (weights,) = tables
        out = np.empty(len(batch))
        _learn(
            weights.rows, weights.index, weights.bias, batch.values, batch.offsets, batch.labels, batch.weights,
            np.float32(batch.pace.rate), *self._single(), out,
        )  # fmt: skip
        return out

    def predict(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[Any]:
        """Probabilities f64 (n,) without learning; rows of -1 (never seen) count as weight 0."""
        (weights,) = tables
        out = np.empty(len(batch))
        _predict(weights.rows, weights.index, weights.bias, batch.values, batch.offsets, *self._single(), out)
        return out

    def _single(self) -> tuple[np.float32, ...]:
        """1 / alpha, beta, l1, l2 in the precision of the rows: one double would make all arithmetic double."""
        return np.float32(1.0 / self.alpha), np.float32(self.beta), np.float32(self.l1), np.float32(self.l2)

    def merge(
        self,
        table: int,
        rows: NDArray[np.float32],
        at: NDArray[np.int64],
        base: NDArray[np.float32],
        end: NDArray[np.float32],
        bias: int,
        coupling: float,
    ) -> int:
        """Merge a worker's walks from `base` to `end` (f32 (k, 2)) into rows[at]; returns how many had moved.

        A row that nobody touched since the pull becomes `end` exactly. Otherwise short walks are added, long ones
        averaged: see learning/merge.py. `coupling` is what `coupling` found for the whole walk.
        """
        strength = self.kappa * coupling
        return int(merge_walks(rows, at, base, end, bias, self.alpha, self.beta, self.l1, self.l2, strength))

    def coupling(
        self, bases: Sequence[NDArray[np.float32]], tables: Sequence[TableRows], batch: Batch
    ) -> float:
        """How strongly the coordinates of a walk move together, at least 1: what a merge elsewhere has to know."""
        (base,), (end,) = bases, tables
        return float(
            walk_coupling(
                base, end.rows, end.index, end.bias, batch.values, batch.offsets,
                self.alpha, self.beta, self.l1, self.l2,
            )
        )  # fmt: skip

    def forget(self, table: int, rows: NDArray[np.float32], bias: int, keep: float) -> None:
        """n <- keep n, and z such that no weight moves: z <- z + w (sqrt(n) - sqrt(keep n)) / alpha."""
        forget_columns(rows[:, :1], rows[:, 1:], self.alpha, (self.beta, self.l1, self.l2), bias, keep)

    def metrics(self) -> Prequential:
        """Metrics of probabilities."""
        return Prequential.zero()

    def judge(self, metrics: Prequential, predictions: NDArray[np.float64], batch: Batch) -> None:
        """Add a batch's probabilities to `metrics`."""
        metrics.update(predictions, batch.labels)
