"""The coordinator's brain, message by message."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import coordination
from learning.batch import BatchId
from learning.coordination import Brain, assign
from learning.exchange import Moment
from learning.job_messages import (
    Arrived,
    Command,
    Directive,
    EndJob,
    Reported,
    SnapshotAsked,
    SnapshotFailed,
    SnapshotWritten,
    StopAsked,
    TakeSnapshot,
)
from learning.job_state import JobPlan, JobState
from learning.metrics import DelayHistogram, Prequential

GENERATION = 3


def plan(workers: int = 1, start: JobState | None = None, **options: int | None) -> JobPlan:
    """A generation in which each worker has the partition of its own number."""
    start = start or JobState(0, {}, 0, 0, Prequential.zero())
    return JobPlan([(w,) for w in range(workers)], start, GENERATION, **options)  # type: ignore[arg-type]


def reported(worker: int, first: int, count: int, dead: int = 0, generation: int = GENERATION) -> Reported:
    """A batch of `count` records of the worker's own partition."""
    metrics, delays = Prequential.zero(), DelayHistogram()
    metrics.update(np.full(count, 0.25 + 0.01 * first), np.ones(count, np.float32))
    delays.update(np.full(count, 0.1 * (first + 1)))
    batch = BatchId(worker, first, first + count + dead)
    return Reported(worker, generation, metrics, delays, dead, [batch], lags={worker: first})


def arrived(worker: int, barrier: int, *, finished: bool = False, generation: int = GENERATION) -> Arrived:
    """A worker at a barrier, whose encoder has seen as many numbers as its own number and the barrier's say."""
    keys, stats = np.array([worker], np.uint64), np.array([[float(barrier), 0.0, 0.0]])
    return Arrived(worker, generation, barrier, {"encoder.keys": keys, "encoder.stats": stats}, finished)


def taken(commands: list[Command]) -> TakeSnapshot:
    """The only command, which is to take a snapshot."""
    (command,) = commands
    assert isinstance(command, TakeSnapshot)
    return command


def one_round(brain: Brain, first: int, count: int = 1) -> TakeSnapshot:
    """A worker's batch that makes a snapshot due, and its arrival."""
    assert brain.handle(reported(0, first, count)) == []
    return taken(brain.handle(arrived(0, brain.directive.barrier)))


def test_every_partition_has_one_worker_and_every_worker_a_partition() -> None:
    """Dealt in turn; more workers than partitions make no idle ones."""
    assert assign([3, 0, 2, 1, 4], 2) == [(0, 2, 4), (1, 3)]
    assert assign([0, 1], 5) == [(0,), (1,)]


def test_a_due_snapshot_waits_for_every_worker_and_then_lets_them_go_at_once() -> None:
    """Two workers, one snapshot: barrier up, both arrive, the moment moves on; nobody waits for the disk."""
    brain = Brain(plan(2, snapshot_interval_records=10))
    before, after = Moment(GENERATION, 0, 0), Moment(GENERATION, 1, 0)
    assert brain.handle(reported(0, 0, 6)) == []
    assert brain.directive == Directive(0, before)
    brain.handle(reported(1, 0, 4))
    assert brain.directive == Directive(1, before)
    assert brain.handle(arrived(0, 1)) == []
    assert brain.directive == Directive(1, before)
    command = taken(brain.handle(arrived(1, 1)))
    assert brain.directive == Directive(1, after)
    assert (command.moment, command.final, command.state.number) == (after, False, 1)
    assert (command.state.offsets, command.state.records) == ({0: 6, 1: 4}, 10)
    assert sorted(command.state.workers) == [0, 1]
    assert brain.handle(SnapshotWritten(1, 500)) == []


def test_no_barrier_is_raised_while_a_snapshot_is_being_written() -> None:
    """A slow disk: snapshots come less often, and what is read meanwhile makes the next one due at once."""
    brain = Brain(plan(snapshot_interval_records=5))
    one_round(brain, 0, 5)
    brain.handle(reported(0, 5, 50))
    brain.handle(SnapshotAsked())
    assert brain.directive.barrier == 1
    brain.handle(SnapshotWritten(1))
    assert brain.directive.barrier == 2


def test_a_snapshot_is_taken_when_it_is_asked_for_and_there_is_something_new() -> None:
    """It is time for one (snapshots.interval_s); an idle stream writes nothing, and the request is kept."""
    brain = Brain(plan())
    assert brain.handle(SnapshotAsked()) == []
    assert brain.directive.barrier == 0
    one_round(brain, 0)
    brain.handle(SnapshotWritten(1))
    brain.handle(reported(0, 1, 100))
    assert brain.directive.barrier == 1, "it was asked for once"


