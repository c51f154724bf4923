"""Rollbacks: carries out what is asked of a run in its mailbox, in a job that learns, at its start, or without one.

A rollback is one rolled-back copy (snapshots/going_back.py), which has the request's id in its note; a generation that
begins then begins there. So a job that dies before the copy is written has not gone back and does so when it starts
again, and one that dies behind it has, and only answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster.mailbox import Answer
from cluster.requests import RollbackRequest
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError, SupersededError
from cluster.snapshots.going_back import go_back
from learning.job_messages import SnapshotAsked, SnapshotFailed, SnapshotWritten

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.auto_rollback import AutoRollback
    from cluster.cluster_port import CoordinatorControl
    from cluster.mailbox import Mailbox
    from cluster.models.registry import RunLog
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore
    from cluster.versions import VersionBook

__all__ = ["Rollbacks"]

_FRESH_TIMEOUT_S = 120.0


class Rollbacks:
    """What is asked of one run. `mailbox.ask` makes one due; `log` records it in MLflow."""

    def __init__(
        self,
        store: SnapshotStore,
        mailbox: Mailbox,
        book: VersionBook,
        log: RunLog,
        say: Callable[[str], None],
        automatic: AutoRollback | None = None,
    ) -> None:
        self._store = store
        self._mailbox = mailbox
        self._book = book
        self._log = log
        self._say = say
        self._automatic = automatic
        self._next_look_s = 0.0
        self._asked_s: float | None = None
        self._needed: set[int] = set()
        self._settled: set[str] = set()
        self._unreadable = False

    def needed(self) -> set[int]:
        """Snapshots that must stay: those of versions, and those that somebody wants to go back to."""
        compared = self._automatic.needed() if self._automatic is not None else set()
        return self._book.pinned() | self._needed | compared

    def look(self, newest: SnapshotManifest | None) -> None:
        """Compare older versions with the present model, if it is time; returns at once."""
        if self._automatic is not None:
            self._automatic.look(newest)

    def compare_next(self) -> None:
        """Have older versions compared with the present model once, whether or not that is done by itself."""
        if self._automatic is not None:
            self._automatic.compare_next()

    def due(
        self, coordinator: CoordinatorControl, records: int, settled: SnapshotWritten | SnapshotFailed | None
    ) -> bool:
        """Whether the generation is to end, because it is to go back, and its place in the stream is on disk.

        `records`: of the newest snapshot; `settled`: one that was just written, or was not.
        """
        now_s = time.monotonic()
        if self._asked_s is not None and settled is not None:
            return True
        if now_s < self._next_look_s:
            return False
        self._next_look_s = now_s + self._mailbox.look_interval_s
        waiting = self._look()
        if not waiting:
            self._asked_s = None
            return False
        if self._asked_s is None:
            self._asked_s = now_s
            coordinator.tell(SnapshotAsked())
        fresh = all(request.mode == "replay" for request in waiting) or coordinator.records() == records
        return fresh or now_s - self._asked_s > _FRESH_TIMEOUT_S

    def carry_out(self) -> None:
        """Do what is asked; nothing is being learnt or written meanwhile, or it does not count any more."""
        self._asked_s = None
        for request in self._look():
            try:
                copy = self._done_before(request)
                if copy is None:
                    note = {"request": request.id, "reason": request.reason}
                    copy = go_back(self._store, request.to, request.mode, note)
                answer = Answer(done=True, sentence=self._told(request, copy))
            except SupersededError:
                raise  # the job that has taken over will answer
            except SnapshotError as error:
                refused = f"the run did not go back to snapshot {request.to}: {error}"
                answer = Answer(done=False, sentence=refused)
            self._say(answer.sentence)
            self._settled.add(request.id)
            try:
                self._mailbox.answer(request, answer)
            except SnapshotError as error:
                self._say(f"the answer to it cannot be written: {error}")
        self._needed = set()
        if self._automatic is not None:
            self._automatic.begin_behind(max(self._store.numbers(), default=0))

    def _look(self) -> list[RollbackRequest]:
        """The requests that wait; a disk that cannot be read now may be later."""
        try:
            asked = [request for request in self._mailbox.requests() if isinstance(request, RollbackRequest)]
        except SnapshotError as error:
            if not self._unreadable:
                self._say(f"the run's control folder cannot be read, so nobody can have it go back: {error}")
            self._unreadable = True
            return []
        self._unreadable = False
        waiting = [request for request in asked if request.id not in self._settled]
        self._needed = {request.to for request in waiting}
        return waiting

    def _done_before(self, request: RollbackRequest) -> SnapshotManifest | None:
        for number in reversed(self._store.numbers()):
            if number <= request.to:
                break
            try:
                manifest = self._store.manifest(number)
            except SnapshotDamagedError:
                continue
            if manifest.note.get("request") == request.id:
                return manifest
        return None

    def _told(self, request: RollbackRequest, copy: SnapshotManifest) -> str:
        """Record it in MLflow, and say it."""
        version = self._book.version_of(request.to)
        named = f"snapshot {request.to}" + (f" (version {version})" if version is not None else "")
        place = (
            "from the present place in the stream"
            if request.mode == "keep"
            else "from its place in the stream"
        )
        sentence = f"went back to {named}, {place}: {copy.records:,} records, as snapshot {copy.number}"
        if request.reason:
            sentence += f", because {request.reason}"
        self._log.tag({f"millrace.rollback.{copy.number:06d}": sentence})
        self._log.log({"rollback/to_snapshot": float(request.to)}, copy.records)
        # Asked for again when it is sent: the version may be waiting for MLflow now, or be none.
        self._log.crown(lambda: self._book.version_of(request.to))
        return sentence
