"""A crash changes nothing: rows, names, counts and metrics are those of a job that nothing has happened to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from actors.coordinator import Coordinator
from actors.shard import ParameterShard
from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.admission import counts_of
from learning.deep import Deep
from learning.exchange import Moment
from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.job_state import JobPlan, JobState
from learning.observing import Observer
from learning.policy import TablePolicy
from learning.rehearsal import Rehearsal
from learning.table_state import TableState
from learning.worker_state import WorkerState
from tests.direct import ListSource, Rig, changed, taken
from tests.ratings_stream import ratings
from tests.streams import cut, stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.ports import Decoded, Sides, Tables
    from learning.batch import Batch
    from learning.distillation import Teacher
    from learning.job_messages import TakeSnapshot
    from learning.learner import Learner
    from learning.watching import WatchPlan

RECORDS, SIZE, INTERVAL = 3000, 50, 400

FTRL = Ftrl(alpha=0.1, l1=0.2)
FACTORS = Factors(factors=4)
CHOICES = Factors(factors=4, feedback="implicit", negatives=3)
DEEP = Deep(embedding=4, hidden=(8,), dropout=0.1, step_records=50)
POLICIES: dict[str, TablePolicy] = {
    "exact": TablePolicy(admit_after=3, admission="exact", expire_after_records=600),
    "bloom": TablePolicy(admit_after=2, expire_after_records=400),
    "age": TablePolicy(expire_after_records=300),
}


class CrashError(Exception):
    """The process that learns is gone."""


@dataclass
class Mortal(ListSource):
    """A source that goes on at an offset, tells when it is asked, and takes its worker with it at batch `dies_at`."""

    dies_at: int | None = None
    asked: Callable[[], None] = lambda: None

    def poll(self, timeout_s: float) -> Decoded | None:
        """The next batch."""
        self.asked()
        if self.given == self.dies_at:
            raise CrashError
        return super().poll(timeout_s)


class OnDisk(NamedTuple):
    """A finished snapshot."""

    state: JobState
    tables: Tables
    sides: Sides


@dataclass
class Disk:
    """The snapshots that were finished. One that is commanded is written after `late` more looks into the stream."""

    late: int
    finished: dict[int, OnDisk] = field(default_factory=dict)
    holders: list[Any] = field(default_factory=list)
    waiting: tuple[TakeSnapshot, int] | None = None

    def begin(self, command: TakeSnapshot) -> None:
        """A snapshot is commanded; the one before has been written, for that is what the coordinator waits for."""
        self.write()
        self.waiting = (command, self.late)

    def look(self) -> None:
        """Some time passes."""
        if self.waiting is not None:
            command, left = self.waiting
            self.waiting = command, left - 1
            if left == 0:
                self.write()

    def write(self) -> None:
        """Write what waits."""
        if self.waiting is None:
            return
        (command, _), self.waiting = self.waiting, None
        for holder in self.holders:
            holder.freeze(command.moment)
        parts = [taken(holder) for holder in self.holders]
        tables = {}
        for name in parts[0]:
            state = TableState.join([part[name].state for part in parts])
            if since := command.moment.since:
                before = self.finished[since].tables[name]
                state = changed(before, state, np.concatenate([part[name].removed for part in parts]))
            tables[name] = state
        sides = [{name: change.side for name, change in part.items()} for part in parts]
        self.finished[command.moment.snapshot] = OnDisk(command.state, tables, sides)


def shards_from(
    count: int, learner: Learner, policies: dict[str, TablePolicy], snapshot: OnDisk, moment: Moment
) -> list[ParameterShard]:
    """So many shards that begin at a snapshot."""
    split = {name: state.split(count) for name, state in snapshot.tables.items()}
    of_shard = {name: policy.of_shard(count) for name, policy in policies.items()}
    made = []
    for s in range(count):
        own = [{name: counts_of(side, s, count) for name, side in part.items()} for part in snapshot.sides]
        shard = ParameterShard(s, learner, of_shard)
        shard.restore(
            {name: states[s] for name, states in split.items()}, own, moment, snapshot.state.records
        )
        made.append(shard)
    return made


@dataclass
class Job:
    """A job of one worker; generation after generation, it goes on where the disk stands."""

    learner: Learner
    policies: dict[str, TablePolicy]
    batches: list[Batch]
    disk: Disk
    in_flight: int = 2
    watch: WatchPlan | None = None
    predictions: dict[int, np.ndarray] = field(default_factory=dict)
    rehearses: bool = False
    teacher: Callable[[], Teacher] | None = None
    """Makes a generation's teacher, as each process loads its own."""

    def live(self, generation: int, shards: int, dies_after: int | None = None) -> None:
        """A generation over so many shards (0: tables of this process), until it dies or the stream ends."""
        newest = max(self.disk.finished, default=0)
        state = JobState(0, {}, 0, 0, self.learner.metrics())
        if newest:
            state = self.disk.finished[newest].state
        plan = JobPlan(
            [(0,)],
            state,
            generation,
            newest,
            snapshot_interval_records=INTERVAL,
            deltas_max=3,
            watch=self.watch,
        )
        coordinator, store = Coordinator(plan), self._store(shards, newest, plan.moment)
        source = Mortal(
            [batch for batch in self.batches if batch.batch_id.first_offset >= state.offsets.get(0, 0)],
            dies_at=dies_after,
            asked=self.disk.look,
        )
        own = WorkerState(
            rehearsal=Rehearsal(200, 0.2) if self.rehearses else None,
            teacher=self.teacher() if self.teacher else None,
        )
        if state.workers:
            own.restore(state.workers[0])
        rig = Rig(
            self.learner, store, source, coordinator, in_flight=self.in_flight, state=own,
            on_snapshot=self.disk.begin, observer=Observer(self.learner) if self.watch else None,
            lag_records=self.watch.lag_records if self.watch else None,
        )  # fmt: skip
        try:
            rig.build().run()
        except CrashError:
            self.disk.waiting = None
        else:
            self.disk.write()
        for batch, predicted in zip(source.batches, rig.predicted.predictions, strict=False):
            self.predictions[batch.batch_id.first_offset] = predicted

    def _store(self, shards: int, newest: int, moment: Moment) -> LocalStore | ShardedStore:
        snapshot = self.disk.finished.get(newest)
        if not shards:
            local = LocalStore(self.learner)
            if snapshot is not None:
                local.restore(snapshot.tables, snapshot.sides, moment)
            self.disk.holders = [local]
            return local
        if snapshot is None:
            direct = DirectShards(shards, self.learner, self.policies)
            for shard in direct.shards:
                shard.begin(moment)
        else:
            direct = DirectShards.of(shards_from(shards, self.learner, self.policies, snapshot, moment))
        self.disk.holders = [*direct.shards]
        return ShardedStore(0, direct, self.learner, has_policies=bool(self.policies))

    def assert_same(self, other: Job) -> None:
        """The last snapshots hold the same, to the bit: rows, names, ticks, counts, metrics, delays, encoder."""
        ours, theirs = (job.disk.finished[max(job.disk.finished)] for job in (self, other))
        for name in ours.tables:
            assert _by_key(ours, name) == _by_key(theirs, name), name
        for field_name in ("offsets", "records", "dead", "turns"):
            assert getattr(ours.state, field_name) == getattr(theirs.state, field_name)
        assert _bytes(ours.state.metrics.arrays()) == _bytes(theirs.state.metrics.arrays())
        assert _bytes(ours.state.delays.arrays()) == _bytes(theirs.state.delays.arrays())
        assert _bytes(ours.state.workers[0]) == _bytes(theirs.state.workers[0])
        assert _bytes(ours.state.watch) == _bytes(theirs.state.watch)
        assert _bytes(self.predictions) == _bytes(other.predictions)


