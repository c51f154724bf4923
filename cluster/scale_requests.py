"""Requests to scale one job: those that wait in its mailbox, and their answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster.mailbox import Answer
from cluster.requests import ScaleRequest
from cluster.snapshots.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.mailbox import Mailbox

__all__ = ["ScaleRequests"]


class ScaleRequests:
    """The mailbox as whoever scales the job sees it; `say` takes sentences for people."""

    def __init__(self, mailbox: Mailbox, say: Callable[[str], None]) -> None:
        self._mailbox = mailbox
        self._say = say
        self._settled: set[str] = set()
        self._next_look_s = 0.0
        self._unreadable = False

    def next(self) -> ScaleRequest | None:
        """One that waits, if it is time to look; a disk that cannot be read now may be later."""
        if time.monotonic() < self._next_look_s:
            return None
        self._next_look_s = time.monotonic() + self._mailbox.look_interval_s
        try:
            waiting = [request for request in self._mailbox.requests() if isinstance(request, ScaleRequest)]
        except SnapshotError as error:
            if not self._unreadable:
                self._say(f"the run's control folder cannot be read, so nobody can scale it: {error}")
            self._unreadable = True
            return None
        self._unreadable = False
        return next((request for request in waiting if request.id not in self._settled), None)

    def answer(self, request: ScaleRequest, sentence: str, *, done: bool) -> None:
        """Say what became of it, here and to whoever asked."""
        self._say(sentence)
        self._settled.add(request.id)
        try:
            self._mailbox.answer(request, Answer(done, sentence))
        except SnapshotError as error:
            self._say(f"the answer to it cannot be written: {error}")
