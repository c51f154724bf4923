"""Generations and snapshots as shards, stores and workers keep them apart: what is of when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actors.ports import Decoded, StaleGenerationError, StoreError
from actors.shard import ParameterShard
from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.batch import BatchId
from learning.encoding import NumericEncoder
from learning.exchange import Moment, Pull, Rows
from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.job_state import JobPlan, JobState
from learning.policy import TablePolicy
from learning.table_state import TableState
from tests.direct import ListSource, Rig, changed, coordinator_for, rows_by_key, taken
from tests.ratings_stream import ratings
from tests.streams import cut, stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.coordinator import Coordinator
    from learning.batch import Batch
    from learning.job_messages import TakeSnapshot

LEARNER = Ftrl(alpha=0.1)
NEXT = Moment(generation=2, snapshot=4, since=0)


def next_generation(coordinator: Coordinator) -> None:
    """The job has gone back to a snapshot."""
    coordinator.begin(JobPlan([(0,)], JobState(4, {}, 0, 0, LEARNER.metrics()), NEXT.generation))


def pull(first: int, keys: list[int], worker: int = 0) -> Pull:
    """A pull of the worker's partition."""
    nothing, batch_id = np.empty(0, np.int32), BatchId(worker, first, first + 10)
    return Pull(batch_id, 10, float("nan"), (len(keys),), (0,), np.array(keys, np.uint64), nothing, None)


def learn(store: ShardedStore | LocalStore, batches: list[Batch]) -> None:
    """A worker's batches, all of them acknowledged at the end."""
    for batch in batches:
        store.pull(batch)
        pulled = store.wait()
        LEARNER.learn(pulled.tables, batch)
        store.push(pulled)
    store.flush()


def encoded(records: int, worker: int, size: int = 50) -> list[Batch]:
    """Batches of a worker's own partition, as its learner sees them."""
    return cut(NumericEncoder().encode(stream(records, seed=worker, partition=worker)), size)


@dataclass
class Told(ListSource):
    """Calls a function before it gives batch number `at`."""

    at: int = 0
    told: Callable[[], None] = lambda: None

    def poll(self, timeout_s: float) -> Decoded | None:
        """The next batch."""
        if self.given == self.at:
            self.told()
        return super().poll(timeout_s)


def test_a_shard_refuses_messages_of_another_generation_and_keeps_its_rows() -> None:
    """A worker that was thought dead wakes up, or a shard missed that the job went back: neither may be heard."""
    shard = ParameterShard(3, LEARNER)
    shard.exchange(0, Moment(), None, pull(0, [1, 2]))
    before = rows_by_key([shard])
    sentence = r"shard 3 is in generation 1 of the job and was sent a message of generation 2; it is refused"
    with pytest.raises(StaleGenerationError, match=sentence):
        shard.exchange(0, NEXT, None, pull(10, [7]))
    with pytest.raises(StaleGenerationError):
        shard.freeze(NEXT)
    assert rows_by_key([shard]) == before
    shard.restore(shard.snapshot(), moment=NEXT)
    assert isinstance(shard.exchange(0, NEXT, None, pull(10, [1, 7])), Rows)
    with pytest.raises(
        StaleGenerationError, match="generation 2 of the job and was sent a message of generation 1"
    ):
        shard.exchange(0, Moment(), None, pull(20, [9]))
    assert rows_by_key([shard]).keys() == {1, 2, 7}


def test_a_shard_that_begins_a_generation_with_nothing_refuses_the_one_before() -> None:
    """The first snapshot was never finished: all begin anew, and what is left of the old generation is refused."""
    shard = ParameterShard(0, LEARNER)
    shard.begin(Moment(2))
    with pytest.raises(StaleGenerationError):
        shard.exchange(0, Moment(1), None, pull(0, [1]))
    assert isinstance(shard.exchange(0, Moment(2), None, pull(0, [1])), Rows)


