"""A job on a cluster that a test holds in its hand, so that it may ask the shards before, meanwhile and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.status import Status
from cluster.cluster_port import ClusterPort
from cluster.config import Pipeline
from cluster.snapshots.store import SnapshotStore
from cluster.snapshots.writing import SnapshotWriter
from cluster.starts import Start, Starter
from cluster.supervise import Supervisor


def supervise(
    cluster: ClusterPort,
    pipeline: Pipeline,
    run: Path,
    on_status: Callable[[Status], None] = lambda _: None,
    on_begun: Callable[[Start], None] = lambda _: None,
    **options: Any,
) -> tuple[Status, str]:
    """Learn to the end in the run's folder, from where it stands; the last status and the last snapshot's folder."""
    run.mkdir(parents=True, exist_ok=True)
    store = SnapshotStore(str(run), print)
    starter = Starter(pipeline, store, str(run), run, print, local=False)
    writer = SnapshotWriter(cluster, store, pipeline, print)
    try:
        supervisor = Supervisor(cluster, pipeline, starter, writer, on_status, print, **options)
        status, manifest = supervisor.run(on_begun)
    finally:
        writer.close()
    return status, store.folder(manifest.number)
