"""StatusPublisher: writes the job's status document from a thread of its own, at a pace, the newest and no other.

The thread writes also when nothing has changed: `written_s` says that the driver lives, `seen_s` of when its figures
are. So a reader can tell a dead job from one that loads a large snapshot. A place that does not take the document costs
nothing but the document.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from cluster.snapshots.errors import SnapshotError
from cluster.status.document import STATUS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from cluster.snapshots.places import Place
    from cluster.status.document import StatusDocument

__all__ = ["StatusPublisher", "pace_s"]

_CLOSE_TIMEOUT_S = 10.0


def pace_s(run_url: str) -> float:
    """Seconds between two writings: an object store bills each, and is in no hurry."""
    return 10.0 if "://" in run_url else 1.0


class StatusPublisher:
    """Writes into `place` every `interval_s`; a context manager, at whose end the last document is written."""

    def __init__(self, place: Place, interval_s: float, say: Callable[[str], None]) -> None:
        self._place = place
        self._interval_s = interval_s
        self._say = say
        self._newest: StatusDocument | None = None
        self._wake = threading.Event()
        self._closing = False
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="millrace-status", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def publish(self, document: StatusDocument) -> None:
        """This is the newest; returns at once. The first is written at once too."""
        first, self._newest = self._newest is None, document
        if first:
            self._wake.set()

    def withdraw(self) -> None:
        """Write no more: another job learns the run now, and writes its own."""
        self._newest = None

    def _work(self) -> None:
        while not self._closing:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            if not self._closing:
                self._write()
        self._write()

    def _write(self) -> None:
        if (document := self._newest) is None:
            return
        raw = document.model_copy(update={"written_s": time.time()}).model_dump_json(indent=1)
        try:
            self._place.write_whole(STATUS_FILE, raw.encode())
        except SnapshotError as error:
            if not self._failing:
                self._say(f"the status cannot be written, so jobs.status sees an old one: {error}")
            self._failing = True
        else:
            self._failing = False