def _bytes(arrays: dict[Any, np.ndarray]) -> dict[Any, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def _by_key(snapshot: OnDisk, name: str) -> dict[int, Any]:
    """Rows that are not too old, which nobody will ever see again."""
    state = snapshot.tables[name]
    names = [""] * len(state.keys) if state.names is None else state.names.tolist()
    used = np.zeros(len(state.keys), np.int64) if state.used is None else state.used
    ages = [side[name]["age"] for side in snapshot.sides if "age" in side[name]]
    young = (used > int(ages[0][0, 1])) | (used < 0) if ages else np.ones(len(used), np.bool_)
    listed = zip(
        state.keys.tolist(), map(bytes, state.rows), names, used.tolist(), young.tolist(), strict=True
    )
    return {key: (row, text, tick) for key, row, text, tick, is_young in listed if is_young}


def records_for(learner: Learner, records: int, size: int, seed: int = 0) -> list[Batch]:
    """A stream in batches, each record produced a little earlier than the one before it."""
    whole = ratings(records, seed=seed) if isinstance(learner, Factors) else stream(records, seed=seed)
    return cut(replace(whole, produced_s=-0.01 * np.arange(records, dtype=np.float64)), size)


def undisturbed(learner: Learner, policies: dict[str, TablePolicy], batches: list[Batch]) -> Job:
    """The job that nothing happens to, over one shard."""
    job = Job(learner, policies, batches, Disk(late=0))
    job.live(1, 1)
    return job


@pytest.mark.parametrize(
    ("learner", "policies"),
    [
        (FTRL, {}),
        (FTRL, {"weights": POLICIES["exact"]}),
        (FTRL, {"weights": POLICIES["bloom"]}),
        (FACTORS, {}),
        (FACTORS, {"items": POLICIES["exact"], "users": POLICIES["age"], "seen": POLICIES["bloom"]}),
        (CHOICES, {"users": POLICIES["age"]}),
        (DEEP, {}),
        (DEEP, {"embeddings": POLICIES["age"]}),
    ],
    ids=["ftrl", "ftrl-exact", "ftrl-bloom", "ratings", "ratings-policies", "choices", "deep", "deep-age"],
)
@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_job_that_crashes_again_and_again_ends_as_one_that_does_not(
    learner: Learner, policies: dict[str, TablePolicy], in_flight: int
) -> None:
    """Before the first snapshot, while one is being written, right after; over two shards, three, one and five."""
    batches = records_for(learner, RECORDS, SIZE)
    job = Job(learner, policies, batches, Disk(late=3), in_flight)
    for generation, (shards, dies_after) in enumerate(
        [(2, 5), (2, 23), (3, 9), (1, 11), (1, 30), (5, None)], 1
    ):
        job.live(generation, shards, dies_after)
    assert len(job.disk.finished) > 5
    job.assert_same(undisturbed(learner, policies, batches))


@pytest.mark.parametrize("learner", [FTRL, FACTORS, DEEP], ids=["ftrl", "ratings", "deep"])
def test_one_process_goes_on_as_shards_and_shards_as_one_process(learner: Learner) -> None:
    """`jobs.train --local` and a cluster take turns on one run."""
    batches = records_for(learner, RECORDS, SIZE)
    job = Job(learner, {}, batches, Disk(late=2))
    for generation, (shards, dies_after) in enumerate([(0, 20), (3, 22), (0, 12), (2, None)], 1):
        job.live(generation, shards, dies_after)
    job.assert_same(undisturbed(learner, {}, batches))


@pytest.mark.parametrize("seed", range(8))
def test_crashes_by_seed_change_nothing(seed: int) -> None:
    """Wherever the crashes fall, whatever the shards, however late snapshots are written."""
    rng = np.random.default_rng(seed)
    learner: Learner = FTRL if seed % 2 else FACTORS
    table = "weights" if seed % 2 else "items"
    policies = {table: [*POLICIES.values()][seed // 2 % 3]} if seed < 6 else {}
    batches = records_for(learner, 1500, 30, seed)
    job = Job(learner, policies, batches, Disk(late=int(rng.integers(0, 9))), int(rng.integers(1, 3)))
    for generation in range(1, 9):
        job.live(generation, int(rng.integers(1, 5)), int(rng.integers(1, 30)))
    job.live(9, int(rng.integers(1, 5)))
    job.assert_same(undisturbed(learner, policies, batches))


@pytest.mark.parametrize("learner", [FTRL, DEEP], ids=["ftrl", "deep"])
def test_old_records_are_learnt_again_the_same_after_a_crash(learner: Learner) -> None:
    """The worker's sample is in the snapshot; what it draws comes from counts. It does change what is learnt."""
    batches = records_for(learner, 1500, SIZE)
    job = Job(learner, {}, batches, Disk(late=2), rehearses=True)
    for generation, (shards, dies_after) in enumerate([(2, 12), (3, 15), (1, None)], 1):
        job.live(generation, shards, dies_after)
    calm = Job(learner, {}, batches, Disk(late=0), rehearses=True)
    calm.live(1, 1)
    job.assert_same(calm)
    without = undisturbed(learner, {}, batches).predictions
    assert _bytes(without).keys() == _bytes(calm.predictions).keys()
    assert _bytes(without) != _bytes(calm.predictions)
    assert {len(of) for of in calm.predictions.values()} == {SIZE}, "old records have no predictions"
