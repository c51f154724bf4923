"""Prequential (test-then-train) metrics as sums that add: over batches, over workers, and as differences over windows.

log_loss, accuracy and calibration are exact. AUC and average precision come from two histograms of the logit (4,096
bins over +-16, a bin's records counted as ties), so that they add over workers and cost O(1) memory on an endless
stream; tests hold AUC within 1e-4 of scikit-learn, and average precision within 0.3 % (2 % where only hundreds of
positives were seen). A window is `later - earlier`. CoarsePrequential is a sixteenth of the size, for metrics of many
parts of a stream.

Sums are fixed-point numbers, not floats: integers add without rounding, so a sum is the same to the bit whatever the
order and the grouping of its records, and what a job reports after a crash is what it would have reported without.
A sum is two i64, (high, low) for high * 2^14 + low * 2^-48 with 0 <= low < 2^62, its only such form: each record is
rounded once, by at most 2^-49. Values are clamped to +-2^45, so that 2^32 records of the largest fit into a sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numba import njit

from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "CoarsePrequential",
    "DelayHistogram",
    "Prequential",
    "add_exactly",
    "combined",
    "mean_of",
    "owned",
]

_LOGIT_MAX = 16.0
LOSS_P_MIN = 1e-15
"""In the loss, probabilities are at least this and at most 1 less this: none costs infinity."""

_HIGH = 2.0**14
_LOW = 2.0**48
_LOW_BITS = 62
_LOW_MASK = (1 << _LOW_BITS) - 1
_VALUE_MAX = 2.0**45


@njit(nogil=True, error_model="numpy", inline="always")
def add_exactly(sums, row, value):  # noqa: ANN001, ANN201
    """Add a value to a row of sums i64 (k, 2), as the module's docstring says; NaN counts as the largest."""
    size = abs(value) if abs(value) <= _VALUE_MAX else _VALUE_MAX  # noqa: FURB136 - min() would keep NaN
    high = math.floor(size / _HIGH)
    low = np.int64(np.rint((size - high * _HIGH) * _LOW))
    # Split by size and not by floor: -x takes away exactly what x adds, and a small -x is rounded as finely as x.
    sign = -1 if value < 0.0 else 1
    low = sums[row, 1] + sign * low
    sums[row, 0] += sign * np.int64(high) + (low >> _LOW_BITS)
    sums[row, 1] = low & _LOW_MASK


def combined(first: NDArray[np.int64], second: NDArray[np.int64], sign: int) -> NDArray[np.int64]:
    """Sums i64 (k, 2): first + sign * second, exact."""
    high, low = (first + sign * second).T
    return np.stack((high + (low >> _LOW_BITS), low & _LOW_MASK), axis=1)


def mean_of(total: NDArray[np.int64], records: int) -> float:
    """A sum i64 (2,) over `records`, rounded once; NaN where there are none."""
    high, low = total.tolist()
    # Integers of Python: they have no largest, and their quotient is the nearest float.
    return ((high << _LOW_BITS) + low) / (records << 48) if records else math.nan


