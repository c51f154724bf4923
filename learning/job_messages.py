"""The words between workers, coordinator and supervisor: events that happened, commands to carry out, directives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from learning.learner import Metrics
    from learning.metrics import DelayHistogram

__all__ = [
    "Arrived",
    "Command",
    "Directive",
    "EndJob",
    "Event",
    "Reported",
    "SnapshotTaken",
    "StopAsked",
    "TakeSnapshot",
]

EncoderState = tuple["NDArray[np.uint64]", "NDArray[np.float64]"]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a worker has learnt since its last report, every push of it acknowledged; nothing, if it was idle.

    `metrics`, `delays`, `dead` (letters) and `batches` are increments; `next_offsets` are by partition, of those that
    moved; `lag` counts records not yet read.
    """

    worker: int
    metrics: Metrics
    delays: DelayHistogram
    dead: int
    batches: int
    next_offsets: dict[int, int]
    lag: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """A worker stands at barrier `barrier` with every push acknowledged; `finished` if it will learn no more."""

    worker: int
    barrier: int
    offsets: dict[int, int]
    encoder: EncoderState
    finished: bool


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The shards have copied their state for snapshot `number`."""

    number: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody asked for an orderly end (Ctrl-C, `ray job stop`)."""


Event = Reported | Arrived | SnapshotTaken | StopAsked


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Copy all shards now: no worker is learning. Everything but the tables is in this command."""

    number: int
    offsets: dict[int, int]
    encoder: EncoderState
    records: int
    dead: int
    metrics: dict[str, float]
    final: bool


@dataclass(frozen=True, slots=True)
class EndJob:
    """All workers have finished and the last snapshot is taken."""


Command = TakeSnapshot | EndJob


@dataclass(frozen=True, slots=True)
class Directive:
    """What a worker is to do next: stand at `barrier` if it is above the last one it passed; stop for good."""

    barrier: int
    released: int
    stop: bool
