"""What a snapshot holds of one table, wherever its rows lie: in shards, in one process, or in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from learning.grouping import split_by_shard
from learning.texts import TextColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["TableState"]


class TableState(NamedTuple):
    """Live rows in any order: keys u64 (n,), rows f32 (n, width), and of a named table the text of each key.

    An empty name is one that is not known; None: the table's keys have no names.
    """

    keys: NDArray[np.uint64]
    rows: NDArray[np.float32]
    names: TextColumn | None = None

    def split(self, shards: int) -> list[TableState]:
        """As each of `shards` shards is to hold it."""
        places = split_by_shard(self.keys, np.arange(len(self.keys)), shards)
        return [
            TableState(keys, self.rows[at], None if self.names is None else self.names.take(at))
            for keys, at in places
        ]

    @classmethod
    def join(cls, parts: Sequence[TableState]) -> TableState:
        """What several shards hold."""
        names = [part.names for part in parts if part.names is not None]
        return cls(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.rows for part in parts]),
            TextColumn.concat(names) if names else None,
        )