def owned(array: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
    """The array as a kernel was compiled for; read-only ones (from other processes) would compile it once more."""
    return np.require(array, dtype, ["C", "W"])


@njit(cache=True, nogil=True, error_model="numpy")
def _tally(predictions, labels, sums, histograms):  # noqa: ANN001, ANN202
    """Add a batch: sums = (log-loss, correct, labels, predictions), histograms = (2, bins) counts by class."""
    bins = histograms.shape[1]
    scale = bins / (2 * _LOGIT_MAX)
    for i in range(len(predictions)):
        y = np.float64(labels[i])
        positive = y >= 0.5
        p = predictions[i]
        if math.isnan(p):
            p = 0.0 if positive else 1.0
        p = min(max(p, LOSS_P_MIN), 1.0 - LOSS_P_MIN)
        add_exactly(sums, 0, -(y * math.log(p) + (1.0 - y) * math.log1p(-p)))
        add_exactly(sums, 1, 1.0 if (p >= 0.5) == positive else 0.0)
        add_exactly(sums, 2, y)
        add_exactly(sums, 3, p)
        logit = min(max(math.log(p) - math.log1p(-p), -_LOGIT_MAX), _LOGIT_MAX)
        histograms[1 if positive else 0, min(np.int64((logit + _LOGIT_MAX) * scale), bins - 1)] += 1


@dataclass(slots=True)
class Prequential:
    """Sums over `records` predictions; arrays i64 (4, 2), see the module's docstring, and i64 (2, BINS).

    A prediction that is NaN counts as certain and wrong: left out, or as one half, it would hide that a model is lost.
    """

    records: int
    sums: NDArray[np.int64]
    histograms: NDArray[np.int64]
    BINS: ClassVar[int] = 4096

    @classmethod
    def zero(cls) -> Self:
        """Nothing seen yet."""
        return cls(0, np.zeros((4, 2), np.int64), np.zeros((2, cls.BINS), np.int64))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `arrays` gave; raises ValueError for anything else."""
        shapes = {"records": (1,), "sums": (4, 2), "histograms": (2, cls.BINS)}
        own = restored(arrays, {name: (np.int64, shape) for name, shape in shapes.items()})
        return cls(int(own["records"][0]), own["sums"], own["histograms"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as copies, by name: records i64 (1,), sums i64 (4, 2), histograms i64 (2, BINS)."""
        records = np.array([self.records], np.int64)
        return {"records": records, "sums": self.sums.copy(), "histograms": self.histograms.copy()}

    def update(self, predictions: NDArray[np.float64], labels: NDArray[np.float32]) -> None:
        """Add predictions f64 (n,), made before their labels f32 (n,) were learnt."""
        self.sums, self.histograms = owned(self.sums, np.int64), owned(self.histograms, np.int64)
        _tally(owned(predictions, np.float64), owned(labels, np.float32), self.sums, self.histograms)
        self.records += len(predictions)

    def copy(self) -> Self:
        """An independent copy."""
        return type(self)(self.records, self.sums.copy(), self.histograms.copy())

    def __add__(self, other: Self) -> Self:
        return self._combined(other, 1)

    def __sub__(self, other: Self) -> Self:
        return self._combined(other, -1)

    def _combined(self, other: Self, sign: int) -> Self:
        return type(self)(
            self.records + sign * other.records,
            combined(self.sums, other.sums, sign),
            self.histograms + sign * other.histograms,
        )

    def summary(self) -> dict[str, float]:
        """All metrics by name; NaN where they are undefined (no records, or one class only).

        `calibration` is mean prediction / mean label (1 is perfect); `prior_log_loss` is that of the base rate in
        hindsight: a model above it has learnt nothing.
        """
        loss, correct, labels, predicted = (mean_of(total, self.records) for total in self.sums)
        return {
            "log_loss": loss,
            "auc": self._auc(),
            "accuracy": correct,
            "average_precision": self._average_precision(),
            "calibration": predicted / labels if labels > 0 else math.nan,
            "prior_log_loss": _entropy(labels),
        }

    def _auc(self) -> float:
        negatives, positives = self.histograms
        pairs = float(negatives.sum()) * float(positives.sum())
        below = np.concatenate(([0], np.cumsum(negatives)[:-1]))
        return float(np.dot(positives, below + negatives / 2)) / pairs if pairs else math.nan

    def _average_precision(self) -> float:
        negatives, positives = self.histograms[:, ::-1].astype(np.float64)
        if not positives.sum():
            return math.nan
        both = positives + negatives
        hits, seen = np.cumsum(positives) - positives, np.cumsum(both) - both
        filled = both > 0
        a, b, c, d = hits[filled], positives[filled], seen[filled], both[filled]
        # Mean of (a + b t) / (c + d t) over 0 <= t <= 1: a bin's classes are taken as evenly interleaved.
        growth = np.log1p(np.divide(d, c, out=np.zeros_like(d), where=c > 0))
        precision = b / d + (a - b * c / d) / d * growth
        return float(np.dot(b, precision) / positives.sum())


@dataclass(slots=True)
class CoarsePrequential(Prequential):
    """The same in 4 KiB: its histograms have 256 bins, each an eighth of a logit wide.

    log_loss, accuracy and calibration are as exact. AUC is within 0.005 of scikit-learn's where logits have a standard
    deviation of 0.5 or more; of a model whose predictions hardly differ it is too near to 0.5.
    """

    BINS: ClassVar[int] = 256


def _entropy(p: float) -> float:
    if math.isnan(p) or p <= 0.0 or p >= 1.0:
        return math.nan if math.isnan(p) else 0.0
    return -(p * math.log(p) + (1 - p) * math.log1p(-p))


class DelayHistogram:
    """Delays in seconds in logarithmic bins (24 a decade, from 1 ms to 28 hours); quantiles within 5 percent."""

    _PER_DECADE = 24
    _DECADES = 8
    _FIRST_S = 1e-3

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(self._PER_DECADE * self._DECADES, np.int64) if counts is None else counts

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `arrays` gave; raises ValueError for anything else."""
        return cls(restored(arrays, {"counts": (np.int64, (cls._PER_DECADE * cls._DECADES,))})["counts"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """A copy, by name: counts i64 (192,)."""
        return {"counts": self.counts.copy()}

    def update(self, delays_s: NDArray[np.float64]) -> None:
        """Add delays; NaN (unknown) is left out, negative ones (clocks that differ) count as the smallest."""
        known = delays_s[~np.isnan(delays_s)]
        bins = np.log10(np.maximum(known, self._FIRST_S) / self._FIRST_S) * self._PER_DECADE
        self.counts = owned(self.counts, np.int64)
        np.add.at(self.counts, np.minimum(bins.astype(np.int64), len(self.counts) - 1), 1)

    def __add__(self, other: DelayHistogram) -> DelayHistogram:
        return DelayHistogram(self.counts + other.counts)

    def __sub__(self, other: DelayHistogram) -> DelayHistogram:
        return DelayHistogram(self.counts - other.counts)

    def quantile_s(self, share: float) -> float:
        """The delay that `share` of the records stayed below (the bin's middle), NaN if there are none."""
        total = int(self.counts.sum())
        if not total:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return float(self._FIRST_S * 10 ** ((min(place, len(self.counts) - 1) + 0.5) / self._PER_DECADE))
