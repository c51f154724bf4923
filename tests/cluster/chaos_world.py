"""A world to break: a broker, a Ray of two nodes, topics of records, and the processes of the job that learns them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
from kafka import KafkaProducer

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from tests.cluster.topics import produce, records

RECORDS, PARTITIONS = 24_000, 3
RATINGS = 12_000


class World:
    """Context manager; everything in it is on 127.0.0.1, in a folder of its own, and ends with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mr-chaos-", dir="/tmp"))
        self.broker = Broker(self.folder / "broker")
        self._cluster: Any = None
        self._second: Any = None

    def __enter__(self) -> Self:
        from cluster.loopback import stay_on_loopback

        stay_on_loopback()
        import ray._private.utils as ray_utils
        from ray.cluster_utils import Cluster

        ray_utils.write_ray_address = lambda *_: (
            None
        )  # else it would lead other programs of this machine here
        self.broker.__enter__()
        produce(self.broker, "clicks", records(RECORDS), PARTITIONS, arrow_rows=40)
        self._produce_ratings()
        node = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "num_cpus": 16}
        ray_folder = str(self.folder / "ray")
        # As docs/design.md says for a cluster: the death of a node is noticed in 3 s, and not in 15.
        health = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
        health |= {"health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
        head = {**node, "temp_dir": ray_folder, "_system_config": health}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.add_node()
        os.environ["RAY_ADDRESS"] = self._cluster.address
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop("RAY_ADDRESS", None)
        self._cluster.shutdown()
        self.broker.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_node(self) -> None:
        """A second node, if there is none."""
        if self._second is None:
            self._second = self._cluster.add_node(num_cpus=16, node_ip_address="127.0.0.1")

    def kill_node(self) -> None:
        """kill -9 the second node's raylet: its actors die with it."""
        raylet = self._second.all_processes["raylet"][0].process
        os.kill(raylet.pid, 9)
        self._cluster.worker_nodes.discard(self._second)
        self._second = None

    def restart_broker(self, away_s: float) -> None:
        """Stop the broker; the same one, with the same data, is back after a while."""
        port = int(self.broker.bootstrap_servers.rpartition(":")[2])
        self.broker.__exit__(None, None, None)
        time.sleep(away_s)
        self.broker = Broker(self.folder / "broker", port=port)
        self.broker.__enter__()

    def pipeline(self, run: str, *, workers: int, overrides: list[str] | None = None) -> Pipeline:
        """One worker learns clicks, several learn ratings by users who rate once each, so that each record counts."""
        several = workers > 1
        predictions = f"predicted-{run}"
        self.broker.create_topic(predictions, 1)
        values = {
            "name": "chaos",
            "run": run,
            "batch_records": 20 if several else 40,
            "source": {
                "kind": "kafka", "topic": "ratings" if several else "clicks", "until": "end",
                "bootstrap_servers": self.broker.bootstrap_servers,
            },
            "learner": {"kind": "factors", "factors": 4} if several else {"kind": "ftrl", "alpha": 0.1},
            "predictions": {"topic": predictions},
            "cluster": {"workers": workers, "shards": 2, "call_timeout_s": 20},
            "snapshots": {
                "path": str(self.folder / "runs"), "interval_records": 1_500 if several else 3_000, "deltas_max": 3,
            },
            "mlflow": {"enabled": False},
        }  # fmt: skip
        return build_pipeline(values, overrides or [], origin="chaos")

    def run_folder(self, run: str) -> Path:
        """Where a run has its snapshots."""
        return self.folder / "runs" / run

    def pids(self, actor: str) -> list[int]:
        """Processes of this world's actors of a class, ascending."""
        return sorted(pid for pid in _descendants(os.getpid()) if f"ray::{actor}" in _command_line(pid))

    def _produce_ratings(self) -> None:
        self.broker.create_topic("ratings", PARTITIONS)
        rng = np.random.default_rng(5)
        tastes = rng.normal(size=40)
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap_servers, linger_ms=5)
        for i in range(RATINGS):
            item = int(rng.zipf(1.4)) % 40
            rating = float(np.clip(np.round(3 + tastes[item] + rng.normal(0, 0.5)), 1, 5))
            row = {
                "id": f"r{i}",
                "features": {"user": f"u{i}", "item": f"i{item}"},
                "label": rating,
            }
            producer.send("ratings", orjson.dumps(row), partition=i % PARTITIONS)
        producer.flush(30)
        producer.close()


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if folder.name.isdecimal():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, left = set(), [root]
    while left:
        for pid in children.get(left.pop(), []):
            found.add(pid)
            left.append(pid)
    return found


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (
            (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    return ""
