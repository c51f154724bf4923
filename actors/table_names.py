"""The names of the keys of a holder's named tables: which are wanted, which came, and how they go into snapshots.

A holder (a shard, or the one process of a local run) wants the name of every row that it gives out for the first time;
whoever pulled the row has the text, and brings it with the push. So nobody has to remember what was sent before, and a
key whose row went and came back gets its name again.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.names import Names
from learning.table_state import TableState
from learning.texts import TextColumn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from learning.bounded import BoundedTable
    from learning.exchange import Named, Pull
    from learning.learner import Learner

__all__ = ["TableNames"]


class TableNames:
    """Names of the tables in the learner's `named`, by the table's place in its `specs`."""

    def __init__(self, learner: Learner) -> None:
        self._names = {t: Names() for t, spec in enumerate(learner.specs()) if spec.name in learner.named}

    def counted(self, t: int, status: dict[str, int | float]) -> dict[str, int | float]:
        """The status of table t, with the names among its bytes."""
        names = self._names[t].memory_bytes if t in self._names else 0
        return status | {"bytes": status["bytes"] + names}

    def nameless(self, pull: Pull, at: list[NDArray[np.int64]]) -> NDArray[np.int32] | None:
        """The places in a pull's keys, whose rows are `at`, of those that have no name yet; None: of none."""
        places = [part.start + names.missing(at[t], pull.keys[part]) for t, names, part in self._parts(pull)]
        wanted = np.concatenate(places).astype(np.int32) if places else np.empty(0, np.int32)
        return wanted if len(wanted) else None

    def take(self, pull: Pull, at: list[NDArray[np.int64]], named: Named | None) -> None:
        """Keep the names that came for keys of a pull."""
        if named is None:
            return
        for t, names, part in self._parts(pull):
            mine = (named.places >= part.start) & (named.places < part.stop)
            places = named.places[mine] - part.start
            names.put(at[t][places], pull.keys[part][places], named.texts.take(mine))

    def see(self, t: int, rows: NDArray[np.int64], keys: NDArray[np.uint64], texts: TextColumn) -> None:
        """Keep the names of rows of table t that have none yet; repeats allowed."""
        wanted = self._names[t].missing(rows, keys)
        if len(wanted):
            self._names[t].put(rows[wanted], keys[wanted], texts.take(wanted))

    def of(self, t: int, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> TextColumn:
        """Names of rows of table t, empty where unknown."""
        return self._names[t].of(rows, keys)

    def beside(self, t: int, rows: NDArray[np.int64], state: TableState) -> TableState:
        """`state`, the content of `rows` of table t, with their names."""
        return state._replace(names=self.of(t, rows, state.keys)) if t in self._names else state

    def snapshot(self, t: int, table: BoundedTable) -> TableState:
        """Copies of all of table t."""
        keys, rows = table.snapshot()
        return self.beside(t, table.find(keys), TableState(keys, rows))

    def restore(
        self,
        t: int,
        table: BoundedTable,
        state: TableState,
        sides: Sequence[Mapping[str, NDArray[Any]]],
        number: int,
    ) -> None:
        """Replace the content of table t by that of snapshot `number`."""
        table.restore(state, sides, number)
        if t in self._names:
            self._names[t].clear()
            if state.names is not None:
                self._names[t].put(table.find(state.keys), state.keys, state.names)

    def overlay(self, t: int, table: BoundedTable, state: TableState) -> None:
        """Put rows in the place of those of table t with the same keys, or add them.

        Only for a table that keeps all keys, and from which none has gone: a row is no more than its values there.
        """
        if not len(state.keys):
            return
        keys = np.require(
            state.keys, requirements=["C", "W"]
        )  # a file's are read-only, for numba another type
        rows = table.open(keys, None, 0, math.nan, 0)
        table.rows[rows] = state.rows
        if t in self._names and state.names is not None:
            self._names[t].put(rows, keys, state.names)

    def _parts(self, pull: Pull) -> Iterator[tuple[int, Names, slice]]:
        """Each named table with its part of the pull's keys."""
        bounds = list(itertools.accumulate(pull.sizes, initial=0))
        return ((t, names, slice(bounds[t], bounds[t + 1])) for t, names in self._names.items())
