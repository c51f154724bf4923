"""What the readers of files give: blocks of rows with their numbers, and the rows that are no records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["BAD_VALUE_BYTES_MAX", "BLOCK_BYTES", "BadRow", "RowBlock"]

BLOCK_BYTES = 1 << 20
"""Of CSV and JSON lines so many bytes are read and converted at a time."""

BAD_VALUE_BYTES_MAX = 1 << 20
"""Of a line that is no record so much is kept for its dead letter."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no record: its number, why, and its text."""

    row: int
    reason: str
    value: bytes


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some consecutive rows: `rows` (n,) ascending row numbers of `columns`; `bad` are those left out between them."""

    rows: NDArray[np.int64]
    columns: pa.RecordBatch
    bad: list[BadRow]

    @property
    def next_row(self) -> int:
        """The number of the row behind the block."""
        last_good = int(self.rows[-1]) if len(self.rows) else -1
        return max([last_good, *(bad.row for bad in self.bad)]) + 1
