"""What a job knows beside its tables: with them, one snapshot. And from where a generation of a job begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from learning.exchange import Moment
from learning.metrics import DelayHistogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from learning.ensemble import Ensemble
    from learning.learner import Metrics
    from learning.watching import WatchPlan
    from learning.worker_state import Arrays


__all__ = ["JobPlan", "JobState"]


@dataclass(frozen=True, slots=True)
class JobState:
    """A snapshot without the tables.

    Attributes:
        number: of the snapshot; 0: nothing is learnt yet.
        offsets: the next offset of each partition.
        records: read so far, dead ones included.
        dead: of them, dead letters.
        metrics: prequential sums over all that was learnt.
        delays: from produced to learnt, of the same records.
        workers: by worker, what it knows by itself (learning/worker_state.py).
        turns: by worker, the partition of its last batch: where a round over its partitions goes on.
        journal: i64 (n, 4), the batches since the snapshot before, in the order in which they were counted: worker,
            partition, first offset, next offset.
        watch: what is known about drift (learning/watching.py), by name; nothing where nobody watches.
        changes: what happens to rows right behind the snapshot: of a table, by number, what is kept of its memory.
        renewed: experts that begin afresh there.

    """

    number: int
    offsets: dict[int, int]
    records: int
    dead: int
    metrics: Metrics
    delays: DelayHistogram = field(default_factory=DelayHistogram)
    workers: dict[int, Arrays] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=dict)
    journal: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 4), np.int64))
    watch: Arrays = field(default_factory=dict)
    changes: tuple[tuple[int, float], ...] = ()
    renewed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A generation of a job: who learns what, from which state on, until when, and how often it is written.

    Attributes:
        partitions: for each worker its partitions; every partition has exactly one worker.
        start: the state that the tables are in.
        generation: counts from 1; every return to a snapshot begins another one.
        since: the snapshot on disk that `start` is, to which the next one may be a difference; 0: that must be whole.
        deltas: how many differences lie on disk behind the last whole one, `since` included.
        snapshot_interval_records: a snapshot is due after so many records; 0: only when asked for, and at the end.
        deltas_max: after so many differences comes a whole one.
        records_max: the job ends after so many records; None: no such end.
        watch: how drift is watched; None: not at all.
        names: of features, by key, as far as they are known.
        ensemble: the learner, if it is one, whose workers' mixers are joined at barriers.

    """

    partitions: list[tuple[int, ...]]
    start: JobState
    generation: int = 1
    since: int = 0
    deltas: int = 0
    snapshot_interval_records: int = 0
    deltas_max: int = 16
    records_max: int | None = None
    watch: WatchPlan | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    ensemble: Ensemble | None = None

    @property
    def moment(self) -> Moment:
        """When this generation begins."""
        number = self.start.number
        return Moment(self.generation, number, 0, tuple((number, *change) for change in self.start.changes))
