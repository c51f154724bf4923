"""Columns: arrays that grow by being touched, so that growth neither stops nor moves anything.

A column of zeros is reserved far beyond what is used; the operating system commits a page when it is first written
(calloc of a large block is a fresh mapping). A row number then has the same address for as long as the reservation
lasts. Small columns reserve little, because many tables stay tiny. A full reservation is followed by a larger one and
a copy: trivial below ROWS_SMALL rows, and a stop of about half a second a gibibyte above ROWS_LARGE or BYTES_LARGE.

Views keep their reservation alive: an old one shows old contents after such a copy, but never points to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["BYTES_LARGE", "ROWS_LARGE", "ROWS_SMALL", "Column"]

ROWS_SMALL = 1 << 15
"""Up to here reservations double."""

ROWS_LARGE = 1 << 28
BYTES_LARGE = 8 << 30
"""What the reservation after that holds: so many rows, or as many as fit into so many bytes."""

_HUGE_BYTES = 4 << 20
_PAGE_BYTES, _HUGE_PAGE_BYTES = 4096, 2 << 20
"""numpy asks for huge pages for arrays of at least _HUGE_BYTES."""


class Column:
    """One value (`width` 0) or `width` values of `dtype` a row; zeros where nothing was written yet."""

    __slots__ = ("array",)

    def __init__(self, width: int, dtype: DTypeLike, rows: int) -> None:
        self.array: NDArray[Any] = np.zeros((rows, width) if width else rows, dtype)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.array.dtype.itemsize * (self.array.shape[1] if self.array.ndim > 1 else 1)

    def reach(self, rows: int, used: int) -> None:
        """Make room for `rows` rows; the first `used` are kept, and are all that was written so far.

        Raises:
            MemoryError: not even `rows` rows can be reserved.

        """
        if rows <= len(self.array):
            return
        wished = max(rows, _next_reservation(len(self.array), self.row_bytes))
        while True:
            try:
                array = np.zeros((wished, *self.array.shape[1:]), self.array.dtype)
            except MemoryError:
                if wished == rows:
                    raise
                wished = max(rows, wished // 2)
            else:
                array[:used] = self.array[:used]
                self.array = array
                return

    def used_bytes(self, used: int) -> int:
        """Bytes that the first `used` rows really occupy: whole pages, but nothing that is only reserved."""
        page = _HUGE_PAGE_BYTES if self.array.nbytes >= _HUGE_BYTES else _PAGE_BYTES
        return min(self.array.nbytes, -(-used * self.row_bytes // page) * page)


def _next_reservation(rows: int, row_bytes: int) -> int:
    if 2 * rows <= ROWS_SMALL:
        return 2 * rows
    return max(2 * rows, min(ROWS_LARGE, BYTES_LARGE // row_bytes))
