"""Prequential (test-then-train) metrics as sums that add: over batches, over workers, and as differences over windows.

log_loss, accuracy and calibration are exact. AUC and average precision come from two histograms of the logit (4,096
bins over +-16, a bin's records counted as ties), so that they add over workers and cost O(1) memory on an endless
stream; tests hold AUC within 1e-4 of scikit-learn, and average precision within 0.3 % (2 % where only hundreds of
positives were seen). A window is `later - earlier`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DelayHistogram", "Prequential"]

_BINS = 4096
_LOGIT_MAX = 16.0
_LOSS_P_MIN = 1e-15


@njit(cache=True, nogil=True, error_model="numpy")
def _tally(predictions, labels, sums, histograms):  # noqa: ANN001, ANN202
    """Add a batch: sums = (log-loss, correct, labels, predictions), histograms = (2, bins) counts by class."""
    scale = _BINS / (2 * _LOGIT_MAX)
    for i in range(len(predictions)):
        p = min(max(predictions[i], _LOSS_P_MIN), 1.0 - _LOSS_P_MIN)
        y = np.float64(labels[i])
        sums[0] -= y * math.log(p) + (1.0 - y) * math.log1p(-p)
        positive = y >= 0.5
        sums[1] += (p >= 0.5) == positive
        sums[2] += y
        sums[3] += p
        logit = min(max(math.log(p) - math.log1p(-p), -_LOGIT_MAX), _LOGIT_MAX)
        histograms[1 if positive else 0, min(np.int64((logit + _LOGIT_MAX) * scale), _BINS - 1)] += 1


@dataclass(slots=True)
class Prequential:
    """Sums over `records` predictions; arrays f64 (4,) and i64 (2, 4096)."""

    records: int
    sums: NDArray[np.float64]
    histograms: NDArray[np.int64]

    @classmethod
    def zero(cls) -> Prequential:
        """Nothing seen yet."""
        return cls(0, np.zeros(4), np.zeros((2, _BINS), np.int64))

    def update(self, predictions: NDArray[np.float64], labels: NDArray[np.float32]) -> None:
        """Add predictions f64 (n,), made before their labels f32 (n,) were learnt."""
        _tally(predictions, labels, self.sums, self.histograms)
        self.records += len(predictions)

    def copy(self) -> Prequential:
        """An independent copy."""
        return Prequential(self.records, self.sums.copy(), self.histograms.copy())

    def __add__(self, other: Prequential) -> Prequential:
        return self._combined(other, 1)

    def __sub__(self, other: Prequential) -> Prequential:
        return self._combined(other, -1)

    def _combined(self, other: Prequential, sign: int) -> Prequential:
        values: dict[str, Any] = {
            f.name: getattr(self, f.name) + sign * getattr(other, f.name) for f in fields(self)
        }
        return Prequential(**values)

    def summary(self) -> dict[str, float]:
        """All metrics by name; NaN where they are undefined (no records, or one class only).

        `calibration` is mean prediction / mean label (1 is perfect); `prior_log_loss` is that of the base rate in
        hindsight: a model above it has learnt nothing.
        """
        n = self.records
        loss, correct, labels, predicted = (float(s) / n if n else math.nan for s in self.sums)
        return {
            "log_loss": loss,
            "auc": self._auc(),
            "accuracy": correct,
            "average_precision": self._average_precision(),
            "calibration": predicted / labels if n and labels > 0 else math.nan,
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

    def update(self, delays_s: NDArray[np.float64]) -> None:
        """Add delays; NaN (unknown) is left out, negative ones (clocks that differ) count as the smallest."""
        known = delays_s[~np.isnan(delays_s)]
        bins = np.log10(np.maximum(known, self._FIRST_S) / self._FIRST_S) * self._PER_DECADE
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
