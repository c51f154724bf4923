"""The coordinator's brain: events in, commands out, no I/O and no clock.

It keeps what each worker reported (offsets, counts, metrics), decides when a snapshot is due, leads the workers
through its barrier, and ends the job. One snapshot goes like this:

1. `Reported` makes one due: every later `directive` carries its number as `barrier`.
2. Each worker learns what it has in hand, has its pushes acknowledged and sends `Arrived` with its offsets.
3. When all have arrived (a finished worker counts as arrived) the command `TakeSnapshot` goes out: shards copy.
4. `SnapshotTaken` lowers the barrier and the workers go on.

The last snapshot is taken the same way, when all workers have finished; `EndJob` follows it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from learning.encoding import merge_stats
from learning.job_messages import (
    Arrived,
    Command,
    Directive,
    EndJob,
    Event,
    Reported,
    SnapshotTaken,
    StopAsked,
    TakeSnapshot,
)
from learning.metrics import DelayHistogram

if TYPE_CHECKING:
    from learning.learner import Metrics

__all__ = ["Brain", "Phase", "WorkerShare", "assign"]


class Phase(enum.Enum):
    """Where the job is between two snapshots."""

    LEARNING = "learning"
    BARRIER = "barrier"
    COPYING = "copying"
    ENDED = "ended"


@dataclass(slots=True)
class WorkerShare:
    """What one worker has done so far; `arrived` is its latest barrier message."""

    partitions: tuple[int, ...]
    records: int = 0
    dead: int = 0
    lag: int = 0
    batches: int = 0
    next_offsets: dict[int, int] = field(default_factory=dict)
    arrived: Arrived | None = None

    @property
    def finished(self) -> bool:
        """True once it has sent its last message."""
        return self.arrived is not None and self.arrived.finished


def assign(partitions: list[int], workers: int) -> list[tuple[int, ...]]:
    """Partitions dealt to workers in turn: fixed for the life of a job, each to one worker, none without one.

    Fewer partitions than workers make fewer workers: one without a partition would only wait.
    """
    dealt = sorted(partitions)
    count = min(workers, len(dealt))
    return [tuple(dealt[worker::count]) for worker in range(count)]


class Brain:
    """Pure state machine of one job; `handle` is its only entrance.

    Args:
        partitions: for each worker its partitions; every partition has exactly one worker.
        metrics: the learner's metrics of no records; what workers report is added to them.
        snapshot_interval_records: 0 for no snapshot but the last.
        records_max: the job stops after this many records; None for no such end.

    """

    def __init__(
        self,
        partitions: list[tuple[int, ...]],
        metrics: Metrics,
        *,
        snapshot_interval_records: int = 0,
        records_max: int | None = None,
    ) -> None:
        self.workers = [WorkerShare(share) for share in partitions]
        self.metrics = metrics
        self.delays = DelayHistogram()
        self.phase = Phase.LEARNING
        self.snapshots = 0
        self._interval = snapshot_interval_records
        self._records_max = records_max
        self._next_snapshot_at = snapshot_interval_records
        self._stop = False

    @property
    def records(self) -> int:
        """Records read: learnt and dead."""
        return sum(worker.records + worker.dead for worker in self.workers)

    @property
    def dead(self) -> int:
        """Dead letters."""
        return sum(worker.dead for worker in self.workers)

    @property
    def directive(self) -> Directive:
        """What every worker is to do now."""
        waiting = self.phase in (Phase.BARRIER, Phase.COPYING)
        return Directive(self.snapshots + 1 if waiting else self.snapshots, self.snapshots, self._stop)

    def handle(self, event: Event) -> list[Command]:
        """Take one event into the state; returns the commands that follow from it, in order."""
        match event:
            case Reported():
                self._count(event)
                self._stop |= self._records_max is not None and self.records >= self._records_max
                self._raise_barrier_if_due()
                return []
            case Arrived():
                self.workers[event.worker].arrived = event
                self.workers[event.worker].next_offsets.update(event.offsets)
                return self._snapshot_if_all_arrived()
            case SnapshotTaken():
                return self._lower_barrier(event)
            case StopAsked():
                self._stop = True
                return []

    def _count(self, event: Reported) -> None:
        worker = self.workers[event.worker]
        worker.records += event.metrics.records
        worker.dead += event.dead
        worker.lag = event.lag
        worker.batches += event.batches
        worker.next_offsets.update(event.next_offsets)
        self.metrics += event.metrics
        self.delays += event.delays

    def _raise_barrier_if_due(self) -> None:
        due = self._interval and self.records >= self._next_snapshot_at
        if due and self.phase is Phase.LEARNING and not self._stop:
            self.phase = Phase.BARRIER

    def _snapshot_if_all_arrived(self) -> list[Command]:
        finished = all(worker.finished for worker in self.workers)
        if self.phase is Phase.LEARNING and finished:
            self.phase = Phase.BARRIER
        if self.phase is not Phase.BARRIER or not all(self._stands(worker) for worker in self.workers):
            return []
        self.phase = Phase.COPYING
        arrivals = [worker.arrived for worker in self.workers if worker.arrived is not None]
        offsets = {p: offset for worker in self.workers for p, offset in sorted(worker.next_offsets.items())}
        encoder = merge_stats([arrival.encoder for arrival in arrivals])
        summary = self.metrics.summary()
        number = self.snapshots + 1
        return [TakeSnapshot(number, offsets, encoder, self.records, self.dead, summary, final=finished)]

    def _stands(self, worker: WorkerShare) -> bool:
        return worker.finished or (
            worker.arrived is not None and worker.arrived.barrier == self.snapshots + 1
        )

    def _lower_barrier(self, event: SnapshotTaken) -> list[Command]:
        if self.phase is not Phase.COPYING or event.number != self.snapshots + 1:
            return []  # A repeated or late message: that barrier is down already.
        self.snapshots = event.number
        self._next_snapshot_at = self.records + self._interval
        if all(worker.finished for worker in self.workers):
            self.phase = Phase.ENDED
            return [EndJob()]
        self.phase = Phase.LEARNING
        return []
