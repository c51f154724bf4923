"""What is to be done to a run besides points and versions: tags, aliases, files; in order, each until it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from cluster.models.mlflow_run import MlflowRun, permanent, sentence

__all__ = ["Note", "Notes"]

NOTES_MAX = 1000


class Note(NamedTuple):
    """`act` does it; of several with the same `key`, only the last is wanted."""

    act: Callable[[MlflowRun], None]
    key: str = ""


class Notes:
    """A queue that forgets the oldest when it is full; `put` from any thread, `send` from one."""

    def __init__(self) -> None:
        self._notes: deque[Note] = deque(maxlen=NOTES_MAX)

    def put(self, note: Note) -> None:
        """Have something done; what was to be done under the same key is not any more."""
        if note.key:
            for older in [waiting for waiting in self._notes if waiting.key == note.key]:
                if older in self._notes:
                    self._notes.remove(older)
        self._notes.append(note)

    def send(self, run: MlflowRun, say: Callable[[str], None]) -> None:
        """Do all of it; what MLflow refuses for good is said and left out, what it cannot take now raises."""
        while self._notes:
            note = self._notes[0]
            try:
                note.act(run)
            except Exception as error:
                if not permanent(error) and getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                    raise
                say(f"MLflow refuses a tag, an alias or a file, which is left out. {sentence(error)}")
            if self._notes and self._notes[0] is note:
                self._notes.popleft()
