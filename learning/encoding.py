"""NumericEncoder: what the learner sees of a number - its running z-score, and a bin of that z-score.

Per numeric feature the encoder keeps (count, mean, M2) in float64, updated by Welford's recursion (Welford 1962) in
record order; a number is standardised with the statistics that already include it (features are known before the
label, so nothing leaks). Each number becomes up to three entries: the z-score under the feature's own key, clipped to
+-`clip`; a categorical entry under `derived_key(key, floor(z * bins_per_sd))`, which lets a linear model learn any
shape; and, if it is whole, one of its exact value, because counts, codes and ids come as numbers too.
All other entries pass as they are, and those of a role keep their kind; none is a NUMBER afterwards. Where a batch says
of which feature its entries are, those that a number becomes are of the number's feature. Statistics of
several encoders merge exactly (Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from learning.batch import CATEGORY, NUMBER
from learning.keys import derived_key
from learning.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch

__all__ = ["NumericEncoder", "merge_stats"]

STATS_WIDTH = 3
"""Columns of a statistics row: count, mean, M2 (sum of squared distances from the mean)."""

_WHOLE_MAX = 2.0**24
"""Up to here float32 holds every whole number."""
_EXACT = np.int64(2**62)
"""Number of the child of a feature's key whose children are exact values: far from all bins."""


@njit(cache=True, nogil=True, error_model="numpy")
def _encode(keys, values, kinds, offsets, at, stats, frozen, standardize, clip, bins, exact, out):  # noqa: ANN001, ANN202
    """Write the encoded entries to `out`; `at[m]` is the statistics row of the m-th NUMBER (-1: never seen)."""
    out_keys, out_values, out_kinds, out_offsets = out
    used = 0
    m = 0
    for i in range(len(offsets) - 1):
        for j in range(offsets[i], offsets[i + 1]):
            if kinds[j] != NUMBER:
                out_keys[used], out_values[used], out_kinds[used] = keys[j], values[j], kinds[j]
                used += 1
                continue
            x = np.float64(values[j])
            row = at[m]
            m += 1
            if row >= 0 and not frozen:
                stats[row, 0] += 1.0
                delta = x - stats[row, 1]
                stats[row, 1] += delta / stats[row, 0]
                stats[row, 2] += delta * (x - stats[row, 1])
            z = 0.0
            if row >= 0 and stats[row, 2] > 0.0:
                z = (x - stats[row, 1]) / math.sqrt(stats[row, 2] / stats[row, 0])
            z = min(max(z, -clip), clip)
            out_keys[used], out_values[used], out_kinds[used] = keys[j], z if standardize else x, CATEGORY
            used += 1
            if bins > 0.0:
                out_keys[used] = derived_key(keys[j], np.int64(math.floor(z * bins)))
                out_values[used], out_kinds[used] = 1.0, CATEGORY
                used += 1
            if exact and abs(x) <= _WHOLE_MAX and x == math.floor(x):
                out_keys[used] = derived_key(derived_key(keys[j], _EXACT), np.int64(x))
                out_values[used], out_kinds[used] = 1.0, CATEGORY
                used += 1
        out_offsets[i + 1] = used
    return used


class NumericEncoder:
    """Encodes batches in stream order, one batch at a time; holds the running statistics.

    `clip` in standard deviations, `bins_per_sd` 0 for no bins, `exact` for whole numbers as categories too. With
    `standardize` False, no bins and not `exact` a batch passes through unchanged and no statistics are kept.
    """

    def __init__(
        self, *, standardize: bool = True, clip: float = 6.0, bins_per_sd: float = 3.0, exact: bool = False
    ) -> None:
        self._exact = exact
        self._standardize = standardize
        self._clip = clip
        self._bins_per_sd = bins_per_sd
        self._stats = Table(STATS_WIDTH, dtype=np.float64, rows_initial=64)

    def encode(self, batch: Batch, *, frozen: bool = False) -> Batch:
        """The batch as the learner sees it; `frozen` uses the statistics as they are (scoring)."""
        if not self._standardize and self._bins_per_sd <= 0 and not self._exact:
            kinds = np.where(batch.kinds == NUMBER, np.uint8(CATEGORY), batch.kinds)
            return batch.with_entries(batch.keys, batch.values, kinds, batch.offsets, batch.features)
        wanted = batch.keys[batch.kinds == NUMBER]
        at = self._stats.find(wanted) if frozen else self._stats.locate(wanted)
        capacity = batch.entries + len(wanted) * ((self._bins_per_sd > 0) + self._exact)
        keys, values = np.empty(capacity, np.uint64), np.empty(capacity, np.float32)
        kinds, offsets = np.empty(capacity, np.uint8), np.zeros(len(batch) + 1, np.int64)
        used = _encode(
            batch.keys, batch.values, batch.kinds, batch.offsets, at, self._stats.rows, frozen,
            self._standardize, self._clip, self._bins_per_sd, self._exact, (keys, values, kinds, offsets),
        )  # fmt: skip
        features = None if batch.features is None else np.repeat(batch.features, self._sizes(batch))
        return batch.with_entries(keys[:used], values[:used], kinds[:used], offsets, features)

    def _sizes(self, batch: Batch) -> NDArray[np.int64]:
        """How many entries each entry becomes."""
        whole = (np.abs(batch.values) <= _WHOLE_MAX) & (batch.values == np.floor(batch.values))
        more = np.int64(self._bins_per_sd > 0) + (whole if self._exact else 0)
        return np.where(batch.kinds == NUMBER, 1 + more, 1)

    def state(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Copies of the feature keys u64 (k,) and their statistics f64 (k, 3), in order of first sight."""
        return self._stats.keys.copy(), self._stats.rows.copy()

    def restore(self, keys: NDArray[np.uint64], stats: NDArray[np.float64]) -> None:
        """Replace the statistics by those of `state` or `merge_stats`."""
        self._stats.restore(keys, stats)


def merge_stats(
    parts: Sequence[tuple[NDArray[np.uint64], NDArray[np.float64]]],
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Statistics of the joined streams from those of its parts (Chan, Golub & LeVeque 1983), parts in order."""
    merged = Table(STATS_WIDTH, dtype=np.float64, rows_initial=64)
    for keys, stats in parts:
        # What comes from another process is read-only, for which numba would compile anew, in the stream.
        at = merged.locate(keys.copy())
        count, mean, spread = merged.rows[at].T
        total = np.maximum(count + stats[:, 0], 1.0)
        delta = stats[:, 1] - mean
        joined = np.stack(
            (
                count + stats[:, 0],
                mean + delta * stats[:, 0] / total,
                spread + stats[:, 2] + delta**2 * count * stats[:, 0] / total,
            ),
            axis=1,
        )
        # A first part is taken as it is: mean + (x - mean) would round it, and one worker must stay bit-equal.
        merged.rows[at] = np.where(count[:, None] == 0, stats, joined)
    return merged.keys.copy(), merged.rows.copy()
