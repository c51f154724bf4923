"""Names: the texts that a table's keys were made of, so that what was learnt as a hash can be said as it was sent.

They lie by row number, beside the key that each belongs to: a row that is born again as another key has no name until
one comes. What there is grows with the table's rows; bytes of names that are gone are given back when they are as many
as those of names that are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning.index_memory import Column
from learning.texts import TextColumn, gather

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Names"]

_GARBAGE_MIN_BYTES = 1 << 16


class Names:
    """Texts of the keys of one table's rows; an empty text is no name."""

    def __init__(self) -> None:
        self.clear()

    @property
    def memory_bytes(self) -> int:
        """Bytes in use."""
        columns = (self._keys, self._starts, self._sizes)
        return sum(c.used_bytes(self._rows) for c in columns) + self._data.used_bytes(self._used)

    def clear(self) -> None:
        """Forget all names."""
        self._keys, self._starts, self._sizes = (
            Column(0, kind, 64) for kind in (np.uint64, np.int64, np.int64)
        )
        self._data = Column(0, np.uint8, 1024)
        self._rows = self._used = self._garbage = 0

    def missing(self, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Places in `rows`, whose keys are `keys`, where there is a row (not -1) but no name yet."""
        return np.flatnonzero((rows >= 0) & (self._sizes_of(rows, keys) == 0))

    def put(self, rows: NDArray[np.int64], keys: NDArray[np.uint64], texts: TextColumn) -> None:
        """Name the keys of `rows` (-1: none, left out); of a row that comes twice, and of one named before, the
        first name stays.
        """
        distinct, first = np.unique(rows, return_index=True)
        first = first[distinct >= 0]
        at = first[self.missing(rows[first], keys[first])]
        if not len(at):
            return
        self._reach(int(rows[at].max()) + 1)
        new = texts.take(at)
        if self._garbage > max(_GARBAGE_MIN_BYTES, self._used // 2):
            self._compact()
        self._garbage += int(self._sizes.array[rows[at]].sum())
        self._data.reach(self._used + len(new.data), self._used)
        self._data.array[self._used : self._used + len(new.data)] = new.data
        self._keys.array[rows[at]] = keys[at]
        self._starts.array[rows[at]] = self._used + new.offsets[:-1]
        self._sizes.array[rows[at]] = np.diff(new.offsets)
        self._used += len(new.data)

    def of(self, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> TextColumn:
        """The names of `rows`, whose keys are `keys`; empty where there is none."""
        sizes = self._sizes_of(rows, keys)
        starts = np.where(sizes > 0, self._starts.array[np.where(sizes > 0, rows, 0)], 0)
        return TextColumn.between(self._data.array, starts, starts + sizes)

    def _sizes_of(self, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Bytes of each name; 0 where there is none."""
        known = (rows >= 0) & (rows < self._rows)
        at = np.where(known, rows, 0)
        sizes: NDArray[np.int64] = np.where(known & (self._keys.array[at] == keys), self._sizes.array[at], 0)
        return sizes

    def _reach(self, rows: int) -> None:
        for column in (self._keys, self._starts, self._sizes):
            column.reach(rows, self._rows)
        self._rows = max(self._rows, rows)

    def _compact(self) -> None:
        """Leave out the bytes of names that were replaced."""
        taken, offsets = gather(self._starts.array[: self._rows], self._sizes.array[: self._rows])
        kept = self._data.array[taken]
        self._data = Column(0, np.uint8, 1024)
        self._data.reach(len(kept), 0)
        self._data.array[: len(kept)] = kept
        self._starts.array[: self._rows] = offsets[:-1]
        self._used, self._garbage = len(kept), 0
