"""What people ask of a run's job: to go back to an older version, or to go on with other numbers of actors."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.snapshots.going_back import Mode

__all__ = ["ACTORS_MAX", "Request", "RollbackRequest", "ScaleRequest", "printable", "request_of", "values_of"]

ACTORS_MAX = 1024
"""Of workers, and of shards, as in the pipeline file."""


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """Go back to snapshot `to`; `reason`: why, if nobody asked."""

    id: str
    to: int
    mode: Mode
    reason: str = ""

    @classmethod
    def new(cls, to: int, mode: Mode, reason: str = "") -> RollbackRequest:
        """One with an id of its own."""
        return cls(uuid.uuid4().hex, to, mode, reason)


@dataclass(frozen=True, slots=True)
class ScaleRequest:
    """Go on with so many workers and shards; None: as many as there are."""

    id: str
    workers: int | None = None
    shards: int | None = None

    @classmethod
    def new(cls, workers: int | None = None, shards: int | None = None) -> ScaleRequest:
        """One with an id of its own."""
        return cls(uuid.uuid4().hex, workers, shards)


Request = RollbackRequest | ScaleRequest


def values_of(request: Request) -> dict[str, Any]:
    """A request as it is written down."""
    values = asdict(request)
    del values["id"]
    return {"kind": "rollback" if isinstance(request, RollbackRequest) else "scale", **values}


def request_of(request_id: str, values: Any) -> Request:
    """A request as it was written down. Raises ValueError, KeyError or TypeError if it is none."""
    kind = values["kind"]
    if kind == "scale":
        return ScaleRequest(request_id, _count(values["workers"]), _count(values["shards"]))
    to, mode, reason = values["to"], values["mode"], values["reason"]
    if kind != "rollback" or type(to) is not int or mode not in {"keep", "replay"} or type(reason) is not str:
        raise ValueError(
            "expected kind as rollback or scale, to as a number, mode as keep or replay, and reason as text"
        )
    return RollbackRequest(request_id, to, mode, printable(reason))


def _count(value: object) -> int | None:
    if value is not None and (type(value) is not int or not 1 <= value <= ACTORS_MAX):
        raise ValueError(f"expected workers and shards as numbers from 1 to {ACTORS_MAX}")
    return value


def printable(text: str) -> str:
    """Without what would move a terminal's cursor, or worse: whoever may write the file does not own the screen."""
    return "".join(character if character.isprintable() else " " for character in text)
