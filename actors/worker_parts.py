"""What a worker is made of: its world, what it holds of each batch on its way, and at what pace it learns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from learning.metrics import DelayHistogram
from learning.pace import pace_at

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from actors.ports import CoordinatorPort, DeadLetterPort, Decoded, ParameterStore, PredictionPort, Source
    from learning.batch import Batch, BatchId
    from learning.job_messages import Directive, Watched
    from learning.learner import Metrics

__all__ = ["BarrierTimeoutError", "Learnt", "Pacing", "Prepared", "Tally", "World"]


class BarrierTimeoutError(Exception):
    """A snapshot barrier was not lowered in time; the message says which."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside a worker, injected: streams, state, coordinator, and time."""

    source: Source
    store: ParameterStore
    coordinator: CoordinatorPort
    dead_letters: DeadLetterPort
    predictions: PredictionPort | None
    clock_s: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(slots=True)
class Tally:
    """What has been acknowledged since the last report."""

    metrics: Metrics
    delays: DelayHistogram = field(default_factory=DelayHistogram)
    dead: int = 0
    batches: list[BatchId] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)


class Prepared(NamedTuple):
    """A batch as it was read, as the learner sees it, and with the old records that are learnt behind it."""

    decoded: Decoded
    batch: Batch
    rehearsed: Batch


class Learnt(NamedTuple):
    """A batch whose push is not acknowledged yet."""

    decoded: Decoded
    predictions: NDArray[np.float64]
    watched: Watched | None


class Pacing:
    """At what pace a worker learns, where reactions to drift may change it; `lag_records` None: they do not.

    What the coordinator has not heard of cannot have made it react, and what it hears works from `lag_records` later
    on. So while it lags behind by less, the pace of the next batch is known.
    """

    def __init__(self, worker: int, lag_records: int | None) -> None:
        self._worker = worker
        self._lag_records = lag_records
        self._learnt = 0

    def knows(self, directive: Directive) -> bool:
        """Whether the directive tells enough for the next batch."""
        lag, heard = self._lag_records, directive.heard.get(self._worker, 0)
        return lag is None or self._learnt - heard < lag

    def paced(self, batch: Batch, directive: Directive) -> Batch:
        """The next batch, with its pace."""
        first, self._learnt = self._learnt, self._learnt + len(batch)
        raises = directive.raises.get(self._worker, ())
        return replace(batch, pace=pace_at(raises, first)) if raises else batch
