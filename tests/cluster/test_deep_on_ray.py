"""A torch learner on a real Ray, through the broker: one worker equals one process, also when it dies on the way."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import ray
from rich.console import Console

from actors.status import Status
from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import run_job
from cluster.launch import RayCluster
from cluster.snapshots.model import load_model
from tests.cluster.supervised import supervise
from tests.cluster.topics import produce, records

RECORDS = 6000

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def pipeline_of(broker: Broker, folder: Path) -> Pipeline:
    """A bounded job of one worker over two shards, with dropout, and a snapshot every 600 records."""
    values = {
        "name": "deep", "run": "alone", "batch_records": 100,
        "source": {
            "kind": "kafka", "topic": "deep-on-ray", "until": "end", "bootstrap_servers": broker.bootstrap_servers,
        },
        "learner": {"kind": "deep", "embedding": 4, "hidden": [16], "dropout": 0.1, "step_records": 10},
        "cluster": {"workers": 1, "shards": 2},
        "snapshots": {"path": str(folder), "interval_s": 0, "interval_records": 600},
        "mlflow": {"enabled": False},
    }  # fmt: skip
    return build_pipeline(values, [], origin="test")


def rows_of(folder: str) -> dict[str, dict[int, bytes]]:
    """Rows by key of a snapshot's tables."""
    arrays = load_model(folder).arrays
    return {
        name: dict(zip(arrays[f"{name}.keys"].tolist(), map(bytes, arrays[f"{name}.rows"]), strict=True))
        for name in ("embeddings", "dense")
    }


@pytest.mark.usefixtures("local_ray")
def test_a_worker_that_dies_changes_no_bit(broker: Broker, tmp_path: Path) -> None:
    """Killed once it has learnt a third: rows, Adam's moments and metrics are those of a job in one process."""
    produce(broker, "deep-on-ray", records(RECORDS), 2)
    pipeline = pipeline_of(broker, tmp_path)
    expected = run_job(pipeline, Console(file=io.StringIO()), local=True)
    killed: list[int] = []

    def strike(status: Status) -> None:
        if status.records >= RECORDS / 3 and not killed:
            killed.append(status.records)
            ray.kill(ray.get_actor("alone/worker-0", namespace="millrace"))

    with RayCluster(pipeline) as cluster:
        status, folder = supervise(cluster, pipeline, tmp_path / "struck", strike, status_interval_s=0.05)
    assert killed
    assert killed[0] < RECORDS
    assert status.generation >= 2
    assert status.records == RECORDS
    assert rows_of(folder) == rows_of(expected.snapshot)
    assert status.metrics.summary() == expected.figures.status.metrics.summary()
