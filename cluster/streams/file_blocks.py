"""What the readers of files give: blocks of rows with their numbers, and the rows that are no records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BAD_VALUE_BYTES_MAX", "BLOCK_BYTES", "BadRow", "RowBlock", "between", "joined"]

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


def between(block: RowBlock, low: int, high: int) -> RowBlock:
    """The rows of a block that have numbers in [low, high)."""
    start, stop = np.searchsorted(block.rows, (low, high)).tolist()
    bad = [bad for bad in block.bad if low <= bad.row < high]
    return RowBlock(block.rows[start:stop], block.columns.slice(start, stop - start), bad)


def joined(parts: list[RowBlock]) -> RowBlock:
    """Consecutive parts as one block."""
    if len(parts) == 1:
        return parts[0]
    tables = [pa.Table.from_batches([part.columns]) for part in parts]
    whole = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    columns = whole.to_batches()[0] if whole.num_rows else parts[0].columns
    return RowBlock(
        np.concatenate([part.rows for part in parts]), columns, [bad for part in parts for bad in part.bad]
    )
