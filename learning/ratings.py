"""Prequential metrics of predicted ratings, as sums that add: over batches, over workers, and as differences.

With error e = prediction - rating: rmse = sqrt(mean e^2), mae = mean |e|, bias = mean e. Sums are those of
learning/metrics.py: independent of order and grouping to the bit, each record rounded by at most 2^-49. Errors and
ratings are clamped to +-2^31 (two ratings of up to 1e9 differ by less). Their squares then reach 2^62, more than such
a sum takes often: a square x has two of them, of floor(x / 2^32) and of the rest. A window is `later - earlier`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numba import njit

from learning.metrics import add_exactly, combined, mean_of, owned
from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Ratings"]

_ROWS = 7
_LARGEST = 2.0**31
_SQUARE_HIGH = 2.0**32


@njit(nogil=True, error_model="numpy", inline="always")
def _bounded(value):  # noqa: ANN001, ANN202
    """The value within +-_LARGEST; NaN is the largest."""
    return value if abs(value) <= _LARGEST else (-_LARGEST if value < 0.0 else _LARGEST)


@njit(nogil=True, error_model="numpy", inline="always")
def _add_square(sums, row, value):  # noqa: ANN001, ANN202
    """Add value^2 to the two rows from `row`."""
    square = value * value
    high = math.floor(square / _SQUARE_HIGH)
    add_exactly(sums, row, high)
    add_exactly(sums, row + 1, square - high * _SQUARE_HIGH)


@njit(cache=True, nogil=True, error_model="numpy")
def _tally(predictions, labels, sums):  # noqa: ANN001, ANN202
    """Add a batch: rows of sums = (errors squared, squared, absolute, signed; ratings, squared, squared)."""
    for i in range(len(predictions)):
        y = _bounded(np.float64(labels[i]))
        error = _bounded(predictions[i] - y)
        _add_square(sums, 0, error)
        add_exactly(sums, 2, abs(error))
        add_exactly(sums, 3, error)
        add_exactly(sums, 4, y)
        _add_square(sums, 5, y)


@dataclass(slots=True)
class Ratings:
    """Sums i64 (7, 2) over `records` predictions: errors squared (2), absolute, signed; ratings, and squared (2).

    A prediction that is NaN counts as the largest error: left out it would hide that a model is lost.
    """

    records: int
    sums: NDArray[np.int64]

    @classmethod
    def zero(cls) -> Self:
        """Nothing seen yet."""
        return cls(0, np.zeros((_ROWS, 2), np.int64))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `arrays` gave; raises ValueError for anything else."""
        own = restored(arrays, {"records": (np.int64, (1,)), "sums": (np.int64, (_ROWS, 2))})
        return cls(int(own["records"][0]), own["sums"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as copies, by name: records i64 (1,), sums i64 (7, 2)."""
        return {"records": np.array([self.records], np.int64), "sums": self.sums.copy()}

    def update(self, predictions: NDArray[np.float64], labels: NDArray[np.float32]) -> None:
        """Add predictions f64 (n,), made before their ratings f32 (n,) were learnt."""
        self.sums = owned(self.sums, np.int64)
        _tally(owned(predictions, np.float64), owned(labels, np.float32), self.sums)
        self.records += len(predictions)

    def copy(self) -> Self:
        """An independent copy."""
        return type(self)(self.records, self.sums.copy())

    def __add__(self, other: Self) -> Self:
        return type(self)(self.records + other.records, combined(self.sums, other.sums, 1))

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.records - other.records, combined(self.sums, other.sums, -1))

    def summary(self) -> dict[str, float]:
        """All metrics by name; NaN where there are no records.

        `bias` is the mean of prediction - rating (0 is perfect); `deviation` is the standard deviation of the ratings,
        the rmse of their mean in hindsight: a model above it has learnt nothing.
        """
        means = [mean_of(total, self.records) for total in self.sums]
        high, low, absolute, signed, mean, square_high, square_low = means
        return {
            "rmse": _root(high * _SQUARE_HIGH + low),
            "mae": absolute,
            "bias": signed,
            "deviation": _root(square_high * _SQUARE_HIGH + square_low - mean * mean),
        }


def _root(square: float) -> float:
    """Square root of what is not negative except by rounding; NaN stays."""
    return square if math.isnan(square) else math.sqrt(max(square, 0.0))
