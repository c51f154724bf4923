"""Columnar batches of records, and the identifier that makes their effects repeatable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learning.pace import CALM, Pace
from learning.slice_values import SliceValues
from learning.texts import TextColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.distillation import Taught

__all__ = ["CATEGORY", "NUMBER", "ROLE_FIRST", "Batch", "BatchId"]

CATEGORY, NUMBER, ROLE_FIRST = 0, 1, 2
"""What an entry is: a category, a number that the encoder may standardise, or, from ROLE_FIRST on, the feature that
the learner named as its role `kind - ROLE_FIRST` (its user, say), which is a category too."""


class BatchId(NamedTuple):
    """The place of a batch in its stream: offsets [first_offset, next_offset) of one partition.

    A push carries it, so a repeated push is recognised and dropped. Offsets may have gaps (compaction,
    transactions): `next_offset - first_offset` is no record count.
    """

    partition: int
    first_offset: int
    next_offset: int

    def __str__(self) -> str:
        return f"[{self.partition}]@{self.first_offset}..{self.next_offset}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition in offset order, in compressed sparse rows.

    Record i owns entries offsets[i]:offsets[i + 1] of `keys`, `values` and `kinds`. Keys are unique within a
    record (the decoders see to it; the kernels rely on it). Arrays are read-only by agreement.

    Attributes:
        batch_id: place of the batch in its stream.
        keys: u64 (nnz,); a numeric feature's name key, or a categorical feature's name-and-value key.
        values: f32 (nnz,), finite; 1.0 for categorical entries.
        kinds: u8 (nnz,); CATEGORY, NUMBER, or ROLE_FIRST + i for the feature that is the learner's role i.
        offsets: i64 (n + 1,), offsets[0] == 0, offsets[n] == nnz.
        labels: f32 (n,).
        weights: f32 (n,), finite and positive; multiplies the gradient.
        event_times_s: f64 (n,), unix seconds; NaN where the record brought none.
        produced_s: f64 (n,), unix seconds at which the message was produced; NaN where unknown (files).
        positions: i64 (n,), offset of the message that held the record.
        ids: the records' ids as text; None where nobody needs them.
        role_texts: by number of the learner's role, the texts that its keys were made of, one a record; only of the
            roles whose texts somebody needs, and None where there are none.
        features: u64 (nnz,), the key of the name of the feature that each entry is of, which the key of a category
            does not tell; None where nobody needs them.
        feature_names: names by key of features that come for the first time, as they were sent; None: none does, or
            nobody asks.
        slices: each record's value of the feature by which metrics are sliced; None where they are not.
        given: f64 (n, R), predictions of experts that live outside the tables, each made before its record's label
            was used; None where there are none.
        taught: what a teacher says of the records (learning/distillation.py); None: there is none.
        pace: how fast it is to be learnt (learning/pace.py).

    """

    batch_id: BatchId
    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    kinds: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    event_times_s: NDArray[np.float64]
    produced_s: NDArray[np.float64]
    positions: NDArray[np.int64]
    ids: TextColumn | None = None
    role_texts: dict[int, TextColumn] | None = None
    features: NDArray[np.uint64] | None = None
    feature_names: dict[int, str] | None = None
    slices: SliceValues | None = None
    given: NDArray[np.float64] | None = None
    taught: Taught | None = None
    pace: Pace = CALM

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def entries(self) -> int:
        """Number of feature entries (nnz) of all records together."""
        return len(self.keys)

    def with_entries(
        self,
        keys: NDArray[np.uint64],
        values: NDArray[np.float32],
        kinds: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        features: NDArray[np.uint64] | None = None,
    ) -> Batch:
        """The same records with other entries, which are of the `features` that are given with them, if any."""
        return replace(self, keys=keys, values=values, kinds=kinds, offsets=offsets, features=features)

    def keys_of(self, feature: np.uint64, missing: int = 0) -> NDArray[np.uint64]:
        """Keys u64 (n,) of each record's entry of one feature, the first where an encoder made several; `missing` where
        there is none. Raises ValueError for a batch without `features`.
        """
        if self.features is None:
            raise ValueError(
                f"batch {self.batch_id} does not say whose entries it has; decode with want_features"
            )
        at = np.flatnonzero(self.features == feature)[::-1]  # the first one is written last
        keys = np.full(len(self), missing, np.uint64)
        keys[np.searchsorted(self.offsets, at, side="right") - 1] = self.keys[at]
        return keys

    @classmethod
    def concat(cls, batch_id: BatchId, parts: Sequence[Batch]) -> Batch:
        """Join parts, in the order given, under one identifier."""
        if len(parts) == 1:
            return replace(parts[0], batch_id=batch_id)
        if not parts:
            return cls.empty(batch_id)
        starts = np.cumsum([0] + [part.entries for part in parts[:-1]])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=True)]
        offsets.append(np.array([sum(part.entries for part in parts)], np.int64))
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in (
                "keys",
                "values",
                "kinds",
                "labels",
                "weights",
                "event_times_s",
                "produced_s",
                "positions",
            )
        }
        return cls(
            batch_id=batch_id,
            offsets=np.concatenate(offsets),
            ids=_concat_texts([part.ids for part in parts]),
            role_texts=_concat_role_texts(parts),
            features=_concat_features(parts),
            slices=_concat_slices(parts),
            given=_concat_given(parts),
            **columns,
        )

    @classmethod
    def empty(cls, batch_id: BatchId) -> Batch:
        """A batch without records: a stretch of the stream in which every record was bad, or none was there."""
        return cls(
            batch_id=batch_id,
            keys=np.empty(0, np.uint64),
            values=np.empty(0, np.float32),
            kinds=np.empty(0, np.uint8),
            offsets=np.zeros(1, np.int64),
            labels=np.empty(0, np.float32),
            weights=np.empty(0, np.float32),
            event_times_s=np.empty(0, np.float64),
            produced_s=np.empty(0, np.float64),
            positions=np.empty(0, np.int64),
        )


def _concat_texts(parts: Sequence[TextColumn | None]) -> TextColumn | None:
    texts = [part for part in parts if part is not None]
    return TextColumn.concat(texts) if len(texts) == len(parts) else None


def _concat_role_texts(parts: Sequence[Batch]) -> dict[int, TextColumn] | None:
    texts = [part.role_texts for part in parts if part.role_texts is not None]
    if len(texts) < len(parts):
        return None
    return {role: TextColumn.concat([of[role] for of in texts]) for role in texts[0]}


def _concat_features(parts: Sequence[Batch]) -> NDArray[np.uint64] | None:
    features = [part.features for part in parts if part.features is not None]
    return np.concatenate(features) if len(features) == len(parts) else None


def _concat_slices(parts: Sequence[Batch]) -> SliceValues | None:
    slices = [part.slices for part in parts if part.slices is not None]
    return SliceValues.concat(slices) if len(slices) == len(parts) else None


def _concat_given(parts: Sequence[Batch]) -> NDArray[np.float64] | None:
    given = [part.given for part in parts if part.given is not None]
    return np.concatenate(given) if len(given) == len(parts) else None