def test_a_shard_refuses_what_comes_from_before_the_snapshot_that_has_begun() -> None:
    """A writer that is late must not take the rows of the next snapshot for those of its own."""
    shard = ParameterShard(0, LEARNER)
    shard.freeze(Moment(1, 2, 0))
    with pytest.raises(
        StoreError, match="has begun snapshot 2 and was sent a message from before it, of snapshot 1"
    ):
        shard.freeze(Moment(1, 1, 0))


def test_a_worker_ends_when_the_job_has_gone_back() -> None:
    """It learns of it by the answer to its next report, and says so in a sentence."""
    coordinator = coordinator_for(LEARNER)
    source = Told(cut(stream(1000), 50), at=5, told=lambda: next_generation(coordinator))
    rig = Rig(LEARNER, LocalStore(LEARNER), source, coordinator)
    with pytest.raises(
        StaleGenerationError, match="worker 0 is of generation 1 of the job, which is in generation 2"
    ):
        rig.build().run()
    assert source.given < 10
    assert coordinator.status().records == 0, "what it reported counts for nothing"


def test_a_worker_that_stands_at_a_barrier_ends_when_the_job_goes_back() -> None:
    """The other worker has died, so the barrier is never lowered: the next generation is what ends the wait."""
    coordinator = coordinator_for(LEARNER, workers=2, interval_records=100)
    rig = Rig(LEARNER, LocalStore(LEARNER), ListSource(cut(stream(1000), 50)), coordinator)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            next_generation(coordinator)

    rig.sleep = sleep
    with pytest.raises(StaleGenerationError):
        rig.build().run()
    assert len(waits) == 5


@pytest.mark.parametrize("shards", [1, 2])
def test_the_first_call_after_a_barrier_freezes_what_was_pushed_before_it(shards: int) -> None:
    """Two workers go on at once, one of them first; what is read later is the barrier's state, base or difference."""
    direct = DirectShards(shards, LEARNER)
    stores = [ShardedStore(worker, direct, LEARNER) for worker in range(2)]
    batches = [encoded(800, worker) for worker in range(2)]
    disk: list[TableState] | None = None
    for number in range(1, 5):
        part = slice(4 * number - 4, 4 * number)
        for worker in (0, 1):
            learn(stores[worker], batches[worker][part][:2])
        expected = [rows_by_key([shard]) for shard in direct.shards]
        moment = Moment(1, number, number - 1)
        for worker in (1, 0):  # the second one comes to a snapshot that has begun
            stores[worker].advance(moment)
            learn(stores[worker], batches[worker][part][2:])
        assert [rows_by_key([shard]) for shard in direct.shards] != expected
        for shard in direct.shards:
            shard.freeze(moment)  # what the writer does, too late to matter
        changes = [taken(shard)["weights"] for shard in direct.shards]
        if disk is None:
            disk = [change.state for change in changes]
        else:
            assert all(len(c.state.keys) < len(rows) for c, rows in zip(changes, expected, strict=True))
            disk = [changed(old, c.state, c.removed) for old, c in zip(disk, changes, strict=True)]
        assert [dict(zip(s.keys.tolist(), map(tuple, s.rows), strict=True)) for s in disk] == expected


@dataclass
class LateReader:
    """Reads each snapshot while the worker has gone on, and compares it with what was there when it was commanded."""

    holders: list[Any]
    commanded: TakeSnapshot | None = None
    expected: dict[str, dict[int, Any]] = field(default_factory=dict)
    disk: dict[str, TableState] = field(default_factory=dict)
    read: int = 0

    def begin(self, command: TakeSnapshot) -> None:
        """A snapshot is commanded; nobody looks at it for a while."""
        self.settle()
        self.commanded, self.expected = command, self._content()

    def settle(self) -> None:
        """Read it now."""
        if self.commanded is None:
            return
        for holder in self.holders:
            holder.freeze(self.commanded.moment)
        parts = [taken(holder) for holder in self.holders]
        for name in parts[0]:
            state = TableState.join([part[name].state for part in parts])
            if self.commanded.moment.since:
                removed = np.concatenate([part[name].removed for part in parts])
                state = changed(self.disk[name], state, removed)
            self.disk[name] = state
        assert {name: _by_key(state) for name, state in self.disk.items()} == self.expected
        self.commanded, self.read = None, self.read + 1

    def _content(self) -> dict[str, dict[int, Any]]:
        tables = [holder.snapshot() for holder in self.holders]
        return {name: _by_key(TableState.join([table[name] for table in tables])) for name in tables[0]}


