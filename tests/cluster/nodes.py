"""A job on three raylets of which one comes and one goes while it learns: `python -m tests.cluster.nodes`.

One node has the driver; a second one drains (`ray drain-node`) and is removed once nothing of the job is on it; a third
one comes before that, and the job is scaled onto it. One JSON line says what came out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from cluster.broker import Broker
from cluster.loopback import stay_on_loopback
from cluster.snapshots.model import load_model
from tests.cluster.scaled import RECORDS, Feed, Job, pipeline_of
from tests.cluster.topics import consume, records

_LEFT_TIMEOUT_S = 90.0


def main() -> None:
    """Bring up the nodes, run the job, print the report."""
    stay_on_loopback()
    import ray
    import ray._private.utils as ray_utils
    from ray.cluster_utils import Cluster

    ray_utils.write_ray_address = lambda *_: None  # else it would lead other programs of this machine here
    folder = Path(tempfile.mkdtemp(prefix="mr-nodes-", dir="/tmp"))
    node: dict[str, Any] = {"node_ip_address": "127.0.0.1", "num_cpus": 5}
    head = {**node, "include_dashboard": False, "temp_dir": str(folder / "ray")}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        leaving = nodes.add_node(**node)
        ray.init(address=nodes.address, namespace="millrace", log_to_driver=False)
        with Broker(folder / "broker") as broker:
            print(json.dumps(learn(broker, folder, nodes, leaving, node)), flush=True)
    finally:
        ray.shutdown()
        nodes.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def learn(broker: Broker, folder: Path, nodes: Any, leaving: Any, node: dict[str, Any]) -> dict[str, Any]:
    """The job, while a node comes and another one goes."""
    before: list[str] = []
    after: list[str] = []

    def steps(job: Job) -> None:
        coming = job.in_main_thread(lambda: nodes.add_node(**node))
        job.scale(workers=3, shards=3)
        before.extend(nodes_of_actors())
        drain(nodes.address, leaving.node_id)
        until_s = time.monotonic() + _LEFT_TIMEOUT_S
        while leaving.node_id in nodes_of_actors() or "moved away" not in job.said:
            assert time.monotonic() < until_s, f"the job stays where it is:\n{job.said}"
            time.sleep(0.2)
        after.extend(nodes_of_actors())
        nodes.remove_node(leaving)
        assert coming.node_id in after

    broker.create_topic("predicted", 1)
    with Feed(broker, "nodes", records(RECORDS), 3) as feed:
        job = Job(
            pipeline_of(broker, folder, "nodes", "predictions.topic=predicted", "cluster.workers=2"),
            feed,
            steps,
        )
        result = job.run()
    model = load_model(result.snapshot)
    predicted = Counter(message["id"] for message in consume(broker, "predicted"))
    return {
        "recoveries": result.recoveries, "records": model.records, "offsets": sum(model.offsets.values()),
        "encoder": int(model.arrays["encoder.stats"][:, 0].max()), "predicted": len(predicted),
        "repeated": sum(count > 1 for count in predicted.values()), "was_on_it": leaving.node_id in before,
        "is_on_it": leaving.node_id in after, "said": job.said.splitlines(),
    }  # fmt: skip


def nodes_of_actors() -> list[str]:
    """The node of each actor that lives."""
    from ray._private import state

    actors = state.actors().values()
    return [actor["Address"]["NodeID"] for actor in actors if actor["State"] == "ALIVE"]


def drain(address: str, node: str) -> None:
    """What an operator types, or an autoscaler does."""
    subprocess.run(
        [
            sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address, "--node-id", node,
            "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test",
            "--deadline-remaining-seconds", "600",
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


if __name__ == "__main__":
    main()
