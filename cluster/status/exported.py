"""What is exported for Prometheus: the names, with their tags, and the values that a status document gives them.

Ray exports them from the driver's node, each with `ray_` before its name. All are gauges: a run that goes back to a
snapshot has learnt fewer records than before, and a counter could not say so. Every sample also has the tags `run` and
`pipeline`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cluster.status.document import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.status.document import StatusDocument

__all__ = ["EXPORTED", "Exported", "Sample", "samples"]

SERIES_MAX = 1000
"""Partitions, workers, shards and further figures, of each at most so many: each is a time series of its own."""


class Exported(NamedTuple):
    """A metric; `tags` are those beside run and pipeline."""

    name: str
    tags: tuple[str, ...]
    description: str


class Sample(NamedTuple):
    """One value of a metric."""

    name: str
    tags: dict[str, str]
    value: float


EXPORTED = tuple(
    Exported(f"millrace_{name}", tags, description)
    for name, tags, description in [
        ("running", (), "1 while the job learns or comes back, 0 once it has ended"),
        ("generation", (), "How often the run has begun"),
        ("recoveries", (), "How often this job has come back from its last snapshot"),
        ("records", (), "Records read since the run began"),
        ("dead_letters", (), "Records that could not be learnt, since the run began"),
        ("records_per_second", (), "Records read a second, over the last ten seconds"),
        ("lag_records", (), "Messages that are in the stream and have not been read"),
        ("freshness_seconds", ("quantile",), "From produced to learnt, over the last ten seconds"),
        ("staleness_records", ("quantile",), "Records of other workers that a push had missed, since the start"),
        ("quality", ("metric", "over"), "Prequential metrics: over the window, or since the start"),
        ("snapshot_number", (), "Number of the last whole snapshot"),
        ("snapshot_age_seconds", (), "Seconds since the last whole snapshot"),
        ("snapshot_bytes", (), "Size of the last whole snapshot"),
        ("snapshot_write_seconds", (), "How long the last snapshot took to write"),
        ("snapshot_pause_seconds", ("quantile",), "How long workers stood still for a snapshot"),
        ("partition_offset", ("partition",), "Next offset of a partition"),
        ("partition_lag_records", ("partition",), "Messages of a partition that have not been read"),
        ("worker_records_per_second", ("worker",), "Records that a worker learns a second"),
        ("worker_lag_records", ("worker",), "Messages of a worker's partitions that have not been read"),
        ("shard_rows", ("shard",), "Rows that a shard holds"),
        ("shard_bytes", ("shard",), "Memory of a shard's tables"),
        ("shard_load", ("shard",), "Filled share of a shard's fullest index"),
        ("shard_pushes", ("shard",), "Pushes that a shard has applied"),
        ("figure", ("group", "row", "figure"), "Further figures: experts' weights, slices, features"),
    ]
)  # fmt: skip


def samples(status: StatusDocument) -> Iterator[Sample]:
    """Every value that is known now."""
    fixed = {"run": status.job.run, "pipeline": status.job.pipeline}
    for name, tags, value in _all(status):
        if value is not None:
            yield Sample(f"millrace_{name}", fixed | tags, float(value))


def _all(status: StatusDocument) -> Iterator[tuple[str, dict[str, str], float | None]]:
    last = status.snapshots
    yield "running", {}, float(status.state not in ENDED)
    yield "generation", {}, status.generation
    yield "recoveries", {}, status.recoveries
    yield "records", {}, status.records
    yield "dead_letters", {}, status.dead
    yield "records_per_second", {}, status.records_per_s
    yield "lag_records", {}, status.lag
    yield "snapshot_number", {}, last.number
    yield "snapshot_age_seconds", {}, None if last.created_s is None else status.written_s - last.created_s
    yield "snapshot_bytes", {}, last.size_bytes
    yield "snapshot_write_seconds", {}, last.write_s
    for quantile, fresh, pause in (
        ("0.5", status.freshness.p50_s, last.pause_p50_s),
        ("0.99", status.freshness.p99_s, last.pause_p99_s),
    ):
        yield "freshness_seconds", {"quantile": quantile}, fresh
        yield "snapshot_pause_seconds", {"quantile": quantile}, pause
    for quantile, name in (("0.5", "records_p50"), ("0.99", "records_p99"), ("1", "records_max")):
        yield "staleness_records", {"quantile": quantile}, status.staleness.get(name)
    for metric, quality in status.quality.items():
        yield "quality", {"metric": metric, "over": "window"}, quality.window
        yield "quality", {"metric": metric, "over": "start"}, quality.since_start
    yield from _by_actor(status)


def _by_actor(status: StatusDocument) -> Iterator[tuple[str, dict[str, str], float | None]]:
    for partition in status.partitions[:SERIES_MAX]:
        tag = {"partition": str(partition.partition)}
        yield "partition_offset", tag, partition.offset
        yield "partition_lag_records", tag, partition.lag
    for worker in status.workers[:SERIES_MAX]:
        tag = {"worker": str(worker.worker)}
        yield "worker_records_per_second", tag, worker.records_per_s
        yield "worker_lag_records", tag, worker.lag
    for shard in status.shards[:SERIES_MAX]:
        tag = {"shard": str(shard.shard)}
        yield "shard_rows", tag, shard.rows
        yield "shard_bytes", tag, shard.bytes
        yield "shard_load", tag, shard.load
        yield "shard_pushes", tag, shard.pushes
    figures = [
        ({"group": group, "row": row, "figure": name}, value)
        for group, rows in status.groups.items()
        for row, own in rows.items()
        for name, value in own.items()
    ]
    for tag, value in figures[:SERIES_MAX]:
        yield "figure", tag, value
