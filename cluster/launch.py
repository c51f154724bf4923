"""Turns plain classes into Ray actors: the only place that does.

`RayCluster` is a context manager: on entry it starts or joins a Ray, on exit it ends every actor it made, and the Ray
it started. `begin` starts the actors of a generation, those that still live included: it makes what is missing, and
has all of them begin anew from the same snapshot.

Actors have `max_restarts=0`: one that Ray brought back would have lost its state and gone on silently wrong. Who comes
back, and with which state, the supervisor decides.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Self

import ray

from actors.coordinator import Coordinator
from actors.ports import LaunchError, StoreError
from cluster.actors_on_ray import ShardActor, WorkerActor
from cluster.ending import uninterrupted
from cluster.ray_session import RaySession
from cluster.recommend import Recommender
from cluster.remote import RayShards, RemoteCoordinator, answers_of
from cluster.snapshots.errors import SnapshotError

if TYPE_CHECKING:
    from types import TracebackType

    from cluster.config import Pipeline
    from cluster.snapshots.file_entry import PartFiles
    from cluster.starts import Start
    from learning.exchange import Moment

__all__ = ["RayCluster"]

_PING_INTERVAL_S = 1.0
_PING_TIMEOUT_S = 5.0
_SILENCE_S = 20.0
_END_TIMEOUT_S = 10.0
_GROUPS = {"control": 1, "snapshots": 1}
"""Threads beside the one that answers workers: for pings and counters, and for writing."""


class RayCluster:
    """The actors of one job on Ray."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._call_timeout_s = pipeline.cluster.call_timeout_s
        self._session = RaySession(pipeline.cluster)
        self.shards: list[Any] = []
        self.workers: list[Any] = []
        self._coordinator: Any = None
        self._runs: list[Any] = []
        self._pings: dict[Any, tuple[Any, float]] = {}
        self._next_ping_s = 0.0

    def __enter__(self) -> Self:
        try:
            self._session.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, start: Start) -> None:
        """Have every actor begin `start`; those that are missing or dead are made. Raises StoreError, SourceError."""
        if self._coordinator is not None:
            self._end_generation(start)
        self._make_missing(start)
        plan = start.plan
        self.coordinator = RemoteCoordinator(self._coordinator, self._call_timeout_s, plan.moment)
        begun = [
            shard.begin.remote(plan.moment, start.run_url, start.tables, plan.start.records)
            for shard in self.shards
        ]
        begun += [
            worker.open.remote(spec, self.shards, self._coordinator)
            for worker, spec in zip(self.workers, start.specs, strict=True)
        ]
        self._await_start(begun, start.tables)

    def _end_generation(self, start: Start) -> None:
        """Drop the dead. The living shards and coordinator refuse the workers of before, which so end by themselves."""
        alive = self._living([*self.shards, self._coordinator, *self.workers])
        for actor in {*self.shards, self._coordinator, *self.workers} - alive:
            self._kill(actor)
        self.shards = [shard if shard in alive else None for shard in self.shards]
        self._coordinator = self._coordinator if self._coordinator in alive else None
        for actor in self.shards:
            if actor is not None:
                actor.refuse.remote(start.plan.moment)
        if self._coordinator is not None:
            self._coordinator.begin.remote(start.plan)
        self.workers = [worker if worker in alive else None for worker in self.workers]
        self._await_ends()
        self._pings.clear()

    def _await_ends(self) -> None:
        """Wait (bounded) for the workers' runs; who does not end by himself is ended."""
        idle = {
            worker.idle.remote(): place for place, worker in enumerate(self.workers) if worker is not None
        }
        ended, _ = ray.wait(list(idle), num_returns=len(idle), timeout=_END_TIMEOUT_S) if idle else ([], [])
        for reference, place in idle.items():
            if reference not in ended:
                self._kill(self.workers[place])
                self.workers[place] = None
        self._runs.clear()

    def _living(self, actors: list[Any]) -> set[Any]:
        pings = {self._control(actor, "ping"): actor for actor in actors if actor is not None}
        ready, _ = ray.wait(list(pings), num_returns=len(pings), timeout=_PING_TIMEOUT_S)
        alive = set()
        for ping in ready:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(ping)
                alive.add(pings[ping])
        return alive

    def _make_missing(self, start: Start) -> None:
        pipeline = self._pipeline
        shards = self.shards or [None] * pipeline.cluster.shards
        self.shards = [shard or self._actor(ShardActor, 1, s, pipeline) for s, shard in enumerate(shards)]
        self._coordinator = self._coordinator or self._actor(Coordinator, 0, start.plan)
        workers = self.workers or [None] * len(start.specs)
        self.workers = [worker or self._actor(WorkerActor, 1) for worker in workers]

    def _actor(self, plain: type, cpus: int, *arguments: object) -> Any:
        options: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "concurrency_groups": _GROUPS,
            "scheduling_strategy": "SPREAD",
        }
        made: Any = ray.remote(num_cpus=cpus, **options)(plain)
        return made.remote(*arguments)

    def _control(self, actor: Any, method: str) -> Any:
        return getattr(actor, method).options(concurrency_group="control").remote()

    def _await_start(self, begun: list[Any], tables: int) -> None:
        """Wait (bounded) until every actor has its state and its kernels, and every worker its streams."""
        actors = [*self.shards, self._coordinator, *self.workers]
        start_s = self._pipeline.cluster.actor_start_timeout_s
        if waiting := self._waiting([self._control(actor, "ping") for actor in actors], start_s):
            there = ", ".join(
                f"{name} {amount:g}" for name, amount in sorted(ray.available_resources().items())
            )
            raise LaunchError(
                f"expected {len(self.shards)} shards and {len(self.workers)} workers (1 CPU each) to start within "
                f"{start_s:g} s, but {waiting} did not; free in the cluster: {there}; "
                f"ask for fewer (cluster.shards, cluster.workers) or add nodes"
            )
        load_s = self._pipeline.snapshots.write_timeout_s if tables else 0.0
        if waiting := self._waiting(begun, start_s + load_s):
            raise LaunchError(
                f"expected every actor to have its kernels and streams{f', and snapshot {tables},' * bool(tables)} "
                f"within {start_s + load_s:g} s, but {waiting} have not; look at their logs, or raise "
                f"cluster.actor_start_timeout_s{' or snapshots.write_timeout_s' * bool(tables)}"
            )

    @staticmethod
    def _waiting(begun: list[Any], timeout_s: float) -> int:
        """How many have not ended after `timeout_s`; raises what another one has ended with."""
        ready, waiting = ray.wait(begun, num_returns=len(begun), timeout=timeout_s)
        answers_of(ready, timeout_s, "actor")
        return len(waiting)

    def start(self) -> None:
        """Let the workers learn; returns at once."""
        self._runs = [worker.run.remote() for worker in self.workers]

    def check(self) -> None:
        """Raise the error of an actor that has failed or died; returns at once."""
        done, _ = ray.wait(self._runs, num_returns=len(self._runs), timeout=0) if self._runs else ([], [])
        answers_of(done, self._call_timeout_s, "worker")
        self._check_pings()

    def _check_pings(self) -> None:
        """Every actor is asked each second whether it lives: an idle stream would not notice a death otherwise."""
        now_s = time.monotonic()
        if self._pings:
            answered, _ = ray.wait(list(self._pings), num_returns=len(self._pings), timeout=0)
            answers_of(answered, self._call_timeout_s, "actor")
            for ping in answered:
                del self._pings[ping]
            if any(now_s - asked_s > _SILENCE_S for _, asked_s in self._pings.values()):
                raise StoreError(
                    f"an actor has not answered for {_SILENCE_S:g} s: it hangs, or its node cannot be reached"
                )
        if now_s >= self._next_ping_s:
            asked = [actor for actor, _ in self._pings.values()]
            self._pings |= {
                self._control(actor, "ping"): (actor, now_s)
                for actor in [*self.shards, self._coordinator, *self.workers]
                if actor not in asked
            }
            self._next_ping_s = now_s + _PING_INTERVAL_S

    def write(self, moment: Moment, folder: str) -> list[PartFiles]:
        """Have every shard write its part of a snapshot, beside its other work. Raises SnapshotError, StoreError."""
        timeout_s = self._pipeline.snapshots.write_timeout_s
        references = [
            shard.write.options(concurrency_group="snapshots").remote(moment, folder) for shard in self.shards
        ]
        # Slow is not dead: whoever is still writing ends by himself once the next snapshot begins.
        late = SnapshotError(
            f"expected every shard to have written its part within {timeout_s:g} s, but not all have; raise "
            "snapshots.write_timeout_s, or write to a faster place"
        )
        parts: list[PartFiles] = answers_of(references, timeout_s, "shard", late)
        return parts

    def recommender(self) -> Recommender:
        """Answers from the shards as they are now, also while workers learn. Raises RecommendError."""
        return Recommender(RayShards(self.shards, self._call_timeout_s), self._pipeline.learner.build())

    def shard_status(self) -> list[dict[str, Any]]:
        """Counters of each shard."""
        references = [self._control(shard, "status") for shard in self.shards]
        status: list[dict[str, Any]] = answers_of(references, self._call_timeout_s, "shard")
        return status

    def close(self) -> None:
        """End the actors, and the Ray that was started here; may be called twice."""
        with uninterrupted():
            self._close()

    def _close(self) -> None:
        for actor in (*self.shards, self._coordinator, *self.workers):
            if actor is not None:
                self._kill(actor)
        self.shards, self.workers, self._coordinator = [], [], None
        self._session.close()

    @staticmethod
    def _kill(actor: Any) -> None:
        # An actor whose node is gone cannot be ended again: then its end is what was wanted.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(actor)
