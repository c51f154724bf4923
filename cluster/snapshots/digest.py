"""The digest of a state: one number by which two runs, or a run and its replay, are compared bit for bit."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.snapshots.job_arrays import read_job
from cluster.snapshots.model import tables_of_snapshot
from learning.worker_state import merged_encoders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cluster.snapshots.store import SnapshotStore

__all__ = ["state_digest"]


def state_digest(store: SnapshotStore, number: int) -> str:
    """SHA-256 of all that learning goes on from, in an order that does not depend on shards or growth of tables.

    In it: place in the stream, counters, metrics, what encoders know together, what else each worker knows, what is
    known about drift and what it asks for, and of every table the keys, rows, names and ticks of last use. Not in it:
    delays, which no replay can repeat, what each shard keeps beside its rows, rows that are too old, which go whenever
    a sweep or a restart comes by, and the saved form of river's models, which is not the only one of a model.
    Raises SnapshotDamagedError.
    """
    digest = hashlib.sha256()
    for name, array in _arrays(store, number):
        digest.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _arrays(store: SnapshotStore, number: int) -> Iterator[tuple[str, NDArray[Any]]]:
    manifest = store.manifest(number)
    state = read_job(store, manifest)
    yield "offsets", np.array(sorted(state.offsets.items()), np.int64).reshape(-1, 2)
    yield "counters", np.array([state.records, state.dead], np.int64)
    for name, array in sorted(state.metrics.arrays().items()):
        yield f"metrics.{name}", array
    keys, stats = merged_encoders(of for _, of in sorted(state.workers.items()))
    order = np.argsort(keys)
    yield "encoder.keys", keys[order]
    yield "encoder.stats", stats[order]
    for worker, own in sorted(state.workers.items()):
        for name, array in sorted(own.items()):
            if not name.startswith("encoder.") and not name.endswith((".graph", ".data")):
                yield f"worker{worker}.{name}", array
    for name, array in sorted(state.watch.items()):
        yield f"drift.{name}", array
    yield "behind", np.array(state.changes, np.float64).reshape(-1, 2)
    for name, table in sorted(tables_of_snapshot(store, number).items()):
        sorted_table = table.take(np.argsort(table.keys))
        yield f"{name}.keys", sorted_table.keys
        yield f"{name}.rows", sorted_table.rows
        if sorted_table.names is not None:
            yield f"{name}.names", sorted_table.names.data
            yield f"{name}.name_ends", sorted_table.names.offsets
        if sorted_table.used is not None:
            yield f"{name}.used", sorted_table.used
