"""Actors on a Ray of four nodes of one machine: a head without CPUs, two for shards, one with (faked) GPUs.

A program, because a process has one Ray: `python -m tests.cluster.placing` prints one JSON object a scene.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.config import ClusterConfig, build_pipeline
from cluster.loopback import stay_on_loopback

RUN = "placed"


class Plain:
    """An actor that does nothing."""

    def ping(self) -> None:
        """Say that this process lives."""


@contextmanager
def four_nodes(folder: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """The cluster, and the role of each node by its id."""
    stay_on_loopback()
    import ray._private.utils as ray_utils
    from ray.cluster_utils import Cluster

    ray_utils.write_ray_address = lambda *_: None  # else it would lead other programs of this machine here
    node: dict[str, Any] = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "num_gpus": 0}
    head: dict[str, Any] = {**node, "num_cpus": 0, "temp_dir": str(folder / "ray"), "_system_config": HEALTH}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        roles = {cluster.head_node.node_id: "head"}
        for _ in range(2):
            roles[cluster.add_node(**node, num_cpus=2, resources={"shard": 2}).node_id] = "shards"
        roles[cluster.add_node(**{**node, "num_gpus": 2}, num_cpus=4).node_id] = "gpus"
        yield cluster, roles
    finally:
        cluster.shutdown()


HEALTH = {
    "health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3,
}  # fmt: skip


def named_actors(roles: dict[str, str]) -> dict[str, list[str]]:
    """Name of each living actor of the run: its node, and the role of that node."""
    from ray._private.state import actors

    return {
        actor["Name"].removeprefix(f"{RUN}/"): [
            actor["Address"]["NodeID"],
            roles[actor["Address"]["NodeID"]],
        ]
        for actor in actors().values()
        if actor["State"] == "ALIVE" and actor["Name"].startswith(f"{RUN}/")
    }


def a_job(folder: Path, roles: dict[str, str]) -> dict[str, Any]:
    """A job whose shard is killed: where its actors are before and after, and what it learnt."""
    import ray

    from cluster.job import run_job

    rows = folder / "rows.csv"
    rows.write_text("a,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(4000)))
    values = {
        "name": "placing", "run": RUN, "batch_records": 20,
        "source": {"kind": "file", "path": str(rows)},
        "cluster": {"shards": 3, "workers": 2, "shard_resources": {"shard": 1}, "gpus_per_worker": 1},
        "snapshots": {"path": str(folder / "runs")}, "mlflow": {"enabled": False},
    }  # fmt: skip
    seen: list[dict[str, list[str]]] = []

    def watch() -> None:
        here = named_actors(roles)
        if not seen:
            seen.append(here)
            ray.kill(ray.get_actor(f"{RUN}/shard-1", namespace="millrace"))
        elif "shard-1.2" in here and len(here) == 6:
            seen[1:] = [here]

    pipeline = build_pipeline(values, [], origin="placing")
    result = run_job(pipeline, Console(file=io.StringIO()), watch=watch)
    return {
        "scene": "job", "recoveries": result.recoveries, "records": result.figures.status.records,
        "driver": ray.get_runtime_context().get_node_id(), "before": seen[0], "after": seen[-1],
    }  # fmt: skip


def fill(
    run: str, count: int, meanwhile: Callable[[], object] = lambda: None, **options: Any
) -> dict[str, Any]:
    """What filling `count` slots of shards came to, and how long it took; `meanwhile` is done before they stand."""
    import ray

    from actors.ports import LaunchError
    from cluster.make_actors import ActorMaker, Slot

    maker = ActorMaker(ClusterConfig(**options), run)
    began_s = time.monotonic()
    try:
        made = maker.fill([Slot("shard", number, Plain, ()) for number in range(count)])
        meanwhile()
        ready, _ = ray.wait([actor.ping.remote() for actor in made], num_returns=count, timeout=60)
        said = f"{len(ready)} stand"
    except LaunchError as error:
        said = str(error)
    return {"scene": run, "said": said, "seconds": time.monotonic() - began_s}


def say(scene: dict[str, Any]) -> None:
    """One line of the program's output."""
    print(json.dumps(scene), flush=True)


def main() -> None:
    """All scenes, one after another."""
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
    try:
        with four_nodes(folder) as (cluster, roles):
            import ray

            ray.init(cluster.address, namespace="a notebook's", logging_level=logging.ERROR)
            say(a_job(folder, roles))
            say(fill("short", 5, shards=5, shard_resources={"shard": 1}))
            remote: Any = ray.remote(num_cpus=0)(Plain)
            other = remote.options(name="taken/shard-0", namespace="millrace").remote()
            ray.get(other.ping.remote())
            say(fill("taken", 1, actor_start_timeout_s=1))
            late = {"num_cpus": 1, "num_gpus": 0, "resources": {"late": 1}}  # as an autoscaler would bring it
            bring = partial(cluster.add_node, node_ip_address="127.0.0.1", include_dashboard=False, **late)
            say(fill("late", 1, bring, shard_resources={"late": 1}, scale_up_timeout_s=60))
            ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
