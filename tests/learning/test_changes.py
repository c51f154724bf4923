"""Snapshots of a table that goes on changing: what is read late is what was there at the freeze, base or difference."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.bounded import BoundedTable
from learning.keys import BIAS_KEY
from learning.policy import TablePolicy
from learning.table_state import TableState
from tests.direct import changed
from tests.learning.test_bounded import NEVER, slow_sweep

Content = dict[int, tuple[float, int]]
"""Of each key its row and the tick of its last use (0 where that is not tracked)."""

KEEPS_ALL = TablePolicy()
EXPIRES = TablePolicy(expire_after_records=12)
CEILING = TablePolicy(rows_max=6)
BOTH = TablePolicy(admit_after=2, admission="exact", expire_after_records=20, rows_max=8)


def content_of(state: TableState, cutoff: int) -> Content:
    """Rows and ticks by key, without rows that are too old: those go whenever a sweep comes by."""
    used = np.zeros(len(state.keys), np.int64) if state.used is None else state.used
    listed = zip(state.keys.tolist(), state.rows[:, 0].tolist(), used.tolist(), strict=True)
    return {key: (row, tick) for key, row, tick in listed if tick > cutoff or state.used is None}


@dataclass
class Written:
    """A table, the snapshot that is being read from it, and those that were read to the end, as a disk has them."""

    table: BoundedTable
    policy: TablePolicy
    disk: dict[int, tuple[TableState, dict[str, Any]]] = field(default_factory=dict)
    expected: dict[int, Content] = field(default_factory=dict)
    number: int = 0
    since: int = 0
    pieces: list[TableState] = field(default_factory=list)
    reading: Iterator[TableState] | None = None
    alive: int | None = None
    touched: set[int] = field(default_factory=set)

    def open(self, keys: list[int]) -> None:
        """A pull and the push for it."""
        distinct = np.array(sorted(set(keys)), np.uint64)
        rows = self.table.open(distinct, None, 3, math.nan, NEVER)
        self.table.rows[rows[rows >= 0], 0] += 1.0
        self.touched |= {*keys}

    def freeze(self, rows_max: int, *, whole: bool) -> None:
        """Begin the next snapshot; a difference, if the one before was read to its end."""
        read = self.number if self.reading is None else 0
        self.number, self.since = self.number + 1, 0 if whole else read
        self.side = self.table.freeze(self.number, self.since)
        keys, _ = self.table.snapshot()
        self.expected[self.number] = content_of(self.table.content(self.table.find(keys)), -2)
        self.removed = self.table.changes.removed()
        if self.since and self.alive is not None:
            assert len(np.unique(self.removed)) == len(self.removed) <= self.alive
        self.alive, self.changed, self.touched = len(self.table), self.touched, set()
        self.pieces = []
        self.reading = self.table.changes.chunks(contextlib.nullcontext(), rows_max)

    def read(self, pieces: int) -> None:
        """Read some more pieces; at the end of them the snapshot is on disk, and is looked at."""
        for _ in range(pieces if self.reading is not None else 0):
            assert self.reading is not None
            piece = next(self.reading, None)
            if piece is not None:
                self.pieces.append(piece)
                continue
            self.reading = None
            self._commit()
            return

    def _commit(self) -> None:
        state = TableState.join(self.pieces)
        assert len(np.unique(state.keys)) == len(state.keys), "a row was read twice"
        if self.since:
            assert self.changed >= set(state.keys.tolist()), "a difference holds what has not changed"
            state = changed(self.disk[self.since][0], state, self.removed)
        self.disk[self.number] = state, self.side
        cutoff = int(self.side["age"][0, 1]) if self.policy.tracks_use else -2
        never = {key: value for key, value in content_of(state, -2).items() if value[1] < 0}
        assert content_of(state, cutoff) | never == self.expected[self.number]

    def crash(self) -> None:
        """Go on from the last snapshot on disk, in a new table; what was read of another one is lost."""
        self.table = BoundedTable(1, self.policy)
        self.reading, self.number, self.alive, self.touched = None, max(self.disk, default=0), None, set()
        if self.disk:
            state, side = self.disk[self.number]
            self.table.restore(state, [side], self.number)


steps = st.lists(
    st.lists(st.integers(0, 14) | st.just(int(BIAS_KEY)), min_size=1, max_size=6)
    | st.integers(1, 4)
    | st.tuples(st.integers(1, 4), st.booleans())
    | st.none(),
    max_size=60,
)


@pytest.mark.parametrize("policy", [KEEPS_ALL, EXPIRES, CEILING, BOTH], ids=["all", "age", "ceiling", "both"])
@settings(max_examples=150)
@given(steps)
def test_every_snapshot_is_the_table_at_its_freeze(policy: TablePolicy, steps: list[Any]) -> None:
    """Rows are born, change, go and come back, before, between and after the pieces that are read, with crashes."""
    with slow_sweep(2):
        written = Written(BoundedTable(1, policy), policy)
        for step in steps:
            match step:
                case list():
                    written.open(step)
                case int():
                    written.read(step)
                case (rows_max, whole):
                    written.freeze(rows_max, whole=whole)
                case None:
                    written.crash()
        written.read(1000)


def test_long_chains_of_differences_rebuild_every_snapshot() -> None:
    """A thousand batches under a policy that drops most of what it sees, differences, and crashes in between."""
    rng = np.random.default_rng(3)
    for policy in (EXPIRES, CEILING, BOTH, KEEPS_ALL):
        written = Written(BoundedTable(1, policy), policy)
        for batch in range(1000):
            written.open(rng.integers(0, 40, 5).tolist())
            if batch % 7 == 0:
                written.read(1000)
                written.freeze(3, whole=batch == 0)
            elif batch % 31 == 0:
                written.crash()
            else:
                written.read(int(rng.integers(0, 3)))
        written.read(1000)
        assert 100 < len(written.disk) < 143


def test_a_row_that_went_and_came_back_is_removed_and_there() -> None:
    """Its number may be another key's by now: the difference says that the key went, and what its new row is."""
    table = BoundedTable(1, TablePolicy(expire_after_records=10))

    def open_rows(keys: list[int], value: float, records: int) -> None:
        at = table.open(np.array(keys, np.uint64), None, records, math.nan, NEVER)
        table.rows[at, 0] = value

    open_rows([1, 2], 5.0, 1)
    table.freeze(1, 0)
    whole = TableState.join([*table.changes.chunks(contextlib.nullcontext())])
    open_rows([3], 6.0, 50)
    open_rows([4], 7.0, 50)  # 1 and 2 are gone, and 4 has the row of one of them
    open_rows([1], 8.0, 1)
    table.freeze(2, 1)
    assert sorted(table.changes.removed().tolist()) == [1, 2]
    difference = TableState.join([*table.changes.chunks(contextlib.nullcontext())])
    assert content_of(difference, -2).keys() == {1, 4}
    both = TableState.join([whole.take(~np.isin(whole.keys, [1, 2])), difference])
    assert {key: row for key, (row, _) in content_of(both, -2).items()} == {1: 8.0, 4: 7.0}


