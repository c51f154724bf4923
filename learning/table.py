"""Table: 64-bit keys to rows of floats, without a size chosen up front, for a thousand rows or a hundred million.

Rows are dense and keep their number for as long as they live: `keys[r]` and `rows[r]` belong together, and r is the
order of birth as long as no row was removed. Keys and rows lie in reservations that fill up (index_memory.py), a hash
index finds them (index.py, index_slots.py): growth moves no row, and rebuilds a thousandth of the index at a time. Two
keys never share a row: the full key is compared.

Removed rows go on a list of free ones and are born again as other keys; the list lies in the keys of the free rows.

Memory a row of FTRL (width 2, float32): 8 (key) + 8 (z, n) + 6.3 (index).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from learning import index_kernels
from learning.index import ROWS_SPLIT, KeyIndex
from learning.index_memory import Column
from learning.index_slots import ROWS_LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.birth import RowBirth

__all__ = ["Table", "TableFullError"]

_USED, _FREE, _FREE_ROWS, _REUSED = range(4)
"""Places in the state of index_kernels.py."""

_NONE = np.empty(0, np.int64)


class TableFullError(Exception):
    """More rows are asked for than one table can number; use more shards."""


class Table:
    """Keys (u64) to rows (`dtype`, `width` columns) that are born at their first `locate`: by `birth`, else as zeros.

    Not thread-safe, except that threads may call `find` at the same time. Views that `rows` and `keys` return stay
    valid memory for ever, but are the table's own only until the next `locate` or `restore`.
    """

    def __init__(
        self,
        width: int,
        *,
        dtype: type[np.floating[Any]] = np.float32,
        rows_initial: int = 1024,
        birth: RowBirth | None = None,
        rows_split: int = ROWS_SPLIT,
    ) -> None:
        self._birth = birth
        self._rows_split = rows_split
        self._clear(Column(0, np.uint64, rows_initial), Column(width, dtype, rows_initial))

    def __len__(self) -> int:
        return int(self._state[_USED] - self._state[_FREE_ROWS])

    @property
    def numbered(self) -> int:
        """Rows ever numbered: the live ones and the free ones."""
        return int(self._state[_USED])

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Key of each row: u64 (numbered,), a view; that of a free row is no key."""
        return self._keys.array[: self._state[_USED]]

    @property
    def rows(self) -> NDArray[Any]:
        """All rows by number: (numbered, width), a writable view."""
        return self._rows.array[: self._state[_USED]]

    @property
    def memory_bytes(self) -> int:
        """Bytes in use: whole pages, the slack of the index included; what is only reserved is free."""
        used = self.numbered
        return self._keys.used_bytes(used) + self._rows.used_bytes(used) + self._index.memory_bytes

    @property
    def load_factor(self) -> float:
        """Live rows for each slot of the index."""
        return len(self) / self._index.slots

    def locate(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row numbers i64 of `keys`; keys that have none get a new row. Repeats are allowed.

        Raises:
            TableFullError: there are more rows than a table can number.
            MemoryError: there is no memory for more rows.

        """
        out = np.empty(len(keys), np.int64)
        state, free = self._state, int(self._state[_FREE_ROWS])
        reused = np.empty(min(len(keys), free), np.int64) if free else _NONE
        at = 0
        while True:
            used, state[_REUSED] = int(state[_USED]), 0
            room = self._keys.array[: len(self._rows)]  # a wide row's reservation may hold fewer
            at = self._index.locate(keys, at, room, state, reused, out)
            if free or self._birth is not None:
                self._begin(used, reused[: state[_REUSED]])
            if at == len(keys):
                return out
            self._reserve(self.numbered + 1)

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row numbers i64 of `keys`, -1 where a key has none; changes nothing."""
        out = np.empty(len(keys), np.int64)
        index = self._index  # kept alive here, should another thread restore
        index.find(keys, self._keys.array, out)
        return out

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Forget the keys of distinct live `rows`, which become free."""
        self._index.remove(rows, self._keys.array, self._state)

    def live(self) -> NDArray[np.bool_]:
        """For each numbered row whether it is live: bool (numbered,)."""
        live: NDArray[np.bool_] = index_kernels.live_rows(self._keys.array, self._state)
        return live

    def snapshot(self) -> tuple[NDArray[np.uint64], NDArray[Any]]:
        """Copies of all live keys u64 (len,) and their rows (len, width), by row number."""
        if not self._state[_FREE_ROWS]:
            return self.keys.copy(), self.rows.copy()
        live = self.live()
        return self.keys[live], self.rows[live]

    def restore(self, keys: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Replace the whole content by copies of distinct `keys` and their `rows`, numbered in this order.

        Raises:
            ValueError: the shapes do not belong together, or a key comes twice.

        """
        width = self._rows.array.shape[1]
        if rows.shape != (len(keys), width):
            msg = f"expected {len(keys)} rows of width {width} for as many keys, but came {rows.shape}"
            raise ValueError(msg)
        self._clear(Column(0, np.uint64, 1024), Column(width, self._rows.array.dtype, 1024))
        self._reserve(len(keys))
        self._state[_USED] = len(keys)
        self.keys[:], self.rows[:] = keys, rows
        self._index.fill(np.arange(1, len(keys) + 1, dtype=np.uint32), self._keys.array, len(keys))
        if (self.find(self.keys) != np.arange(len(keys))).any():
            self._clear(Column(0, np.uint64, 1024), Column(width, self._rows.array.dtype, 1024))
            msg = "expected distinct keys, but one comes twice; the state is damaged, restore an older one"
            raise ValueError(msg)

    def _clear(self, keys: Column, rows: Column) -> None:
        self._keys, self._rows = keys, rows
        self._state = np.zeros(4, np.int64)
        self._index = KeyIndex(min(len(keys), 1024) // 2, self._rows_split)

    def _reserve(self, rows: int) -> None:
        if rows > ROWS_LIMIT:
            msg = f"a table numbers at most {ROWS_LIMIT:,} rows and holds {len(self):,}; use more shards"
            raise TableFullError(msg)
        used = self.numbered
        self._rows.reach(rows, used)
        self._keys.reach(rows, used)

    def _begin(self, first: int, reused: NDArray[np.int64]) -> None:
        """Fill the rows that were just born: those numbered from `first` on, which are zeros, and `reused` ones."""
        if self._birth is not None and self.numbered > first:
            self._birth.fill(self.keys[first:], self.rows[first:])
        if len(reused):
            fresh = np.zeros((len(reused), self._rows.array.shape[1]), self._rows.array.dtype)
            if self._birth is not None:
                self._birth.fill(self.keys[reused], fresh)
            self._rows.array[reused] = fresh
