"""Means of blocks of a fixed number of records in offset order, and what a history of them says about a change.

A detector must not see where batches are cut, nor depend on it. So records are summed one after the other into blocks
of `block_records`, and the open block is carried from batch to batch: the means are the same to the bit for any cut.

`change_point` finds where a history x_1..x_n rose (or fell) most: the border k with the largest

    (mean after - mean before) sqrt(k (n - k) / n)

which is the maximum likelihood estimate for one change of a mean under equal variances (D. Hinkley: Inference about the
Change-Point in a Sequence of Random Variables, Biometrika 1970).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BlockMeans", "Shift", "change_point", "shifts"]


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_up(values, sums, counts, filled, block_records, out):  # noqa: ANN001, ANN202
    """Add records to the open block, and write the means of the blocks that became full; returns its records."""
    block = 0
    for i in range(values.shape[1]):
        for series in range(values.shape[0]):
            x = values[series, i]
            if not np.isnan(x):
                sums[series] += x
                counts[series] += 1.0
        filled += 1
        if filled == block_records:
            for series in range(values.shape[0]):
                out[series, block] = sums[series] / counts[series] if counts[series] > 0.0 else np.nan
            sums[:] = 0.0
            counts[:] = 0.0
            filled = 0
            block += 1
    return filled


@dataclass(slots=True)
class BlockMeans:
    """The open block of each of s series; its state is these arrays.

    Attributes:
        block_records: records in a block.
        sums: f64 (s,), of the open block's records.
        counts: f64 (s,), of them those where the series has a value.
        filled: records in the open block.

    """

    block_records: int
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]
    filled: int = 0

    @classmethod
    def empty(cls, block_records: int, series: int) -> BlockMeans:
        """No record yet."""
        return cls(block_records, np.zeros(series), np.zeros(series))

    def add(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Add records f64 (s, n), NaN where a series has no value for a record.

        Returns:
            The means f64 (s, m) of the blocks that became full, NaN where a block has no value of a series, and for
            each the number of this call's records i64 (m,) up to its end.

        """
        records = values.shape[1]
        blocks = (self.filled + records) // self.block_records
        means = np.empty((len(self.sums), blocks))
        ends = np.arange(1, blocks + 1, dtype=np.int64) * self.block_records - self.filled
        self.filled = int(
            _sum_up(
                np.ascontiguousarray(values, np.float64), self.sums, self.counts,
                self.filled, self.block_records, means,
            )
        )  # fmt: skip
        return means, ends


def change_point(levels: NDArray[np.float64], side_min: int, sign: int) -> int:
    """The border k, with `side_min` values or more on either side, where f64 (n,) rose (sign 1) or fell (-1) most.

    0, if there are too few values.
    """
    n = len(levels)
    if n < 2 * side_min:
        return 0
    before = np.arange(side_min, n - side_min + 1, dtype=np.float64)
    # Centred: otherwise sums of a high level with small changes would cancel.
    sums = np.cumsum(levels - levels.mean())[side_min - 1 : n - side_min]
    apart = -sign * sums * np.sqrt(n / (before * (n - before)))
    return side_min + int(np.argmax(apart))


@dataclass(frozen=True, slots=True)
class Shift:
    """A series' level before and after a change, and how many standard errors lie between them."""

    name: str
    before: float
    after: float
    errors: float


def shifts(names: tuple[str, ...], history: NDArray[np.float64], border: int) -> list[Shift]:
    """How each series f64 (s, n) moved at the border, those without values on a side left out, the furthest first.

    The standard error is that of two samples of one variance; where a series stood still on either side and moves
    between, that is 1e9 of them.
    """
    found = []
    for name, row in zip(names, history, strict=True):
        before, after = (part[~np.isnan(part)] for part in (row[:border], row[border:]))
        if len(before) < 2 or len(after) < 2:
            continue
        apart = float(after.mean() - before.mean())
        freedom = len(before) + len(after) - 2
        variance = (before.var() * len(before) + after.var() * len(after)) / freedom
        error = float(np.sqrt(variance * (1.0 / len(before) + 1.0 / len(after))))
        # Means of equal numbers may differ by rounding, which is no move.
        still = abs(apart) <= 1e-12 * max(abs(float(before.mean())), abs(float(after.mean())))
        errors = 0.0 if still else apart / max(error, 1e-9 * abs(apart))
        found.append(Shift(name, float(before.mean()), float(after.mean()), float(errors)))
    return sorted(found, key=lambda shift: -abs(shift.errors))