def test_a_snapshot_is_a_difference_to_the_one_before_it_until_there_are_too_many() -> None:
    """Whole, deltas_max differences, whole again: a chain is never longer."""
    brain, since = Brain(plan(snapshot_interval_records=1, deltas_max=3)), []
    for first in range(10):
        since.append(one_round(brain, first).moment.since)
        brain.handle(SnapshotWritten(first + 1))
    assert since == [0, 1, 2, 3, 0, 5, 6, 7, 0, 9]


def test_differences_that_are_larger_together_than_the_whole_are_enough() -> None:
    """Most rows change between two snapshots: reading the chain would take longer than the whole one."""
    brain, since = Brain(plan(snapshot_interval_records=1, deltas_max=100)), []
    for first, size in enumerate([100, 60, 40, 1, 1, 90, 20, 1]):
        since.append(one_round(brain, first).moment.since)
        brain.handle(SnapshotWritten(first + 1, size))
    assert since == [0, 1, 2, 3, 0, 5, 0, 7]


def test_after_a_failure_the_next_snapshot_is_whole() -> None:
    """The disk was full: which rows the lost one held is not known any more."""
    brain = Brain(plan(snapshot_interval_records=1))
    one_round(brain, 0)
    brain.handle(SnapshotWritten(1, 100))
    assert one_round(brain, 1).moment == Moment(GENERATION, 2, 1)
    assert brain.handle(SnapshotFailed(2)) == []
    assert one_round(brain, 2).moment == Moment(GENERATION, 3, 0)
    brain.handle(SnapshotWritten(3, 100))
    assert one_round(brain, 3).moment == Moment(GENERATION, 4, 3)


def test_a_generation_goes_on_where_its_plan_says_the_disk_stands() -> None:
    """Snapshot 7 is the second difference on disk: one more, and then a whole one. An older one gets no differences."""
    start = JobState(7, {0: 70}, 70, 0, Prequential.zero())
    brain = Brain(plan(start=start, since=7, deltas=2, snapshot_interval_records=1, deltas_max=3))
    assert brain.directive == Directive(7, Moment(GENERATION, 7, 0))
    assert one_round(brain, 70).moment == Moment(GENERATION, 8, 7)
    brain.handle(SnapshotWritten(8))
    assert one_round(brain, 71).moment == Moment(GENERATION, 9, 0)
    brain = Brain(plan(start=start, since=0, snapshot_interval_records=1))
    assert one_round(brain, 70).moment == Moment(GENERATION, 8, 0)


def test_a_repeated_or_late_word_about_a_snapshot_changes_nothing() -> None:
    """Ray may deliver a call twice; the second settles no later snapshot."""
    brain = Brain(plan(snapshot_interval_records=1))
    one_round(brain, 0)
    brain.handle(SnapshotWritten(1))
    one_round(brain, 1)
    for late in (SnapshotWritten(1), SnapshotFailed(1), SnapshotWritten(3)):
        brain.handle(reported(0, 2, 5))
        assert brain.handle(late) == []
        assert brain.directive == Directive(2, Moment(GENERATION, 2, 1)), "snapshot 2 is still being written"
    brain.handle(SnapshotWritten(2))
    brain.handle(SnapshotFailed(2))
    assert taken(brain.handle(arrived(0, 3))).moment.since == 2


def test_the_job_ends_once_the_last_snapshot_is_written() -> None:
    """All workers finish: one final snapshot, then the end."""
    brain = Brain(plan(2))
    brain.handle(reported(0, 0, 5))
    assert brain.handle(arrived(0, 0, finished=True)) == []
    assert taken(brain.handle(arrived(1, 0, finished=True))).final
    assert brain.handle(SnapshotWritten(1)) == [EndJob()]
    assert brain.handle(SnapshotWritten(1)) == []
    assert brain.handle(StopAsked()) == []


def test_a_last_snapshot_that_fails_is_taken_again_until_it_is_written() -> None:
    """Somebody makes room on the disk: the same state is written, whole, under the next number."""
    brain = Brain(plan())
    brain.handle(reported(0, 0, 5))
    first = taken(brain.handle(arrived(0, 0, finished=True)))
    for number in (2, 3):
        again = taken(brain.handle(SnapshotFailed(number - 1)))
        assert (again.final, again.moment) == (True, Moment(GENERATION, number, 0))
        assert again.state.offsets == first.state.offsets
        assert brain.handle(SnapshotFailed(number - 1)) == []
    assert brain.handle(SnapshotWritten(3)) == [EndJob()]


