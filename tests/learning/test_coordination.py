"""The coordinator's brain, message by message."""

from __future__ import annotations

import numpy as np

from learning.coordination import Brain, assign
from learning.job_messages import Arrived, Directive, EndJob, Reported, SnapshotTaken, StopAsked, TakeSnapshot
from learning.metrics import DelayHistogram, Prequential

NO_STATS = (np.empty(0, np.uint64), np.empty((0, 3)))


def reported(worker: int, first: int, count: int, dead: int = 0) -> Reported:
    """A batch of `count` records of the worker's own partition."""
    metrics = Prequential.zero()
    metrics.update(np.full(count, 0.5), np.ones(count, np.float32))
    offsets = {worker: first + count + dead}
    return Reported(worker, metrics, DelayHistogram(), dead, batches=1, next_offsets=offsets, lag=0)


def arrived(worker: int, barrier: int, offset: int, *, finished: bool = False) -> Arrived:
    """A worker at a barrier, with its partition's next offset."""
    return Arrived(worker, barrier, {worker: offset}, NO_STATS, finished)


def test_every_partition_has_one_worker_and_every_worker_a_partition() -> None:
    """Dealt in turn; more workers than partitions make no idle ones."""
    assert assign([3, 0, 2, 1, 4], 2) == [(0, 2, 4), (1, 3)]
    assert assign([0, 1], 5) == [(0,), (1,)]


def test_a_due_snapshot_waits_for_every_worker_and_then_lets_them_go() -> None:
    """Two workers, one snapshot: barrier up, both arrive, copy, barrier down."""
    brain = Brain([(0,), (1,)], Prequential.zero(), snapshot_interval_records=10)
    assert brain.handle(reported(0, 0, 6)) == []
    assert brain.directive == Directive(0, 0, stop=False)
    brain.handle(reported(1, 0, 4))
    assert brain.directive == Directive(1, 0, stop=False)
    assert brain.handle(arrived(0, 1, 6)) == []
    (command,) = brain.handle(arrived(1, 1, 4))
    assert isinstance(command, TakeSnapshot)
    assert (command.number, command.offsets, command.records, command.final) == (1, {0: 6, 1: 4}, 10, False)
    assert brain.handle(SnapshotTaken(1)) == []
    assert brain.directive == Directive(1, 1, stop=False)


def test_the_job_ends_after_the_last_snapshot() -> None:
    """All workers finish: one final snapshot, then the end."""
    brain = Brain([(0,), (1,)], Prequential.zero())
    brain.handle(reported(0, 0, 5))
    assert brain.handle(arrived(0, 0, 5, finished=True)) == []
    (command,) = brain.handle(arrived(1, 0, 0, finished=True))
    assert isinstance(command, TakeSnapshot)
    assert command.final
    assert brain.handle(SnapshotTaken(1)) == [EndJob()]


def test_a_worker_that_finishes_while_another_waits_at_the_barrier_counts_as_arrived() -> None:
    """The end of one worker's partitions must not block the others' snapshot."""
    brain = Brain([(0,), (1,)], Prequential.zero(), snapshot_interval_records=5)
    brain.handle(reported(0, 0, 5))
    brain.handle(arrived(0, 1, 5))
    (command,) = brain.handle(arrived(1, 0, 3, finished=True))
    assert isinstance(command, TakeSnapshot)
    assert not command.final
    assert brain.handle(SnapshotTaken(1)) == []
    (last,) = brain.handle(arrived(0, 1, 9, finished=True))
    assert isinstance(last, TakeSnapshot)
    assert (last.final, last.offsets) == (True, {0: 9, 1: 3})


def test_a_repeated_word_that_the_snapshot_is_taken_changes_nothing() -> None:
    """Ray may deliver a call twice; the second lowers no later barrier."""
    brain = Brain([(0,)], Prequential.zero(), snapshot_interval_records=1)
    brain.handle(reported(0, 0, 1))
    brain.handle(arrived(0, 1, 1))
    brain.handle(SnapshotTaken(1))
    brain.handle(reported(0, 1, 1))
    brain.handle(arrived(0, 2, 2))
    assert brain.handle(SnapshotTaken(1)) == []
    assert brain.directive == Directive(2, 1, stop=False)


def test_the_job_stops_once_enough_records_are_read_dead_ones_included() -> None:
    """records_max counts what was read, not what was learnt."""
    brain = Brain([(0,)], Prequential.zero(), records_max=10)
    brain.handle(reported(0, 0, 4, dead=3))
    assert not brain.directive.stop
    brain.handle(reported(0, 7, 2, dead=1))
    assert brain.directive.stop
    assert (brain.records, brain.dead) == (10, 4)


def test_when_somebody_asks_for_an_end_all_are_told_to_stop() -> None:
    """Ctrl-C and `ray job stop` drain."""
    brain = Brain([(0,)], Prequential.zero())
    brain.handle(StopAsked())
    assert brain.directive.stop
