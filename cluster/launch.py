"""The actors of a job on Ray: begun, watched, and ended.

`RayCluster` is a context manager: on entry it starts or joins a Ray, on exit it ends every actor it made, and the Ray
it started. `begin` starts the actors of a generation, those that still live included: it makes what is missing
(crew.py), and has all of them begin anew from the same snapshot.

Actors have `max_restarts=0`: one that Ray brought back would have lost its state and gone on silently wrong. Who comes
back, and with which state, the supervisor decides.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Self

import ray

from actors.ports import LaunchError, StoreError
from cluster.crew import Crew
from cluster.ending import uninterrupted
from cluster.make_actors import ActorMaker
from cluster.ray_session import RaySession
from cluster.recommend import Recommender
from cluster.remote import RayShards, RemoteCoordinator, answers_of, ended
from cluster.snapshots.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from cluster.config import Pipeline
    from cluster.reserve import Reserve
    from cluster.snapshots.file_entry import PartFiles
    from cluster.starts import Start
    from learning.exchange import Moment

__all__ = ["RayCluster"]

_PING_INTERVAL_S = 1.0
_PING_TIMEOUT_S = 5.0
_SILENCE_S = 20.0
_END_TIMEOUT_S = 10.0


class RayCluster:
    """The actors of one job on Ray; they are named after `run`, where there is one."""

    def __init__(self, pipeline: Pipeline, run: str | None = None) -> None:
        self._pipeline = pipeline
        self._call_timeout_s = pipeline.cluster.call_timeout_s
        self._session = RaySession(pipeline.cluster)
        self._maker = ActorMaker(pipeline.cluster, run or pipeline.run)
        self.crew = Crew(self._maker)
        self._runs: list[Any] = []
        self._pings: dict[Any, tuple[Any, float]] = {}
        self._next_ping_s = 0.0

    def __enter__(self) -> Self:
        try:
            self._session.connect()
            self._maker.on_own_ray = self._session.is_own
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
        crew, plan = self.crew, start.plan
        if crew.all():
            self._end_generation(start)
        held = crew.let_in(start)
        crew.make_missing(start)
        self.coordinator = RemoteCoordinator(crew.coordinator, self._call_timeout_s, plan.moment)
        begun = [
            shard.begin.remote(plan.moment, start.run_url, start.tables, plan.start.records, shard in held)
            for shard in crew.shards
        ]
        begun += [
            worker.open.remote(spec, crew.shards, crew.coordinator)
            for worker, spec in zip(crew.workers, start.specs, strict=True)
        ]
        self._await_start(begun, start.tables)

    def _end_generation(self, start: Start) -> None:
        """Drop the dead. The living shards and coordinator refuse the workers of before, which so end by themselves."""
        crew = self.crew
        crew.keep(self._living(crew.all()))
        for shard in crew.shards:
            if shard is not None:
                shard.refuse.remote(start.plan.moment)
        if crew.coordinator is not None:
            crew.coordinator.begin.remote(start.plan)
        self._await_ends()
        self._pings.clear()

    def _await_ends(self) -> None:
        """Wait (bounded) for the workers' runs; who does not end by himself is ended."""
        idle = {worker.idle.remote(): worker for worker in self.crew.workers if worker is not None}
        over, _ = ray.wait(list(idle), num_returns=len(idle), timeout=_END_TIMEOUT_S) if idle else ([], [])
        late = {worker for reference, worker in idle.items() if reference not in over}
        self.crew.keep([actor for actor in self.crew.all() if actor not in late])
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

    def prepare(self, pipeline: Pipeline, workers: int, leave: Collection[str]) -> Reserve:
        """Make, beside the actors that learn, those of a generation with other numbers of them, or on other nodes."""
        return self.crew.prepare(pipeline, workers, leave)

    def draining(self) -> set[str]:
        """Nodes that are about to go and have an actor of this job."""
        return self.crew.draining()

    def _control(self, actor: Any, method: str) -> Any:
        return getattr(actor, method).options(concurrency_group="control").remote()

    def _await_start(self, begun: list[Any], tables: int) -> None:
        """Wait (bounded) until every actor has its state and its kernels, and every worker its streams."""
        crew = self.crew
        config = self._pipeline.cluster
        start_s = config.actor_start_timeout_s + config.scale_up_timeout_s
        if waiting := self._waiting([self._control(actor, "ping") for actor in crew.all()], start_s):
            raise LaunchError(
                f"expected {len(crew.shards)} shards and {len(crew.workers)} workers to start within {start_s:g} s, "
                f"but {waiting} did not; they ask for {self._maker.room()}; ask for fewer (cluster.shards, "
                "cluster.workers), wait for other jobs, add nodes, or give an autoscaler longer "
                "(cluster.scale_up_timeout_s)"
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
        self._runs = [worker.run.remote() for worker in self.crew.workers]

    def check(self) -> None:
        """Raise the error of an actor that has failed or died; returns at once."""
        ended(self._runs, "worker")
        self._check_pings()

    def _check_pings(self) -> None:
        """Every actor is asked each second whether it lives: an idle stream would not notice a death otherwise."""
        now_s = time.monotonic()
        if self._pings:
            for ping in ended(list(self._pings), "actor"):
                del self._pings[ping]
            if any(now_s - asked_s > _SILENCE_S for _, asked_s in self._pings.values()):
                raise StoreError(
                    f"an actor has not answered for {_SILENCE_S:g} s: it hangs, or its node cannot be reached"
                )
        if now_s >= self._next_ping_s:
            asked = [actor for actor, _ in self._pings.values()]
            self._pings |= {
                self._control(actor, "ping"): (actor, now_s)
                for actor in self.crew.all()
                if actor not in asked
            }
            self._next_ping_s = now_s + _PING_INTERVAL_S

    def write(self, moment: Moment, folder: str) -> list[PartFiles]:
        """Have every shard write its part of a snapshot, beside its other work. Raises SnapshotError, StoreError."""
        timeout_s = self._pipeline.snapshots.write_timeout_s
        references = [
            shard.write.options(concurrency_group="snapshots").remote(moment, folder)
            for shard in self.crew.shards
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
        return Recommender(RayShards(self.crew.shards, self._call_timeout_s), self._pipeline.learner.build())

    def shard_status(self) -> list[dict[str, Any]]:
        """Counters of each shard."""
        references = [self._control(shard, "status") for shard in self.crew.shards]
        status: list[dict[str, Any]] = answers_of(references, self._call_timeout_s, "shard")
        return status

    def close(self) -> None:
        """End the actors, and the Ray that was started here; may be called twice."""
        with uninterrupted():
            self._close()

    def _close(self) -> None:
        self.crew.close()
        self._session.close()