def test_the_last_snapshot_waits_for_the_one_that_is_being_written() -> None:
    """The input ends soon after a snapshot has begun: there are never two on their way."""
    brain = Brain(plan(snapshot_interval_records=5))
    one_round(brain, 0, 5)
    brain.handle(reported(0, 5, 1))
    assert brain.handle(arrived(0, 1, finished=True)) == []
    last = taken(brain.handle(SnapshotWritten(1)))
    assert (last.final, last.moment.since, last.state.offsets) == (True, 1, {0: 6})


def test_a_worker_that_finishes_while_another_waits_at_the_barrier_counts_as_arrived() -> None:
    """The end of one worker's partitions must not block the others' snapshot."""
    brain = Brain(plan(2, snapshot_interval_records=5))
    brain.handle(reported(1, 0, 3))
    brain.handle(reported(0, 0, 5))
    brain.handle(arrived(0, 1))
    assert not taken(brain.handle(arrived(1, 0, finished=True))).final
    assert brain.handle(SnapshotWritten(1)) == []
    brain.handle(reported(0, 5, 4))
    last = taken(brain.handle(arrived(0, 1, finished=True)))
    assert (last.final, last.state.offsets) == (True, {0: 9, 1: 3})


def test_a_worker_that_has_finished_blocks_no_later_snapshot() -> None:
    """Its share was short: the others' snapshots go on, each with what its encoder knew at its end."""
    brain = Brain(plan(2, snapshot_interval_records=5))
    brain.handle(arrived(1, 0, finished=True))
    for number in (1, 2, 3):
        command = one_round(brain, 5 * number, 5)
        assert (command.moment.snapshot, command.final) == (number, False)
        assert command.state.workers[1]["encoder.stats"][0, 0] == 0.0
        assert command.state.workers[0]["encoder.stats"][0, 0] == number
        brain.handle(SnapshotWritten(number))


def test_the_job_stops_once_enough_records_are_read_dead_ones_included() -> None:
    """records_max counts what was read, not what was learnt."""
    brain = Brain(plan(records_max=10))
    brain.handle(reported(0, 0, 4, dead=3))
    assert not brain.directive.stop
    brain.handle(reported(0, 7, 2, dead=1))
    assert brain.directive.stop
    assert (brain.records, brain.dead) == (10, 4)


def test_records_max_counts_over_generations() -> None:
    """A job that goes on reads what is left; one that has read enough stops before its first record."""
    start = JobState(2, {0: 8}, 8, 1, Prequential.zero())
    brain = Brain(plan(start=start, records_max=10))
    assert not brain.directive.stop
    brain.handle(reported(0, 8, 2))
    assert brain.directive.stop
    assert Brain(plan(start=replace(start, records=10), records_max=10)).directive.stop


def test_when_somebody_asks_for_an_end_all_are_told_to_stop() -> None:
    """Ctrl-C and `ray job stop` drain; no snapshot but the last is begun any more."""
    brain = Brain(plan(snapshot_interval_records=1))
    brain.handle(StopAsked())
    assert brain.directive.stop
    brain.handle(reported(0, 0, 9))
    brain.handle(SnapshotAsked())
    assert brain.directive.barrier == 0
    assert taken(brain.handle(arrived(0, 0, finished=True))).final


def test_an_end_that_is_asked_for_at_a_barrier_leaves_nobody_standing() -> None:
    """One worker stands, the other sees the stop first and finishes: that counts, and the first one goes on."""
    brain = Brain(plan(2, snapshot_interval_records=1))
    brain.handle(reported(0, 0, 1))
    brain.handle(arrived(0, 1))
    brain.handle(StopAsked())
    assert not taken(brain.handle(arrived(1, 1, finished=True))).final
    assert brain.directive == Directive(1, Moment(GENERATION, 1, 0), stop=True)
    assert brain.handle(arrived(0, 1, finished=True)) == []
    assert taken(brain.handle(SnapshotWritten(1))).final


