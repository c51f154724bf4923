"""A rolled-back copy: a new snapshot with the tables and workers of an older one, which stays as it is.

It is an empty difference to the older one, so it costs no copying and is there, or not, with one rename; then every
start begins at it, because it is the newest. Mode `keep` takes place in the stream, counters and metrics from the
newest snapshot, mode `replay` from the older one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cluster.models.model_files import code_version
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.job_arrays import arrays_of_job, read_job
from cluster.snapshots.part_files import read_arrays, write_arrays, write_part
from learning.table_state import TableState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore
    from learning.worker_state import Arrays

__all__ = ["Mode", "go_back"]

Mode = Literal["keep", "replay"]

_COUNTED = ("statistics.", "slices.", "slice_texts")
"""What a worker knows that counts records, as metrics do, and not what is learnt."""
_OWN_FIELDS = {"keys", "rows", "names", "name_ends", "used", "removed"}


def go_back(store: SnapshotStore, to: int, mode: Mode, note: dict[str, Any]) -> SnapshotManifest:
    """Write the copy of snapshot `to`; `note` is added to its own. Raises SnapshotError."""
    store.verify(to)
    old, newest = store.manifest(to), store.newest()
    if newest is None or newest.number < to:
        raise SnapshotError(f"snapshot {to} is not whole any more; go back to another one")
    place = newest if mode == "keep" else old
    present, earlier = read_job(store, place), read_job(store, old)
    if mode == "keep":
        # What waited to happen to the rows that are left behind is of no concern to those that come back.
        present = replace(present, changes=(), renewed=())
    state = replace(
        present,
        workers=_gone_back(present.workers, earlier.workers),
        journal=np.empty(
            (0, 4), np.int64
        ),  # what was learnt on the way to `place` did not lead to these tables
    )
    number, generation = max(store.numbers()) + 1, store.next_generation()
    folder, prefix = store.folder(number), f"job_g{generation}"
    parts = [
        _empty_part(store.folder(to), part, folder, f"shard{shard}_g{generation}")
        for shard, part in enumerate(old.parts)
    ]
    copy = replace(
        place, number=number, generation=generation, parent=to, shards=old.shards, parts=tuple(parts),
        job=PartFiles.of(prefix, write_arrays(folder, prefix, arrays_of_job(state))),
        code_version=code_version(), created_s=time.time(),
        note={**note, "rolled_back_to": to, "mode": mode, "finished": bool(place.note.get("finished"))},
    )  # fmt: skip
    store.commit(copy)
    return copy


def _gone_back(present: dict[int, Arrays], earlier: dict[int, Arrays]) -> dict[int, Arrays]:
    """What workers know: of numbers and of an ensemble as it was, and what counts records as it is."""
    nothing: Arrays = {"encoder.keys": np.empty(0, np.uint64), "encoder.stats": np.empty((0, 3))}
    gone: dict[int, Arrays] = {}
    for worker in sorted({*present, *earlier}):
        learnt = {n: a for n, a in earlier.get(worker, nothing).items() if not n.startswith(_COUNTED)}
        counted = {n: a for n, a in present.get(worker, {}).items() if n.startswith(_COUNTED)}
        gone[worker] = learnt | counted
    return gone


def _empty_part(old_folder: str, old: PartFiles, folder: str, prefix: str) -> PartFiles:
    """No row, and what each table knew beside its rows."""
    sides = [entry for entry in old.files if entry.name.split(".")[2] not in _OWN_FIELDS]
    empty = _Empty(old.tables(), read_arrays(old_folder, old.prefix, sides))
    return PartFiles.of(prefix, write_part(folder, prefix, empty))


class _Empty:
    """A part in which nothing has changed (implements FrozenPart)."""

    def __init__(self, tables: list[str], sides: dict[str, NDArray[Any]]) -> None:
        self._tables = tables
        self._sides = sides

    def tables(self) -> list[str]:
        return self._tables

    def chunks(self, table: str) -> Iterator[TableState]:
        return iter(())

    def removed(self, table: str) -> NDArray[np.uint64]:
        return np.empty(0, np.uint64)

    def side(self, table: str) -> dict[str, NDArray[Any]]:
        names = {name.partition(".")[::2]: array for name, array in self._sides.items()}
        return {field: array for (of, field), array in names.items() if of == table}
