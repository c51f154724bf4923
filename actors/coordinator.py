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
    status() -> Status: progress, for people and MLflow; what takes long of it is made while reports go on.
    records() -> int: records read, for the supervisor.
Messages out: none (workers and the supervisor ask).
"""

from __future__ import annotations

import operator
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.showing import event_of, groups_of
from actors.status import PartitionStatus, Status, WorkerStatus
from learning.coordination import Brain

if TYPE_CHECKING:
    from actors.showing import Groups
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
    from learning.worker_state import Arrays

__all__ = ["Coordinator"]


class Coordinator:
    """Thin, thread-safe shell around a `Brain` (a local run calls it from two threads)."""

    def __init__(self, plan: JobPlan) -> None:
        self._lock = threading.Lock()
        self._lock_of_groups = threading.Lock()
        self._shown: tuple[Arrays, ...] | None = None
        self._groups_of: Groups = {}
        self.begin(plan)

    def begin(self, plan: JobPlan) -> None:
        """Begin a generation; what was to be done in the one before is forgotten."""
        with self._lock:
            self._plan, self._brain = plan, Brain(plan)
            self._commands: list[Command] = []
            self._forgotten = self._handed_out = 0

    def records(self) -> int:
        """Records read since the run began."""
        with self._lock:
            return self._brain.records

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
            status = Status(
                brain.phase.value, brain.moment.generation, brain.records, brain.dead, lag, brain.snapshots,
                brain.metrics.copy(), brain.delays, brain.pauses, workers,
                sorted(partitions, key=lambda p: p.partition), {},
                [] if brain.watching is None else [event_of(notice) for notice in brain.watching.notices],
            )  # fmt: skip
            plan, shown = self._plan, tuple(brain.shown.values())
        return replace(status, groups=self._groups(plan, shown, status.metrics))

    def _groups(self, plan: JobPlan, shown: tuple[Arrays, ...], metrics: Metrics) -> Groups:
        """Figures by group; made anew only once a worker has told something new.

        Merging what all workers know takes tenths of a second, so it is done without the lock that reports wait for.
        """
        with self._lock_of_groups:
            before = self._shown
            if before is None or len(before) != len(shown) or any(map(operator.is_not, shown, before)):
                self._groups_of = groups_of(shown, metrics, plan.names, plan.ensemble)
                self._shown = shown
            return self._groups_of

    def _handle(self, event: Event) -> Directive:
        with self._lock:
            self._commands += self._brain.handle(event)
            return self._brain.directive
