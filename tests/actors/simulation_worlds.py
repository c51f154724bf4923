"""What simulated jobs learn, and what an undisturbed run computes at each place of its stream, to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from actors.ports import DeadLetter, Decoded
from cluster.local_store import DirectShards
from cluster.store import ShardedStore
from learning.batch import Batch, BatchId
from learning.coordination import assign
from learning.encoding import NumericEncoder
from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.grouping import shard_of_segment
from learning.keys import segment_of
from learning.learner import TableSpec
from learning.metrics import Prequential
from learning.policy import TablePolicy
from learning.table_state import TableState
from learning.worker_state import WorkerState
from tests.actors.simulation_watching import PLAN, Eye, kept, turning
from tests.ratings_stream import ratings
from tests.streams import cut, stream

if TYPE_CHECKING:
    from actors.shard import ParameterShard
    from learning.job_state import JobState
    from learning.watching import WatchPlan
    from learning.worker_state import Arrays
    from tests.actors.simulation_disk import Written
    from tests.actors.simulation_driver import Job

__all__ = ["WORLDS", "Counting", "Universe", "round_robin", "world"]

Content = dict[str, tuple[bytes, bytes, tuple[str, ...], bytes]]
"""Of each table keys, rows, names and last uses, by key."""


@dataclass(frozen=True, slots=True)
class Counting:
    """Counts how often each key was learnt; merged counts add, so any number of workers counts each record once."""

    kind: ClassVar[str] = "counting"
    encodes: ClassVar[bool] = True
    label_range: tuple[float, float] = (0.0, 1.0)
    roles: tuple[str, ...] = ()
    named: dict[str, int] = field(default_factory=dict)

    def specs(self) -> tuple[TableSpec, ...]:
        return (TableSpec("weights", 1, bias=True),)

    def keys(self, batch: Batch) -> tuple[np.ndarray, ...]:
        return (batch.keys,)

    def learn(self, tables: Any, batch: Batch) -> np.ndarray:
        (table,) = tables
        np.add.at(table.rows[:, 0], table.index, np.float32(1.0))
        table.rows[table.bias, 0] += len(batch)
        return self.predict(tables, batch)

    def predict(self, tables: Any, batch: Batch) -> np.ndarray:
        return (np.arange(len(batch)) + 1.0) / (len(batch) + 2.0)  # depends on nothing that others do

    def merge(self, table: int, rows: Any, at: Any, base: Any, end: Any, bias: int, coupling: float) -> int:
        moved = int(np.count_nonzero((rows[at] != base).any(axis=1)))
        rows[at] += end - base
        return moved

    def coupling(self, bases: Any, tables: Any, batch: Batch) -> float:
        return 1.0

    def metrics(self) -> Prequential:
        return Prequential.zero()

    def judge(self, metrics: Any, predictions: np.ndarray, batch: Batch) -> None:
        metrics.update(predictions, batch.labels)


@dataclass(frozen=True)
class _Prefix:
    """What one worker has made of a part of its share."""

    tables: dict[str, TableState]
    waiting: dict[str, Any]
    state: Arrays
    metrics: Any
    records: int
    dead: int
    turn: int | None
    watch: Arrays


@dataclass
class Universe:
    """A stream and a learner; `exact` if what they make of it can be told to the bit."""

    name: str
    learner: Any
    streams: dict[int, list[Decoded]]
    policies: dict[str, TablePolicy] = field(default_factory=dict)
    workers: int = 1
    exact: bool = True
    watch: WatchPlan | None = None

    def __post_init__(self) -> None:
        self.shares = assign(list(self.streams), self.workers)
        self.predicted: dict[tuple[int, int], tuple[BatchId, float]] = {}
        self._prefixes = [self._walk({p: self.streams[p] for p in share}) for share in self.shares]
        self._order = [d.batch.batch_id for d in round_robin(self.streams)]

    def state(self, arrays: Arrays | None = None) -> WorkerState:
        """What a worker knows by itself, at the beginning or from a snapshot on."""
        encodes = self.learner.encodes
        encoder = None if encodes else NumericEncoder(standardize=False, bins_per_sd=0.0)
        made = WorkerState(encoder, **({} if self.watch is None else kept()))
        if arrays is not None:
            made.restore(arrays)
        return made

    def is_end(self, offsets: dict[int, int]) -> bool:
        """True if nothing is left to learn."""
        return all(offsets.get(p) == s[-1].batch.batch_id.next_offset for p, s in self.streams.items())

    def _walk(self, streams: dict[int, list[Decoded]]) -> dict[tuple[int, ...], _Prefix]:
        """An undisturbed worker: what it has made of its share after each batch, by its offsets."""
        shards = DirectShards(1, self.learner, self.policies)
        store = ShardedStore(0, shards, self.learner, has_policies=bool(self.policies))
        state, metrics, eye = self.state(), self.learner.metrics(), Eye(self.watch, self.learner)
        offsets, records, dead = dict.fromkeys(streams, 0), 0, 0
        found = {tuple(offsets.values()): _prefix(shards.shards[0], state, metrics.copy(), (0, 0, None), eye)}
        for decoded in round_robin(streams):
            batch = state.prepare(decoded.batch)
            store.pull(batch)
            pulled, batch = store.wait(), eye.paced(batch)
            fresh = eye.fresh(pulled.tables, batch)
            predictions = self.learner.learn(pulled.tables, batch)
            store.push(pulled)
            store.flush()
            state.judge(predictions, batch)
            eye.see(decoded.batch, fresh, predictions)
            self.learner.judge(metrics, predictions, batch)
            of = batch.batch_id
            for position, value in zip(batch.positions.tolist(), predictions.tolist(), strict=True):
                self.predicted[of.partition, position] = (of, value)
            offsets[of.partition] = of.next_offset
            records, dead = records + decoded.records, dead + len(decoded.dead)
            made = _prefix(shards.shards[0], state, metrics.copy(), (records, dead, of.partition), eye)
            found[tuple(offsets.values())] = made
        return found

    def check_snapshot(
        self, job: Job, written: Written, tables: dict[str, TableState], frozen: list[Any], before: JobState
    ) -> None:
        """A snapshot that was just committed is what the shards held at its moment, and what it is to be."""
        state = written.state
        self._check_delivered(job, state)
        self._check_state(state)
        self._check_journal(job, written, before)
        if tables:
            for name, whole in tables.items():
                cutoffs = [_cutoff(part[name].side) for part in written.parts]
                shares = whole.split(len(cutoffs))
                for cutoff, share, held in zip(cutoffs, shares, frozen, strict=True):
                    same = _content(_young(share, cutoff)) == _content(_young(held[name], cutoff))
                    assert same, f"snapshot {state.number} is not what table {name} held at its moment"
            if self.exact:
                cutoff_of = {name: _cutoff(written.parts[0][name].side) for name in tables}
                young = {name: _young(whole, cutoff_of[name]) for name, whole in tables.items()}
                self._check_tables(state.offsets, young)
                sides = {name: [part[name].side for part in written.parts] for name in tables}
                wanted = self._prefix_of(state.offsets)[0].waiting
                if len(self.shares) == 1:
                    assert _waiting(sides) == wanted, "the waiting keys are others"

    def check_end(self, job: Job, written: Written, shards: list[Any]) -> None:
        """At the end of the stream all is as if nothing had happened."""
        state = written.state
        self._check_delivered(job, state)
        self._check_state(state)
        status = job._coordinator.mind.status() if job._coordinator is not None else None
        assert status is None or _bytes(status.metrics) == _bytes(state.metrics)
        if self.exact:
            held = [actor.mind.snapshot() for actor in shards]
            self._check_tables(
                state.offsets, {name: TableState.join([part[name] for part in held]) for name in held[0]}
            )
        for place, given in job.seen.predictions.items():
            batch_id, value = self.predicted[place]
            for given_id, given_value in given:
                assert given_id == batch_id, f"record {place} was predicted in {given_id} and {batch_id}"
                assert given_value == value or not self.exact, f"record {place} has another prediction"

    def _check_delivered(self, job: Job, state: JobState) -> None:
        """What lies before a snapshot's offsets will not be learnt again, so all of it must be out of the house."""
        for partition, batches in self.streams.items():
            for decoded in batches:
                if decoded.batch.batch_id.next_offset <= state.offsets.get(partition, 0):
                    for position in decoded.batch.positions.tolist():
                        place = (partition, position)
                        assert place in job.seen.predictions, f"record {place} was never predicted"
                    for letter in decoded.dead:
                        assert (partition, letter.offset) in job.seen.letters, (
                            f"letter {letter.place} is lost"
                        )

    def _prefix_of(self, offsets: dict[int, int]) -> list[_Prefix]:
        places = [tuple(offsets.get(p, 0) for p in share) for share in self.shares]
        for place, prefixes in zip(places, self._prefixes, strict=True):
            assert place in prefixes, f"no undisturbed run stands at {place}"
        return [prefixes[place] for place, prefixes in zip(places, self._prefixes, strict=True)]

    def _check_state(self, state: JobState) -> None:
        prefixes = self._prefix_of(state.offsets)
        assert state.records == sum(p.records for p in prefixes), "records are lost, or counted twice"
        assert state.dead == sum(p.dead for p in prefixes), "dead letters are lost, or counted twice"
        assert state.turns == {w: p.turn for w, p in enumerate(prefixes) if p.turn is not None}
        for worker, prefix in enumerate(prefixes):
            ours = {name: array.tobytes() for name, array in state.workers[worker].items()}
            wanted = {name: array.tobytes() for name, array in prefix.state.items()}
            assert ours == wanted, f"the state of worker {worker} is another"
        if self.watch is not None:
            ours, wanted = (
                {n: a.tobytes() for n, a in of.items()} for of in (state.watch, prefixes[0].watch)
            )
            assert ours == wanted, "what is known of drift is another"
        if self.exact:
            metrics = prefixes[0].metrics
            for prefix in prefixes[1:]:
                metrics += prefix.metrics
            assert _bytes(state.metrics) == _bytes(metrics), "the metrics are others"

    def _check_tables(self, offsets: dict[int, int], tables: dict[str, TableState]) -> None:
        prefixes = self._prefix_of(offsets)
        for name, table in tables.items():
            parts = [prefix.tables[name] for prefix in prefixes]
            wanted = parts[0] if len(parts) == 1 else _summed(parts)
            ours = table if wanted.used is not None else replace_used(table)
            assert _content(ours) == _content(wanted), f"table {name} is not what an undisturbed run has"

    def _check_journal(self, job: Job, written: Written, before: JobState) -> None:
        """The batches since the snapshot before, of each partition one behind the other."""
        number, generation = written.moment.snapshot, written.moment.generation
        earlier = [
            w.state for n, w in job.disk.snapshots.items() if n < number and w.moment.generation == generation
        ]
        at = dict(max(earlier, key=lambda state: state.number).offsets if earlier else before.offsets)
        for _, partition, first, following in written.state.journal.tolist():
            assert at.get(partition, 0) == first, f"snapshot {number}: the journal has a gap before {first}"
            at[partition] = following
        ends = {p: o for p, o in at.items() if o}
        assert ends == {p: o for p, o in written.state.offsets.items() if o}, "the journal ends elsewhere"


