"""Table: 64-bit keys to rows of floats, by open addressing, without a size chosen up front.

Rows are dense and keep their number for ever: `keys[r]` and `rows[r]` belong together, and r is the order of birth.
A hash index of int32 row numbers (power-of-two capacity, linear probing, Fibonacci hashing) finds them. So growth
rebuilds only the index and never moves a row's number, a snapshot is two contiguous arrays, and two tables that saw
the same keys in the same order are equal byte for byte. Two keys never share a row: the full key is compared.

Memory a row of FTRL (width 2, float32): 8 (key) + 8 (z, n) + 4 / load (index), and slack of growth by doubling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Table", "TableFullError"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOAD_MAX = 0.6
_ROWS_LIMIT = 2**31 - 2
_BLOCK = 64
"""Lookups whose cache misses are overlapped."""


class TableFullError(Exception):
    """More rows are asked for than one table can number; use more shards."""


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(wanted, start, index, shift, keys, size, out):  # noqa: ANN001, ANN202
    """Row numbers of wanted[start:] into out, births included; stops early where `keys` is full.

    Returns (position reached, rows in use). Each block first reads the index, then the keys, for all its entries:
    loads that do not wait for one another, so that the processor overlaps their cache misses. What was not found at
    its first slot is then looked for (and born) one by one.
    """
    mask = np.uint64(len(index) - 1)
    capacity = len(keys)
    rows = np.empty(_BLOCK, np.int32)
    found = np.empty(_BLOCK, np.uint64)
    for first in range(start, len(wanted), _BLOCK):
        count = min(_BLOCK, len(wanted) - first)
        for i in range(count):
            rows[i] = index[(wanted[first + i] * _GOLDEN) >> shift]
        for i in range(count):
            found[i] = keys[np.uint32(max(rows[i], 1) - 1)]
        for i in range(count):
            key = wanted[first + i]
            row = rows[i]
            if row == 0 or found[i] != key:
                slot = (key * _GOLDEN) >> shift
                row = index[slot]
                while row != 0 and keys[np.uint32(row - 1)] != key:
                    slot = (slot + np.uint64(1)) & mask
                    row = index[slot]
                if row == 0:
                    if size == capacity:
                        return first + i, size
                    keys[size] = key
                    size += 1
                    index[slot] = row = size
            out[first + i] = row - 1
    return len(wanted), size


@njit(cache=True, nogil=True, error_model="numpy")
def _find(wanted, index, shift, keys, out):  # noqa: ANN001, ANN202
    """Row numbers of wanted into out, -1 where there is no such key."""
    mask = np.uint64(len(index) - 1)
    for i in range(len(wanted)):
        key = wanted[i]
        slot = (key * _GOLDEN) >> shift
        row = index[slot]
        while row != 0 and keys[np.uint32(row - 1)] != key:
            slot = (slot + np.uint64(1)) & mask
            row = index[slot]
        out[i] = row - 1


@njit(cache=True, nogil=True, error_model="numpy")
def _reindex(keys, size, index, shift):  # noqa: ANN001, ANN202
    """Fill an empty index with keys[:size], which are distinct."""
    mask = np.uint64(len(index) - 1)
    for row in range(size):
        slot = (keys[row] * _GOLDEN) >> shift
        while index[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        index[slot] = row + 1


class Table:
    """Keys (u64) to rows (`dtype`, `width` columns) that are born as zeros at their first `locate`.

    Not thread-safe. Array views that `rows` and `keys` return are valid until the next `locate` that grows.
    """

    def __init__(
        self, width: int, *, dtype: type[np.floating[Any]] = np.float32, rows_initial: int = 1024
    ) -> None:
        self._size = 0
        self._keys = np.empty(rows_initial, np.uint64)
        self._rows = np.zeros((rows_initial, width), dtype)
        self._build_index()

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Keys in order of birth: u64 (len,), a view."""
        return self._keys[: self._size]

    @property
    def rows(self) -> NDArray[Any]:
        """Rows in order of birth: (len, width), a writable view."""
        return self._rows[: self._size]

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays, slack included."""
        return self._keys.nbytes + self._rows.nbytes + self._index.nbytes

    def locate(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row numbers i64 of `keys`; keys that have none get the next one. Repeats are allowed."""
        out = np.empty(len(keys), np.int64)
        at = 0
        while True:
            at, self._size = _locate(keys, at, self._index, self._shift, self._keys, self._size, out)
            if at == len(keys):
                return out
            self._grow()

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row numbers i64 of `keys`, -1 where a key has none; changes nothing."""
        out = np.empty(len(keys), np.int64)
        _find(keys, self._index, self._shift, self._keys, out)
        return out

    def restore(self, keys: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Replace the whole content by copies of distinct `keys` and their `rows`.

        Raises:
            ValueError: the shapes do not belong together, or a key comes twice.

        """
        if rows.shape != (len(keys), self._rows.shape[1]):
            msg = f"expected {len(keys)} rows of width {self._rows.shape[1]} for as many keys, but came {rows.shape}"
            raise ValueError(msg)
        if len(np.unique(keys)) != len(keys):
            msg = "expected distinct keys, but one comes twice; the state is damaged, restore an older one"
            raise ValueError(msg)
        self._size = len(keys)
        capacity = max(1024, self._size)
        self._keys = np.empty(capacity, np.uint64)
        self._rows = np.zeros((capacity, rows.shape[1]), self._rows.dtype)
        self._keys[: self._size] = keys
        self._rows[: self._size] = rows
        self._build_index()

    def _grow(self) -> None:
        capacity = 2 * len(self._keys)
        if capacity > _ROWS_LIMIT:
            msg = f"a table numbers at most {_ROWS_LIMIT:,} rows and holds {self._size:,}; use more shards"
            raise TableFullError(msg)
        keys = np.empty(capacity, np.uint64)
        keys[: self._size] = self._keys
        rows = np.zeros((capacity, self._rows.shape[1]), self._rows.dtype)
        rows[: self._size] = self._rows
        self._keys, self._rows = keys, rows
        self._build_index()

    def _build_index(self) -> None:
        """Size the index for the capacity of `keys` at a load of at most _LOAD_MAX."""
        bits = max(4, int(np.ceil(np.log2(len(self._keys) / _LOAD_MAX))))
        self._shift = np.uint64(64 - bits)
        self._index = np.zeros(1 << bits, np.int32)
        _reindex(self._keys, self._size, self._index, self._shift)