def _by_key(state: TableState) -> dict[int, Any]:
    names = [""] * len(state.keys) if state.names is None else state.names.tolist()
    return dict(zip(state.keys.tolist(), zip(map(tuple, state.rows), names, strict=True), strict=True))


@pytest.mark.parametrize("shards", [0, 1, 3])
@pytest.mark.parametrize("learner", [LEARNER, Factors(factors=4)], ids=["ftrl", "factors"])
def test_rows_and_names_are_read_late_as_they_were_at_the_barrier(learner: Any, shards: int) -> None:
    """Tables of this process (0 shards) or shards, named ones too, while the worker is batches further."""
    records = ratings(3000) if isinstance(learner, Factors) else stream(3000)
    coordinator = coordinator_for(learner, interval_records=300)
    direct = DirectShards(shards, learner) if shards else None
    store = LocalStore(learner) if direct is None else ShardedStore(0, direct, learner)
    reader = LateReader([store] if direct is None else [*direct.shards])
    source = ListSource(cut(records, 50))
    rig = Rig(learner, store, source, coordinator, on_snapshot=reader.begin)
    rig.build().run()
    reader.settle()
    assert reader.read >= 5
    for table in learner.named:
        names = reader.disk[table].names
        assert names is not None
        assert all(names.tolist()), "every row has its name"


def test_a_snapshot_holds_the_tick_of_each_rows_last_use_at_the_barrier() -> None:
    """Rows are wanted again before the snapshot is read: the ticks that it holds are the older ones."""
    shard = ParameterShard(0, LEARNER, {"weights": TablePolicy(expire_after_records=1000)})
    for first, keys in ((0, [1, 2, 3]), (10, [2, 3]), (20, [3])):
        answer = shard.exchange(0, Moment(), None, pull(first, keys, worker=0))
        assert isinstance(answer, Rows)
        shard._open.clear()  # the push does not matter here
    shard.exchange(0, Moment(1, 1, 0), None, pull(30, [1, 2, 4]))
    state = taken(shard)["weights"].state
    assert state.used is not None
    assert dict(zip(state.keys.tolist(), state.used.tolist(), strict=True)) == {1: 1, 2: 2, 3: 3}


def test_a_difference_says_which_rows_went_also_when_its_rows_are_read_first() -> None:
    """The ceiling has moved them out: whoever rebuilds the table from files must let them go too."""
    shard = ParameterShard(0, LEARNER, {"weights": TablePolicy(rows_max=4)})
    keys = [[1, 2, 3, 4], [5, 6, 7], [8, 9]]
    for first, (number, wanted) in zip((0, 10, 20), enumerate(keys), strict=True):
        shard.exchange(0, Moment(1, number, max(number - 1, 0)), None, pull(first, wanted))
        shard._open.clear()  # the push does not matter here
        if number == 1:
            assert sorted(taken(shard)["weights"].state.keys.tolist()) == [1, 2, 3, 4]
    change = taken(shard)["weights"]
    assert len(change.removed) == 3
    whole = TableState(np.array(keys[0], np.uint64), np.zeros((4, 2), np.float32), None, np.ones(4, np.int64))
    rows = changed(whole, change.state, change.removed)
    assert len(rows.keys) == 4
    assert {5, 6, 7} < set(rows.keys.tolist())