def replace_used(table: TableState) -> TableState:
    """Without last uses."""
    return table._replace(used=None)


def round_robin(streams: dict[int, list[Decoded]]) -> Iterator[Decoded]:
    """All batches in the order of an undisturbed worker."""
    for i in range(max(map(len, streams.values()))):
        yield from (streams[p][i] for p in sorted(streams) if i < len(streams[p]))


def _prefix(
    shard: ParameterShard, state: WorkerState, metrics: Any, counts: tuple[int, int, int | None], eye: Eye
) -> _Prefix:
    sides = {
        spec.name: [] if table._admission is None else [table._admission.state()]
        for spec, table in zip(shard.held.specs, shard.held.tables, strict=True)
    }
    return _Prefix(shard.snapshot(), _waiting(sides), state.arrays(), metrics, *counts, eye.arrays())


def _content(table: TableState) -> tuple[bytes, bytes, list[str], bytes]:
    order = np.argsort(table.keys)
    names = [] if table.names is None else table.names.take(order).tolist()
    used = b"" if table.used is None else table.used[order].tobytes()
    return table.keys[order].tobytes(), table.rows[order].tobytes(), names if any(names) else [], used


def _young(table: TableState, cutoff: int) -> TableState:
    return table if table.used is None else table.take((table.used > cutoff) | (table.used < 0))


