"""The driver's loop: carries out the coordinator's commands, has snapshots written, and comes back from deaths.

A death, a broker that stays away, or a shard that does not answer ends a *generation* of the job: everything begins
anew at the last whole snapshot, in the actors that still live and in new ones for the dead. Since that is what every
start does too, there is no second way. A rollback is the same with the tables of an older snapshot.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.ports import LaunchError, StoreError, StreamUnavailableError
from actors.shard import StalePushError
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError, SupersededError
from cluster.snapshots.writing import SnapshotWriter
from learning.job_messages import (
    EndJob,
    SnapshotAsked,
    SnapshotFailed,
    SnapshotWritten,
    StopAsked,
    TakeSnapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.coordinator import Status
    from cluster.cluster_port import ClusterPort
    from cluster.config import Pipeline
    from cluster.rollbacks import Rollbacks
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.starts import Start, Starter
    from learning.job_messages import Command

__all__ = ["GaveUpError", "Supervisor"]

_LOOP_S = 0.02
_PAUSE_MAX_S = 10.0

RECOVERABLE = (StoreError, StreamUnavailableError, StalePushError, SnapshotError)
"""What a return to the last snapshot can mend: deaths, silence, and their consequences."""
WAITED_FOR = (StreamUnavailableError, LaunchError, SnapshotError)
"""What may come by itself: a broker, room for actors or on the disk; once the job has begun, it is waited for."""


class GaveUpError(Exception):
    """The job does not come back, or its last snapshot cannot be written; the message says why and what to do."""


class _GoBackError(Exception):
    """The generation ends so that the next one begins at an older snapshot."""


class Supervisor:
    """Runs one job to its end.

    `on_status` is called every `status_interval_s` with the job's progress, `say` with a sentence for people; neither
    may block. `rollbacks` is asked again and again whether the job is to go back to an older snapshot.
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
        self._status_interval_s = status_interval_s
        self._attempts, self._deaths, self._recovered_at, self._failing_since_s = 0, 0, -1, 0.0
        self._asked_to_stop = self._begun = self._final = False
        self._full_since_s: float | None = None
        self._begun_s = time.monotonic()
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
                self._begun, self._begun_s = True, time.monotonic()
                on_begun(start)
                return self._learn(start)
            except SupersededError:
                raise  # another job learns the run now
            except RECOVERABLE as failed:
                if not self._begun and isinstance(failed, WAITED_FOR):
                    raise  # what is not there in the first place is for the user to mend
                error = failed
                on_failed()
                self._note_failure(failed)
            except _GoBackError:
                error = None
                self._writer.abandon()
                self._writer.newest = None  # it is of the state that is left: no version is to be made of it

    def _begin(self, error: Exception | None) -> Start:
        """Have all actors begin at the newest snapshot that turns out to be whole."""
        if error is not None:
            self._writer.abandon()
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

    def _note_failure(self, error: Exception) -> None:
        """Say it; give up after too many in a row without a newer snapshot; wait longer each time."""
        newest = self._writer.newest.number if self._writer.newest else 0
        lasted_s = time.monotonic() - self._begun_s
        if newest != self._recovered_at or lasted_s > self._pipeline.recovery.unavailable_s:
            self._attempts, self._deaths = 0, 0
            self._recovered_at, self._failing_since_s = newest, time.monotonic()
        waited_for = isinstance(error, WAITED_FOR)  # which is no death, however often it is tried
        self._attempts += 1
        self._deaths += not waited_for
        config, failing_s = self._pipeline.recovery, time.monotonic() - self._failing_since_s
        if failing_s > config.unavailable_s if waited_for else self._deaths > config.attempts_max:
            raise GaveUpError(
                f"{error}; after {self._attempts} attempts in {failing_s:.0f} s the job got no further than snapshot "
                f"{newest}, so it ends; start it again under the same run name to continue it"
            ) from error
        self._say(f"{error}; going back to the last snapshot")
        if self._attempts > 1:
            time.sleep(min(2.0 ** min(self._attempts - 2, 10), _PAUSE_MAX_S))

    def _learn(self, start: Start) -> tuple[Status, SnapshotManifest]:
        self._cluster.start()
        if self._asked_to_stop:
            self._cluster.coordinator.tell(StopAsked())
        next_status_s = time.monotonic() + self._status_interval_s
        next_snapshot_s = self._next_snapshot_s()
        failures = 0
        while True:
            try:
                if self._carry_out(start, self._cluster.coordinator.commands()):
                    return self._finished()
                settled = self._writer.settled()
                if settled is not None:
                    failures = failures + 1 if isinstance(settled, SnapshotFailed) else 0
                    self._settle(settled, failures)
                    next_snapshot_s = self._next_snapshot_s()
                if self._rollbacks is not None:
                    newest = self._writer.newest or start.plan.start
                    if self._rollbacks.due(self._cluster.coordinator, newest.records, settled):
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
            time.sleep(min(0.25 * 2.0 ** min(failures - 1, 10), _PAUSE_MAX_S))

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
                case EndJob():
                    return True
        return False

    def _finished(self) -> tuple[Status, SnapshotManifest]:
        assert self._writer.newest is not None, "the job ended without its last snapshot"
        status = self._cluster.coordinator.status()
        self._on_status(status)
        return status, self._writer.newest
