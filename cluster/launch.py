"""Turns plain classes into Ray actors: the only place that does.

`RayCluster` is a context manager: on entry it starts or joins a Ray and starts the actors, on exit it ends every actor
it made, and the Ray it started.

Shards and workers have `max_restarts=0`: an actor that Ray brought back would have lost its state and gone on
silently wrong. A death ends the job with a sentence.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import ray

from actors.coordinator import Coordinator
from actors.shard import ParameterShard
from cluster.assembly import WorkerSpec, build_worker
from cluster.ending import uninterrupted
from cluster.ray_session import LaunchError, RaySession
from cluster.recommend import Recommender
from cluster.remote import RayShards, RemoteCoordinator, answers_of
from cluster.store import ShardedStore
from cluster.warm import warm_up

if TYPE_CHECKING:
    from types import TracebackType

    from actors.ports import Tables
    from cluster.config import Pipeline
    from learning.learner import Learner
    from learning.policy import TablePolicy

__all__ = ["RayCluster"]


class _WorkerActor:
    """Builds a `Worker` in its own process, because connections cannot travel there."""

    def __init__(self, spec: WorkerSpec, shards: list[Any], coordinator: Any) -> None:
        self._spec = spec
        self._shards = shards
        self._coordinator = coordinator

    def open(self) -> None:
        """Load kernels and open streams. Not in the constructor, whose errors Ray reports without their type."""
        pipeline = self._spec.pipeline
        warm_up(pipeline.learner.build(), pipeline.policies().values())
        timeout_s = pipeline.cluster.call_timeout_s
        store = ShardedStore(
            self._spec.worker,
            RayShards(self._shards, timeout_s),
            pipeline.learner.build(),
            has_policies=not all(policy.keeps_all for policy in pipeline.policies().values()),
            wait_timeout_s=timeout_s,
        )
        self._worker = build_worker(self._spec, store, RemoteCoordinator(self._coordinator, timeout_s))

    def run(self) -> None:
        """Learn to the end, and release what was opened, whatever happens."""
        try:
            self._worker.run()
        finally:
            self._worker.close()


class RayCluster:
    """The actors of one job on Ray."""

    def __init__(self, pipeline: Pipeline, specs: list[WorkerSpec]) -> None:
        self._pipeline = pipeline
        self._specs = specs
        self._call_timeout_s = pipeline.cluster.call_timeout_s
        self._actors: list[Any] = []
        self._session = RaySession(pipeline.cluster)
        self._runs: list[Any] = []

    def __enter__(self) -> Self:
        try:
            self._session.connect()
            self._start_actors()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_actors(self) -> None:
        pipeline = self._pipeline
        learner, policies = pipeline.learner.build(), pipeline.policies()
        partitions = [tuple(spec.bounds) for spec in self._specs]
        self.coordinator = RemoteCoordinator(
            self._actor(
                Coordinator, 0, partitions, learner.metrics(), pipeline.snapshots.interval_records,
                pipeline.records_max,
            ),
            self._call_timeout_s,
        )  # fmt: skip
        count = pipeline.cluster.shards
        of_shard = {name: policy.of_shard(count) for name, policy in policies.items()}
        bounds = (pipeline.cluster.staleness_examples_max, pipeline.cluster.staleness_share_max)
        self.shards = [  # the first one lets pulls in or has them wait
            self._actor(ParameterShard, 1, s, learner, of_shard, *((None, None) if s else bounds))
            for s in range(count)
        ]
        self.workers = [
            self._actor(_WorkerActor, 1, spec, self.shards, self.coordinator.handle) for spec in self._specs
        ]
        self._await_start()

    def _actor(self, plain: type, cpus: int, *arguments: object) -> Any:
        handle: Any = ray.remote(num_cpus=cpus, max_restarts=0, max_task_retries=0)(plain).remote(*arguments)
        self._actors.append(handle)
        return handle

    def _await_start(self) -> None:
        """Wait (bounded) until every actor has loaded its kernels and every worker has opened its streams."""
        timeout_s = self._pipeline.cluster.actor_start_timeout_s
        learner, policies = self._pipeline.learner.build(), list(self._pipeline.policies().values())
        loaded = (*self.shards, self.coordinator.handle)
        refs = [actor.__ray_call__.remote(_load_kernels, learner, policies) for actor in loaded]
        refs += [worker.open.remote() for worker in self.workers]
        ready, waiting = ray.wait(refs, num_returns=len(refs), timeout=timeout_s)
        if waiting:
            there = ", ".join(
                f"{name} {amount:g}" for name, amount in sorted(ray.available_resources().items())
            )
            msg = (
                f"expected {len(self.shards)} shards and {len(self.workers)} workers (1 CPU each) to start within "
                f"{timeout_s:g} s, but {len(waiting)} did not; free in the cluster: {there}; "
                f"ask for fewer (cluster.shards, cluster.workers) or add nodes"
            )
            raise LaunchError(msg)
        answers_of(ready, timeout_s, "actor")

    def start(self) -> None:
        """Let the workers learn; returns at once."""
        self._runs = [worker.run.remote() for worker in self.workers]

    def check(self) -> None:
        """Raise the error of a worker that has failed; returns at once."""
        done, self._runs = (
            ray.wait(self._runs, num_returns=len(self._runs), timeout=0) if self._runs else ([], [])
        )
        answers_of(done, self._call_timeout_s, "worker")

    def snapshot(self) -> list[Any]:
        """Have every shard copy its rows; returns references once all copies are taken."""
        refs = [shard.snapshot.remote() for shard in self.shards]
        ray.wait(refs, num_returns=len(refs), timeout=self._call_timeout_s, fetch_local=False)
        return refs

    def fetch(self, copies: list[Any]) -> list[Tables]:
        """The copies behind `snapshot`'s references: the tables of each shard."""
        parts: list[Tables] = answers_of(copies, self._call_timeout_s, "shard")
        return parts

    def restore(self, tables: Tables) -> None:
        """Put a snapshot's tables, of however many shards, in place of the present ones; before `start`."""
        count = len(self.shards)
        parts = {name: state.split(count) for name, state in tables.items()}
        references = [
            shard.restore.remote({name: of_shards[s] for name, of_shards in parts.items()})
            for s, shard in enumerate(self.shards)
        ]
        answers_of(references, self._call_timeout_s, "shard")

    def recommender(self) -> Recommender:
        """Answers from the shards as they are now, also while workers learn. Raises RecommendError."""
        return Recommender(RayShards(self.shards, self._call_timeout_s), self._pipeline.learner.build())

    def shard_status(self) -> list[dict[str, Any]]:
        """Counters of each shard."""
        references = [shard.status.remote() for shard in self.shards]
        status: list[dict[str, Any]] = answers_of(references, self._call_timeout_s, "shard")
        return status

    def close(self) -> None:
        """End the actors, and the Ray that was started here; may be called twice."""
        with uninterrupted():
            self._close()

    def _close(self) -> None:
        for actor in self._actors:
            # An actor whose node is gone cannot be ended again: then its end is what was wanted.
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)
        self._actors.clear()
        self._session.close()


def _load_kernels(_actor: object, learner: Learner, policies: list[TablePolicy]) -> None:
    """Runs in an actor's process: loading compiled kernels takes half a second there, better now than in the stream."""
    warm_up(learner, policies)