def _cutoff(side: dict[str, Any]) -> int:
    return int(side["age"][0, 1]) if "age" in side else -1


def _summed(parts: list[TableState]) -> TableState:
    keys = np.unique(np.concatenate([part.keys for part in parts]))
    rows = np.zeros((len(keys), parts[0].rows.shape[1]), np.float32)
    for part in parts:
        rows[np.searchsorted(keys, part.keys)] += part.rows
    return TableState(keys, rows)


def _bytes(metrics: Any) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in metrics.arrays().items()}


def _waiting(sides: dict[str, list[dict[str, Any]]]) -> dict[str, dict[int, Any]]:
    """Sights of waiting keys, of each shard those of its own keys: they are all that it will ever be asked."""
    found: dict[str, dict[int, Any]] = {}
    for name, parts in sides.items():
        found[name] = {}
        for shard, side in enumerate(parts):
            owner = shard_of_segment(len(parts))
            if "waiting_keys" in side:
                own = owner[segment_of(side["waiting_keys"])] == shard
                found[name] |= dict(
                    zip(side["waiting_keys"][own].tolist(), side["waiting_counts"][own].tolist(), strict=True)
                )
            for segment, cells in zip(side.get("segments", ()), side.get("cells", ()), strict=True):
                if owner[segment] == shard:
                    found[name][int(segment)] = cells.tobytes()
    return found


