"""A job that is submitted to a Ray that is there already: its exit code, its stop in order, and its going on.

The real commands against a real `ray start --head` with its dashboard, which serves the Jobs API, and with a token. The
job's copy of the code compiles its kernels anew, which is most of the time.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from cluster.broker import Broker
from cluster.snapshots.store import SnapshotStore
from tests.cluster.commands import ROOT, Command, started
from tests.cluster.topics import produce, records

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

RECORDS, PARTITIONS = 3000, 2
RAY = "ray.scripts.scripts"
_SLOW_S = 400.0
_END_S = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@pytest.fixture(scope="module")
def ray_job() -> Iterator[Callable[..., Command]]:
    """`ray job ...` against a head of our own on 127.0.0.1; its processes carry the head's mark and end with it."""
    port, dashboard = free_ports(2)
    access = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # stays on 127.0.0.1 (cluster/loopback.py)
        # A job's `python` is the first on the head's path, as for a person who has activated the environment.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_JOB_STOP_WAIT_TIME_S": "600",  # as ray-cluster.yaml and docs/operations.md have it for the head
        "RAY_raylet_start_wait_time_s": "200",
    }
    page = (ROOT / "docs" / "operations.md").read_text()
    system_config = (
        next(line for line in page.splitlines() if "--system-config=" in line).strip().replace("'", "")
    )
    with ExitStack() as stack:
        folder = f"/tmp/mr-{secrets.token_hex(4)}"  # short: Ray's sockets lie there
        head = stack.enter_context(
            started(
                RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
                "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0",
                "--dashboard-agent-grpc-port=0", "--num-cpus=4", "--num-gpus=0", f"--temp-dir={folder}",
                "--disable-usage-stats", system_config, cwd=ROOT, environment=access,
            )
        )  # fmt: skip
        stack.callback(os.system, f"rm -rf {folder}")
        head.wait_for(lambda: "will now block forever" in head.out, "head", _SLOW_S)
        yield lambda *arguments: stack.enter_context(
            started(RAY, "job", *arguments, cwd=ROOT, environment=access)
        )
        head.process.send_signal(signal.SIGTERM)
        head.wait(_END_S)


@pytest.fixture
def environment_file(tmp_path: Path) -> Path:
    """runtime-env.yaml without the installation of packages, which are here."""
    values = yaml.safe_load((ROOT / "runtime-env.yaml").read_text())
    del values["pip"]
    file = tmp_path / "runtime-env.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_a_submitted_job_stops_in_order_and_goes_on_when_it_is_submitted_again(
    ray_job: Callable[..., Command], broker: Broker, tmp_path: Path
) -> None:
    """`ray job stop` drains and snapshots; the next submission learns the rest: every record once, none twice."""
    rows = records(RECORDS)
    produce(broker, "submitted", rows[: RECORDS // 2], PARTITIONS)
    pipeline = tmp_path / "clicks.yaml"
    values = {
        "name": "clicks", "batch_records": 100,
        "source": {"kind": "kafka", "topic": "submitted", "bootstrap_servers": broker.bootstrap_servers},
        "cluster": {"shards": 1, "workers": 1, "actor_start_timeout_s": _SLOW_S},
        "snapshots": {"path": str(tmp_path / "runs"), "interval_records": 300, "interval_s": 0},
        "mlflow": {"enabled": False},
    }  # fmt: skip
    pipeline.write_text(yaml.safe_dump(values))
    store = SnapshotStore(str(tmp_path / "runs" / "clicks"), print)  # the run is called as the pipeline

    train = ("--", "python", "-m", "jobs.train", pipeline)
    first = ray_job("submit", "--working-dir", ".", "--submission-id", "first", *train)
    first.wait_for(lambda: bool(store.numbers()), "snapshot", _SLOW_S)
    stop = ray_job("stop", "first")
    assert stop.wait(_SLOW_S) == 0, stop.err
    assert "was stopped" in stop.out + stop.err
    first.wait(_END_S)
    halfway = store.newest()
    assert halfway is not None
    assert halfway.records == sum(halfway.offsets.values()) > 0
    assert "start it again with --run clicks" in first.out, first.out

    produce_more(broker, rows[RECORDS // 2 :])
    second = ray_job("submit", "--working-dir", ".", *train, "--set", "source.until=end")
    assert second.wait(_SLOW_S) == 0, second.out + second.err
    assert "succeeded" in second.out + second.err
    whole = store.newest()
    assert whole is not None
    assert whole.number > halfway.number
    assert whole.records == sum(whole.offsets.values()) == RECORDS


def produce_more(broker: Broker, rows: list[dict[str, object]]) -> None:
    """Further records to the topic, which is there."""
    import orjson
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    for number, row in enumerate(rows):
        producer.send("submitted", orjson.dumps(row), partition=number % PARTITIONS)
    producer.flush(30)
    producer.close()


def test_a_job_that_would_lose_its_state_fails_with_its_reason(
    ray_job: Callable[..., Command], environment_file: Path
) -> None:
    """The demo's pipeline writes beside the code, which on a cluster is a copy: the exit code says that it failed."""
    submit = ("submit", "--runtime-env", environment_file, "--working-dir", ".", "--submission-id", "lost")
    job = ray_job(*submit, "--", "python", "-m", "jobs.train", "jobs/pipelines/shuttle.yaml")
    assert job.wait(_SLOW_S) == 1
    told = " ".join(job.out.split())
    assert "a submitted job runs in a copy of your folder that is removed with it" in told
    assert "snapshots.path is 'runs'" in told
    assert "exit code 1" in told + job.err
