"""Observer: what drift is told by, of each batch: losses, and series in which a change of the stream shows.

    features        how many features the record has
    new keys        share of its entries whose row was never learnt before this batch, over all tables that can tell
    missing NAME    1 where the record lacks the feature, for each feature that is named
    mean NAME       the feature's number; no value where it is a category or missing

A loss says that something changed, the series say what (learning/drift.py `moved`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from learning.batch import NUMBER
from learning.job_messages import Watched
from learning.keys import name_key
from learning.losses import loss_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.learner import Learner, TableRows

__all__ = ["Observer", "series_of"]


def series_of(features: Sequence[str]) -> tuple[str, ...]:
    """The names of the series, given the features that are named."""
    return ("features", "new keys", *(f"{what} {name}" for name in features for what in ("missing", "mean")))


@njit(cache=True, nogil=True, error_model="numpy")
def _count_fresh(rows, index, offsets, learnt, out):  # noqa: ANN001, ANN202
    """Add to each record how many of its entries have no row, or one that was never learnt."""
    for i in range(len(out)):
        for j in range(offsets[i], offsets[i + 1]):
            row = index[j]
            if row < 0 or rows[row, learnt] == 0.0:
                out[i] += 1.0


class Observer:
    """Of one worker; keeps nothing between batches."""

    def __init__(self, learner: Learner, features: Sequence[str] = ()) -> None:
        self._loss = loss_of(learner)
        self._specs = learner.specs()
        self._features = [name_key(name) for name in features]

    def fresh(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Share f64 (n,) of each record's entries that were never learnt; to be asked before the batch is."""
        new, entries = np.zeros(len(batch)), np.zeros(len(batch))
        lengths = np.diff(batch.offsets)
        for spec, table in zip(self._specs, tables, strict=True):
            if spec.learnt < 0 or not len(table.index):
                continue
            if len(table.index) == batch.entries:
                _count_fresh(table.rows, table.index, batch.offsets, spec.learnt, new)
                entries += lengths
            elif len(table.index) == len(batch):
                _count_fresh(table.rows, table.index, np.arange(len(batch) + 1), spec.learnt, new)
                entries += 1
        share = np.full(len(batch), np.nan)
        np.divide(new, entries, out=share, where=entries > 0)
        return share

    def watched(self, read: Batch, fresh: NDArray[np.float64], predictions: NDArray[np.float64]) -> Watched:
        """Of a batch as it was read, with predictions f64 (n,) or (n, 1 + m) made before its labels were learnt."""
        own = predictions if predictions.ndim == 1 else predictions[:, 0]
        series = [np.diff(read.offsets).astype(np.float64), fresh]
        for feature in self._features:
            series += self._of(read, feature)
        return Watched(read.batch_id.partition, self._loss(own, read.labels), np.stack(series))

    @staticmethod
    def _of(read: Batch, feature: np.uint64) -> list[NDArray[np.float64]]:
        """Whether each record lacks the feature, and its number."""
        assert read.features is not None, "a job whose features are watched decodes them"
        at = np.flatnonzero(read.features == feature)
        records = np.searchsorted(read.offsets, at, side="right") - 1
        missing, number = np.ones(len(read)), np.full(len(read), np.nan)
        missing[records] = 0.0
        number[records] = np.where(read.kinds[at] == NUMBER, read.values[at].astype(np.float64), np.nan)
        return [missing, number]