def _with_dead(batches: list[Batch], seed: int) -> list[Decoded]:
    """Some batches with bad records, and one that holds nothing else."""
    partition, end = batches[-1].batch_id.partition, batches[-1].batch_id.next_offset
    batches = [*batches, Batch.empty(BatchId(partition, end, end + 2))]
    decoded = []
    for i, batch in enumerate(batches):
        bad = 2 if not len(batch) else (i * 7 + seed) % 3 == 0
        first = batch.batch_id.first_offset
        dead = [DeadLetter("topic", partition, first + j, 9, "bad", b"") for j in range(bad)]
        decoded.append(Decoded(batch, dead))
    return decoded


def _clicks(lengths: list[int], seed: int, size: int = 5) -> dict[int, list[Decoded]]:
    return {
        p: _with_dead(cut(stream(n, seed=seed + p, columns=4, partition=p), size), seed)
        for p, n in enumerate(lengths)
    }


def _ratings(lengths: list[int], seed: int, size: int = 5) -> dict[int, list[Decoded]]:
    return {
        p: _with_dead(
            [_with_texts(batch) for batch in cut(ratings(n, seed=seed + p, partition=p, users=9), size)], seed
        )
        for p, n in enumerate(lengths)
    }


def _with_texts(batch: Batch) -> Batch:
    return replace(batch, role_texts=dict(batch.role_texts or {}))


def _turning(lengths: list[int], seed: int) -> dict[int, list[Decoded]]:
    return {p: _with_dead(turning(n, seed + p, p), seed) for p, n in enumerate(lengths)}


_FTRL, _FACTORS = Ftrl(alpha=0.1, l1=0.05), Factors(factors=3)
_EXACT = TablePolicy(admit_after=2, admission="exact", expire_after_records=30)
_BLOOM = TablePolicy(admit_after=2, waiting_max=4000, expire_after_records=25)
_EXPIRY = TablePolicy(expire_after_records=14)
_ROOM = TablePolicy(rows_max=45)

WORLDS = {
    "ftrl": lambda: Universe("ftrl", _FTRL, _clicks([62], 0)),
    "ftrl, three partitions": lambda: Universe("ftrl", _FTRL, _clicks([30, 10, 21], 1)),
    "factors": lambda: Universe("factors", _FACTORS, _ratings([24, 17], 2)),
    "exact admission": lambda: Universe("", _FTRL, _clicks([35, 27], 3), {"weights": _EXACT}),
    "bloom admission": lambda: Universe("", _FTRL, _clicks([35, 27], 4), {"weights": _BLOOM}),
    "expiry of factors": lambda: Universe(
        "", _FACTORS, _ratings([42], 5), {"items": _EXPIRY, "users": _EXPIRY, "seen": _EXACT}
    ),
    "ceiling": lambda: Universe("", _FTRL, _clicks([70], 6), {"weights": _ROOM}, exact=False),
    "watched": lambda: Universe("", _FTRL, _turning([60, 50], 9), watch=PLAN),
    "two workers": lambda: Universe("", Counting(), _clicks([30, 10, 25], 7), workers=2),
    "three workers": lambda: Universe("", Counting(), _clicks([20, 15, 25, 10, 5], 8), workers=3),
}


@cache
def world(name: str) -> Universe:
    """The world of that name, with what an undisturbed run makes of it."""
    return WORLDS[name]()
