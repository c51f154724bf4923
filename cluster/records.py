"""What flows between a source, a decoder and a worker: messages, decoded batches and dead letters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from learning.batch import Batch

__all__ = ["DeadLetter", "Decoded", "Messages", "Source", "SourceError"]


class SourceError(Exception):
    """The stream cannot be read (no broker, no topic, no file); the message says what to do."""


@dataclass(frozen=True, slots=True)
class Messages:
    """Consecutive messages of one partition: `values[i]` was produced at `produced_s[i]` (unix s) at `offsets[i]`."""

    partition: int
    offsets: NDArray[np.int64]
    values: list[bytes]
    produced_s: NDArray[np.float64]
    next_offset: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One bad record: where it was, why it cannot be learnt, and its bytes as they came.

    `row` is the record's row within an Arrow message; None where the whole message is one record (or unreadable).
    """

    source: str
    partition: int
    offset: int
    row: int | None
    reason: str
    value: bytes

    @property
    def place(self) -> str:
        """The record's place: topic[partition]@offset, with the row where a message holds many."""
        where = f"{self.source}[{self.partition}]@{self.offset}"
        return where if self.row is None else f"{where} row {self.row}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch and the bad records found beside it; together they are all of [first_offset, next_offset)."""

    batch: Batch
    dead: list[DeadLetter] = field(default_factory=list)

    @property
    def records(self) -> int:
        """Records read: learnable ones and dead ones."""
        return len(self.batch) + len(self.dead)


class Source(Protocol):
    """A worker's share of the stream. Not thread-safe; batches of one partition come in offset order."""

    def poll(self, timeout_s: float) -> Decoded | None:
        """The next batch, or None if there is none within `timeout_s`. Raises SourceError."""

    @property
    def exhausted(self) -> bool:
        """True once a bounded stream has given its last batch."""

    def lag_records(self) -> int:
        """Records (messages, for Kafka) that are in the stream but have not been polled; 0 where unknown."""

    def close(self) -> None:
        """Release threads and connections; may be called twice."""
