"""Parts of benchmarks/scale.py that are measured alone: what is sent to shards, and what the coordinator costs.

Calls are counted where they are packed, with one worker over shards in this process; every worker of a real job sends
the same ones for the batches of its own partitions. The coordinator runs as the actor that it is, and is told what
workers tell it, one report in flight at a time, as theirs are.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.coordinator import Coordinator
from actors.shard import ParameterShard
from benchmarks.scale_jobs import Case, pipeline_of
from benchmarks.scale_processes import family, usage
from benchmarks.scale_streams import PARTITIONS
from benchmarks.shards import batches
from cluster.assembly import WorkerSpec, build_worker, watch_plan
from cluster.local_store import DirectShards
from cluster.store import ShardedStore
from learning.batch import BatchId
from learning.job_messages import Reported, Watched
from learning.job_state import JobPlan, JobState
from learning.learners import LEARNERS
from learning.metrics import DelayHistogram
from learning.wire import pack_answer, pack_call

if TYPE_CHECKING:
    from cluster.config import Pipeline
    from learning.exchange import Moment, Pull, Push

__all__ = ["Traffic", "call_cost", "coordinator_cost", "traffic_of"]


@dataclass(slots=True)
class Traffic:
    """What one worker has sent to all shards, and got: calls that brought a pull, their distinct keys, and bytes."""

    batches: int = 0
    calls: int = 0
    keys: int = 0
    sent_bytes: int = 0
    answer_bytes: int = 0
    rows: int = 0
    table_bytes: int = 0


class _Counted(DirectShards):
    """Shards in this process; what would travel is packed as for a wire, and counted."""

    def __init__(self, case: Case, learner: Any) -> None:
        super().__init__(case.shards, learner)
        self.traffic = Traffic()

    def exchange(self, shard: int, worker: int, moment: Moment, push: Push | None, pull: Pull | None) -> Any:
        """Call the shard, and count both messages."""
        answer, traffic = super().exchange(shard, worker, moment, push, pull), self.traffic
        traffic.sent_bytes += len(pack_call(worker, moment, push, pull))
        if answer is not None:
            traffic.answer_bytes += len(pack_answer(answer))
        traffic.calls += 1
        if pull is not None:
            traffic.batches += shard == 0
            traffic.keys += len(pull.keys)
        return answer


def traffic_of(case: Case, servers: str, ends: dict[int, int]) -> Traffic:
    """Let one worker learn the case's topic to the `ends` of its partitions, without Ray."""
    with tempfile.TemporaryDirectory(prefix="millrace-scale-") as folder:
        pipeline = pipeline_of(replace(case, workers=1), servers, folder)
        learner = pipeline.learner.build()
        shards = _Counted(case, learner)
        plan = _plan(pipeline)
        bounds: Any = {partition: (0, end) for partition, end in ends.items()}
        spec = WorkerSpec(0, pipeline, folder, bounds, plan.moment)
        worker = build_worker(spec, ShardedStore(0, shards, learner), Coordinator(plan))
        try:
            worker.run()
        finally:
            worker.close()
    for shard in shards.shards:
        for table in shard.status()["tables"].values():
            shards.traffic.rows += int(table["rows"])
            shards.traffic.table_bytes += int(table["bytes"])
    return shards.traffic


def _plan(pipeline: Pipeline, workers: int = 1) -> JobPlan:
    shares = [tuple(range(worker, PARTITIONS, workers)) for worker in range(workers)]
    metrics = pipeline.learner.build().metrics()
    return JobPlan(shares, JobState(0, {}, 0, 0, metrics), 1, watch=watch_plan(pipeline))


def coordinator_cost(case: Case, records: int, reports: int) -> dict[str, float]:
    """Milliseconds of CPU for each report of one batch of so many records: coordinator, and whoever sends it.

    Ray is running. `asked`: the same for the supervisor's question whether there is anything to do. `first`: what the
    first twenty reports take in all, which load kernels.
    """
    import ray

    pipeline = pipeline_of(case, "127.0.0.1:1", "unused")
    plan = _plan(pipeline, PARTITIONS)
    actor: Any = ray.remote(num_cpus=0, max_restarts=0)(Coordinator).remote(plan)
    told = [_report(plan, pipeline, records, number) for number in range(reports)]
    ray.get(actor.ping.remote(), timeout=60)
    start = family()
    ray.get([actor.report.remote(report) for report in told[:20]], timeout=60)
    before = family()
    for report in told[20:]:
        ray.get(actor.report.remote(report), timeout=60)
    between = family()
    for _ in range(reports):
        ray.get(actor.commands.remote(0), timeout=60)
    after = family()
    ray.kill(actor)
    telling, asking = usage(before, between).cpu_s, usage(between, after).cpu_s
    return {
        "first": usage(start, before).cpu_s["coordinator"] * 1e3,
        "coordinator": telling["coordinator"] * 1e3 / (reports - 20),
        "sender": telling["driver"] * 1e3 / (reports - 20),
        "asked": asking["coordinator"] * 1e3 / reports,
        "asker": asking["driver"] * 1e3 / reports,
    }


def call_cost(learner: str, keys: int, cycles: int) -> dict[str, float]:
    """Milliseconds of CPU of a call that pulls so many distinct keys and pushes as many: shard, and caller.

    Ray is running; the shard is an actor with a million keys to draw from, and the caller groups and carries forward as
    a worker does.
    """
    import ray

    from cluster.remote import RayShards

    made = LEARNERS[learner]()
    actor: Any = ray.remote(num_cpus=0, max_restarts=0)(ParameterShard).remote(0, made)
    store = ShardedStore(0, RayShards([actor], 60.0), made)
    stream = batches(cycles + 5, keys, 1_000_000)
    before = family()
    for number, batch in enumerate(stream):
        if number == len(stream) - cycles:
            before = family()
        store.pull(batch)
        store.push(store.wait())
    store.flush()
    used = usage(before, family()).cpu_s
    ray.kill(actor)
    return {"shard": used["shard"] * 1e3 / cycles, "caller": used["driver"] * 1e3 / cycles}


def _report(plan: JobPlan, pipeline: Pipeline, records: int, number: int) -> Reported:
    """What a worker reports of one batch, drift's losses included where it is watched."""
    rng = np.random.default_rng(number)
    predictions = rng.random(records)
    labels = (rng.random(records) < predictions).astype(np.float32)
    metrics: Any = pipeline.learner.build().metrics()
    metrics.update(predictions, labels)
    delays = DelayHistogram()
    delays.update(rng.random(records))
    partition = number % PARTITIONS
    first = number // PARTITIONS * records
    watched = []
    if plan.watch is not None:
        losses = -np.log(np.where(labels > 0, predictions, 1 - predictions))
        watched = [Watched(partition, losses, rng.random((len(plan.watch.series), records)))]
    return Reported(
        partition, 1, metrics, delays, 0, [BatchId(partition, first, first + records)], {partition: 0}, [], watched,
        None,
    )  # fmt: skip
