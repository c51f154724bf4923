"""Worlds for tests of actors: sources from lists, sinks that remember, and the state as a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.coordinator import Coordinator
from actors.ports import Decoded
from actors.worker import Worker, World
from learning.job_messages import SnapshotWritten, TakeSnapshot
from learning.job_state import JobPlan, JobState
from learning.table_state import TableChange, TableState
from learning.worker_state import WorkerState

if TYPE_CHECKING:
    from actors.ports import DeadLetter, ParameterStore
    from learning.batch import Batch
    from learning.job_messages import Arrived, Command, Directive, Reported
    from learning.learner import Learner
    from learning.mixer import Mixed
    from learning.observing import Observer


def coordinator_for(
    learner: Learner, *, workers: int = 1, interval_records: int = 0, records_max: int | None = None
) -> Coordinator:
    """The coordinator of a new job, in which each worker has the partition of its own number."""
    return Coordinator(
        JobPlan(
            [(worker,) for worker in range(workers)],
            JobState(0, {}, 0, 0, learner.metrics()),
            snapshot_interval_records=interval_records,
            records_max=records_max,
        )
    )


def rows_by_key(holders: list[Any], table: str = "weights") -> dict[int, tuple[float, ...]]:
    """All rows of a table by key; `holders` are shards or stores."""
    parts = [holder.snapshot()[table] for holder in holders]
    return {int(key): tuple(row) for part in parts for key, row in zip(part.keys, part.rows, strict=True)}


def taken(holder: Any) -> dict[str, TableChange]:
    """By table what the snapshot holds that has begun in a shard or store, as whoever writes it reads it."""
    part = holder.part()
    return {
        name: TableChange(TableState.join([*part.chunks(name)]), part.removed(name), part.side(name))
        for name in part.tables()
    }


def changed(before: TableState, state: TableState, removed: np.ndarray) -> TableState:
    """A table after a difference: `removed` keys went, then the rows of `state` came."""
    stays = ~np.isin(before.keys, np.concatenate((removed, state.keys)))
    return TableState.join([before.take(stays), state])


@dataclass
class ListSource:
    """A bounded source of prepared batches."""

    batches: list[Batch]
    dead: dict[int, list[DeadLetter]] = field(default_factory=dict)
    given: int = 0

    def poll(self, timeout_s: float) -> Decoded | None:
        """The next batch, with the dead letters noted for its place in the list."""
        if self.exhausted:
            return None
        self.given += 1
        return Decoded(self.batches[self.given - 1], self.dead.get(self.given - 1, []))

    @property
    def exhausted(self) -> bool:
        """True after the last batch."""
        return self.given == len(self.batches)

    def lags(self) -> dict[int, int]:
        """Records that have not been given."""
        lags: dict[int, int] = {}
        for batch in self.batches[self.given :]:
            lags[batch.batch_id.partition] = lags.get(batch.batch_id.partition, 0) + len(batch)
        return lags

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class MemorySink:
    """Remembers dead letters."""

    letters: list[DeadLetter] = field(default_factory=list)
    flushes: int = 0

    def write(self, letters: list[DeadLetter]) -> None:
        """Remember."""
        self.letters += letters

    def flush(self) -> None:
        """Count."""
        self.flushes += 1

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class MemoryPredictions:
    """Remembers predictions in the order learnt."""

    predictions: list[np.ndarray] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def write(self, batch: Batch, mixed: Mixed, version: str) -> None:
        """Remember."""
        self.predictions.append(mixed.predictions)
        self.versions.append(version)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class Rig:
    """A worker in a world of plain objects; the clock stands still, and commands are carried out at once.

    `on_snapshot` is called with each snapshot that is commanded, before the coordinator is told that it is written.
    """

    learner: Learner
    store: ParameterStore
    source: ListSource
    coordinator: Coordinator
    worker: int = 0
    letters: MemorySink = field(default_factory=MemorySink)
    predicted: MemoryPredictions = field(default_factory=MemoryPredictions)
    commands: list[Command] = field(default_factory=list)
    in_flight: int = 2
    state: WorkerState = field(default_factory=WorkerState)
    observer: Observer | None = None
    lag_records: int | None = None
    on_snapshot: Callable[[TakeSnapshot], None] = lambda _: None
    sleep: Callable[[float], None] = lambda _: None

    def build(self) -> Worker:
        """The worker itself."""
        world = World(
            source=self.source,
            store=self.store,
            coordinator=Attended(self),
            dead_letters=self.letters,
            predictions=self.predicted,
            clock_s=lambda: 0.0,
            sleep=self.sleep,
        )
        return Worker(
            self.worker,
            self.learner,
            self.state,
            world,
            self.coordinator.directive().moment,
            observer=self.observer,
            lag_records=self.lag_records,
            pulls_in_flight_max=self.in_flight,
            report_interval_s=0.0,
        )

    def carry_out(self) -> None:
        """What the supervisor does: write the snapshots that are commanded."""
        while commands := self.coordinator.commands():
            for command in commands:
                self.commands.append(command)
                if isinstance(command, TakeSnapshot):
                    self.on_snapshot(command)
                    self.coordinator.tell(SnapshotWritten(command.moment.snapshot))


class Attended:
    """The coordinator as a rig's worker sees it: after every word the rig carries out what follows from it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def report(self, reported: Reported) -> Directive:
        """Count."""
        return self._attended(self._rig.coordinator.report(reported))

    def arrive(self, arrived: Arrived) -> Directive:
        """Note."""
        return self._attended(self._rig.coordinator.arrive(arrived))

    def directive(self) -> Directive:
        """What to do."""
        return self._attended(self._rig.coordinator.directive())

    def _attended(self, directive: Directive) -> Directive:
        self._rig.carry_out()
        return directive
