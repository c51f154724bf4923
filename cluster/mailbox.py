"""Mailbox: what people ask of a run's job, and what it answers, as small JSON files in the run's folder.

    RUN/control/request-ID.json   {"kind": "rollback", "to": 12, "mode": "keep", "reason": ""}
                                  {"kind": "scale", "workers": 8, "shards": null}
    RUN/control/answer-ID.json    {"done": true, "sentence": "..."}

A request stays until it is answered, so a job that dies in between finds it when it is started again. The same files
serve jobs on Ray and in one process, on this machine or behind an fsspec URL.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.requests import printable, request_of, values_of
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.remote_place import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.requests import Request

__all__ = ["Answer", "Mailbox"]

_REQUEST = re.compile(r"request-([0-9a-f]{32})\.json", re.ASCII)
_BYTES_MAX = 65_536
_REQUESTS_MAX = 100


class Answer(NamedTuple):
    """What became of a request."""

    done: bool
    sentence: str


class Mailbox:
    """Requests and answers of the run at `run_url`; look every `look_interval_s`. Every error is a SnapshotError."""

    def __init__(self, run_url: str, say: Callable[[str], None]) -> None:
        self._place = place_of(run_url).child("control")
        self.look_interval_s = 5.0 if "://" in run_url else 0.5
        self._say = say
        self._unreadable: set[str] = set()

    def ask(self, request: Request) -> None:
        """Leave a request, durably."""
        self._put(f"request-{request.id}.json", values_of(request))

    def requests(self) -> list[Request]:
        """Those that are not answered; what is none is removed, and said, and what cannot be read is passed over."""
        found: list[Request] = []
        # Answers lie there too, and some are never fetched: they must not take the place of requests.
        for matched in filter(None, map(_REQUEST.fullmatch, sorted(self._place.sizes()))):
            try:
                found += self._read(matched[0], matched[1])
            except SnapshotError as error:
                if matched[0] not in self._unreadable:
                    self._say(f"a request is passed over until it can be read, or removed: {error}")
                self._unreadable.add(matched[0])
            if len(found) == _REQUESTS_MAX:
                break
        return found

    def _read(self, name: str, request_id: str) -> list[Request]:
        """The request in a file; none, if there is none in it. Raises SnapshotError."""
        try:
            return [request_of(request_id, self._get(name))]
        except (SnapshotDamagedError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._place.remove_file(name)
            self._say(f"{self._place.url}/{name} is no request as we write it ({error}); it is removed")
            return []

    def answer(self, request: Request, answer: Answer) -> None:
        """Answer a request, which thereby is done with."""
        self._put(f"answer-{request.id}.json", answer._asdict())
        self._place.remove_file(f"request-{request.id}.json")

    def take_answer(self, request: Request) -> Answer | None:
        """The answer to a request, once; None if there is none yet."""
        name = f"answer-{request.id}.json"
        if name not in self._place.sizes():
            return None
        values = self._get(name)
        self._place.remove_file(name)
        return Answer(bool(values["done"]), printable(str(values["sentence"])))

    def withdraw(self, request: Request) -> None:
        """Ask no more."""
        self._place.remove_file(f"request-{request.id}.json")

    def _put(self, name: str, values: dict[str, Any]) -> None:
        self._place.write_whole(name, (json.dumps(values) + "\n").encode())

    def _get(self, name: str) -> Any:
        return json.loads(self._place.read_bytes(name, _BYTES_MAX))
