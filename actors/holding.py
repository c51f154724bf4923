"""Holding: the tables of a learner as one holder has them, a shard or the one process of a local run; with snapshots.

A snapshot of a holding is begun by `freeze`, which takes no time, and read by `part` in another thread while the
tables go on changing. Both, and whatever changes the tables, hold `lock`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.table_names import TableNames
from learning.bounded import BoundedTable
from learning.changes import CHUNK_ROWS
from learning.keys import BIAS_KEY
from learning.learner import Forgetting
from learning.policy import TablePolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actors.ports import Layers, Sides, Tables
    from learning.exchange import Moment
    from learning.learner import Learner
    from learning.table_state import TableChange, TableState

__all__ = ["Holding", "HoldingPart"]


class Holding:
    """Tables and names of `learner`, in the order of its specs; `policies` by table name."""

    def __init__(self, learner: Learner, policies: Mapping[str, TablePolicy] | None = None) -> None:
        self.lock = threading.RLock()
        self._learner = learner
        self.specs = learner.specs()
        of_tables = [(policies or {}).get(spec.name, TablePolicy()) for spec in self.specs]
        self.keeps_all = [policy.keeps_all for policy in of_tables]
        self.tables = [
            BoundedTable(spec.width, policy, birth=spec.birth)
            for spec, policy in zip(self.specs, of_tables, strict=True)
        ]
        self.names = TableNames(learner)
        for t, table in enumerate(self.tables):
            table.changes.content = self._content_of(t, table)
        self.frozen = 0
        self._sides: list[dict[str, NDArray[Any]]] = []

    def bias_row(self, t: int) -> int:
        """The row number of table t's bias; -1 if it has none here."""
        if not self.specs[t].bias:
            return -1
        return int(self.tables[t].find(np.array([BIAS_KEY], np.uint64))[0])

    def freeze(self, moment: Moment) -> None:
        """Begin the moment's snapshot, unless it has begun; then change rows as the moment says."""
        with self.lock:
            if moment.snapshot > self.frozen:
                for number in range(self.frozen + 1, moment.snapshot):
                    self._change(moment, number)  # one that was never written, and never seen here
                self.frozen = moment.snapshot
                self._sides = [table.freeze(moment.snapshot, moment.since) for table in self.tables]
                self._change(moment, moment.snapshot)

    def _change(self, moment: Moment, behind: int) -> None:
        """Carry out what happens to rows right behind the snapshot `behind`."""
        for t, kept in ((t, kept) for number, t, kept in moment.changes if number == behind):
            table = self.tables[t]
            keys, _, live = table.view()
            numbers = np.flatnonzero(live)
            for first in range(0, len(numbers), CHUNK_ROWS):
                rows = numbers[first : first + CHUNK_ROWS]
                table.changes.touch_old(rows)
                table.rows[rows] = self._changed(t, kept, keys[rows], table.rows[rows])

    def _changed(
        self, t: int, kept: float, keys: NDArray[np.uint64], rows: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Rows of table t that keep so much of their memory; below 0: as they are born."""
        spec = self.specs[t]
        if kept < 0.0:
            rows[:] = 0.0
            if spec.birth is not None:
                spec.birth.fill(keys, rows)
        elif isinstance(self._learner, Forgetting):
            places = np.flatnonzero(keys == BIAS_KEY)
            self._learner.forget(t, rows, int(places[0]) if len(places) else -1, kept)
        return rows

    def part(self, rows_max: int = CHUNK_ROWS) -> HoldingPart:
        """What the last `freeze` froze, to be read once, in pieces of at most `rows_max` looked at."""
        with self.lock:
            logs = [table.changes for table in self.tables]
            chunks = [log.chunks(self.lock, rows_max) for log in logs]
            removed, sides = [log.removed() for log in logs], self._sides
            begun = [(log, log.reading) for log in logs]
            names = [spec.name for spec in self.specs]

        def forget() -> None:
            with self.lock:
                for log, reading in begun:
                    log.forget(reading)

        return HoldingPart(names, chunks, removed, sides, forget)

    def snapshot(self) -> Tables:
        """Of each table, copies of all keys, rows and names as they are now."""
        with self.lock:
            return {
                spec.name: self.names.snapshot(t, table)
                for t, (spec, table) in enumerate(zip(self.specs, self.tables, strict=True))
            }

    def restore(self, tables: Tables, sides: Sides | None = None, moment: Moment | None = None) -> None:
        """Replace the content by that of the moment's snapshot, and change rows as the moment says.

        `sides`: what the tables knew beside their rows.
        """
        number = moment.snapshot if moment else 0
        with self.lock:
            for t, (spec, table) in enumerate(zip(self.specs, self.tables, strict=True)):
                own = [part[spec.name] for part in sides or [] if part.get(spec.name)]
                self.names.restore(t, table, tables[spec.name], own, number)
            self.frozen = number
            if moment is not None:
                self._change(moment, number)

    def catch_up(self, layers: Layers, moment: Moment) -> None:
        """Go on to the moment's snapshot from the older one that is the content, and change rows as the moment says.

        `layers`: differences, oldest first. A layer has, by table, the changes of some shards' parts. It takes as long
        as they are large; for a table that has a policy, as long as that table is large.
        """
        number = moment.snapshot
        with self.lock:
            for t, spec in enumerate(self.specs):
                of_table = [layer[spec.name] for layer in layers if layer.get(spec.name)]
                if of_table:
                    self._catch_up(t, of_table, number)
                self.tables[t].changes.restored(len(self.tables[t].rows), number)
            self.frozen = number
            self._change(moment, number)

    def _catch_up(self, t: int, layers: list[list[TableChange]], number: int) -> None:
        table, changes = self.tables[t], [change for layer in layers for change in layer]
        if self.keeps_all[t] and not any(len(change.removed) for change in changes):
            for change in changes:
                self.names.overlay(t, table, change.state)
            return
        content = table.content(np.flatnonzero(table.view()[2]))
        content = self.names.beside(t, table.find(content.keys), content)
        self.names.restore(t, table, content.after(changes), [change.side for change in layers[-1]], number)

    def status(self) -> dict[str, dict[str, int | float]]:
        """State of each table now, by name."""
        with self.lock:
            return {
                spec.name: self.names.counted(t, table.status())
                for t, (spec, table) in enumerate(zip(self.specs, self.tables, strict=True))
            }

    def _content_of(self, t: int, table: BoundedTable) -> Any:
        def content(rows: NDArray[np.int64]) -> TableState:
            return self.names.beside(t, rows, table.content(rows))

        return content


class HoldingPart:
    """A frozen holding, for whoever writes it (implements cluster.snapshots' FrozenPart).

    Until it is read to its end or closed, rows are copied before they change.
    """

    def __init__(
        self,
        names: Sequence[str],
        chunks: Sequence[Iterator[TableState]],
        removed: Sequence[NDArray[np.uint64]],
        sides: Sequence[dict[str, NDArray[Any]]],
        forget: Callable[[], None],
    ) -> None:
        self._by_name = {name: t for t, name in enumerate(names)}
        self._chunks = chunks
        self._removed = removed
        self._sides = sides
        self._forget = forget

    def close(self) -> None:
        """Read no more; what was not read is forgotten."""
        self._forget()

    def tables(self) -> list[str]:
        """Names of the tables."""
        return [*self._by_name]

    def chunks(self, table: str) -> Iterator[TableState]:
        """The changed live rows as they were at the freeze, in pieces."""
        return self._chunks[self._by_name[table]]

    def removed(self, table: str) -> NDArray[np.uint64]:
        """Keys that went since the snapshot before; some of them may be among the rows again."""
        return self._removed[self._by_name[table]]

    def side(self, table: str) -> dict[str, NDArray[Any]]:
        """What the table knew beside its rows."""
        return self._sides[self._by_name[table]]
