"""What a coordinator tells of its job, for people, MLflow and whoever measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from learning.learner import Metrics
    from learning.metrics import DelayHistogram

__all__ = ["JobEvent", "PartitionStatus", "Status", "WorkerStatus"]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker's progress in this generation."""

    worker: int
    partitions: tuple[int, ...]
    records: int
    dead: int
    lag: int
    finished: bool


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition: whose it is, its next offset, and the records behind that which are there (None: unknown)."""

    partition: int
    worker: int
    offset: int | None
    lag: int | None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What people want to know of, when it happens: `kind` is one word (drift, rollback), `sentence` says it all."""

    records: int
    kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Status:
    """The job's progress since its start; take the difference of two for a window.

    `groups` has further figures, by group, row and name: {"experts": {"alpha 0.1": {"weight": 0.7}}}. Whatever stands
    there is shown by jobs.status, recorded in MLflow and exported, without a change there. `events` are the last ones.
    """

    phase: str
    generation: int
    records: int
    dead: int
    lag: int
    snapshots: int
    metrics: Metrics
    delays: DelayHistogram
    pauses: DelayHistogram
    workers: list[WorkerStatus]
    partitions: list[PartitionStatus] = field(default_factory=list)
    groups: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    events: list[JobEvent] = field(default_factory=list)
