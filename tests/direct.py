"""Worlds for tests of actors: sources from lists, sinks that remember, and the state as a dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.coordinator import Coordinator
from actors.ports import Decoded
from actors.worker import Worker, World
from learning.encoding import NumericEncoder

if TYPE_CHECKING:
    from actors.ports import DeadLetter, ParameterStore
    from learning.batch import Batch
    from learning.job_messages import Command
    from learning.learner import Learner


def rows_by_key(holders: list[Any], table: str = "weights") -> dict[int, tuple[float, ...]]:
    """All rows of a table by key; `holders` are shards or stores."""
    parts = [holder.snapshot()[table] for holder in holders]
    return {int(key): tuple(row) for part in parts for key, row in zip(part.keys, part.rows, strict=True)}


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

    def lag_records(self) -> int:
        """Records that have not been given."""
        return sum(len(batch) for batch in self.batches[self.given :])

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

    def write(self, batch: Batch, predictions: np.ndarray, version: str) -> None:
        """Remember."""
        self.predictions.append(predictions)
        self.versions.append(version)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class Rig:
    """A worker in a world of plain objects; the clock stands still and sleeping carries out commands."""

    learner: Learner
    store: ParameterStore
    source: ListSource
    coordinator: Coordinator
    worker: int = 0
    letters: MemorySink = field(default_factory=MemorySink)
    predicted: MemoryPredictions = field(default_factory=MemoryPredictions)
    commands: list[Command] = field(default_factory=list)
    in_flight: int = 2

    def build(self) -> Worker:
        """The worker itself."""
        world = World(
            source=self.source,
            store=self.store,
            coordinator=self.coordinator,
            dead_letters=self.letters,
            predictions=self.predicted,
            clock_s=lambda: 0.0,
            sleep=lambda _: self.carry_out(),
        )
        return Worker(
            self.worker,
            self.learner,
            NumericEncoder(),
            world,
            pulls_in_flight_max=self.in_flight,
            report_interval_s=0.0,
        )

    def carry_out(self) -> None:
        """What the supervisor does: take the snapshots that are commanded."""
        for command in self.coordinator.commands():
            self.commands.append(command)
            if number := getattr(command, "number", 0):
                self.coordinator.snapshot_taken(number)
