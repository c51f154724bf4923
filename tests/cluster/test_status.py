"""`jobs.status` on real jobs: while they learn, once they have ended, and after kill -9."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobError, run_job
from cluster.snapshots.remote_place import place_of
from cluster.status.find import judged, status_of
from cluster.status.view import view_of
from tests.cluster.commands import Command, run, started
from tests.cluster.topics import produce, records

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(180)]

TOPIC = "watched"


@pytest.fixture(scope="module")
def topic(broker: Broker) -> Broker:
    """An endless topic with 3,000 records in two partitions."""
    produce(broker, TOPIC, records(3000), 2)
    return broker


def values(broker: Broker, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "watched",
        "source": {"kind": "kafka", "topic": TOPIC, "bootstrap_servers": broker.bootstrap_servers},
        "mlflow": {"enabled": False, "interval_s": 0.2},
        "batch_records": 100,
        "snapshots": {"path": str(folder / "runs"), "interval_records": 1000},
        **more,
    }


def pipeline_of(broker: Broker, folder: Path, **more: Any) -> Pipeline:
    return build_pipeline(values(broker, folder, **more), [], origin="test")


@pytest.fixture
def learning(topic: Broker, tmp_path: Path) -> Iterator[Command]:
    """`jobs.train --local` that waits for more records of its endless topic."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(values(topic, tmp_path)))
    with started("jobs.train", file, "--run", "w", "--local", cwd=tmp_path) as train:
        train.wait_for(lambda: "3,000 records" in train.out, "3,000 records")
        yield train


def look(folder: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    code, out, err = run("jobs.status", *arguments, "--json", "--path", folder / "runs", cwd=folder)
    assert err == ""
    return code, json.loads(out)


def test_a_local_job_is_seen_while_it_learns_and_after_it_was_stopped(
    learning: Command, tmp_path: Path
) -> None:
    """Another terminal on the same machine: no Ray, no connection, only the run's name; then Ctrl-C."""
    learning.wait_for(lambda: look(tmp_path, "w")[1]["snapshots"]["number"] > 0, "snapshot in the status")
    code, seen = look(tmp_path, "w")
    assert (code, seen["state"], seen["verdict"]["kind"]) == (0, "learning", "running")
    assert (seen["records"], seen["dead"], seen["lag"]) == (3000, 0, 0)
    assert [(p["partition"], p["lag"], p["worker"]) for p in seen["partitions"]] == [(0, 0, 0), (1, 0, 0)]
    assert sum(p["offset"] for p in seen["partitions"]) == 3000
    assert 0 < seen["quality"]["log_loss"]["since_start"] < 1
    assert seen["shards"][0]["rows"] > 0
    assert seen["job"]["pid"] == learning.process.pid
    learning.interrupt()
    assert learning.wait(20) == 0
    code, seen = look(tmp_path, tmp_path / "pipeline.yaml")
    assert (code, seen["state"], seen["verdict"]["kind"]) == (0, "stopped", "ended")
    code, out, _ = run("jobs.status", "watched", "--path", tmp_path / "runs", cwd=tmp_path)
    assert code == 0
    assert " stopped " in out
    assert "3,000" in out


def test_a_killed_job_is_called_dead(learning: Command, tmp_path: Path) -> None:
    """kill -9 leaves a status that says `learning`: its age and its process tell, and so does the exit code."""
    learning.wait_for(lambda: look(tmp_path, "w")[1]["state"] == "learning", "learning in the status")
    os.kill(learning.process.pid, signal.SIGKILL)
    learning.process.wait()
    seen: dict[str, Any] = {}
    while seen.get("verdict", {}).get("kind") != "dead":  # pytest's own time limit bounds it
        code, seen = look(tmp_path, "w")
    assert code == 2
    assert seen["verdict"]["sentence"].startswith(
        f"the job is dead: its process {learning.process.pid} is gone"
    )
    assert "--run w" in seen["verdict"]["sentence"]


def test_a_job_that_fails_says_why_in_its_status(topic: Broker, tmp_path: Path) -> None:
    """Its terminal is closed by then: what it said last is in the run's folder."""

    def fail() -> None:
        raise JobError("the producer ended with code 3")

    with pytest.raises(JobError):
        run_job(pipeline_of(topic, tmp_path, run="f"), Console(quiet=True), local=True, watch=fail)
    status = status_of(place_of(str(tmp_path / "runs" / "f")))
    assert (status.state, status.reason) == ("failed", "the producer ended with code 3")
    assert judged(status).kind == "failed"


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_finished_job_leaves_its_whole_status(topic: Broker, tmp_path: Path, place: str) -> None:
    """Bounded input: the last document has all that was learnt, behind a URL too."""
    base = str(tmp_path / "runs") if place == "disk" else f"memory://{tmp_path.name}/runs"
    snapshots = {"path": base, "interval_records": 1000}
    source = {"kind": "kafka", "topic": TOPIC, "bootstrap_servers": topic.bootstrap_servers, "until": "end"}
    pipeline = pipeline_of(topic, tmp_path, run="e", snapshots=snapshots, source=source)
    result = run_job(pipeline, Console(quiet=True), local=True)
    status = status_of(place_of(f"{base}/e"))
    assert (status.state, status.records, status.records_total) == ("finished", 3000, 3000)
    assert status.quality["log_loss"].since_start == result.figures.since_start["log_loss"]
    assert result.snapshot.endswith(f"{status.snapshots.number:06d}")
    assert (status.snapshots.size_bytes or 0) > 1000
    assert status.workers[0].finished


def test_a_run_that_never_began_leaves_no_folder(topic: Broker, tmp_path: Path) -> None:
    """A mistyped topic: nothing was learnt, and no status keeps the folder from going."""
    source = {"kind": "kafka", "topic": "mistyped", "bootstrap_servers": topic.bootstrap_servers}
    with pytest.raises(JobError):
        run_job(pipeline_of(topic, tmp_path, source=source), Console(quiet=True), local=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_tables_fit_the_terminal(topic: Broker, tmp_path: Path, width: int) -> None:
    """A narrow window beside an editor, and a wide one: no line is wrapped, and every part is there."""
    pipeline = pipeline_of(topic, tmp_path, run=f"t{width}", records_max=500)
    run_job(pipeline, Console(quiet=True), local=True)
    status = status_of(place_of(str(tmp_path / "runs" / f"t{width}")))
    groups = {
        "experts": {"a [b]": {"weight": 0.7}, "c": {"weight": 0.3}},
        "slices": {"x=1": {"records": 9.0}},
    }
    status = status.model_copy(update={"groups": groups})
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(view_of(status, judged(status), width))

    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    for part in (
        "quality",
        "partitions",
        "workers",
        "shards",
        "experts",
        "a [b]",
        "70.0 %",
        "slices",
        "snapshot",
    ):
        assert part in text, part
