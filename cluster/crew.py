"""Crew: the actors of a job as they come and go; which of them a generation takes over, and which are made for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.coordinator import Coordinator
from cluster.actors_on_ray import ShardActor, WorkerActor
from cluster.make_actors import Slot
from cluster.remote import draining_nodes, end_actor, node_of
from cluster.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.config import Pipeline
    from cluster.make_actors import ActorMaker
    from cluster.starts import Start

__all__ = ["Crew"]


class Crew:
    """Shards, workers and the coordinator by their places, None where there is none."""

    def __init__(self, maker: ActorMaker) -> None:
        self._maker = maker
        self.shards: list[Any] = []
        self.workers: list[Any] = []
        self.coordinator: Any = None
        self.reserve: Reserve | None = None

    def all(self) -> list[Any]:
        """Those that there are."""
        return [actor for actor in [*self.shards, self.coordinator, *self.workers] if actor is not None]

    def keep(self, alive: Collection[Any]) -> None:
        """Part with the others."""
        for actor in set(self.all()) - {*alive}:
            end_actor(actor)
        self.shards, self.workers = (
            [actor if actor in alive else None for actor in actors] for actors in (self.shards, self.workers)
        )
        self.coordinator = self.coordinator if self.coordinator in alive else None

    def prepare(self, pipeline: Pipeline, workers: int, leave: Collection[str]) -> Reserve:
        """Make what a generation of `pipeline` with so many workers needs beside the actors that are here.

        None on the nodes `leave` is taken along. All shards are new where their number is another. Raises LaunchError.
        """
        stay = {actor for actor in self.all() if not leave or node_of(actor) not in leave}
        shards = _fitted(self.shards, pipeline.cluster.shards)
        workers_here = [worker for worker in self.workers if worker in stay][:workers]
        wanted = [
            *_shard_slots(pipeline, [actor if actor in stay else None for actor in shards]),
            *_worker_slots([*workers_here, *[None] * (workers - len(workers_here))]),
        ]
        actors = self._maker.fill(wanted, beside=self.all())
        self.reserve = Reserve(pipeline, actors[: len(shards)], actors[len(shards) :], self.all())
        return self.reserve

    def let_in(self, start: Start) -> set[Any]:
        """Let those in that were made for this generation; the shards that hold its tables already."""
        reserve, self.reserve = self.reserve, None
        if reserve is None:
            return set()
        if reserve.snapshot is None:  # the generation before it has died
            reserve.discard()
            return set()
        here = set(self.all())
        self.keep([*reserve.shards, *reserve.workers, self.coordinator])
        known = here | reserve.new
        self.shards, self.workers = (
            [actor if actor in known else None for actor in actors]
            for actors in (reserve.shards, reserve.workers)
        )
        return here if start.tables == reserve.snapshot else set()

    def make_missing(self, start: Start) -> None:
        """Make actors for the empty places. Raises LaunchError.

        Shards of another number than this generation has are of no use to it.
        """
        pipeline = start.pipeline
        shards = _fitted(self.shards, pipeline.cluster.shards)
        workers = [*self.workers, *[None] * len(start.specs)][: len(start.specs)]
        self.keep([*shards, *workers, self.coordinator])
        coordinator = Slot("coordinator", None, Coordinator, (start.plan,), self.coordinator)
        actors = self._maker.fill([*_shard_slots(pipeline, shards), *_worker_slots(workers), coordinator])
        self.shards, self.workers = actors[: len(shards)], actors[len(shards) : -1]
        self.coordinator = actors[-1]

    def draining(self) -> set[str]:
        """Nodes that are about to go and have a shard or worker; the coordinator stays with the driver."""
        nodes = draining_nodes()
        return nodes & {node_of(actor) for actor in [*self.shards, *self.workers]} if nodes else nodes

    def close(self) -> None:
        """End them all; may be called twice."""
        if self.reserve is not None:
            self.reserve.discard()
            self.reserve = None
        self.keep(())
        self.shards, self.workers = [], []


def _fitted(shards: list[Any], count: int) -> list[Any]:
    """The shards, if they are so many; else empty places: one of so many holds other keys."""
    return shards if len(shards) == count else [None] * count


def _shard_slots(pipeline: Pipeline, shards: list[Any]) -> list[Slot]:
    return [Slot("shard", shard, ShardActor, (shard, pipeline), actor) for shard, actor in enumerate(shards)]


def _worker_slots(workers: list[Any]) -> list[Slot]:
    return [Slot("worker", worker, WorkerActor, (), actor) for worker, actor in enumerate(workers)]
