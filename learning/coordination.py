"""The coordinator's brain: events in, commands out, no I/O and no clock.

It keeps what each worker reported (offsets, counts, metrics), decides when a snapshot is due, leads the workers
through its barrier, and ends the job. One snapshot goes like this:

1. `Reported` or `SnapshotAsked` makes one due: every later directive carries its number as `barrier`.
2. Each worker learns what it has in hand, has its pushes acknowledged, reports, and sends `Arrived`.
3. When all have arrived (a finished worker counts as arrived) the moment of the directives moves on, so the workers go
   on at once: whatever they send carries that moment, and a shard that sees it first begins to copy what it held
   before. The command `TakeSnapshot` has the rest.
4. `SnapshotWritten` makes it the one that the next may be a difference to; after `SnapshotFailed` the next is whole.
   There is no further barrier before one of the two.

The last snapshot is taken the same way, when all workers have finished; `EndJob` follows once it is written.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from learning.ensemble_state import Sharing
from learning.exchange import Moment
from learning.job_messages import (
    Arrived,
    Command,
    CompareVersions,
    Directive,
    EndJob,
    Event,
    Reported,
    SnapshotAsked,
    SnapshotFailed,
    SnapshotWritten,
    StopAsked,
    TakeSnapshot,
)
from learning.job_parts import Disk, WorkerShare
from learning.job_state import JobPlan, JobState
from learning.metrics import DelayHistogram
from learning.watching import Watching

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.worker_state import Arrays

__all__ = ["Brain", "Phase", "WorkerShare", "assign"]

JOURNAL_MAX = 1 << 20
"""Batches that are journalled between two snapshots; of more, the journal is left out."""


class Phase(enum.Enum):
    """Where the job is between two snapshots."""

    LEARNING = "learning"
    BARRIER = "barrier"
    ENDING = "ending"
    ENDED = "ended"


def assign(partitions: list[int], workers: int) -> list[tuple[int, ...]]:
    """Partitions dealt to workers in turn: fixed for the life of a job, each to one worker, none without one.

    Fewer partitions than workers make fewer workers: one without a partition would only wait.
    """
    dealt = sorted(partitions)
    count = min(workers, len(dealt))
    return [tuple(dealt[worker::count]) for worker in range(count)]


class Brain:
    """Pure state machine of one generation of a job; `handle` is its only entrance."""

    def __init__(self, plan: JobPlan) -> None:
        self.workers = [WorkerShare(share) for share in plan.partitions]
        self.metrics = plan.start.metrics.copy()
        self.delays = plan.start.delays
        self.pauses = DelayHistogram()
        self.phase = Phase.LEARNING
        self.moment = plan.moment
        self._plan = plan
        self._offsets, self._turns = dict(plan.start.offsets), dict(plan.start.turns)
        self._disk = Disk(plan.since, plan.deltas)
        self._journal: list[tuple[int, int, int, int]] = []
        self._journal_written: list[tuple[int, int, int, int]] = []
        self._snapshot_at = plan.start.records
        self._asked, self._stop = False, self._read_enough()
        self._writing = 0
        self._compare = False
        self.watching = Watching(plan.watch, plan.start.watch, len(self.workers)) if plan.watch else None
        self._renewed = plan.start.renewed
        self._changes = list(self.moment.changes)
        # What a drift has asked for and no snapshot has brought about is not forgotten by an end in between.
        self._asked |= self.watching is not None and self.watching.has_changes
        self.shown: dict[int, Arrays] = dict(plan.start.workers)
        """By worker, the newest that it has told of what it knows by itself."""
        self._sharing = Sharing(plan.ensemble, plan.start.workers)
        self._sharing.renew(self._renewed)

    @property
    def records(self) -> int:
        """Records read: learnt and dead, in all generations that were not taken back."""
        return self._plan.start.records + sum(worker.records + worker.dead for worker in self.workers)

    @property
    def dead(self) -> int:
        """Dead letters."""
        return self._plan.start.dead + sum(worker.dead for worker in self.workers)

    @property
    def offsets(self) -> dict[int, int]:
        """The next offset of each partition: all before it is learnt, and its pushes acknowledged."""
        return dict(self._offsets)

    @property
    def snapshots(self) -> int:
        """The number of the last snapshot that the workers stood still for."""
        return self.moment.snapshot

    @property
    def directive(self) -> Directive:
        """What every worker is to do now."""
        waiting = self.phase is Phase.BARRIER
        barrier = self.snapshots + waiting
        heard, raises = {}, {}
        if self.watching is not None:
            heard, raises = dict(self.watching.heard), dict(self.watching.raises)
        return Directive(barrier, self.moment, self._stop, heard, raises, self._renewed, self._sharing.shared)

    def handle(self, event: Event) -> list[Command]:
        """Take one event into the state; returns the commands that follow from it, in order."""
        match event:
            case Reported():
                if event.generation == self._plan.generation:
                    self._count(event)
            case Arrived():
                if event.generation == self._plan.generation:
                    self.workers[event.worker].arrived = event
                    self.shown[event.worker] = event.state
            case SnapshotWritten() | SnapshotFailed():
                return self._settle(event)
            case SnapshotAsked():
                self._asked = True
            case StopAsked():
                self._stop = True
        return self._go_on()

    def _count(self, event: Reported) -> None:
        worker = self.workers[event.worker]
        worker.records += event.metrics.records
        worker.dead += event.dead
        worker.lags = event.lags
        worker.batches += len(event.batches)
        for batch in event.batches:
            self._offsets[batch.partition] = batch.next_offset
            self._turns[event.worker] = batch.partition
        if len(self._journal) <= JOURNAL_MAX:
            self._journal += [(event.worker, *batch) for batch in event.batches]
        self.metrics += event.metrics
        self.delays += event.delays
        self.pauses.update(np.array(event.pauses_s))
        self._stop |= self._read_enough()
        if event.shown is not None:
            self.shown[event.worker] = event.shown
        if self.watching is not None:
            snapshot, compare = self.watching.see(event.worker, event.watched)
            self._asked |= snapshot
            self._compare |= compare

    def _read_enough(self) -> bool:
        return self._plan.records_max is not None and self.records >= self._plan.records_max

    def _go_on(self) -> list[Command]:
        """Raise a barrier that is due, and take the snapshot once all stand at it."""
        compare: list[Command] = [CompareVersions()] if self._compare else []
        self._compare = False
        if self.phase is Phase.LEARNING and not self._writing and self._due():
            self.phase, self._asked = Phase.BARRIER, False
        if self.phase is Phase.BARRIER and all(self._stands(worker) for worker in self.workers):
            return [*compare, self._take_snapshot()]
        return compare

    def _due(self) -> bool:
        if all(worker.finished for worker in self.workers):
            return True
        new, interval = self.records - self._snapshot_at, self._plan.snapshot_interval_records
        return not self._stop and new > 0 and (self._asked or bool(interval and new >= interval))

    def _stands(self, worker: WorkerShare) -> bool:
        return worker.finished or (
            worker.arrived is not None and worker.arrived.barrier == self.snapshots + 1
        )

    def _take_snapshot(self) -> TakeSnapshot:
        final = all(worker.finished for worker in self.workers)
        number, since = self.snapshots + 1, self._disk.next_since(self._plan.deltas_max)
        changes: tuple[tuple[int, float], ...] = ()
        self._renewed = ()
        if self.watching is not None and not final:
            changes, self._renewed = self.watching.take_changes()
        self._changes += [(number, *change) for change in changes]
        self.moment = Moment(self._plan.generation, number, since, tuple(self._changes))
        self.phase = Phase.ENDING if final else Phase.LEARNING
        self._writing, self._snapshot_at = number, self.records
        state = JobState(
            number, dict(self._offsets), self.records, self.dead, self.metrics.copy(), self.delays,
            self._states(), dict(self._turns), self._journalled(),
            {} if self.watching is None else self.watching.arrays(), changes, self._renewed,
        )  # fmt: skip
        self._sharing.renew(self._renewed)
        for worker in self.workers:
            worker.renew(self._sharing, self._renewed)
        self._journal_written, self._journal = self._journal, []
        return TakeSnapshot(self.moment, state, final)

    def _states(self) -> dict[int, Arrays]:
        """What each worker goes on with; one that has finished keeps it."""
        arrived = [worker.arrived for worker in self.workers if worker.arrived is not None]
        states = self._sharing.join({a.worker: a.state for a in arrived})
        for a in arrived:
            self.workers[a.worker].arrived = replace(a, state=states[a.worker])
        return states

    def _journalled(self) -> NDArray[np.int64]:
        kept = self._journal if len(self._journal) <= JOURNAL_MAX else []
        return np.array(kept, np.int64).reshape(len(kept), 4)

    def _settle(self, event: SnapshotWritten | SnapshotFailed) -> list[Command]:
        if event.number != self._writing:
            return []  # a repeated or late message: it is settled already
        self._writing = 0
        if isinstance(event, SnapshotWritten):
            self._disk.written(event.number, self.moment.since, event.size_bytes)
            # Every shard has written its part, and so has seen the moment. Until then it may not have.
            self._changes = [change for change in self._changes if change[0] > event.number]
            if self.phase is Phase.ENDING:
                self.phase = Phase.ENDED
                return [EndJob()]
        else:
            self._disk = replace(self._disk, since=0)
            self._journal = self._journal_written + self._journal
            if self.phase is Phase.ENDING:
                self.phase = Phase.LEARNING
        return self._go_on()
