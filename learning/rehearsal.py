"""Rehearsal: a few old records are learnt again with each batch, drawn from a sample of all that a worker has seen.

Robins, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal", 1995. The sample is Vitter's reservoir (Algorithm R,
1985): the t-th record takes slot t while there are free ones, then slot h(t) mod t if that is below the capacity, so at
any time each record seen is in it with the same probability. Draws and slots come from hashes of counts, so there is no
generator: the state is the records and how many were seen, and what is learnt again is the same after a crash.

Old records come behind the batch's own. Their predictions are nobody's: they count in no metric.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from learning.batch import Batch

__all__ = ["Rehearsal"]

_ADD, _FIRST, _SECOND = (
    np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
)  # fmt: skip


class _Record(NamedTuple):
    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    kinds: NDArray[np.uint8]
    label: np.float32
    weight: np.float32


class Rehearsal:
    """A sample of at most `records` encoded records, of which `share` times a batch's number are learnt with it.

    Each counts `weight` times its own weight.
    """

    def __init__(self, records: int, share: float, weight: float = 1.0) -> None:
        self._capacity, self._share, self._weight = records, share, weight
        self._slots: list[_Record] = []
        self._seen = 0

    def __len__(self) -> int:
        return len(self._slots)

    def extend(self, batch: Batch) -> Batch:
        """The batch with old records behind its own; the sample then has seen its own."""
        count = int(self._share * len(batch)) if self._slots else 0
        drawn = _hashed(self._seen, count, 1) % np.uint64(max(len(self._slots), 1))
        old = [self._slots[slot] for slot in drawn.tolist()]
        self._take(batch)
        return _with(batch, old, self._weight) if old else batch

    def _take(self, batch: Batch) -> None:
        """Algorithm R over the batch's records."""
        if not len(batch):
            return
        numbers = np.arange(self._seen + 1, self._seen + 1 + len(batch), dtype=np.uint64)
        slots = np.where(
            numbers <= self._capacity, numbers - np.uint64(1), _hashed(self._seen, len(batch), 0) % numbers
        )
        for i in np.flatnonzero(slots < self._capacity).tolist():
            entries = slice(batch.offsets[i], batch.offsets[i + 1])
            record = _Record(
                batch.keys[entries].copy(), batch.values[entries].copy(), batch.kinds[entries].copy(),
                batch.labels[i], batch.weights[i],
            )  # fmt: skip
            if (slot := int(slots[i])) == len(self._slots):
                self._slots.append(record)
            else:
                self._slots[slot] = record
        self._seen += len(batch)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, by name; `of` is the way back."""
        ends = np.cumsum([0, *(len(of.keys) for of in self._slots)], dtype=np.int64)
        return {
            "keys": np.concatenate([np.empty(0, np.uint64), *(of.keys for of in self._slots)]),
            "values": np.concatenate([np.empty(0, np.float32), *(of.values for of in self._slots)]),
            "kinds": np.concatenate([np.empty(0, np.uint8), *(of.kinds for of in self._slots)]),
            "offsets": ends,
            "labels": np.array([of.label for of in self._slots], np.float32),
            "weights": np.array([of.weight for of in self._slots], np.float32),
            "seen": np.array([self._seen], np.int64),
        }

    def like(self, arrays: Mapping[str, NDArray[Any]]) -> Rehearsal:
        """One of the same settings that goes on from `arrays`; raises ValueError for anything else.

        If it may hold less now than then, the last slots go.
        """
        found = restored(
            arrays,
            {
                "keys": (np.uint64, ("e",)), "values": (np.float32, ("e",)), "kinds": (np.uint8, ("e",)),
                "offsets": (np.int64, ("ends",)), "labels": (np.float32, ("n",)), "weights": (np.float32, ("n",)),
                "seen": (np.int64, (1,)),
            },
        )  # fmt: skip
        ends = found["offsets"]
        if (
            len(ends) != len(found["labels"]) + 1
            or (np.diff(ends) < 0).any()
            or ends[-1] != len(found["keys"])
        ):
            raise ValueError(
                "expected the offsets of rehearsed records to rise from 0 to the number of entries"
            )
        made = Rehearsal(self._capacity, self._share, self._weight)
        made._seen = int(found["seen"][0])
        for i in range(min(len(ends) - 1, self._capacity)):
            entries = slice(ends[i], ends[i + 1])
            made._slots.append(
                _Record(
                    found["keys"][entries], found["values"][entries], found["kinds"][entries],
                    found["labels"][i], found["weights"][i],
                )
            )  # fmt: skip
        return made

    def merge(self, other: Rehearsal) -> None:
        """Take in another worker's: each slot is kept, or is the other's, as often as each has seen records."""
        total = self._seen + other._seen
        theirs = _hashed(total, len(other._slots), 2) % np.uint64(max(total, 1)) >= np.uint64(self._seen)
        for slot, record in enumerate(other._slots):
            if slot >= len(self._slots):
                self._slots.append(record)
            elif theirs[slot]:
                self._slots[slot] = record
        del self._slots[self._capacity :]
        self._seen = total


def _hashed(seed: int, count: int, of: int) -> NDArray[np.uint64]:
    """Hashes u64 (count,) of `seed` + 1, `seed` + 2 and so on (splitmix64), of one of several kinds."""
    x = (np.arange(seed + 1, seed + 1 + count, dtype=np.uint64) * np.uint64(4) + np.uint64(of)) * _ADD
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def _with(batch: Batch, old: list[_Record], weight: float) -> Batch:
    """The batch with old records behind its own: of no known time or place, and with no texts."""
    sizes = np.cumsum([len(of.keys) for of in old], dtype=np.int64)
    unknown, nowhere = np.full(len(old), np.nan), np.full(len(old), -1, np.int64)
    return replace(
        batch,
        keys=np.concatenate([batch.keys, *(of.keys for of in old)]),
        values=np.concatenate([batch.values, *(of.values for of in old)]),
        kinds=np.concatenate([batch.kinds, *(of.kinds for of in old)]),
        offsets=np.concatenate((batch.offsets, batch.offsets[-1] + sizes)),
        labels=np.append(batch.labels, np.array([of.label for of in old], np.float32)),
        weights=np.append(batch.weights, np.array([of.weight * weight for of in old], np.float32)),
        event_times_s=np.append(batch.event_times_s, unknown),
        produced_s=np.append(batch.produced_s, unknown),
        positions=np.append(batch.positions, nowhere),
        ids=None,
        features=None,
        slices=None,
        taught=None if batch.taught is None else batch.taught.extended(len(old)),
    )
