"""Composes the status document from what the driver knows of its job."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from cluster.figures import staleness_of
from cluster.models.redaction import without_secrets
from cluster.status.document import (
    Freshness,
    Job,
    Partition,
    Quality,
    Shard,
    Snapshots,
    Worker,
)

if TYPE_CHECKING:
    from actors.status import Status
    from cluster.config import Pipeline
    from cluster.figures import Figures
    from cluster.runs import Run
    from cluster.snapshots.manifest import SnapshotManifest

__all__ = ["figures_part", "job_part", "shards_part", "snapshots_part"]


def job_part(pipeline: Pipeline, run: Run, mlflow_run: str | None, *, local: bool) -> Job:
    """Which job this is; it begins now."""
    source = pipeline.source
    return Job(
        run=run.name,
        pipeline=pipeline.name,
        source=f"topic {source.topic}" if source.kind == "kafka" else f"file {source.path}",
        learner=pipeline.learner.kind,
        place="this process" if local else "Ray",
        host=socket.gethostname(),
        pid=os.getpid(),
        run_url=str(without_secrets(run.url)),
        mlflow_run=mlflow_run,
        started_s=time.time(),
    )


def figures_part(figures: Figures, begins: tuple[Status, float]) -> dict[str, Any]:
    """What is known of the stream, its workers and partitions; the window began at `begins`."""
    status, (before, before_s) = figures.status, begins
    window_s = max(figures.seconds - before_s, 1e-9)
    offsets = {partition.partition: partition.offset for partition in before.partitions}
    records = {worker.worker: worker.records for worker in before.workers}
    return {
        "seen_s": time.time(),
        "seconds": figures.seconds,
        "window_s": figures.seconds - before_s,
        "generation": status.generation,
        "records": status.records,
        "dead": status.dead,
        "lag": status.lag if any(p.lag is not None for p in status.partitions) else None,
        "records_per_s": figures.rate,
        "freshness": Freshness(p50_s=figures.delay_p50_s, p99_s=figures.delay_p99_s),
        "quality": {
            name: Quality(window=figures.window.get(name), since_start=value)
            for name, value in figures.since_start.items()
        },
        "partitions": [
            Partition(
                partition=p.partition, worker=p.worker, offset=p.offset, lag=p.lag,
                per_s=_rate(offsets.get(p.partition), p.offset, window_s),
            )
            for p in status.partitions
        ],
        "workers": [
            Worker(
                worker=w.worker, partitions=list(w.partitions), records=w.records, dead=w.dead, lag=w.lag,
                records_per_s=_rate(records.get(w.worker), w.records, window_s), finished=w.finished,
            )
            for w in status.workers
        ],
        "groups": {
            group: {row: {name: float(value) for name, value in own.items()} for row, own in rows.items()}
            for group, rows in status.groups.items()
        },
    }  # fmt: skip


def shards_part(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """What the shards hold, each and by table, and how stale their pushes were."""
    if not shards:
        return {}
    tables = {
        name: {
            counter: (max if counter == "load" else sum)([float(s["tables"][name][counter]) for s in shards])
            for counter in shards[0]["tables"][name]
        }
        for name in shards[0]["tables"]
    }
    return {
        "shards": [_shard(number, shard) for number, shard in enumerate(shards)],
        "tables": tables,
        "staleness": staleness_of(shards),
    }


def snapshots_part(status: Status, newest: SnapshotManifest | None, write_s: float | None) -> Snapshots:
    """The last whole snapshot; `write_s` is how long it took to write."""
    pauses: dict[str, Any] = {
        "pause_p50_s": status.pauses.quantile_s(0.50),
        "pause_p99_s": status.pauses.quantile_s(0.99),
    }
    if newest is None:
        return Snapshots(number=0, **pauses)
    return Snapshots(
        number=newest.number,
        created_s=newest.created_s,
        records=newest.records,
        size_bytes=sum(entry.size_bytes for part in newest.all_parts() for entry in part.files),
        write_s=write_s,
        **pauses,
    )


def _shard(number: int, counters: dict[str, Any]) -> Shard:
    tables = list(counters["tables"].values())
    return Shard(
        shard=number,
        rows=sum(int(table["rows"]) for table in tables),
        bytes=sum(int(table["bytes"]) for table in tables),
        load=max((float(table["load"]) for table in tables if "load" in table), default=None),
        pushes=counters.get("pushes"),
        moved_rows=counters.get("moved_rows"),
        waits=counters.get("waits"),
    )


def _rate(before: int | None, now: int | None, window_s: float) -> float | None:
    return None if before is None or now is None or now < before else (now - before) / window_s
