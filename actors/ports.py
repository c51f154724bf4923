"""What a worker needs of the world: the seams at which cluster/ plugs in stores, sources, sinks and the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from learning.batch import Batch, BatchId
    from learning.coordination import Arrived, Directive, Reported

__all__ = [
    "CoordinatorPort",
    "DeadLetter",
    "DeadLetterPort",
    "Decoded",
    "ParameterStore",
    "PredictionPort",
    "Pulled",
    "Source",
    "SourceError",
    "StoreError",
]


class StoreError(Exception):
    """The parameter state cannot be reached; the message names the shard."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """Rows that the learner may change in place: entry j of the batch has row `index[j]`, the bias row `bias`."""

    batch_id: BatchId
    rows: NDArray[np.float32]
    index: NDArray[np.int64]
    bias: int


class ParameterStore(Protocol):
    """What a worker needs of the parameter state. At most one pull is open; belongs to one thread."""

    def pull(self, batch: Batch) -> None:
        """Ask for the rows of the batch's keys; may return before they are there."""

    def wait(self) -> Pulled:
        """The rows of the open pull."""

    def push(self, pulled: Pulled) -> None:
        """Give back the rows after learning; acknowledged by the next `wait` or `flush`."""

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

    def write(self, batch: Batch, predictions: NDArray[np.float64], version: str) -> None:
        """Accept a batch's predictions; delivered after `flush`."""

    def flush(self) -> None:
        """Return when everything written is delivered."""

    def close(self) -> None:
        """Flush and release."""
