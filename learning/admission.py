"""Admission: a key gets its row in the batch in which it is seen for the n-th time.

Most keys of a stream are seen once and never again; a row for each of them is memory without use. Two ways to count:

exact   A count for each waiting key. When `waiting_max` keys wait, all counts are forgotten (and that is counted).

bloom   A counting Bloom filter with conservative update (Estan & Varghese 2002): a key's count is the least of its 4
        cells, and a sight raises only the cells below the new count. It may admit early, never late. Its memory is
        fixed: 8 cells for each key of `waiting_max`. A segment of the key space (keys.py) has its own part, and a key
        its 4 cells within one line of 64, so that a sight is one cache miss. A part in which as many keys were seen
        first as it was sized for is forgotten as a whole, else it would fill up and admit everything.

A part knows nothing of the others and has the same size on any number of shards: together they decide exactly as one
table does. That is why `waiting_max` is meant in all shards together for `bloom`, and for each table for `exact`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numba import njit

from learning.grouping import shard_of_segment
from learning.keys import SEGMENTS, derived_key, segment_of
from learning.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from learning.policy import TablePolicy

__all__ = ["Admission", "BloomAdmission", "ExactAdmission", "admission_of", "counts_of"]

_LINE_CELLS = 64
_KEY_CELLS = 8
"""Cells of the filter for each key that may wait."""


class Admission(Protocol):
    """Counts sights of keys without a row."""

    forgotten: int
    """How many times counts were forgotten: of all keys (exact), of a segment (bloom)."""

    @property
    def waiting(self) -> int:
        """Keys that wait, as far as it can be known."""

    @property
    def memory_bytes(self) -> int:
        """Bytes in use."""

    def see(self, keys: NDArray[np.uint64], sights: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        """Count distinct keys (None: one sight each); True for those that get a row now."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all counts, for `restore`."""

    def restore(self, parts: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Replace the counts by those of some shards together; none, or of another policy: forget all, uncounted."""


def admission_of(policy: TablePolicy) -> Admission | None:
    """The way of counting that the policy asks for; None if every key is admitted at once."""
    if policy.admit_after == 1:
        return None
    kind = BloomAdmission if policy.admission == "bloom" else ExactAdmission
    return kind(policy.admit_after, policy.waiting_max)


def counts_of(side: Mapping[str, NDArray[Any]], shard: int, shards: int) -> dict[str, NDArray[Any]]:
    """What one shard of `shards` is to go on with of another's `state` (and of what lies beside it).

    Counts of keys that are not its own would be old by the time that they come to their owner.
    """
    own, side = shard_of_segment(shards) == shard, dict(side)
    if "waiting_keys" in side:
        kept = own[segment_of(side["waiting_keys"])]
        side |= {name: side[name][kept] for name in ("waiting_keys", "waiting_counts")}
    if "segments" in side:
        kept = own[side["segments"]]
        side |= {name: side[name][kept] for name in ("segments", "cells", "first_sights")}
    return side


class ExactAdmission:
    """A count for each key that waits; bounded by waiting_max and the keys of one batch."""

    def __init__(self, admit_after: int, waiting_max: int) -> None:
        self._admit_after = admit_after
        self._waiting_max = waiting_max
        self.forgotten = 0
        self._clear()

    @property
    def waiting(self) -> int:
        """Keys that wait."""
        return len(self._counts)

    @property
    def memory_bytes(self) -> int:
        """Bytes in use."""
        return self._counts.memory_bytes

    def see(self, keys: NDArray[np.uint64], sights: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        """Count; forgets all counts first if these keys would be too many."""
        new = int(np.count_nonzero(self._counts.find(keys) < 0))
        if new and len(self._counts) and len(self._counts) + new > self._waiting_max:
            self._clear()
            self.forgotten += 1
        at = self._counts.locate(keys)
        counts = self._counts.rows[at, 0] + (1.0 if sights is None else sights)
        admitted: NDArray[np.bool_] = counts >= self._admit_after
        self._counts.rows[at, 0] = counts
        self._counts.remove(at[admitted])
        return admitted

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all counts."""
        keys, counts = self._counts.snapshot()
        return {"waiting_keys": keys, "waiting_counts": counts[:, 0].copy()}

    def restore(self, parts: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Replace the counts."""
        self._clear()
        for part in (part for part in parts if "waiting_keys" in part):
            at = self._counts.locate(part["waiting_keys"].copy())
            self._counts.rows[at, 0] = part["waiting_counts"]

    def _clear(self) -> None:
        self._counts = Table(1, dtype=np.float64)  # whole numbers up to 2^53


@njit(cache=True, nogil=True, error_model="numpy")
def _see(keys, sights, cells, first_sights, keys_max, admit_after, admitted):  # noqa: ANN001, ANN202
    """Count keys in cells (segments, lines, _LINE_CELLS); returns how many segments were forgotten."""
    lines = np.uint64(cells.shape[1])
    forgotten = 0
    for i in range(len(keys)):
        segment = np.int64(keys[i] >> np.uint64(54))
        mixed = derived_key(keys[i], np.int64(0))
        line = cells[segment, np.int64(((mixed >> np.uint64(32)) * lines) >> np.uint64(32))]
        count = np.int64(line[mixed & np.uint64(63)])
        for j in range(1, 4):
            count = min(count, np.int64(line[(mixed >> np.uint64(6 * j)) & np.uint64(63)]))
        if count == 0:
            if first_sights[segment] == keys_max:
                cells[segment] = 0
                first_sights[segment] = 0
                forgotten += 1
            first_sights[segment] += 1
        count = min(count + np.int64(sights[i]), admit_after)
        for j in range(4):
            cell = (mixed >> np.uint64(6 * j)) & np.uint64(63)
            line[cell] = max(np.int64(line[cell]), count)
        admitted[i] = count == admit_after
    return forgotten


class BloomAdmission:
    """A counting Bloom filter for each segment; what no key has touched is only reserved."""

    def __init__(self, admit_after: int, waiting_max: int) -> None:
        self._admit_after = admit_after
        lines = -(-_KEY_CELLS * waiting_max // (SEGMENTS * _LINE_CELLS))
        self._keys_max = lines * _LINE_CELLS // _KEY_CELLS
        self._shape = (SEGMENTS, lines, _LINE_CELLS)
        self._dtype = np.min_scalar_type(admit_after)
        self.forgotten = 0
        self.restore([])

    @property
    def waiting(self) -> int:
        """Keys seen for the first time since their segment was forgotten, as far as the filter could tell."""
        return int(self._first_sights.sum())

    @property
    def memory_bytes(self) -> int:
        """Bytes of the segments that were ever counted in."""
        segments = int(np.count_nonzero(self._first_sights))
        return segments * int(self._cells[0].nbytes) + self._first_sights.nbytes

    def see(self, keys: NDArray[np.uint64], sights: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        """Count; forgets the segment of a new key first if it is full."""
        admitted = np.empty(len(keys), np.bool_)
        given = np.ones(len(keys), np.uint8) if sights is None else sights
        self.forgotten += _see(
            keys, given, self._cells, self._first_sights, self._keys_max, self._admit_after, admitted
        )
        return admitted

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of the segments that were ever counted in, and which they are."""
        segments = np.flatnonzero(self._first_sights)
        return {
            "cells": self._cells[segments],
            "segments": segments,
            "first_sights": self._first_sights[segments],
        }

    def restore(self, parts: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Replace the counts; each segment is counted in by one part only."""
        self._cells = np.zeros(self._shape, self._dtype)
        self._first_sights = np.zeros(SEGMENTS, np.int64)
        like = (self._shape[1:], self._dtype)
        for part in (p for p in parts if "cells" in p and (p["cells"].shape[1:], p["cells"].dtype) == like):
            self._cells[part["segments"]] = part["cells"]
            self._first_sights[part["segments"]] = part["first_sights"]