def test_keys_that_come_and_go_between_two_snapshots_are_never_remembered() -> None:
    """A stream of keys that are seen once: what has to be remembered is bounded by what the last snapshot held."""
    table = BoundedTable(1, TablePolicy(rows_max=64))
    table.open(np.arange(50, dtype=np.uint64), None, 1, math.nan, NEVER)
    table.freeze(1, 0)
    for first in range(1000, 101_000, 50):
        table.open(np.arange(first, first + 50, dtype=np.uint64), None, 50, math.nan, NEVER)
    assert table.changes.memory_bytes <= 2 * 4096 + 8 * 50
    table.freeze(2, 1)
    assert sorted(table.changes.removed().tolist()) == list(range(50))


def test_before_the_first_snapshot_no_removed_key_is_remembered() -> None:
    """There is nothing yet to which a snapshot could be a difference."""
    table = BoundedTable(1, TablePolicy(rows_max=8))
    for first in range(0, 8000, 8):
        table.open(np.arange(first, first + 8, dtype=np.uint64), None, 8, math.nan, NEVER)
    table.freeze(1, 0)
    assert not len(table.changes.removed())


@pytest.mark.parametrize("policy", [KEEPS_ALL, EXPIRES], ids=["all", "age"])
def test_a_snapshot_without_a_row_still_says_what_its_rows_would_be(policy: TablePolicy) -> None:
    """An empty table, or one that has not changed: an empty piece with the width, and ticks if they are tracked."""
    table = BoundedTable(3, policy)
    for number in (1, 2):
        table.freeze(number, number - 1)
        (piece,) = table.changes.chunks(contextlib.nullcontext())
        assert piece.rows.shape == (0, 3)
        assert (piece.used is None) is (policy is KEEPS_ALL)
    assert not [*table.changes.chunks(contextlib.nullcontext())], "a snapshot can be read once"


