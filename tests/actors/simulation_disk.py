"""The disk of a simulated job: a dictionary. A snapshot is there once it is committed.

It is whole if neither it nor one that it rests on was damaged: the newest is found by its manifests, and what is wrong
with rows shows when they are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cluster.snapshots.errors import SnapshotDamagedError
from cluster.snapshots.replay import ShardOf
from learning.admission import counts_of
from learning.grouping import shard_of_segment
from learning.keys import segment_of
from learning.table_state import TableChange, TableState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actors.ports import Layers, Sides
    from learning.exchange import Moment
    from learning.job_state import JobState

__all__ = ["Disk", "DiskFullError", "Written"]


class DiskFullError(Exception):
    """A snapshot cannot be written."""


@dataclass
class Written:
    """A committed snapshot: the job's state, and of each shard its changes by table since snapshot `since`."""

    state: JobState
    moment: Moment
    parts: list[dict[str, TableChange]]
    damage: str = ""


class Disk:
    """What outlives every process."""

    def __init__(self) -> None:
        self.snapshots: dict[int, Written] = {}
        self.generation = 0
        self.last: Written | None = None

    def newest(self, before: int | None) -> int | None:
        """The newest snapshot whose chain has no manifest that is damaged."""
        for number in sorted(self.snapshots, reverse=True):
            chain = self._chain(number)
            if (before is None or number < before) and all(written.damage != "manifest" for written in chain):
                return number
        return None

    def commit(self, written: Written) -> None:
        """The manifest of a snapshot, the last of its files."""
        number = written.moment.snapshot
        if number in self.snapshots or self.generation > written.moment.generation:
            raise DiskFullError(f"snapshot {number} is finished already, or another start has taken over")
        self.snapshots[number] = self.last = written

    def deltas(self, number: int) -> int:
        """How many differences a snapshot's chain has."""
        return len(self._chain(number)) - 1

    def load(self, number: int) -> tuple[dict[str, TableState], list[dict[str, TableChange]]]:
        """The tables as of a snapshot, and its parts."""
        chain = self._chain(number)
        if any(written.damage for written in chain):
            raise SnapshotDamagedError(f"snapshot {number} is damaged")
        parts = chain[0].parts
        return {name: _merged([[p[name] for p in w.parts] for w in chain]) for name in parts[0]}, parts

    def load_shard(self, number: int, shard: int, shards: int) -> tuple[dict[str, TableState], Sides]:
        """What one shard is to hold, and the sides of the parts that had some of its keys."""
        tables, parts = self.load(number)
        owners = set(shard_of_segment(len(parts))[ShardOf(shard, shards).segments()].tolist())
        sides = [
            {name: counts_of(change.side, shard, shards) for name, change in parts[o].items()}
            for o in sorted(owners)
        ]
        return {name: state.split(shards)[shard] for name, state in tables.items()}, sides

    def load_since(self, before: int, number: int, shard: int, shards: int) -> Layers:
        """What changed for a shard between two snapshots of one chain."""
        chain = self._chain(number)[::-1]
        if any(written.damage for written in chain):
            raise SnapshotDamagedError(f"snapshot {number} is damaged")
        own = ShardOf(shard, shards).segments()
        later = [written for written in chain if written.moment.snapshot > before]
        return [
            {
                name: [_share(part[name], own, shard, shards) for part in written.parts]
                for name in written.parts[0]
            }
            for written in later
        ]

    def numbers(self, number: int) -> list[int]:
        """The snapshots of a chain."""
        return [written.moment.snapshot for written in self._chain(number)]

    def _chain(self, number: int) -> list[Written]:
        chain = [self.snapshots[number]]
        while chain[-1].moment.since:
            chain.append(self.snapshots[chain[-1].moment.since])
        return chain


def _share(change: TableChange, own: NDArray[np.bool_], shard: int, shards: int) -> TableChange:
    rows, removed = (own[segment_of(keys)] for keys in (change.state.keys, change.removed))
    side = counts_of(change.side, shard, shards)
    return TableChange(change.state.take(rows), change.removed[removed], side)


def _merged(layers: list[list[TableChange]]) -> TableState:
    """A table after changes, the newest of which come first: it says what a key is."""
    known: set[int] = set()
    pieces = []
    for changes in layers:
        gone: set[int] = set()
        for change in changes:
            keys = change.state.keys.tolist()
            pieces.append(change.state.take(np.array([key not in known for key in keys], np.bool_)))
            gone.update(keys, change.removed.tolist())
        known |= gone
    return TableState.join(pieces)
