"""Scaling a job while it learns: workers and shards come and go, and nothing is lost, repeated, or learnt otherwise."""

from __future__ import annotations

import io
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray._private import state as ray_state
from rich.console import Console

from actors.ports import StoreError
from cluster.broker import Broker
from cluster.config import Pipeline
from cluster.job import JobResult, run_job
from cluster.launch import RayCluster
from cluster.models.model_files import ModelState
from cluster.reserve import Reserve
from cluster.resizing import Resizing
from cluster.snapshots.model import load_model
from cluster.snapshots.store import SnapshotStore
from cluster.starts import Start
from tests.cluster.commands import run, started
from tests.cluster.scaled import RECORDS, Feed, Job, pipeline_of
from tests.cluster.topics import consume, records

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


def rows_of(model: ModelState) -> tuple[np.ndarray, np.ndarray]:
    """Keys, ascending, and their rows."""
    order = np.argsort(model.arrays["weights.keys"])
    return model.arrays["weights.keys"][order], model.arrays["weights.rows"][order]


@pytest.mark.usefixtures("local_ray")
def test_workers_and_shards_come_and_go_while_a_stream_is_learnt(broker: Broker, tmp_path: Path) -> None:
    """Every record is learnt once and predicted once, whoever had its partition; the job never goes back."""
    rows = records(RECORDS)
    broker.create_topic("scaled-predictions", 1)

    def steps(job: Job) -> None:
        job.scale(workers=3)
        job.scale(shards=4)
        job.scale(workers=2, shards=3)

    with Feed(broker, "scaled", rows, 3) as feed:
        job = Job(
            pipeline_of(broker, tmp_path, "scaled", "predictions.topic=scaled-predictions"), feed, steps
        )
        result = job.run()
    assert [answer.partition(" at ")[0] for answer in job.answers] == [
        "went from 1 worker and 2 shards to 3 workers and 2 shards",
        "went from 3 workers and 2 shards to 3 workers and 4 shards",
        "went from 3 workers and 4 shards to 2 workers and 3 shards",
    ]
    assert result.recoveries == 0
    assert result.figures.status.records == RECORDS
    model = load_model(result.snapshot)
    assert model.records == RECORDS
    assert np.max(model.arrays["encoder.stats"][:, 0]) == RECORDS
    predicted = Counter(message["id"] for message in consume(broker, "scaled-predictions"))
    assert len(predicted) == RECORDS
    assert set(predicted.values()) == {1}