def test_a_snapshot_that_nobody_has_read_gives_way_to_the_next() -> None:
    """The disk was full, and the next snapshot is whole: what is still being read of the old one ends."""
    table = BoundedTable(1, KEEPS_ALL)
    table.open(np.arange(10, dtype=np.uint64), None, 1, math.nan, NEVER)
    table.freeze(1, 0)
    old = table.changes.chunks(contextlib.nullcontext(), 2)
    assert [len(next(old).keys) for _ in range(3)] == [0, 2, 2]
    table.freeze(2, 0)
    assert not [*old]
    assert len(TableState.join([*table.changes.chunks(contextlib.nullcontext(), 3)]).keys) == 10


def test_nothing_is_kept_for_a_snapshot_that_nobody_reads_on() -> None:
    """The disk was full: until the next snapshot, each row that changes would be copied, and stay in memory."""
    table = BoundedTable(1, KEEPS_ALL)
    log, keys = table.changes, np.arange(10, dtype=np.uint64)
    table.open(keys, None, 1, math.nan, NEVER)
    table.freeze(1, 0)
    old, pieces = log.reading, log.chunks(contextlib.nullcontext(), 2)
    assert [len(next(pieces).keys) for _ in range(2)] == [0, 2]
    log.forget(old)
    assert log.reading is None
    assert not [*pieces]
    table.freeze(2, 0)
    log.forget(old)  # comes too late to harm the one that has begun meanwhile
    assert len(TableState.join([*log.chunks(contextlib.nullcontext(), 3)]).keys) == 10


@pytest.mark.parametrize("policy", [KEEPS_ALL, TablePolicy(rows_max=30_000)], ids=["all", "ceiling"])
def test_a_thread_that_reads_beside_one_that_learns_gets_the_freeze(policy: TablePolicy) -> None:
    """Rows are opened under the lock and changed outside of it, as a learner does that works on the table's own."""
    table, lock, rng = BoundedTable(2, policy), threading.RLock(), np.random.default_rng(7)
    base = TableState(np.empty(0, np.uint64), np.empty((0, 2), np.float32))

    def learn() -> None:
        keys = np.unique((rng.random(400) ** 2 * 60_000).astype(np.uint64))
        with lock:
            at = table.open(keys, None, len(keys), math.nan, table.tick)
        rows = table.rows
        rows[at[at >= 0]] += np.float32(0.5)

    def read(pieces: list[TableState], begun: threading.Event, goes_on: threading.Event) -> None:
        for piece in table.changes.chunks(lock, 64):
            pieces.append(piece)
            begun.set()
            goes_on.wait(60)

    for _ in range(300):
        learn()
    for number in range(1, 5):
        with lock:
            table.freeze(number, number - 1)
            removed, (keys, rows) = table.changes.removed(), table.snapshot()
        pieces: list[TableState] = []
        begun, goes_on = threading.Event(), threading.Event()
        reader = threading.Thread(target=read, args=(pieces, begun, goes_on))
        reader.start()
        assert begun.wait(60)
        learn()  # at least this batch comes in between
        goes_on.set()
        while reader.is_alive():
            learn()
        difference = TableState.join(pieces)._replace(used=None)
        base = changed(base, difference, removed)
        order, wanted = np.argsort(base.keys), np.argsort(keys)
        assert np.array_equal(base.keys[order], keys[wanted])
        assert np.array_equal(base.rows[order], rows[wanted])
