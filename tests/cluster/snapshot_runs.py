"""Runs made by hand for tests of snapshot files: parts whose content is known, and whole snapshots of them."""

from __future__ import annotations

import numpy as np

from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.manifest import SnapshotManifest
from cluster.snapshots.part_files import write_arrays, write_part
from learning.grouping import split_by_shard
from learning.table_state import TableState
from learning.texts import TextColumn

NO_KEYS = np.empty(0, np.uint64)


class Part:
    """A frozen part: `tables` is name -> (TableState, removed, side); rows go out `chunk` at a time."""

    def __init__(self, tables, chunk=2):
        self._tables, self._chunk = tables, chunk

    def tables(self):
        return list(self._tables)

    def chunks(self, table):
        state = self._tables[table][0]
        for start in range(0, max(1, len(state.keys)), self._chunk):
            yield state.take(np.arange(start, min(len(state.keys), start + self._chunk)))

    def removed(self, table):
        return self._tables[table][1]

    def side(self, table):
        return self._tables[table][2]


def state_of(values, *, named=False):
    """A table of width 2 from {key: number}; the name of a key is its number as text, its tick ten times that."""
    keys = np.array(list(values), np.uint64)
    numbers = np.array(list(values.values()), np.float32)
    names = TextColumn.from_list([f"n{value}" for value in values.values()]) if named else None
    used = np.array([10 * value for value in values.values()], np.int64) if named else None
    return TableState(keys, np.stack([numbers, -numbers], axis=1), names, used)


def values_of(state):
    """{key: number} of such a table, with its parts compared with each other."""
    np.testing.assert_array_equal(state.rows[:, 0], -state.rows[:, 1])
    values = {int(key): int(row[0]) for key, row in zip(state.keys, state.rows, strict=True)}
    assert len(values) == len(state.keys)
    if state.names is not None:
        assert state.names.tolist() == [f"n{value}" for value in values.values()]
        assert state.used.tolist() == [10 * value for value in values.values()]
    return values


def key_of(number):
    """The number-th of keys that are spread over all segments."""
    return (number * 0x9E3779B97F4A7C15) % 2**64


def parts_of(shards, values, removed=(), chunk=2):
    """The parts of a snapshot with {key: number} in a plain table `weights` and in a named one, `items`."""
    gone = split_by_shard(np.array(list(removed), np.uint64), np.arange(len(removed)), shards)
    split = {name: state_of(values, named=name == "items").split(shards) for name in ("weights", "items")}
    side = [{"cells": np.full((2, 3), s, np.uint16), "age": np.array(float(s))} for s in range(shards)]
    return [
        Part({name: (split[name][s], gone[s][0], side[s]) for name in split}, chunk) for s in range(shards)
    ]


def manifest_of(store, number, parts, job, **changes):
    """A manifest of written files."""
    fields = {
        "number": number, "generation": 1, "parent": None, "shards": len(parts),
        "pipeline": {"name": "clicks"}, "offsets": {0: 12, 7: 2**40}, "ends": {0: None, 7: 2**41},
        "records": 5 * number, "dead": 1, "turns": {0: 7}, "metrics": {"log_loss": 0.25},
        "parts": tuple(parts), "job": job, "code_version": "0.1.0+abc", "created_s": 1.5, "note": {},
    }  # fmt: skip
    return SnapshotManifest(**{**fields, **changes})


def write_files(store, number, parts, generation=1):
    """All files of a snapshot but its manifest."""
    folder = store.folder(number)
    written = []
    for shard, part in enumerate(parts):
        prefix = f"shard{shard}_g{generation}"
        written.append(PartFiles.of(prefix, write_part(folder, prefix, part)))
    arrays = {"encoder.keys": np.arange(3, dtype=np.uint64), "encoder.stats": np.ones((3, 3))}
    prefix = f"job_g{generation}"
    return written, PartFiles.of(prefix, write_arrays(folder, prefix, arrays))


def write_snapshot(store, number, values, *, parent=None, removed=(), shards=2, **changes):
    """A finished snapshot."""
    parts, job = write_files(store, number, parts_of(shards, values, removed), changes.get("generation", 1))
    manifest = manifest_of(store, number, parts, job, parent=parent, **changes)
    store.commit(manifest)
    return manifest
