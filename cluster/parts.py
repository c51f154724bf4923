"""A shard's part of a snapshot: written from its tables, and loaded into new ones."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from actors.shard import ParameterShard
from cluster.local_store import LocalStore
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.part_files import write_part
from cluster.snapshots.store import SnapshotStore
from learning.admission import counts_of
from learning.exchange import Moment

if TYPE_CHECKING:
    from cluster.config import Pipeline
    from cluster.snapshots.manifest import SnapshotManifest
    from learning.table_state import TableChange

__all__ = ["Preloaded", "load_part", "load_store", "new_shard", "preload_part", "write_shard"]

log = logging.getLogger("millrace.snapshots")


def new_shard(pipeline: Pipeline, shard: int) -> ParameterShard:
    """An empty shard; the first one lets pulls in or has them wait."""
    count = pipeline.cluster.shards
    bounds = (pipeline.cluster.staleness_examples_max, pipeline.cluster.staleness_share_max)
    return ParameterShard(
        shard,
        pipeline.learner.build(),
        {name: policy.of_shard(count) for name, policy in pipeline.policies().items()},
        *((None, None) if shard else bounds),
    )


class Preloaded(NamedTuple):
    """A shard with its share of an older snapshot than the one it is to begin at."""

    shard: ParameterShard
    snapshot: SnapshotManifest


def preload_part(pipeline: Pipeline, shard: int, run_url: str, tables: int) -> Preloaded:
    """A shard's share of a snapshot, ahead of the generation that it is for. Raises SnapshotError."""
    manifest = SnapshotStore(run_url, log.warning).manifest(tables)
    return Preloaded(load_part(pipeline, shard, Moment(0, tables), run_url, tables, 0), manifest)


def load_part(
    pipeline: Pipeline,
    shard: int,
    moment: Moment,
    run_url: str,
    tables: int,
    pushed: int,
    ahead: Preloaded | None = None,
) -> ParameterShard:
    """A shard that begins at `moment`, with its share of snapshot `tables` (0: empty). Raises SnapshotError.

    Of one that has loaded an older snapshot `ahead` only the differences to it are read, if it rests on that.
    """
    shards, store = pipeline.cluster.shards, SnapshotStore(run_url, log.warning)
    if ahead is not None and tables:
        layers = store.load_since(ahead.snapshot, tables, shard, shards)
        if layers is not None:
            own = [
                {
                    table: [_own(change, shard, shards) for change in changes]
                    for table, changes in layer.items()
                }
                for layer in layers
            ]
            ahead.shard.catch_up(own, moment, pushed)
            return ahead.shard
    made = new_shard(pipeline, shard)
    if not tables:
        made.begin(moment)
        return made
    state, sides = store.load_shard(tables, shard, shards)
    counts = [{table: counts_of(side, shard, shards) for table, side in part.items()} for part in sides]
    made.restore(state, counts, moment, pushed)
    return made


def _own(change: TableChange, shard: int, shards: int) -> TableChange:
    return change._replace(side=counts_of(change.side, shard, shards))


def load_store(pipeline: Pipeline, moment: Moment, run_url: str, tables: int, pushed: int) -> LocalStore:
    """The same for tables in this process. Raises SnapshotError."""
    made = LocalStore(pipeline.learner.build())
    if tables:
        made.restore(*SnapshotStore(run_url, log.warning).load(tables), moment, pushed)
    return made


def write_shard(held: ParameterShard | LocalStore, shard: int, moment: Moment, folder: str) -> PartFiles:
    """Begin the moment's snapshot here, unless a worker's call has, and write it. Raises SnapshotError."""
    with held.held.lock:  # else a worker's call could begin the snapshot after it in between
        held.freeze(moment)
        part = held.part()
    prefix = f"shard{shard}_g{moment.generation}"
    with closing(part):  # a disk that is full must not have the table copy its rows until the next snapshot
        return PartFiles.of(prefix, write_part(folder, prefix, part))
