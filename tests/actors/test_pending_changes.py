"""What a drift asks for, and no snapshot has brought about yet: through ends, failures and shards that come late."""

from __future__ import annotations

import numpy as np

from actors.shard import ParameterShard
from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.coordination import Brain
from learning.drift_adwin import Adwin
from learning.drift_events import WatchSettings
from learning.exchange import Moment
from learning.ftrl import Ftrl
from learning.job_messages import (
    Arrived,
    Reported,
    SnapshotFailed,
    SnapshotWritten,
    StopAsked,
    TakeSnapshot,
    Watched,
)
from learning.job_state import JobPlan, JobState
from learning.metrics import DelayHistogram, Prequential
from learning.observing import series_of
from learning.reactions import Forget, Renew
from learning.watching import RENEW, Watching, WatchPlan
from tests.streams import stream

STATE = {"encoder.keys": np.empty(0, np.uint64), "encoder.stats": np.empty((0, 3))}


def plan(*reactions: Forget | Renew) -> WatchPlan:
    """A watch over one table, and an expert of two more."""
    settings = WatchSettings(block_records=8)
    return WatchPlan(
        Adwin(), series_of(()), settings, 64, drift=reactions, tables=(0, 1), experts={"fast": (1, 2)}
    )


def drifted(brain: Brain) -> list[object]:
    """Losses that rise, as a worker tells them."""
    commands: list[object] = []
    for level in (0.1, 3.0):
        losses = np.random.default_rng(0).normal(level, 0.05, 2000)
        watched = [Watched(0, losses, np.zeros((2, 2000)))]
        metrics = Prequential.zero()
        metrics.update(np.full(2000, 0.5), np.ones(2000, np.float32))
        commands += brain.handle(
            Reported(0, brain.moment.generation, metrics, DelayHistogram(), 0, [], {}, watched=watched)
        )
    return commands


def begun(state: JobState, generation: int) -> Brain:
    """The brain of a generation that forgets at a drift."""
    return Brain(JobPlan([(0,)], state, generation, watch=plan(Forget(keep=0.25))))


def arrived(brain: Brain, *, finished: bool = False) -> TakeSnapshot:
    """The snapshot that follows as the only worker stands still."""
    barrier = brain.directive.barrier
    found = brain.handle(Arrived(0, brain.moment.generation, barrier, STATE, finished))
    (command,) = [c for c in found if isinstance(c, TakeSnapshot)]
    return command


def test_an_end_in_between_forgets_no_change() -> None:
    """Drift, then Ctrl-C or a scaling before the snapshot: the next generation asks for one, and the change is made."""
    brain = begun(JobState(0, {}, 0, 0, Prequential.zero()), 1)
    brain.handle(StopAsked())
    drifted(brain)
    last = arrived(brain, finished=True)
    assert last.final
    assert last.state.changes == ()
    again = begun(last.state, 2)
    drifted(again)
    command = arrived(again)
    assert 0.0 < dict(command.state.changes)[0] <= 0.25
    assert {number for number, *_ in command.moment.changes} == {command.moment.snapshot}


def test_changes_of_a_snapshot_that_failed_are_told_until_one_is_written() -> None:
    """A shard that had nothing to do in between has not seen the moment that had them."""
    brain = begun(JobState(0, {}, 0, 0, Prequential.zero()), 1)
    drifted(brain)
    first = arrived(brain)
    assert first.moment.changes
    brain.handle(SnapshotFailed(1))
    drifted(brain)
    brain.handle(StopAsked())
    second = arrived(brain, finished=True)
    assert second.moment.changes == first.moment.changes
    brain.handle(SnapshotWritten(2))
    assert brain._changes == []


def learnt(shards: int) -> tuple[LocalStore | ShardedStore, list[ParameterShard | LocalStore]]:
    """A store that has learnt some records, and who holds its rows."""
    learner, batch = Ftrl(), stream(200)
    if shards:
        direct = DirectShards(shards, learner)
        store: LocalStore | ShardedStore = ShardedStore(0, direct, learner)
        holders: list[ParameterShard | LocalStore] = [*direct.shards]
    else:
        local = LocalStore(learner)
        store, holders = local, [local]
    store.pull(batch)
    pulled = store.wait()
    learner.learn(pulled.tables, batch)
    store.push(pulled)
    store.flush()
    return store, holders


def test_a_shard_that_has_missed_a_moment_makes_up_for_its_changes() -> None:
    """One process sees every moment, a shard without a batch only the next: both hold the same rows, to the bit."""
    one, two = Moment(1, 1, 0, ((1, 0, 0.25),)), Moment(1, 2, 0, ((1, 0, 0.25), (2, 0, 0.5)))
    store, local = learnt(0)
    store.advance(one)
    store.advance(two)
    _, shards = learnt(3)
    for number, shard in enumerate(shards):
        if number == 0:
            shard.freeze(one)
        shard.freeze(two)
        shard.freeze(two)  # again: nothing happens twice
    wanted = local[0].snapshot()["weights"]
    rows = {int(k): r.tobytes() for k, r in zip(wanted.keys, wanted.rows, strict=True)}
    found: dict[int, bytes] = {}
    for shard in shards:
        part = shard.snapshot()["weights"]
        found |= {int(k): r.tobytes() for k, r in zip(part.keys, part.rows, strict=True)}
    assert found == rows


def test_an_expert_that_begins_afresh_keeps_nothing_whatever_else_is_forgotten() -> None:
    """Both reactions on one drift, in either order; and what is forgotten twice is forgotten twice."""
    losses = np.concatenate([np.random.default_rng(1).normal(level, 0.05, 2000) for level in (0.1, 3.0)])
    told = [Watched(0, losses, np.zeros((2, 4000)))]
    for reactions in ((Renew("fast"), Forget(keep=0.1)), (Forget(keep=0.1), Renew("fast"))):
        watching = Watching(plan(*reactions), {}, 1)
        watching.see(0, told)
        changes, renewed = watching.take_changes()
        assert dict(changes) == {0: dict(changes)[0], 1: RENEW, 2: RENEW}
        assert renewed == ("fast",)
    twice = Watching(plan(Forget(keep=0.5), Forget(keep=0.5)), {}, 1)
    twice.see(0, told)
    kept = dict(twice.take_changes()[0])[0]
    assert np.log(kept) / np.log(0.25) == round(np.log(kept) / np.log(0.25))
