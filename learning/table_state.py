"""What a snapshot holds of one table, wherever its rows lie: in shards, in one process, or in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learning.grouping import split_by_shard
from learning.texts import TextColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["TableChange", "TableState"]


class TableState(NamedTuple):
    """Live rows in any order: keys u64 (n,), rows f32 (n, width), and of a named table the text of each key.

    An empty name is one that is not known; None: the table's keys have no names. `used`, i64 (n,), is the tick at which
    each row was last used; None: the table does not track it.
    """

    keys: NDArray[np.uint64]
    rows: NDArray[np.float32]
    names: TextColumn | None = None
    used: NDArray[np.int64] | None = None

    def take(self, places: NDArray[Any]) -> TableState:
        """The rows at `places`: their numbers, or bool (n,) for which of them."""
        return TableState(
            self.keys[places],
            self.rows[places],
            None if self.names is None else self.names.take(places),
            None if self.used is None else self.used[places],
        )

    def split(self, shards: int) -> list[TableState]:
        """As each of `shards` shards is to hold it."""
        places = split_by_shard(self.keys, np.arange(len(self.keys)), shards)
        return [self.take(at) for _, at in places]

    def after(self, changes: Sequence[TableChange]) -> TableState:
        """The rows once `changes` have come, oldest first."""
        state = self
        for change in changes:
            new = change.state
            kept = ~np.isin(state.keys, np.concatenate((change.removed, new.keys)))
            state = TableState.join([state.take(kept), new]) if len(new.keys) else state.take(kept)
        return state

    @classmethod
    def join(cls, parts: Sequence[TableState]) -> TableState:
        """What several shards hold."""
        names = [part.names for part in parts if part.names is not None]
        used = [part.used for part in parts if part.used is not None]
        return cls(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.rows for part in parts]),
            TextColumn.concat(names) if names else None,
            np.concatenate(used) if used else None,
        )


class TableChange(NamedTuple):
    """What became of a table, or of one shard's part of it, since the snapshot before; since the start, for a base.

    `removed`, u64, are keys that went: first they go, then the rows of `state` are put in the place of those with the
    same key, or added. `side` are small arrays of the table as a whole, of any shape, by name; they replace those of
    the snapshot before.
    """

    state: TableState
    removed: NDArray[np.uint64]
    side: dict[str, NDArray[Any]]
