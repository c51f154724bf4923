"""BoundedTable: a table whose keys must be seen often enough to get a row, and must be wanted to keep it.

Each `open` is one tick: a pull's distinct keys become rows. What TablePolicy says happens in this order:

1. Rows of the asked keys that are too old (expiry.py) go: the key is new again. This is exact for every row that is
   ever asked for, so that one table and any number of shards agree to the bit; rows nobody asks for go later (4).
2. Keys without a row are counted, and those seen often enough are admitted (admission.py).
3. Room is made for them: the coldest rows go, approximately. A sample of stamps gives the stamp below which a
   sixteenth of the rows lies, and the sweep takes rows below it. It starts a little below the ceiling; if that was
   not enough, it goes around with a higher stamp each time until there is room or only held rows are left. A key
   for which there is no room gets -1.
4. The sweep goes on over a bounded number of rows and takes those that are too old.

A row wanted at a tick of at least `held_from` belongs to an open pull: its number is in use, so it never goes, however
old it is. The row of BIAS_KEY is admitted at once, ceiling or not, and never goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from learning.admission import admission_of
from learning.changes import ChangeLog
from learning.expiry import StreamAge
from learning.keys import BIAS_KEY
from learning.last_use import STAMP_NEVER, LastUse
from learning.table import Table
from learning.table_state import TableState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from learning.birth import RowBirth as Birth
    from learning.policy import TablePolicy

__all__ = ["BoundedTable"]

_SPARE = 64
"""The sweep starts when less than a 64th of the ceiling is free."""
_COLDEST = 1 / 16
_SWEEP_ROWS, _SWEEP_ROWS_PER_BIRTH = 1 << 14, 8
"""Rows that a sweep looks at in one `open`, so that it goes around while an eighth of the rows is born."""
_GONE_MAX, _GONE_PER_BIRTH = 2048, 2
"""Rows that it may remove: each costs about a microsecond."""


class BoundedTable:
    """A Table under a TablePolicy; with one that keeps all keys it is just that table. Not thread-safe.

    `stamp_max` bounds the stamps of rows (a test makes it small).
    """

    def __init__(
        self, width: int, policy: TablePolicy, *, birth: Birth | None = None, stamp_max: int = STAMP_NEVER - 1
    ) -> None:
        self._policy = policy
        self._keeps_all, self._tracks_use = policy.keeps_all, policy.tracks_use
        self._table = Table(width, birth=birth)
        self._admission = admission_of(policy)
        self._age = StreamAge(policy.expire_after_records, policy.expire_after_s)
        self._use = LastUse(stamp_max)
        self._tick, self._cutoff = 0, -1
        self.changes = ChangeLog(self.content)
        self._counts = dict.fromkeys(("admitted", "expired", "evicted", "refused"), 0)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def tick(self) -> int:
        """Opens so far."""
        return self._tick

    @property
    def rows(self) -> NDArray[Any]:
        """All rows by number: (numbered, width), a writable view, valid until the next `open` or `restore`."""
        return self._table.rows

    def view(self) -> tuple[NDArray[np.uint64], NDArray[Any], NDArray[np.bool_]]:
        """Keys and rows by number, as `rows`, and which of them are live and not too old."""
        young = self._use.young(slice(self._table.numbered), self._cutoff) if self._tracks_use else None
        return self._table.keys, self._table.rows, self._table.live() if young is None else young

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row numbers i64 of `keys`, -1 where a key has none or one that is too old; not a use, changes nothing."""
        rows = self._table.find(keys)
        if self._tracks_use:
            there = np.flatnonzero(rows >= 0)
            rows[there[~self._use.young(rows[there], self._cutoff)]] = -1
        return rows

    def open(
        self,
        keys: NDArray[np.uint64],
        sights: NDArray[np.uint8] | None,
        records: int,
        time_s: float,
        held_from: int,
    ) -> NDArray[np.int64]:
        """Row numbers i64 of a pull's distinct `keys` u64 (n,); -1: none yet, or no room for one.

        Args:
            sights: u8 (n,), how often each occurs in the batch; None: once.
            records: of the batch.
            time_s: the stream's newest time in the batch; NaN: unknown.
            held_from: rows last wanted at this tick or later are in use by open pulls; it never goes back.

        """
        self._tick += 1
        if self._keeps_all:
            rows = self._table.locate(keys)
            self.changes.touch(rows, self._table.numbered)
            return rows
        rows = self._table.find(keys)
        self.changes.touch_old(rows)
        held = min(held_from, self._tick)  # what this very pull wants is held too
        if self._tracks_use:
            self._cutoff = min(self._age.advance(self._tick, records, time_s), held - 1)
            stale = self._use.touch(rows, self._cutoff, self._tick, self._table.numbered)
            self._forget(stale, "expired")
        missing = np.flatnonzero(rows < 0)
        if len(missing) and self._admission is not None:
            given = None if sights is None else sights[missing]
            missing = missing[self._admit(keys[missing], given)]
        if self._policy.rows_max and len(missing):
            missing = self._make_room(keys, missing, held - 1)
        if len(missing):
            self._give_birth(keys, missing, rows)
        if self._tracks_use:
            steps = _SWEEP_ROWS + _SWEEP_ROWS_PER_BIRTH * len(missing)
            gone_max = _GONE_MAX + _GONE_PER_BIRTH * len(missing)
            gone = self._use.sweep(self._cutoff, steps, gone_max, self._table.numbered)
            self._forget(gone, "expired")
        return rows

    def snapshot(self) -> tuple[NDArray[np.uint64], NDArray[Any]]:
        """Copies of all live keys u64 (len,) and their rows (len, width), without those that are too old."""
        if not self._tracks_use:
            return self._table.snapshot()
        young = self._use.young(slice(self._table.numbered), self._cutoff)
        return self._table.keys[young], self._table.rows[young]

    def content(self, rows: NDArray[np.int64]) -> TableState:
        """Copies of some rows, by number; where use is tracked, with the tick of their last one (-1: they never go)."""
        used = self._use.ticks(rows) if self._tracks_use else None
        return TableState(self._table.keys[rows], self._table.rows[rows], None, used)

    def freeze(self, number: int, since: int) -> dict[str, NDArray[Any]]:
        """Begin snapshot `number` (see ChangeLog); returns copies of what the table knows beside its rows."""
        self.changes.freeze(number, since)
        side = {"age": self._age.state(self._tick, self._cutoff)} if self._tracks_use else {}
        return side | ({} if self._admission is None else self._admission.state())

    def restore(
        self, state: TableState, side: Sequence[Mapping[str, NDArray[Any]]] = (), number: int = 0
    ) -> None:
        """Replace the content by that of snapshot `number`; `side`: this table's share of what each `freeze` gave.

        What that lacks, or has of another policy, begins anew: all rows count as just wanted, keys begin to wait. A
        content above the ceiling is taken; the next `open` that needs room brings it down.
        """
        ages = [part["age"] for part in side if "age" in part] if self._tracks_use else []
        if not ages:
            self._age.restart(self._tick)
        self._tick, self._cutoff = self._age.restore(ages[0]) if ages else (self._tick, self._tick - 1)
        if self._tracks_use:
            wanted = state.used if ages else None
            used = np.where(state.keys == BIAS_KEY, -1, self._tick) if wanted is None else wanted
            young = (used > self._cutoff) | (used < 0)
            state, used = TableState(state.keys[young], state.rows[young]), used[young]
            self._use.restart(self._tick, used)
        self._table.restore(state.keys, state.rows)
        self.changes.restored(self._table.numbered, number)
        if self._admission is not None:
            self._admission.restore(side)

    def status(self) -> dict[str, int | float]:
        """How much there is now, and what has happened since the start.

        Now: rows, bytes, load of the index, waiting keys. Since the start: keys `admitted` by their sights, rows
        `expired`, rows `evicted` by the ceiling, births `refused` for want of room, and `forgotten_counts`: how often
        the sights of waiting keys were forgotten (of all keys, or of a segment's).
        """
        return {
            "rows": len(self._table),
            "bytes": self._table.memory_bytes + self._side_bytes(),
            "load": self._table.load_factor,
            "waiting": 0 if self._admission is None else self._admission.waiting,
            **self._counts,
            "forgotten_counts": 0 if self._admission is None else self._admission.forgotten,
        }

    def _side_bytes(self) -> int:
        """Bytes that the policy costs beside the table."""
        other = self.changes.memory_bytes + (0 if self._admission is None else self._admission.memory_bytes)
        use = self._age.memory_bytes + self._use.used_bytes(self._table.numbered) if self._tracks_use else 0
        return other + use

    def _forget(self, rows: NDArray[np.int64], why: str) -> None:
        if len(rows):
            self.changes.remove(rows, self._table.keys[rows])
            self._use.forget(rows)
            self._table.remove(rows)
            self._counts[why] += len(rows)

    def _admit(self, keys: NDArray[np.uint64], sights: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        assert self._admission is not None
        bias = keys == BIAS_KEY
        admitted: NDArray[np.bool_] = self._admission.see(keys, sights) | bias
        self._counts["admitted"] += int(np.count_nonzero(admitted))
        return admitted

    def _give_birth(self, keys: NDArray[np.uint64], at: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Rows for keys[at], which have none, into rows[at]."""
        born = keys[at]
        if self._tracks_use:
            self._use.reach(self._table.numbered, len(at))
        rows[at] = self._table.locate(born)
        self.changes.born(rows[at], self._table.numbered)
        if self._tracks_use:
            self._use.born(rows[at], self._tick, born == BIAS_KEY)

    def _make_room(
        self, keys: NDArray[np.uint64], at: NDArray[np.int64], evictable: int
    ) -> NDArray[np.int64]:
        """Which of the births keys[at] there is room for, once cold rows have gone, last wanted up to `evictable`."""
        ceiling = self._policy.rows_max
        early = len(self._table) + len(at) - (ceiling - ceiling // _SPARE)
        if early > 0:
            self._evict(evictable, early, _SWEEP_ROWS + 2 * int(len(at) / _COLDEST), _COLDEST)
        share = _COLDEST
        while (lacking := len(self._table) + len(at) - ceiling) > 0 and share <= 1:
            self._evict(evictable, lacking, self._table.numbered, share)
            share *= 2
        if lacking <= 0:
            return at
        bias = keys[at] == BIAS_KEY
        others = max(len(at) - lacking - int(bias.any()), 0)
        self._counts["refused"] += len(at) - int(bias.any()) - others
        return np.concatenate((at[bias], at[~bias][:others]))

    def _evict(self, evictable: int, wanted: int, steps: int, share: float) -> None:
        """Sweep `steps` rows for `wanted` rows among the coldest `share` of those that may go."""
        numbered = self._table.numbered
        until = self._use.coldest(evictable, share, wanted, numbered)
        self._forget(self._use.sweep(until, steps, wanted, numbered), "evicted")
