"""Prequential metrics of predicted ratings, as sums that add: over batches, over workers, and as differences.

With error e = prediction - rating: rmse = sqrt(mean e^2), mae = mean |e|, bias = mean e. All are exact; a window is
`later - earlier`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ratings"]


@njit(cache=True, nogil=True, error_model="numpy")
def _tally(predictions, labels, sums):  # noqa: ANN001, ANN202
    """Add a batch: sums = (errors squared, absolute, signed; ratings, ratings squared)."""
    for i in range(len(predictions)):
        y = np.float64(labels[i])
        error = predictions[i] - y
        sums[0] += error * error
        sums[1] += abs(error)
        sums[2] += error
        sums[3] += y
        sums[4] += y * y


@dataclass(slots=True)
class Ratings:
    """Sums f64 (5,) over `records` predictions: errors squared, absolute and signed; ratings and their squares."""

    records: int
    sums: NDArray[np.float64]

    @classmethod
    def zero(cls) -> Ratings:
        """Nothing seen yet."""
        return cls(0, np.zeros(5))

    def update(self, predictions: NDArray[np.float64], labels: NDArray[np.float32]) -> None:
        """Add predictions f64 (n,), made before their ratings f32 (n,) were learnt."""
        _tally(predictions, labels, self.sums)
        self.records += len(predictions)

    def copy(self) -> Ratings:
        """An independent copy."""
        return Ratings(self.records, self.sums.copy())

    def __add__(self, other: Ratings) -> Ratings:
        return Ratings(self.records + other.records, self.sums + other.sums)

    def __sub__(self, other: Ratings) -> Ratings:
        return Ratings(self.records - other.records, self.sums - other.sums)

    def summary(self) -> dict[str, float]:
        """All metrics by name; NaN where there are no records.

        `bias` is the mean of prediction - rating (0 is perfect); `deviation` is the standard deviation of the ratings,
        the rmse of their mean in hindsight: a model above it has learnt nothing.
        """
        n = self.records
        square, absolute, signed, mean, mean_square = (float(s) / n if n else math.nan for s in self.sums)
        return {
            "rmse": _root(square),
            "mae": absolute,
            "bias": signed,
            "deviation": _root(mean_square - mean * mean),
        }


def _root(square: float) -> float:
    """Square root of what is not negative except by rounding; NaN stays."""
    return square if math.isnan(square) else math.sqrt(max(square, 0.0))
