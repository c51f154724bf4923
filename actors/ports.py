"""What a worker needs of the world: the seams at which cluster/ plugs in stores, sources, sinks and the coordinator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import Batch, BatchId
    from learning.exchange import Moment
    from learning.job_messages import Arrived, Directive, Reported
    from learning.learner import TableRows
    from learning.mixer import Mixed
    from learning.table_state import TableChange, TableState

    Tables = dict[str, TableState]
    """What each of a learner's tables holds, by name."""
    Sides = list[dict[str, dict[str, NDArray[Any]]]]
    """Of each part of a snapshot what its tables, by name, knew beside their rows."""
    Layers = list[dict[str, list[TableChange]]]
    """Differences, oldest first: of each table the changes of some parts of a snapshot."""

__all__ = [
    "CoordinatorPort",
    "DeadLetter",
    "DeadLetterPort",
    "Decoded",
    "LaunchError",
    "ParameterStore",
    "PredictionPort",
    "Pulled",
    "Source",
    "SourceError",
    "StaleGenerationError",
    "StoreError",
    "StreamUnavailableError",
]


class SourceError(Exception):
    """The stream cannot be read (no broker, no topic, no file); the message says what to do."""


class StreamUnavailableError(SourceError):
    """The broker does not answer now: the same may succeed later, unlike a missing topic or a refused login."""


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

    def lags(self) -> dict[int, int]:
        """Of each partition, the records (messages, for Kafka) in the stream that have not been polled.

        One whose end is unknown is left out.
        """

    def close(self) -> None:
        """Release threads and connections; may be called twice."""


class StoreError(Exception):
    """The parameter state cannot be reached; the message names the shard."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A batch's rows, one `TableRows` for each of the learner's tables, which the learner may change in place."""

    batch_id: BatchId
    tables: tuple[TableRows, ...]


class LaunchError(StoreError):
    """The actors could not be started; the message says what was asked for and what is there."""


class StaleGenerationError(StoreError):
    """The job has gone back to a snapshot since this message was made; its sender is to end, nothing is lost."""


class ParameterStore(Protocol):
    """What a worker needs of the parameter state; belongs to one thread.

    At most two pulls are open: the next batch may be pulled before this one is pushed. The next one's rows are then
    as if it had been pulled after that push, as far as this worker's own learning goes.
    """

    @property
    def acknowledged(self) -> int:
        """How many pushes, counted in the order made, the shards have applied for certain."""

    def advance(self, moment: Moment) -> None:
        """All that follows belongs to this moment: a later snapshot than the last one. Nothing is in hand."""

    def pull(self, batch: Batch) -> None:
        """Ask for the rows of the batch's keys; may return before they are there."""

    def wait(self) -> Pulled:
        """The rows of the oldest open pull, which the learner is to learn and push before it waits again."""

    def push(self, pulled: Pulled) -> None:
        """Give back the rows after learning; sent with the next pull, or by `flush`."""

    def flush(self) -> None:
        """Return when every push is acknowledged."""


class CoordinatorPort(Protocol):
    """The coordinator as a worker sees it."""

    def report(self, reported: Reported) -> Directive:
        """Send a batch's figures; returns the newest directive known, without waiting for this very report."""

    def arrive(self, arrived: Arrived) -> Directive:
        """Say that the worker stands at a barrier or has finished; waits for the answer."""

    def directive(self) -> Directive:
        """The present directive; waits for the answer."""


class DeadLetterPort(Protocol):
    """Where bad records go."""

    def write(self, letters: list[DeadLetter]) -> None:
        """Accept letters; durable after `flush`."""

    def flush(self) -> None:
        """Return when everything written is durable."""

    def close(self) -> None:
        """Flush and release."""


class PredictionPort(Protocol):
    """Where predictions go."""

    def write(self, batch: Batch, mixed: Mixed, version: str) -> None:
        """Accept a batch's predictions; delivered after `flush`."""

    def flush(self) -> None:
        """Return when everything written is delivered."""

    def close(self) -> None:
        """Flush and release."""
