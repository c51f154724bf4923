"""Coordinator: the one actor that knows the whole job; it carries out what learning/coordination.py decides.

Messages in:
    report(Reported) -> Directive: from workers, once a batch (or once an idle wait).
    arrive(Arrived) -> Directive: a worker stands at a barrier, or has finished.
    directive() -> Directive: a waiting worker asks whether its barrier is down.
    commands(seen) -> list[Command]: the supervisor fetches what is to be done, behind the `seen` commands of this
        generation that it has: what did not reach it, since Ctrl-C came in between, is there the next time.
    tell(event): a snapshot is written, has failed, or is asked for; everybody is to stop. From the supervisor.
    begin(plan): another generation of the job.
    ping(): says that it lives.
    status() -> Status: progress, for people and MLflow.
Messages out: none (workers and the supervisor ask).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from learning.coordination import Brain

if TYPE_CHECKING:
    from learning.job_messages import (
        Arrived,
        Command,
        Directive,
        Event,
        Reported,
        SnapshotAsked,
        SnapshotFailed,
        SnapshotWritten,
        StopAsked,
    )
    from learning.job_state import JobPlan
    from learning.learner import Metrics
    from learning.metrics import DelayHistogram

__all__ = ["Coordinator", "JobEvent", "PartitionStatus", "Status", "WorkerStatus"]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker's progress in this generation."""

    worker: int
    partitions: tuple[int, ...]
    records: int
    dead: int
    lag: int
    finished: bool


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition: whose it is, its next offset, and the records behind that which are there (None: unknown)."""

    partition: int
    worker: int
    offset: int | None
    lag: int | None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What people want to know of, when it happens: `kind` is one word (drift, rollback), `sentence` says it all."""

    records: int
    kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Status:
    """The job's progress since its start; take the difference of two for a window.

    `groups` has further figures, by group, row and name: {"experts": {"alpha 0.1": {"weight": 0.7}}}. Whatever stands
    there is shown by jobs.status, recorded in MLflow and exported, without a change there. `events` are the last ones.
    """

    phase: str
    generation: int
    records: int
    dead: int
    lag: int
    snapshots: int
    metrics: Metrics
    delays: DelayHistogram
    pauses: DelayHistogram
    workers: list[WorkerStatus]
    partitions: list[PartitionStatus] = field(default_factory=list)
    groups: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    events: list[JobEvent] = field(default_factory=list)


class Coordinator:
    """Thin, thread-safe shell around a `Brain` (a local run calls it from two threads)."""

    def __init__(self, plan: JobPlan) -> None:
        self._lock = threading.Lock()
        self.begin(plan)

    def begin(self, plan: JobPlan) -> None:
        """Begin a generation; what was to be done in the one before is forgotten."""
        with self._lock:
            self._brain = Brain(plan)
            self._commands: list[Command] = []
            self._forgotten = self._handed_out = 0

    def ping(self) -> None:
        """Say that this process lives."""

    def report(self, reported: Reported) -> Directive:
        """Count a worker's batch."""
        return self._handle(reported)

    def arrive(self, arrived: Arrived) -> Directive:
        """Note that a worker stands at a barrier or has finished."""
        return self._handle(arrived)

    def directive(self) -> Directive:
        """What workers are to do now."""
        with self._lock:
            return self._brain.directive

    def tell(self, event: SnapshotWritten | SnapshotFailed | SnapshotAsked | StopAsked) -> None:
        """Something has happened, or is wanted."""
        self._handle(event)

    def commands(self, seen: int | None = None) -> list[Command]:
        """Commands of this generation behind the first `seen`; by default, those since the last call."""
        with self._lock:
            seen = self._handed_out if seen is None else seen
            del self._commands[: seen - self._forgotten]
            self._forgotten, self._handed_out = seen, seen + len(self._commands)
            return [*self._commands]

    def status(self) -> Status:
        """Progress since the start."""
        with self._lock:
            brain = self._brain
            workers = [
                WorkerStatus(i, w.partitions, w.records, w.dead, w.lag, w.finished)
                for i, w in enumerate(brain.workers)
            ]
            lag = sum(w.lag for w in brain.workers)
            offsets = brain.offsets
            partitions = [
                PartitionStatus(p, i, offsets.get(p), w.lags.get(p))
                for i, w in enumerate(brain.workers)
                for p in w.partitions
            ]
            return Status(
                brain.phase.value, brain.moment.generation, brain.records, brain.dead, lag, brain.snapshots,
                brain.metrics.copy(), brain.delays, brain.pauses, workers,
                sorted(partitions, key=lambda p: p.partition),
            )  # fmt: skip

    def _handle(self, event: Event) -> Directive:
        with self._lock:
            self._commands += self._brain.handle(event)
            return self._brain.directive
