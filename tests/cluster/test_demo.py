"""The demo and `jobs.train` as a person sees them who ends them, in every way there is; and deaths of their actors."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from cluster.broker import Broker
from tests.cluster.commands import ROOT, Command, started
from tests.cluster.topics import produce, records

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(180)]

ENDS_WITHIN_S = 20.0
MOMENTS = {
    "while the broker starts": lambda demo: demo.pids_of("jobs.broker"),
    "while Ray starts": lambda demo: demo.pids_of("gcs_server"),
    "while it learns": lambda demo: demo.out.count(" records  ") and " 0 records" not in demo.out.splitlines()[-1],
}  # fmt: skip


def test_the_demo_works_end_to_end_and_leaves_only_its_run(tmp_path: Path) -> None:
    """`make demo` on a new machine: a summary, a run and a model version, three commands that exist, nothing else."""
    with started("jobs.demo", "--rate", 40_000, cwd=tmp_path) as demo:
        assert demo.wait(120) == 0, demo.err
        demo.gone_within(5.0)
        out = demo.out
    assert "49,097 read = 49,097 learnt + 0 dead letters" in out
    assert "shuttle v1" in out
    commands = [shlex.split(line) for line in out.partition("\nNext\n")[2].splitlines()[1::2]]
    assert len(commands) == 3
    for command in commands:
        assert os.access(tmp_path / command[0], os.X_OK), command
    assert (ROOT / commands[2][3]).is_file()
    with sqlite3.connect(tmp_path / "mlruns" / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
        assert database.execute("select name, version from model_versions").fetchall() == [("shuttle", 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns", "runs"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_the_demo_and_leaves_nothing(tmp_path: Path, moment: str) -> None:
    """Somebody has seen enough: broker, producer, Ray and temporary folders go, whatever was being done."""
    with started("jobs.demo", "--rate", 8000, cwd=tmp_path) as demo:
        demo.wait_for(lambda: bool(MOMENTS[moment](demo)), moment)
        demo.interrupt()
        code = demo.wait(ENDS_WITHIN_S)
        demo.gone_within(1.0)
        assert code == (0 if moment == "while it learns" else 130), demo.err
        assert "Traceback" not in demo.out + demo.err
        assert ("learnt + 0 dead letters" in demo.out) == (code == 0)


def test_an_impatient_ctrl_c_leaves_nothing_either(tmp_path: Path) -> None:
    """Ctrl-C three times, the second and third while the first one's cleaning up is under way."""
    with started("jobs.demo", cwd=tmp_path) as demo:
        demo.wait_for(lambda: bool(demo.pids_of("gcs_server")), "Ray")
        for _ in range(3):
            demo.interrupt()
            time.sleep(0.3)
        assert demo.wait(ENDS_WITHIN_S) == 130
        demo.gone_within(1.0)
        assert "Traceback" not in demo.out + demo.err


def test_sigterm_while_ray_starts_is_the_same_as_ctrl_c(tmp_path: Path) -> None:
    """`docker stop` right after the start: Ray's own answer to SIGTERM, which leaves folders behind, is not ours."""
    with started("jobs.demo", cwd=tmp_path) as demo:
        demo.wait_for(lambda: bool(demo.pids_of("gcs_server")), "Ray")
        demo.process.terminate()
        assert demo.wait(ENDS_WITHIN_S) == 130, demo.err
        demo.gone_within(1.0)


def test_kill_9_of_the_demo_takes_its_processes_along(tmp_path: Path) -> None:
    """The terminal's machine runs out of memory: broker, producer and Ray go by themselves.

    Not so the folders, which nobody is left to remove, and two idle agents of Ray: they try to tell a Ray that is
    gone that it is gone, and end after the minute that Ray gives them for it.
    """
    with started("jobs.demo", "--rate", 8000, cwd=tmp_path) as demo:
        demo.wait_for(lambda: bool(demo.pids_of("jobs.produce")), "producer")
        demo.process.kill()
        demo.process.wait()
        ends_s = time.monotonic() + ENDS_WITHIN_S
        left = None
        while left != [] and time.monotonic() < ends_s:
            left = [line for line in demo.processes().values() if not line.endswith("Agent")]
            time.sleep(0.1)
        assert left == []


@pytest.fixture
def learning(broker: Broker, tmp_path: Path, request: pytest.FixtureRequest):
    """`jobs.train`, over Ray or with the options that the test gives, in the middle of an endless topic."""
    if not broker_has(broker, "endless"):
        produce(broker, "endless", records(4000), 2)
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(
        f"name: endless\nsource: {{kind: kafka, topic: endless, bootstrap_servers: '{broker.bootstrap_servers}'}}\n"
        "mlflow: {enabled: false}\nbatch_records: 100\ncluster: {shards: 2, workers: 2}\n"
    )
    with started("jobs.train", pipeline, *getattr(request, "param", ()), cwd=tmp_path) as train:
        train.wait_for(lambda: "4,000 records" in train.out, "4,000 records")
        yield train


def broker_has(broker: Broker, topic: str) -> bool:
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
    try:
        return topic in consumer.topics()
    finally:
        consumer.close()


@pytest.mark.parametrize("learning", [["--local"]], indirect=True, ids=["local"])
def test_sigterm_on_train_takes_the_last_snapshot(learning: Command) -> None:
    """An endless job's container is stopped: what is in hand is learnt, the snapshot is written, exit code 0."""
    learning.process.terminate()
    assert learning.wait(ENDS_WITHIN_S) == 0, learning.err
    learning.gone_within(1.0)
    assert "4,000 read = 4,000 learnt + 0 dead letters" in learning.out
    assert "snapshots/000001" in learning.out
    assert learning.err == ""


def test_a_second_ctrl_c_ends_train_at_once(learning: Command) -> None:
    """Workers that no longer answer must not keep anybody from leaving: a shard is stopped, so draining hangs."""
    for pid in learning.pids_of("ray::ShardActor") + learning.pids_of("ray::WorkerActor"):
        os.kill(pid, signal.SIGSTOP)
    learning.interrupt()
    time.sleep(1.0)
    assert learning.process.poll() is None
    learning.interrupt()
    assert learning.wait(ENDS_WITHIN_S) == 130
    learning.gone_within(5.0)
    assert "Traceback" not in learning.err


@pytest.mark.parametrize(
    ("process", "who"), [("ray::ShardActor", "a shard"), ("ray::WorkerActor", "a worker")]
)
def test_the_job_comes_back_from_the_death_of_an_actor(learning: Command, process: str, who: str) -> None:
    """The kernel kills a process of the job for its memory: who died, from where it goes on, and no record is lost."""
    pid = learning.pids_of(process)[0]
    os.kill(pid, signal.SIGKILL)
    learning.wait_for(lambda: "learning again from snapshot" in learning.out, "return to a snapshot")
    assert f"{who} (process {pid}) has died" in learning.out
    learning.wait_for(
        lambda: learning.out.rstrip().splitlines()[-1].count("4,000 records") == 1, "4,000 records"
    )
    learning.interrupt()
    assert learning.wait(ENDS_WITHIN_S) == 0, learning.err
    learning.gone_within(5.0)
    assert "4,000 read = 4,000 learnt + 0 dead letters" in learning.out
