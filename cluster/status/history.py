"""What is remembered of a job for its status: a window of the last seconds, the past in few points, the last events."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster.figures import Figures
from cluster.models.redaction import without_secrets
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of
from cluster.status.document import Event, Point, read_status

if TYPE_CHECKING:
    from actors.status import JobEvent, Status

    Moment = tuple[Status, float]
    """A status, and the seconds since the start at which it was so."""

__all__ = ["EventLog", "History", "Window", "events_before"]

WINDOW_S = 10.0
POINTS_MAX = 120
EVENTS_MAX = 20
_SENTENCE_CHARACTERS_MAX = 1000


def events_before(url: str) -> list[Event]:
    """What the last job of the run at `url` has told, if its status is there and can be read."""
    with suppress(SnapshotError, OSError):
        found = read_status(place_of(url))
        return [] if found is None else found.events
    return []


class Window:
    """Figures of the last ten seconds, or of all there were since a beginning."""

    def __init__(self, status: Status, seconds: float) -> None:
        self._moments: deque[Moment] = deque([(status, seconds)], maxlen=64)

    def move_to(self, status: Status, seconds: float) -> tuple[Figures, Moment]:
        """The figures of the window that ends now, and the moment at which it begins."""
        while len(self._moments) > 1 and seconds - self._moments[1][1] >= WINDOW_S:
            self._moments.popleft()
        begins = self._moments[0]
        if seconds - self._moments[-1][1] >= WINDOW_S / 20:
            self._moments.append((status, seconds))
        return Figures.between(begins, status, seconds), begins


class History:
    """The past in at most 120 points, evenly over the whole of it: a full one drops every second."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._apart_s = 1.0

    def add(self, figures: Figures) -> None:
        """Note a moment, unless one was noted just before."""
        last_s = self.points[-1].seconds if self.points else -self._apart_s
        if figures.seconds - last_s < self._apart_s:
            return
        first = next(iter(figures.window.values()), None)
        self.points.append(
            Point(seconds=figures.seconds, records=figures.status.records,
                  records_per_s=figures.rate, quality=first)
        )  # fmt: skip
        if len(self.points) > POINTS_MAX:
            del self.points[1::2]
            self._apart_s *= 2


class EventLog:
    """The last twenty events: what the job says to people, and what the coordinator has noted."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.records = 0
        self._seen: deque[JobEvent] = deque(maxlen=10 * EVENTS_MAX)

    def said(self, sentence: str, kind: str = "said") -> None:
        """Note a sentence for people."""
        text = str(without_secrets(sentence))[:_SENTENCE_CHARACTERS_MAX]
        self.events.append(Event(time_s=time.time(), records=self.records, kind=kind, sentence=text))

    def remember(self, happened: list[JobEvent], told: list[Event]) -> None:
        """Take `happened` as seen: notices that a snapshot gave back, at the times that an earlier job's `told` has.

        Where it has none, they are left out of the list: when they happened is not known.
        """
        times = {(event.records, event.kind, event.sentence): event for event in told}
        for event in happened:
            if event not in self._seen:
                self._seen.append(event)
                text = event.sentence[:_SENTENCE_CHARACTERS_MAX]
                if (known := times.get((event.records, event.kind, text))) is not None:
                    self.events.append(known)

    def take(self, happened: list[JobEvent]) -> list[JobEvent]:
        """Note the coordinator's events; returns those that are new."""
        new = [event for event in happened if event not in self._seen]
        for event in new:
            self._seen.append(event)
            text = event.sentence[:_SENTENCE_CHARACTERS_MAX]
            self.events.append(
                Event(time_s=time.time(), records=event.records, kind=event.kind, sentence=text)
            )
        return new
