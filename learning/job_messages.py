"""The words between workers, coordinator and supervisor: events that happened, commands to carry out, directives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from learning.batch import BatchId
    from learning.exchange import Moment
    from learning.job_state import JobState
    from learning.learner import Metrics
    from learning.metrics import DelayHistogram
    from learning.pace import Raise
    from learning.worker_state import Arrays

__all__ = [
    "Arrived",
    "Command",
    "CompareVersions",
    "Directive",
    "EndJob",
    "Event",
    "Reported",
    "SnapshotAsked",
    "SnapshotFailed",
    "SnapshotWritten",
    "StopAsked",
    "TakeSnapshot",
    "Watched",
]


class Watched(NamedTuple):
    """What drift is told by, of one batch: losses f64 (n,) in offset order, and further series f64 (s, n)."""

    partition: int
    losses: NDArray[np.float64]
    series: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a worker has learnt since its last report, every push of it acknowledged; nothing, if it was idle.

    `metrics`, `delays` and `dead` (letters) are increments; `batches` are those learnt, in their order; `lags` are the
    records of each partition that are not yet read, where that is known; `pauses_s` are how long the worker stood
    still for snapshots.
    `watched` is what drift is told by, a batch each, and `shown` what the worker knows by itself, now and then, for
    those who look.
    """

    worker: int
    generation: int
    metrics: Metrics
    delays: DelayHistogram
    dead: int
    batches: list[BatchId]
    lags: dict[int, int]
    pauses_s: Sequence[float] = ()
    watched: Sequence[Watched] = ()
    shown: Arrays | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A worker stands at barrier `barrier`, and has reported all it learnt; `finished` if it will learn no more.

    `state`: what it knows by itself, there.
    """

    worker: int
    generation: int
    barrier: int
    state: Arrays
    finished: bool


@dataclass(frozen=True, slots=True)
class SnapshotWritten:
    """Snapshot `number` is durable, with `size_bytes` on disk."""

    number: int
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """Snapshot `number` could not be written; what it should have held is still in the tables."""

    number: int


@dataclass(frozen=True, slots=True)
class SnapshotAsked:
    """It is time for a snapshot, or somebody wants one."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody asked for an orderly end (Ctrl-C, `ray job stop`)."""


Event = Reported | Arrived | SnapshotWritten | SnapshotFailed | SnapshotAsked | StopAsked


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Write a snapshot: the tables as they are at `moment`, which shards keep while learning goes on, and `state`."""

    moment: Moment
    state: JobState
    final: bool


@dataclass(frozen=True, slots=True)
class CompareVersions:
    """Compare older versions with the present model on the same records, as soon as there are enough."""


@dataclass(frozen=True, slots=True)
class EndJob:
    """All workers have finished and the last snapshot is durable."""


Command = TakeSnapshot | CompareVersions | EndJob


@dataclass(frozen=True, slots=True)
class Directive:
    """What workers are to do next: stand at `barrier` if it is above their moment's snapshot; stop for good.

    `heard`: by worker, how many of its records the coordinator knows; `raises`: by worker, how its pace is raised;
    `renewed`: experts that begin afresh with this moment.
    `shared`: with which mixer of an ensemble all go on in this moment; nothing where one worker has its own.
    """

    barrier: int
    moment: Moment
    stop: bool = False
    heard: Mapping[int, int] = field(default_factory=dict)
    raises: Mapping[int, tuple[Raise, ...]] = field(default_factory=dict)
    renewed: tuple[str, ...] = ()
    shared: Arrays = field(default_factory=dict)