@pytest.mark.parametrize("generation", [GENERATION - 1, GENERATION + 1])
def test_messages_of_another_generation_count_for_nothing(generation: int) -> None:
    """A worker that was thought dead reports after all: its batches are learnt again by another, and count there."""
    brain = Brain(plan(snapshot_interval_records=5))
    assert brain.handle(reported(0, 0, 100, dead=1, generation=generation)) == []
    assert brain.handle(arrived(0, 0, finished=True, generation=generation)) == []
    assert (brain.records, brain.dead, brain.metrics.records) == (0, 0, 0)
    assert brain.directive == Directive(0, Moment(GENERATION, 0, 0))
    assert one_round(brain, 0, 5).state.offsets == {0: 5}


def test_the_journal_holds_the_batches_since_the_snapshot_before_in_the_order_counted() -> None:
    """What a replay needs to know of several workers: who learnt what after whom."""
    brain = Brain(plan(2, snapshot_interval_records=10))
    brain.handle(reported(1, 0, 2))
    brain.handle(reported(0, 0, 3, dead=1))
    brain.handle(reported(1, 2, 5))
    brain.handle(arrived(0, 1))
    journal = taken(brain.handle(arrived(1, 1))).state.journal
    assert journal.tolist() == [[1, 1, 0, 2], [0, 0, 0, 4], [1, 1, 2, 7]]
    brain.handle(SnapshotWritten(1))
    brain.handle(reported(0, 4, 10))
    brain.handle(arrived(0, 2))
    assert taken(brain.handle(arrived(1, 2))).state.journal.tolist() == [[0, 0, 4, 14]]


def test_the_journal_after_a_failure_holds_what_the_lost_one_held_too() -> None:
    """It goes back to the last snapshot that there is."""
    brain = Brain(plan(snapshot_interval_records=1))
    one_round(brain, 0)
    brain.handle(SnapshotWritten(1))
    one_round(brain, 1)
    brain.handle(reported(0, 2, 1))
    brain.handle(SnapshotFailed(2))
    journal = taken(brain.handle(arrived(0, 3))).state.journal
    assert journal.tolist() == [[0, 0, 1, 2], [0, 0, 2, 3]]


def test_a_journal_that_would_be_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No snapshot for a million batches: memory is bounded, and the next journal is whole again."""
    monkeypatch.setattr(coordination, "JOURNAL_MAX", 3)
    brain = Brain(plan())
    for first in range(5):
        brain.handle(reported(0, first, 1))
    assert len(brain._journal) <= 4
    brain.handle(SnapshotAsked())
    assert taken(brain.handle(arrived(0, 1))).state.journal.shape == (0, 4)
    brain.handle(SnapshotWritten(1))
    brain.handle(reported(0, 5, 1))
    brain.handle(SnapshotAsked())
    assert taken(brain.handle(arrived(0, 2))).state.journal.tolist() == [[0, 0, 5, 6]]


batches = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 2)), max_size=20)


@given(batches, st.integers(0, 20))
def test_a_generation_goes_on_exactly_where_the_snapshot_stands(
    batches: list[tuple[int, int, int]], cut: int
) -> None:
    """Offsets, counts, metrics, delays and turns after a crash at a snapshot are those without one, to the bit."""
    one, places = Brain(plan(2)), [0, 0]
    brain = Brain(plan(2))
    for number, (worker, count, dead) in enumerate(batches):
        if number == cut and number:
            brain.handle(SnapshotAsked())
            if brain.directive.barrier:  # else there was nothing new to write
                brain.handle(arrived(0, 1))
                brain = Brain(plan(2, start=taken(brain.handle(arrived(1, 1))).state))
        batch = reported(worker, places[worker], count, dead)
        places[worker] += count + dead
        one.handle(batch)
        brain.handle(batch)
    for each in (one, brain):
        each.handle(arrived(0, each.snapshots, finished=True))
    expected = taken(one.handle(arrived(1, 0, finished=True))).state
    found = taken(brain.handle(arrived(1, brain.snapshots, finished=True))).state
    assert (found.offsets, found.turns) == (expected.offsets, expected.turns)
    assert (found.records, found.dead) == (expected.records, expected.dead)
    for ours, theirs in ((found.metrics, expected.metrics), (found.delays, expected.delays)):
        assert {name: array.tobytes() for name, array in ours.arrays().items()} == {
            name: array.tobytes() for name, array in theirs.arrays().items()
        }


def test_what_a_snapshot_holds_is_its_own() -> None:
    """It is written while learning goes on."""
    brain = Brain(plan(snapshot_interval_records=5))
    state = one_round(brain, 0, 5).state
    brain.handle(reported(0, 5, 7, dead=1))
    assert (state.offsets, state.records, state.dead, state.metrics.records) == ({0: 5}, 5, 0, 5)
    assert int(state.delays.counts.sum()) == 5
