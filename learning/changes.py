"""ChangeLog: which rows of a table changed since which snapshot, and how they were at the one that is being written.

Rows carry the number of the snapshot that will be the first to hold what they are now (u32; 0: a row that is not
alive). `freeze(n, since)` begins snapshot n and takes no time, whatever the size: what changes from here on belongs to
n + 1. Snapshot n is then read piece by piece (`chunks`) while the table goes on changing: a row that is about to change
before its turn has come is copied first (copy on write, row by row). A snapshot with `since` > 0 is the difference to
snapshot `since`: rows numbered since + 1 to n, and the keys that went in between. A row that was born after the last
freeze is in no snapshot, so nobody has to be told when it goes; hence at most as many keys are remembered as rows were
alive at the last freeze.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from learning.index_memory import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from learning.table_state import TableState

__all__ = ["CHUNK_ROWS", "ChangeLog"]

CHUNK_ROWS = 1 << 15
"""Rows that are looked at in one piece: a millisecond or two, for which the table's owner waits at most."""

_BORN = np.uint32(1 << 31)
"""Set in the number of a row that was born after the last freeze."""


@dataclass(slots=True)
class _Reading:
    """Snapshot `number` on its way: rows below `at` are read, those below `end` are not."""

    number: int
    since: int
    end: int
    removed: NDArray[np.uint64]
    at: int = 0
    kept: list[TableState] = field(default_factory=list)


class ChangeLog:
    """The changes of one table. `content(rows)` copies keys, rows and whatever belongs to them, by row number.

    Not thread-safe: whoever reads in another thread than the one that changes holds one lock for both.
    """

    def __init__(self, content: Callable[[NDArray[np.int64]], TableState]) -> None:
        self.content = content
        self._reading: _Reading | None = None
        self._removed: list[NDArray[np.uint64]] = []
        self.restored(0, 0)

    @property
    def memory_bytes(self) -> int:
        """Bytes in use."""
        return self._stamps.used_bytes(self._used) + sum(int(keys.nbytes) for keys in self._removed)

    def touch(self, rows: NDArray[np.int64], numbered: int) -> None:
        """`rows` (-1: none; repeats allowed) are about to change, or were just born; `numbered` rows there are."""
        if self._reading is not None:
            self._keep(rows, self._reading)
        self._reach(numbered)
        self._stamps.array[rows if not len(rows) or rows.min() >= 0 else rows[rows >= 0]] = self._now

    def touch_old(self, rows: NDArray[np.int64]) -> None:
        """As `touch`, of a table that rows go from: those born since the last freeze stay so."""
        rows = rows[rows >= 0]
        if self._reading is not None:
            self._keep(rows, self._reading)
        stamps = self._stamps.array[rows]
        self._stamps.array[rows] = np.where(stamps == (self._now | _BORN), stamps, np.uint32(self._now))

    def born(self, rows: NDArray[np.int64], numbered: int) -> None:
        """`rows` were born just now."""
        self._reach(numbered)
        self._stamps.array[rows] = self._now | _BORN

    def remove(self, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        """Distinct live `rows`, whose keys are `keys`, are about to be forgotten."""
        if self._reading is not None:
            self._keep(rows, self._reading)
        if self._known:
            self._removed.append(keys[self._stamps.array[rows] != (self._now | _BORN)])
        self._stamps.array[rows] = 0

    def freeze(self, number: int, since: int) -> None:
        """Begin snapshot `number` as the difference to `since`, the last one (0: whole); one not yet read is lost."""
        removed = np.concatenate(self._removed) if since and self._removed else np.empty(0, np.uint64)
        self._reading = _Reading(number, since, self._used, removed)
        self._removed, self._known = [], True
        self._now = np.uint32(number + 1)

    def restored(self, rows: int, number: int) -> None:
        """The table now has `rows` rows, and they are those of snapshot `number`."""
        self._stamps = Column(0, np.uint32, 1024)
        self._used = 0
        self._reach(rows)
        self._stamps.array[:rows] = max(number, 1)
        self._now = np.uint32(number + 1)
        self._reading, self._removed = None, []
        self._known = number > 0

    @property
    def reading(self) -> object | None:
        """The snapshot that has begun and is not yet read to its end, for `forget`."""
        return self._reading

    def forget(self, reading: object | None) -> None:
        """Nobody will read `reading` to its end: rows need not be kept for it any more."""
        if self._reading is reading:
            self._reading = None

    def removed(self) -> NDArray[np.uint64]:
        """Keys that went between the two snapshots; some of them may have come back."""
        return np.empty(0, np.uint64) if self._reading is None else self._reading.removed

    def chunks(
        self, lock: AbstractContextManager[object], rows_max: int = CHUNK_ROWS
    ) -> Iterator[TableState]:
        """The rows of the snapshot that has begun, piece by piece, each taken under `lock`. Once only.

        Nothing more comes once another snapshot has begun: what comes later must not take that one's rows.
        """
        return self._pieces(self._reading, lock, rows_max)

    def _pieces(
        self, reading: _Reading | None, lock: AbstractContextManager[object], rows_max: int
    ) -> Iterator[TableState]:
        with lock:
            nothing = self.content(np.empty(0, np.int64))
        if reading is not None:
            yield nothing  # an empty first piece says what pieces hold, also where nothing has changed
        while reading is not None:
            with lock:
                if self._reading is not reading:
                    return  # another snapshot has begun, and nobody wants this one any more
                piece = self._next(reading, rows_max)
                if piece is None:
                    self._reading = None
                    return
            if len(piece.keys):
                yield piece

    def _next(self, reading: _Reading, rows_max: int) -> TableState | None:
        """Rows of the next stretch; then what was kept; None at the end."""
        if reading.at < reading.end:
            stretch = slice(reading.at, min(reading.at + rows_max, reading.end))
            rows = np.flatnonzero(self._due(self._stamps.array[stretch], reading)) + reading.at
            reading.at = stretch.stop
            return self.content(rows)
        return reading.kept.pop() if reading.kept else None

    def _keep(self, rows: NDArray[np.int64], reading: _Reading) -> None:
        """Copy those of `rows` that the snapshot still wants, before they change."""
        waiting = rows[(rows >= reading.at) & (rows < reading.end)]
        waiting = waiting[self._due(self._stamps.array[waiting], reading)]
        if len(waiting):
            reading.kept.append(self.content(np.unique(waiting)))

    @staticmethod
    def _due(stamps: NDArray[np.uint32], reading: _Reading) -> NDArray[np.bool_]:
        numbers = stamps & ~_BORN
        due: NDArray[np.bool_] = (numbers > reading.since) & (numbers <= reading.number)
        return due

    def _reach(self, numbered: int) -> None:
        if numbered > self._used:
            self._stamps.reach(numbered, self._used)
            self._used = numbered
