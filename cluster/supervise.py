"""The driver's loop: carries out the coordinator's commands, has snapshots written, and comes back from deaths.

A death, a broker that stays away, or a shard that does not answer ends a *generation* of the job: everything begins
anew at the last whole snapshot, in the actors that still live and in new ones for the dead. Since that is what every
start does too, there is no second way. A rollback is the same with the tables of an older snapshot, and a resize
(resizing.py) the same with other actors, at a snapshot for which all workers have ended in order.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.ports import StoreError, StreamUnavailableError
from actors.shard import StalePushError
from cluster.patience import PAUSE_MAX_S, WAITED_FOR, GaveUpError, Patience
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError, SupersededError
from cluster.snapshots.writing import SnapshotWriter
from learning.job_messages import (
    CompareVersions,
    EndJob,
    SnapshotAsked,
    SnapshotFailed,
    SnapshotWritten,
    StopAsked,
    TakeSnapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.status import Status
    from cluster.cluster_port import ClusterPort
    from cluster.config import Pipeline
    from cluster.resizing import Resizing
    from cluster.rollbacks import Rollbacks
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.starts import Start, Starter
    from learning.job_messages import Command

__all__ = ["GaveUpError", "Supervisor"]

_LOOP_S = 0.02

RECOVERABLE = (StoreError, StreamUnavailableError, StalePushError, SnapshotError)
"""What a return to the last snapshot can mend: deaths, silence, and their consequences."""


class _GoBackError(Exception):
    """The generation ends so that the next one begins at an older snapshot."""


class _ResizeError(Exception):
    """The generation has ended in order, so that the next one begins where it ended, with other actors."""


class Supervisor:
    """Runs one job to its end.

    `on_status` is called every `status_interval_s` with the job's progress, `say` with a sentence for people; neither
    may block. `rollbacks` is asked again and again whether the job is to go back to an older snapshot, and `resizing`
    whether it is to go on with other actors.
    """

    def __init__(
        self,
        cluster: ClusterPort,
        pipeline: Pipeline,
        starter: Starter,
        writer: SnapshotWriter,
        on_status: Callable[[Status], None],
        say: Callable[[str], None],
        rollbacks: Rollbacks | None = None,
        resizing: Resizing | None = None,
        *,
        status_interval_s: float = 0.5,
    ) -> None:
        self._cluster = cluster
        self._pipeline = pipeline
        self._starter = starter
        self._writer = writer
        self._on_status = on_status
        self._say = say
        self._rollbacks = rollbacks
        self._resizing = resizing
        self._status_interval_s = status_interval_s
        self._patience = Patience(pipeline.recovery)
        self._asked_to_stop = self._begun = self._final = False
        self._full_since_s: float | None = None
        self.recoveries = 0

    def run(
        self,
        on_begun: Callable[[Start], None] = lambda _: None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> tuple[Status, SnapshotManifest]:
        """Learn to the end; returns the last status and snapshot.

        `on_begun` is called at the start of each generation, `on_failed` when one has ended in a failure.
        Ctrl-C asks the workers to finish what they have in hand; a second one ends the job at once.

        Raises:
            GaveUpError: the job came back too often without getting on, or its last snapshot cannot be written.

        """
        error: Exception | None = None
        while True:
            try:
                start = self._begin(error)
                self._begun = True
                self._patience.begun()
                on_begun(start)
                return self._learn(start)
            except SupersededError:
                raise  # another job learns the run now
            except RECOVERABLE as failed:
                if not self._begun and isinstance(failed, WAITED_FOR):
                    raise  # what is not there in the first place is for the user to mend
                error = failed
                on_failed()
                pause_s = self._patience.failed(
                    failed, self._writer.newest.number if self._writer.newest else 0
                )
                self._say(f"{failed}; going back to the last snapshot")
                time.sleep(pause_s)
            except _ResizeError:
                error = None
            except _GoBackError:
                error = None
                self._writer.abandon()
                self._writer.newest = None  # it is of the state that is left: no version is to be made of it

    def _begin(self, error: Exception | None) -> Start:
        """Have all actors begin at the newest snapshot that turns out to be whole."""
        if error is not None:
            self._writer.abandon()
        if self._resizing is not None:
            self._resizing.beginning(error)
        if self._rollbacks is not None:
            self._rollbacks.carry_out()
        began_s, before = time.monotonic(), None
        while True:
            start = self._starter.begin(before)
            try:
                self._cluster.begin(start)
                break
            except SnapshotDamagedError as damaged:
                self._say(f"snapshot {start.tables} is passed over: {damaged}")
                before = start.tables
        if error is not None:
            self.recoveries += 1
            state = start.plan.start
            self._say(
                f"learning again from snapshot {state.number} ({state.records:,} records), generation "
                f"{start.plan.generation}, after {time.monotonic() - began_s:.1f} s"
            )
        return start

    def _learn(self, start: Start) -> tuple[Status, SnapshotManifest]:
        self._cluster.start()
        if self._resizing is not None:
            self._resizing.begun(start)
        if self._asked_to_stop:
            self._cluster.coordinator.tell(StopAsked())
        next_status_s = time.monotonic() + self._status_interval_s
        next_snapshot_s = self._next_snapshot_s()
        failures = 0
        while True:
            try:
                if self._carry_out(start, self._cluster.coordinator.commands()):
                    self._resize_if_due()
                    return self._finished()
                settled = self._writer.settled()
                if self._resizing is not None:
                    self._resizing.step(self._cluster.coordinator, self._writer.newest, settled)
                if settled is not None:
                    failures = failures + 1 if isinstance(settled, SnapshotFailed) else 0
                    self._settle(settled, failures)
                    next_snapshot_s = self._next_snapshot_s()
                newest = self._writer.newest or start.plan.start
                if self._rollbacks is not None and self._rollbacks.due(
                    self._cluster.coordinator, newest.records, settled
                ):
                    raise _GoBackError
                self._cluster.check()
                now_s = time.monotonic()
                if now_s >= next_snapshot_s:
                    self._cluster.coordinator.tell(SnapshotAsked())
                    next_snapshot_s = self._next_snapshot_s()
                if now_s >= next_status_s:
                    self._on_status(self._cluster.coordinator.status())
                    next_status_s = time.monotonic() + self._status_interval_s
                time.sleep(_LOOP_S)
            except KeyboardInterrupt:
                if self._asked_to_stop:
                    raise
                self._asked_to_stop = True
                self._cluster.coordinator.tell(StopAsked())

    def _next_snapshot_s(self) -> float:
        interval_s = self._pipeline.snapshots.interval_s
        return time.monotonic() + interval_s if interval_s else float("inf")

    def _settle(self, settled: SnapshotWritten | SnapshotFailed, failures: int) -> None:
        """Tell the coordinator. The last snapshot is tried again for as long as a broker would be waited for."""
        now_s, waited_s = time.monotonic(), self._pipeline.recovery.unavailable_s
        if not (failures and self._final):
            self._full_since_s = None
        elif self._full_since_s is None:
            self._full_since_s = now_s
        elif now_s - self._full_since_s > waited_s:
            raise GaveUpError(
                f"the last snapshot could not be written within {waited_s:g} s; make room, and continue the run "
                "under the same name: it begins at the last snapshot that could"
            )
        self._cluster.coordinator.tell(settled)  # before the pause, in which Ctrl-C may come
        if failures and self._final:
            time.sleep(min(0.25 * 2.0 ** min(failures - 1, 10), PAUSE_MAX_S))

    def _carry_out(self, start: Start, commands: list[Command]) -> bool:
        """Carry out commands in order; True once the job has ended."""
        for command in commands:
            match command:
                case TakeSnapshot():
                    self._final = command.final
                    finished = command.final and all(
                        end is not None and command.state.offsets.get(partition, 0) >= end
                        for partition, end in start.ends.items()
                    )
                    self._writer.begin(start, command, {"finished": finished})
                case CompareVersions():
                    if self._rollbacks is not None:
                        self._rollbacks.compare_next()
                case EndJob():
                    return True
        return False

    def _resize_if_due(self) -> None:
        """Raise _ResizeError if the workers have ended for that, and not because the job is at its end."""
        if self._resizing is None or self._writer.newest is None:
            return
        ends = self._asked_to_stop or bool(self._writer.newest.note.get("finished"))
        if self._resizing.due(self._writer.newest, ends=ends):
            raise _ResizeError

    def _finished(self) -> tuple[Status, SnapshotManifest]:
        assert self._writer.newest is not None, "the job ended without its last snapshot"
        status = self._cluster.coordinator.status()
        self._on_status(status)
        return status, self._writer.newest
