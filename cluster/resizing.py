"""Resizing: has a job that learns go on with other numbers of workers and shards, or without actors on nodes that go.

One resize, in order; the job learns on during the first three steps:

1. New actors are made beside those that learn, and get their kernels (reserve.py). All shards are new where their
   number changes, because each then holds other keys; else only those on nodes that drain.
2. A snapshot is taken as always, so that what is to be brought later is little.
3. The new shards load their part of it. They read what any number of shards wrote.
4. All workers are asked to stop, as at the end of a job: they learn what they have in hand, every push is acknowledged,
   and the last snapshot is written, a difference to that of step 2. Learning pauses from here.
5. The next generation begins at that snapshot, as each does, with the new actors: new shards read the difference,
   shards that stay go on with what they hold, partitions go to other workers with their offsets, and what encoders
   know is dealt anew (starts.py).

Nothing is lost and nothing repeated: the old generation has ended in order before the new one begins. What fails before
step 5 leaves the job as it was, or sends it back to the last snapshot, as any other failure would.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.ports import SourceError, StoreError
from cluster.cluster_port import ElasticPort
from cluster.scale_requests import ScaleRequests
from cluster.sizes import Sizes, remember
from cluster.snapshots.errors import SnapshotError
from learning.job_messages import SnapshotAsked, SnapshotFailed, SnapshotWritten, StopAsked

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.cluster_port import ClusterPort, CoordinatorControl, ReservePort
    from cluster.mailbox import Mailbox
    from cluster.requests import ScaleRequest
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.starts import Start, Starter

__all__ = ["Resizing"]

_TRIES_MAX = 3
_DRAIN_LOOK_S = 2.0
_DRAIN_AGAIN_S = 30.0
_FRESH_LOOK_S = 0.5


class _Phase(enum.Enum):
    STARTING = "new actors start"
    SAVING = "a snapshot is taken"
    LOADING = "new shards load it"
    STOPPING = "the workers end"
    SWITCHED = "the next generation begins"


@dataclass(slots=True)
class _Task:
    """A resize on its way; without a request it is a move away from nodes."""

    request: ScaleRequest | None
    before: Sizes
    sizes: Sizes
    leave: set[str]
    reserve: ReservePort
    phase: _Phase = _Phase.STARTING
    base: int = 0
    look_s: float = 0.0
    paused_s: float = 0.0


class Resizing:
    """What is asked of one job, whose `starter` makes its generations; a job in one process says no."""

    def __init__(
        self,
        cluster: ClusterPort,
        starter: Starter,
        mailbox: Mailbox,
        say: Callable[[str], None],
    ) -> None:
        self._cluster = cluster if isinstance(cluster, ElasticPort) else None
        self._starter = starter
        self._requests = ScaleRequests(mailbox, say)
        self._say = say
        self._task: _Task | None = None
        self._start: Start | None = None
        self._tries: dict[str, int] = {}
        self._next_drain_s = 0.0

    def beginning(self, error: Exception | None) -> None:
        """A generation is about to begin; `error`: what has ended the one before. What was not switched is undone."""
        task = self._task
        if task is None or task.phase is _Phase.SWITCHED:
            return
        self._task = None
        if error is None or task.request is None:
            return
        tries = self._tries[task.request.id] = self._tries.get(task.request.id, 0) + 1
        if tries >= _TRIES_MAX:
            self._requests.answer(task.request, f"{_not(task.sizes)}: {error}, {tries} times", done=False)

    def begun(self, start: Start) -> None:
        """A generation learns; if it is the one that was asked for, that is said."""
        self._start = start
        task = self._task
        if task is None or task.phase is not _Phase.SWITCHED:
            return
        self._task = None
        at = f"at {start.plan.start.records:,} records; learning paused for {time.monotonic() - task.paused_s:.2f} s"
        if task.request is not None:
            self._requests.answer(task.request, f"went from {task.before} to {task.sizes} {at}", done=True)
        else:
            self._say(f"moved away from {_named(task.leave)} {at}")

    def step(
        self,
        coordinator: CoordinatorControl,
        newest: SnapshotManifest | None,
        settled: SnapshotWritten | SnapshotFailed | None,
    ) -> None:
        """Go on with what is asked; returns at once. `newest` snapshot of this job; `settled`: what became of one.

        Raises:
            SnapshotError: the one for which the workers have ended could not be written.

        """
        if self._task is None:
            self._look()
            return
        task, failed = self._task, isinstance(settled, SnapshotFailed)
        match task.phase:
            case _Phase.STARTING if self._is_ready(task):
                task.phase, task.base = _Phase.SAVING, self._number(newest)
                coordinator.tell(SnapshotAsked())
            case _Phase.SAVING if failed:
                self._refuse(task, "the snapshot that new shards were to load could not be written")
            case _Phase.SAVING if self._is_saved(task, coordinator, newest):
                task.phase = _Phase.LOADING
                if number := self._number(newest):
                    task.reserve.preload(self._present.run_url, number)
            case _Phase.LOADING if self._is_ready(task):
                task.phase, task.paused_s = _Phase.STOPPING, time.monotonic()
                coordinator.tell(StopAsked())
            case _Phase.STOPPING if failed:
                raise SnapshotError("the snapshot for which the workers had ended could not be written")

    def due(self, newest: SnapshotManifest, *, ends: bool) -> bool:
        """The workers have ended, with `newest` as their last snapshot: whether to go on with other actors.

        `ends`: the job is at its end anyway. Raises SnapshotError.
        """
        task = self._task
        if task is None or task.phase is not _Phase.STOPPING:
            return False
        if ends:
            self._refuse(task, "the job was about to end")
            return False
        if task.sizes != task.before:
            remember(self._present.run_url, self._starter.asked, task.sizes)
            self._starter.resize(task.sizes)
        task.reserve.switch(newest.number)
        task.phase = _Phase.SWITCHED
        return True

    def _is_ready(self, task: _Task) -> bool:
        try:
            return task.reserve.ready()
        except (StoreError, SnapshotError) as error:
            self._refuse(task, str(error))
            return False

    def _number(self, newest: SnapshotManifest | None) -> int:
        """The newest snapshot of the present state; 0: there is none."""
        start = self._present
        own = newest is not None and newest.generation == start.plan.generation
        return newest.number if newest is not None and own else start.tables

    def _is_saved(
        self, task: _Task, coordinator: CoordinatorControl, newest: SnapshotManifest | None
    ) -> bool:
        """Whether there is a newer snapshot than when it was asked for, or nothing was learnt since the newest."""
        if self._number(newest) > task.base:
            return True
        if time.monotonic() < task.look_s:
            return False
        task.look_s = time.monotonic() + _FRESH_LOOK_S
        records = self._present.plan.start.records if newest is None else newest.records
        return coordinator.records() == records

    def _look(self) -> None:
        """Begin what is asked for, or what a node that drains asks for."""
        now_s = time.monotonic()
        if (request := self._requests.next()) is not None:
            try:
                self._begin(request)
            except (SourceError, StoreError) as error:
                self._requests.answer(request, str(error), done=False)
        elif self._cluster is not None and now_s >= self._next_drain_s:
            self._next_drain_s = now_s + _DRAIN_LOOK_S
            if leave := self._cluster.draining():
                self._next_drain_s = now_s + _DRAIN_AGAIN_S
                self._say(f"{_named(leave)} drains; what it has of the job moves to other nodes")
                try:
                    self._prepare(None, self._starter.sizes, leave)
                except StoreError as error:
                    self._say(f"nothing moved away from {_named(leave)}: {error}")

    def _begin(self, request: ScaleRequest) -> None:
        before = self._starter.sizes
        sizes = Sizes(request.workers or before.workers, request.shards or before.shards)
        if self._cluster is None:
            raise StoreError(f"{_not(sizes)}: it runs in one process (--local); run it on Ray to scale it")
        if sizes == before:
            self._requests.answer(request, f"the job has {sizes} already", done=True)
            return
        if sizes.workers != before.workers:
            self._starter.check_workers(sizes.workers)
        self._say(f"going from {before} to {sizes}; learning goes on meanwhile")
        self._prepare(request, sizes, self._cluster.draining())

    def _prepare(self, request: ScaleRequest | None, sizes: Sizes, leave: set[str]) -> None:
        assert self._cluster is not None, "refused before"
        same = sizes.workers == self._starter.sizes.workers
        workers = min(sizes.workers, len(self._present.ends)) if same else sizes.workers
        reserve = self._cluster.prepare(sizes.of(self._present.pipeline), workers, leave)
        self._task = _Task(request, self._starter.sizes, sizes, leave, reserve)

    def _refuse(self, task: _Task, reason: str) -> None:
        """The job goes on as it is."""
        task.reserve.discard()
        self._task = None
        if task.request is None:
            self._say(f"nothing moved away from {_named(task.leave)}: {reason}")
        else:
            self._requests.answer(task.request, f"{_not(task.sizes)}: {reason}", done=False)

    @property
    def _present(self) -> Start:
        assert self._start is not None, "a generation learns"
        return self._start


def _not(sizes: Sizes) -> str:
    return f"the job did not go to {sizes}"


def _named(nodes: set[str]) -> str:
    return f"node{'s' * (len(nodes) != 1)} {', '.join(node[:12] for node in sorted(nodes))}"