def assert_undisturbed(result: JobResult, pipeline: Pipeline, folder: Path) -> None:
    """One worker and one partition: rows, encoder and metrics are those of one process that nobody has disturbed."""
    alone = pipeline.model_copy(
        update={"snapshots": pipeline.snapshots.model_copy(update={"path": str(folder)})}
    )
    expected = load_model(run_job(alone, Console(file=io.StringIO()), local=True).snapshot)
    found = load_model(result.snapshot)
    for one, other in zip(rows_of(found), rows_of(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("encoder.keys", "encoder.stats"):
        np.testing.assert_array_equal(found.arrays[name], expected.arrays[name])
    assert (found.records, found.metrics) == (expected.records, expected.metrics)


@pytest.mark.usefixtures("local_ray")
def test_shards_move_while_one_worker_learns_and_nothing_is_another_number(
    broker: Broker, tmp_path: Path
) -> None:
    """From 2 shards to 4 to 3: the tables, to the bit, are those of one process."""

    def steps(job: Job) -> None:
        job.scale(shards=4)
        job.scale(shards=3)

    with Feed(broker, "moved", records(60_000), 1, per_s=1500) as feed:
        pipeline = pipeline_of(broker, tmp_path / "scaled", "moved", "records_max=60000")
        result = Job(pipeline, feed, steps).run()
    assert result.recoveries == 0
    assert_undisturbed(result, pipeline, tmp_path / "alone")


def kill(actor: Any) -> None:
    """kill -9 its process."""
    os.kill(ray_state.actors(actor._actor_id.hex())["Pid"], signal.SIGKILL)


@pytest.mark.usefixtures("local_ray")
def test_whatever_dies_in_the_middle_of_scaling_changes_nothing(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new shard while it loads, one that learns at that time, one while the workers end, a new one at the switch."""
    preload, switch, due = Reserve.preload, Reserve.switch, Resizing.due
    struck: list[str] = []
    faults = ["new while loading", "old while loading", "old while ending", "new at the switch"]

    def strikes(fault: str) -> bool:
        if faults and faults[0] == fault:
            struck.append(faults.pop(0))
            return True
        return False

    def preload_and_die(self: Reserve, *where: Any) -> None:
        preload(self, *where)
        if strikes("new while loading"):
            kill(next(iter(self.new)))
        elif strikes("old while loading"):
            kill(cluster_of[0].crew.shards[0])

    def switch_and_die(self: Reserve, snapshot: int) -> None:
        switch(self, snapshot)
        if strikes("new at the switch"):
            kill(self.shards[0])

    def die_when_due(self: Resizing, newest: Any, *, ends: bool) -> bool:
        if strikes("old while ending"):
            kill(cluster_of[0].crew.shards[1])
            raise StoreError("a shard has died")
        return due(self, newest, ends=ends)

    cluster_of: list[RayCluster] = []
    begin = RayCluster.begin

    def begin_seen(self: RayCluster, start: Start) -> None:
        cluster_of[:] = [self]
        begin(self, start)

    monkeypatch.setattr(Reserve, "preload", preload_and_die)
    monkeypatch.setattr(Reserve, "switch", switch_and_die)
    monkeypatch.setattr(Resizing, "due", die_when_due)
    monkeypatch.setattr(RayCluster, "begin", begin_seen)

    def steps(job: Job) -> None:
        job.scaled(shards=3)
        job.scaled(shards=2)

    with Feed(broker, "broken", records(60_000), 1, per_s=500) as feed:
        pipeline = pipeline_of(broker, tmp_path / "scaled", "broken", "records_max=60000")
        job = Job(pipeline, feed, steps)
        result = job.run()
    assert len(struck) == 4
    assert result.recoveries >= 2
    assert [answer.partition(" at ")[0] for answer in job.answers] == [
        "went from 1 worker and 2 shards to 1 worker and 3 shards",
        "went from 1 worker and 3 shards to 1 worker and 2 shards",
    ]
    assert_undisturbed(result, pipeline, tmp_path / "alone")


def test_a_driver_that_dies_after_scaling_comes_back_at_its_size(broker: Broker, tmp_path: Path) -> None:
    """Started again by the same command, it has the actors that it was scaled to, and every record is learnt once."""
    pipeline = pipeline_of(broker, tmp_path, "driven", "records_max=30000", "snapshots.interval_s=1")
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json")))
    with Feed(broker, "driven", records(30_000), 2, per_s=200) as feed:
        feed.start()
        with started("jobs.train", file, cwd=tmp_path) as first:
            first.wait_for((tmp_path / "r1" / "status.json").exists, "status", 120)
            sizes = ("--scale", "workers=2", "--scale", "shards=3")
            code, out, err = run("jobs.status", tmp_path / "r1", *sizes, cwd=tmp_path, timeout_s=300)
            assert (code, err) == (0, "")
            assert "went from 1 worker and 2 shards to 2 workers and 3 shards at " in out
            os.kill(first.process.pid, signal.SIGKILL)
            first.wait(10)
        feed.hurry()
        with started("jobs.train", file, cwd=tmp_path) as second:
            assert second.wait(300) == 0, second.err
            assert "the run was scaled to 2 workers and 3 shards, and goes on so" in second.out
    numbers = SnapshotStore(str(tmp_path / "r1"), print).numbers()
    model = load_model(tmp_path / "r1" / "snapshots" / f"{numbers[-1]:06d}")
    assert (model.records, int(model.arrays["encoder.stats"][:, 0].max())) == (30_000, 30_000)
    assert model.pipeline["cluster"]["shards"] == 3
