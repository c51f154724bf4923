"""An ensemble with drift and reactions on a real Ray: deaths change nothing; several workers go on with one mixer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from actors.status import Status
from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import run_job
from cluster.launch import RayCluster
from cluster.snapshots.job_arrays import read_job
from cluster.snapshots.model import load_model
from cluster.snapshots.store import SnapshotStore
from tests.cluster.supervised import supervise
from tests.cluster.topics import produce, records

RECORDS, PARTITIONS = 12_000, 2

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def topic(broker: Broker) -> str:
    """Records whose labels mean the opposite from the middle on."""
    rows = records(RECORDS)
    for i, row in enumerate(rows):
        row["label"] = int((row["features"]["price"] > 3) != (i >= RECORDS // 2))
    produce(broker, "ensemble-on-ray", rows, PARTITIONS)
    return "ensemble-on-ray"


def pipeline_of(broker: Broker, topic: str, folder: Path, run: str, workers: int) -> Pipeline:
    """A bounded job over two shards, with a snapshot every 1,500 records."""
    experts: list[dict[str, Any]] = [
        {"kind": "ftrl", "name": "slow", "alpha": 0.05},
        {"kind": "population", "rates": [0.02, 0.05], "restless": [], "stackers": []},
        {"kind": "river", "name": "tree", "model": "river.tree.HoeffdingTreeClassifier"},
    ]
    values = {
        "name": "mixed", "run": run, "batch_records": 100,
        "source": {"kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": broker.bootstrap_servers},
        "learner": {"kind": "ensemble", "experts": experts},
        "drift": {"reactions": [{"kind": "raise_rates", "records": 500}, {"kind": "raise_share", "records": 500}]},
        "cluster": {"workers": workers, "shards": 2},
        "snapshots": {"path": str(folder), "interval_s": 0, "interval_records": 1500},
        "mlflow": {"enabled": False},
    }  # fmt: skip
    return build_pipeline(values, [], origin="test")


def rows_of(folder: str) -> dict[str, dict[int, bytes]]:
    """Rows by key of a snapshot's tables."""
    arrays = load_model(folder).arrays
    names = [name.removesuffix(".rows") for name in arrays if name.endswith(".rows")]
    return {
        name: dict(zip(arrays[f"{name}.keys"].tolist(), map(bytes, arrays[f"{name}.rows"]), strict=True))
        for name in names
    }


def known(folder: str) -> dict[str, bytes]:
    """What the workers and the coordinator know by themselves, but for the order in which river holds weights."""
    url, _, number = folder.rpartition("/snapshots/")
    store = SnapshotStore(url, print)
    state = read_job(store, store.manifest(int(number)))
    found = {f"watch.{name}": array for name, array in state.watch.items()}
    for worker, arrays in state.workers.items():
        found |= {f"{worker}.{name}": array for name, array in arrays.items()}
    return {name: array.tobytes() for name, array in found.items() if not name.endswith(".graph")}


@pytest.mark.usefixtures("local_ray")
def test_deaths_change_no_bit(broker: Broker, topic: str, tmp_path: Path) -> None:
    """The worker is killed before the drift, the coordinator behind it: rows, mixer, drift and metrics are the same."""
    alone = run_job(pipeline_of(broker, topic, tmp_path, "alone", 1), Console(file=io.StringIO()), local=True)
    assert any(event.kind == "drift" for event in alone.figures.status.events), (
        "there is something to react to"
    )
    pipeline = pipeline_of(broker, topic, tmp_path, "mixed-struck", 1)
    victims = {RECORDS // 3: "worker-0", RECORDS * 3 // 4: "coordinator"}

    def strike(status: Status) -> None:
        for records_min in [at for at in victims if status.records >= at]:
            ray.kill(ray.get_actor(f"mixed-struck/{victims.pop(records_min)}", namespace="millrace"))

    with RayCluster(pipeline) as cluster:
        status, folder = supervise(cluster, pipeline, tmp_path / "struck", strike, status_interval_s=0.05)
    assert not victims
    assert status.generation >= 3
    assert status.records == RECORDS
    assert rows_of(folder) == rows_of(alone.snapshot)
    assert known(folder) == known(alone.snapshot)
    assert status.metrics.summary() == alone.figures.status.metrics.summary()


@pytest.mark.usefixtures("local_ray")
def test_several_workers_go_on_with_one_mixer(broker: Broker, topic: str, tmp_path: Path) -> None:
    """Two workers, a partition each, learn what there is to learn; what their mixers held is one at the end."""
    result = run_job(pipeline_of(broker, topic, tmp_path, "two", 2), Console(file=io.StringIO()))
    figures = result.figures.since_start
    assert result.figures.status.records == RECORDS
    assert figures["log_loss"] < 0.8 * figures["prior_log_loss"]
    of_worker: list[dict[str, bytes]] = [{}, {}]
    for name, value in known(result.snapshot).items():
        owner, _, what = name.partition(".")
        if what.startswith("mixer."):
            of_worker[int(owner)][what] = value
    assert of_worker[0]
    assert of_worker[0] == of_worker[1]
