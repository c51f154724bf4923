"""A run's state from a chain of snapshots: base and differences, over whatever numbers of shards they were written.

The newest says what a key is, so the chain is read from its end: a key that was seen, with a row or as removed, is
nothing that an older snapshot may tell about. No more than the result and one part of one table is in memory, and no
row is touched that does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.manifest import SnapshotManifest
from cluster.snapshots.part_files import read_part
from learning.grouping import shard_of_segment
from learning.keys import SEGMENTS, segment_of
from learning.table import Table
from learning.table_state import TableChange, TableState

__all__ = ["Layers", "ShardOf", "TableSides", "differences", "replay"]

TableSides = list[dict[str, dict[str, NDArray[Any]]]]
"""Of each shard whose part was read: table -> name -> side array."""

Layers = list[dict[str, list[TableChange]]]
"""Differences, oldest first: table -> the changes of each shard whose part was read."""

FolderOf = Callable[[SnapshotManifest], str]


class ShardOf(NamedTuple):
    """One shard of so many."""

    shard: int
    shards: int

    @classmethod
    def checked(cls, shard: int, shards: int) -> ShardOf:
        """One that there can be. Raises SnapshotError."""
        if not 0 <= shard < shards <= SEGMENTS:
            raise SnapshotError(f"expected a shard of 1 to {SEGMENTS}, but came shard {shard} of {shards}")
        return cls(shard, shards)

    def segments(self) -> NDArray[np.bool_]:
        """Which segments of the keys are its own: bool (SEGMENTS,)."""
        own: NDArray[np.bool_] = shard_of_segment(self.shards) == self.shard
        return own


_ALL = ShardOf(0, 1)


def replay(
    chain: list[SnapshotManifest], folder_of: FolderOf, wanted: ShardOf = _ALL
) -> tuple[dict[str, TableState], TableSides]:
    """The tables after a chain, base first, or what `wanted` is to hold of them; and the sides of its newest snapshot.

    Read are only parts whose shards had keys that are wanted. Raises SnapshotDamagedError.
    """
    newest = chain[-1]
    tables: dict[str, TableState] = {}
    sides: TableSides = [{} for _ in _parts(newest, wanted)]
    for table in dict.fromkeys(name for part in newest.parts for name in part.tables()):
        layers = (_changes(manifest, folder_of, table, wanted) for manifest in reversed(chain))
        first = next(layers)
        for side, change in zip(sides, first, strict=True):
            side[table] = change.side
        where = f"snapshot {newest.number}, table {table}"
        tables[table] = _merged(_first_then(first, layers), len(chain), where)
    return tables, sides


def differences(chain: list[SnapshotManifest], folder_of: FolderOf, wanted: ShardOf) -> Layers:
    """What each snapshot of (a part of) a chain says of the keys that are wanted. Raises SnapshotDamagedError."""
    return [
        {
            table: _changes(manifest, folder_of, table, wanted)
            for table in dict.fromkeys(name for part in manifest.parts for name in part.tables())
        }
        for manifest in chain
    ]


def _first_then(first: list[TableChange], rest: Iterator[list[TableChange]]) -> Iterator[list[TableChange]]:
    yield first
    yield from rest


def _parts(manifest: SnapshotManifest, wanted: ShardOf) -> list[tuple[int, PartFiles]]:
    """Number and files of each shard that had some of the wanted keys."""
    owners = shard_of_segment(manifest.shards)[wanted.segments()]
    return [(int(shard), manifest.parts[shard]) for shard in np.unique(owners)]


def _changes(
    manifest: SnapshotManifest, folder_of: FolderOf, table: str, wanted: ShardOf
) -> list[TableChange]:
    """What a snapshot's parts say of a table, the wanted keys of it."""
    changes = []
    for shard, part in _parts(manifest, wanted):
        entries = part.of_table(table)
        if not entries:  # an older learner, or code, did not have this table yet
            continue
        change = read_part(folder_of(manifest), part.prefix, entries)[table]
        written = ShardOf(shard, manifest.shards).segments()
        segments = [segment_of(keys) for keys in (change.state.keys, change.removed)]
        if not all(written[of_keys].all() for of_keys in segments):
            raise SnapshotDamagedError(
                f"snapshot {manifest.number}, {part.prefix}.{table}: keys of another shard than {shard} of "
                f"{manifest.shards}; its parts were mixed up"
            )
        own = wanted.segments()
        if not own[written].all():
            rows, removed = (own[of_keys] for of_keys in segments)
            change = TableChange(change.state.take(rows), change.removed[removed], change.side)
        changes.append(change)
    return changes


def _merged(layers: Iterator[list[TableChange]], count: int, where: str) -> TableState:
    """The rows that remain, from changes that come newest first, in `count` layers."""
    seen = Table(1)  # its rows are not used: it is a set of keys
    pieces: list[TableState] = []
    empty: list[TableState] = []
    for layer, changes in enumerate(layers, 1):
        for change in changes:
            keys = change.state.keys
            fresh = seen.find(keys) < 0
            before = len(seen)
            if layer < count:
                seen.locate(keys)
                twice = len(seen) - before != np.count_nonzero(fresh)
            else:  # nobody asks what the base had, which may be millions: sorting them is three times as fast
                ordered = np.sort(keys)
                twice = bool((ordered[1:] == ordered[:-1]).any())
            if twice:
                raise SnapshotDamagedError(f"{where}: a key comes twice; use an older one")
            piece = change.state if fresh.all() else change.state.take(fresh)
            (pieces if len(piece.keys) else empty).append(piece)
        if layer < count:
            for change in changes:
                seen.locate(change.removed)
    kinds = {(piece.rows.shape[1], piece.names is None, piece.used is None) for piece in pieces}
    if len(kinds) > 1:
        raise SnapshotDamagedError(
            f"{where}: rows of several widths, or with and without names: {sorted(kinds)}"
        )
    # A part without a single chunk knows no width; another one may.
    return TableState.join(pieces) if pieces else max(empty, key=lambda state: state.rows.shape[1])
