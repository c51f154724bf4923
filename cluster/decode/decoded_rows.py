"""What both formats are read into: the columns of good records, and the bad ones with their reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learning.batch import NUMBER, Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import BatchId
    from learning.slice_values import SliceValues
    from learning.texts import TextColumn

__all__ = ["Refusal", "Rows", "numbers_of"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One bad record: the message (its index) and row where it was, why, and its bytes; row None is the message."""

    message: int
    row: int | None
    reason: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """Good records in order; columns as in learning.batch.Batch. `message[i]` is the index of record i's message."""

    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    kinds: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    times_s: NDArray[np.float64]
    message: NDArray[np.int64]
    ids: TextColumn | None
    role_texts: dict[int, TextColumn] | None
    features: NDArray[np.uint64] | None
    slices: SliceValues | None

    def batch(
        self, batch_id: BatchId, produced_s: NDArray[np.float64], positions: NDArray[np.int64]
    ) -> Batch:
        """The records as a Batch; `produced_s` and `positions` are their messages', a value a record."""
        return Batch(
            batch_id=batch_id,
            keys=self.keys,
            values=self.values,
            kinds=self.kinds,
            offsets=self.offsets,
            labels=self.labels,
            weights=self.weights,
            event_times_s=self.times_s,
            produced_s=produced_s,
            positions=positions,
            ids=self.ids,
            role_texts=self.role_texts,
            features=self.features,
            slices=self.slices,
        )


def numbers_of(
    feature: np.uint64,
    keys: NDArray[np.uint64],
    values: NDArray[np.float32],
    kinds: NDArray[np.uint8],
    offsets: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The number f32 (n,) that each record has under the name key `feature`; NaN where it has none."""
    at = np.flatnonzero((keys == feature) & (kinds == NUMBER))
    numbers = np.full(len(offsets) - 1, np.nan, np.float32)
    numbers[np.searchsorted(offsets, at, side="right") - 1] = values[at]
    return numbers
