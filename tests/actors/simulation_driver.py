"""The driver of a simulated job and what befalls it: what cluster/supervise.py and starts.py do, in events.

Whatever is committed is loaded at once, and compared with what the shards held when it was frozen and with what an
undisturbed run would have had at its offsets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.coordinator import Coordinator
from actors.ports import StoreError, StreamUnavailableError
from actors.shard import ParameterShard, StalePushError
from cluster.snapshots.errors import SnapshotDamagedError
from learning.exchange import Moment
from learning.job_messages import (
    EndJob,
    SnapshotAsked,
    SnapshotFailed,
    SnapshotWritten,
    StopAsked,
    TakeSnapshot,
)
from learning.job_state import JobPlan, JobState
from tests.actors.simulation import Process, Promise, Simulation, Steps
from tests.actors.simulation_cluster import Port, Seen, ShardActor, Share
from tests.actors.simulation_disk import Disk, DiskFullError, Written
from tests.actors.simulation_wire import Actor, Profile, Wire

if TYPE_CHECKING:
    from tests.actors.simulation_worlds import Universe

__all__ = ["Job"]

RECOVERABLE = (StoreError, StreamUnavailableError, StalePushError)
FAULTS = ("worker", "worker", "shard", "shard", "coordinator", "driver", "stop", "ask", "resize", "resize")


class _DriverDiedError(Exception):
    """The driver is dead, and with it the cluster."""


@dataclass
class _Start:
    plan: JobPlan
    tables: int


class Job:
    """A job from its beginning to the end of its stream, whatever befalls it."""

    def __init__(self, seed: int, universe: Universe, profile: Profile, kills: int) -> None:
        self.sim = Simulation(seed)
        self.disk, self.seen = Disk(), Seen()
        self.wire = Wire(self.sim, profile)
        self.happened: list[str] = []
        self._universe = universe
        self._profile = profile
        self._kills = kills
        self._kill_share = self.sim.random.choice((1 / 40, 1 / 120, 1 / 300))
        self._quiet_until = self.sim.random.choice((0, 0, 100, 200, 400))
        self._danger = 1.0
        self._settings()
        self._driver: Process | None = None
        self._coordinator: Actor | None = None
        self._workers: list[Actor] = []
        self._shards: list[ShardActor] = []
        self._writing: tuple[int, Process] | None = None
        self.generations = self.finals = self.resizes = 0
        self._held: int | None = None
        self._resizing = False

    def _settings(self) -> None:
        choice = self.sim.random.choice
        self.shards = choice((1, 2, 3))
        self._interval, self._deltas_max = choice((0, 10, 20, 40)), choice((0, 2, 16, 16))
        self._in_flight, self._report_s = choice((1, 2, 2)), choice((0.0, 0.05, 0.5))
        self._ask_share = choice((0.0, 0.05, 0.2))
        several = len(self._universe.shares) > 1
        self._stale = choice((None, 0, 8, 30)) if several else None
        self._stale_share = choice((None, 0.5)) if several else None

    def run(self) -> None:
        """All of it. Raises AssertionError where something is not as it was promised."""
        self.sim.on_event = self._befall
        self.sim.run(self._live())

    def _live(self) -> Steps:
        """Start the job again and again under the same name, until its stream is at its end."""
        while True:
            self._driver = self.sim.process(self._drive())
            try:
                yield self._driver.ended
            except _DriverDiedError:
                yield self.sim.random.random()
            else:
                written = self.disk.last
                assert written is not None, "the job ended without its last snapshot"
                if self._universe.is_end(written.state.offsets):
                    break
            self._close()
            if self.sim.random.random() < 0.3:
                self.shards = self.sim.random.choice((1, 2, 3))
        self._universe.check_end(self, written, self._shards)

    def _close(self) -> None:
        for actor in (self._coordinator, *self._workers, *self._shards):
            if actor is not None:
                actor.kill()
        self._coordinator, self._workers, self._shards = None, [], []

    # What befalls it.

    def _befall(self) -> None:
        if (
            self._kills
            and self.sim.steps > self._quiet_until
            and self.sim.random.random() < self._kill_share * self._danger
        ):
            kind = self.sim.random.choice(FAULTS)
            if self._strike(kind):
                self._kills -= 1
                self.happened.append(f"{self.sim.steps}: {kind}")

    def _strike(self, kind: str) -> bool:
        random = self.sim.random
        alive = [a for a in (self._workers if kind == "worker" else self._shards) if a.alive]
        if kind in {"worker", "shard"} and alive:
            random.choice(alive).kill()
        elif kind == "coordinator" and self._coordinator is not None:
            self._coordinator.kill()
        elif (
            kind in {"stop", "ask", "resize"}
            and self._coordinator is not None
            and self._coordinator.mind is not None
        ):
            self._coordinator.mind.tell(SnapshotAsked() if kind == "ask" else StopAsked())
            self._resizing |= kind == "resize"
        elif kind == "driver" and self._driver is not None and not self._driver.ended.done:
            self._driver.kill(_DriverDiedError())
            if self._writing is not None and random.random() < 0.7:  # else it still writes what it has
                self._writing[1].kill(StoreError("the driver has died"))
            self._close()
        else:
            return False
        return True

    # The driver.

    def _drive(self) -> Steps:
        self._writing = None
        error: Exception | None = None
        while True:
            try:
                self._danger = 5.0
                start = yield from self._begin(error)
                self._danger = 1.0
                yield from self._learn(start)
                error = None
                if not self._resizes():
                    return
            except RECOVERABLE as failed:
                error = failed
                yield self._profile.delay_s

    def _resizes(self) -> bool:
        """As cluster.resizing: workers have ended in order, and another generation begins, perhaps on other shards."""
        last, random = self.disk.last, self.sim.random
        assert last is not None, "the job ended without its last snapshot"
        resizing, self._resizing = self._resizing, False
        if self._universe.is_end(last.state.offsets) or not resizing:
            return False
        self._held = last.moment.snapshot
        self.shards = random.choice((1, 2, 3))
        self.resizes += 1
        return True

    def _begin(self, error: Exception | None) -> Steps:
        if error is not None and self._writing is not None:
            while not self._writing[1].ended.done:
                yield self._profile.slow_disk_s + self._profile.delay_s
        self._writing = None
        before: int | None = None
        while True:
            start = self._start(before)
            try:
                yield from self._launch(start)
            except SnapshotDamagedError:
                before = start.tables
            else:
                return start

    def _start(self, before: int | None) -> _Start:
        """As cluster.starts.Starter makes it."""
        number = self.disk.newest(before)
        self.disk.generation += 1
        self.generations += 1
        since = deltas = 0
        if number is None:
            state = JobState(
                0, dict.fromkeys(self._universe.streams, 0), 0, 0, self._universe.learner.metrics()
            )
        else:
            state, last = self.disk.snapshots[number].state, max(self.disk.snapshots)
            state = replace(state, number=last)
            if number == last:
                since, deltas = number, self.disk.deltas(number)
        plan = JobPlan(
            self._universe.shares,
            state,
            self.disk.generation,
            since,
            deltas,
            self._interval,
            self._deltas_max,
            watch=self._universe.watch,
        )
        return _Start(plan, number or 0)

    def _launch(self, start: _Start) -> Steps:
        """As cluster.launch.RayCluster.begin does: the living are told first, so that they refuse the old workers."""
        plan, caller = start.plan, self
        held, self._held = self._held == start.tables, None
        if len(self._shards) != self.shards:
            for shard in self._shards:
                shard.kill()
            self._shards = [ShardActor(self.sim, n) for n in range(self.shards)]
        old = {shard.number for shard in self._shards if shard.alive and shard.mind is not None}
        for shard in self._shards:
            if shard.alive and shard.mind is not None:
                self.wire.call(caller, shard, partial(shard.mind.begin, plan.moment))
        if self._coordinator is not None and self._coordinator.alive and self._coordinator.mind is not None:
            mind = self._coordinator.mind
            self.wire.call(caller, self._coordinator, lambda: mind.begin(plan))
        for _ in range(20):
            if all(w.task is None or w.task.ended.done for w in self._workers):
                break
            yield 4 * self._profile.delay_s
        for worker in self._workers:
            worker.kill()
        if self._coordinator is None or not self._coordinator.alive:
            self._coordinator = Actor("coordinator")
            self._coordinator.mind = Coordinator(plan)
        self._shards = [s if s.alive else ShardActor(self.sim, s.number) for s in self._shards]
        self._workers = [Actor(f"worker {w}") for w in range(len(plan.partitions))]
        begun = [
            self.wire.call(
                caller,
                s,
                partial(self._resume if held and s.number in old and s.mind else self._load, s, start),
            )
            for s in self._shards
        ]
        for promise in begun:  # noqa: UP028 - a list takes no answers
            yield promise

    def _empty(self, actor: ShardActor, moment: Moment) -> ParameterShard:
        count, bounds = len(self._shards), (self._stale, self._stale_share)
        policies = {name: policy.of_shard(count) for name, policy in self._universe.policies.items()}
        made = ParameterShard(
            actor.number, self._universe.learner, policies, *((None, None) if actor.number else bounds)
        )
        made.begin(moment)
        return made

    def _resume(self, actor: ShardActor, start: _Start) -> None:
        actor.mind.resume(start.plan.moment, start.plan.start.records)

    def _load(self, actor: ShardActor, start: _Start) -> None:
        made = self._empty(actor, start.plan.moment)
        if start.tables and self.sim.random.random() < 0.3:  # it has loaded an older snapshot ahead
            of, (plan, tables) = (actor.number, len(self._shards)), (start.plan, start.tables)
            ahead = self.sim.random.choice(self.disk.numbers(tables))
            made.restore(*self.disk.load_shard(ahead, *of), Moment(0, ahead), 0)
            made.catch_up(self.disk.load_since(ahead, tables, *of), plan.moment, plan.start.records)
        elif start.tables:
            loaded = self.disk.load_shard(start.tables, actor.number, len(self._shards))
            made.restore(*loaded, start.plan.moment, start.plan.start.records)
        actor.begin(made)

    def _learn(self, start: _Start) -> Steps:
        for worker, actor in enumerate(self._workers):
            self._run_worker(start, worker, actor)
        coordinator, sim = self._coordinator, self.sim
        assert coordinator is not None
        while True:
            commands = yield self.wire.call(self, coordinator, coordinator.mind.commands)
            for command in commands:
                if isinstance(command, EndJob):
                    return
                assert isinstance(command, TakeSnapshot)
                assert self._writing is None, "a snapshot is being written already"
                self._writing = (
                    command.moment.snapshot,
                    sim.process(self._write(start, command, [*self._shards])),
                )
                self._danger = 4.0
            if self._writing is not None and self._writing[1].ended.done:
                number, written = self._writing
                self._writing, self._danger = None, 1.0
                event = SnapshotWritten(number, written.ended.result() or 0)
                settled = event if event.size_bytes else SnapshotFailed(number)
                yield self.wire.call(self, coordinator, partial(coordinator.mind.tell, settled))
            self._check()
            if sim.random.random() < self._ask_share:
                yield self.wire.call(self, coordinator, lambda: coordinator.mind.tell(SnapshotAsked()))
            yield sim.random.random() * (4 * self._profile.delay_s + self._profile.slow_disk_s / 2)

    def _run_worker(self, start: _Start, number: int, actor: Actor) -> None:
        assert self._coordinator is not None
        plan, universe = start.plan, self._universe
        share = Share(
            number,
            {p: plan.start.offsets.get(p, 0) for p in plan.partitions[number]},
            plan.start.turns.get(number),
            universe.state(plan.start.workers.get(number)),
        )
        port = Port(self.sim, self.wire, share, universe.streams, self.seen)
        port.meet(self._coordinator, plan.moment)
        port.connect(list(self._shards), self._place)
        worker = port.worker(
            universe.learner, universe.policies, plan.moment, self._report_s, self._in_flight, universe.watch
        )

        def live() -> None:
            try:
                worker.run()
            except RECOVERABLE:
                raise
            except Exception as error:  # noqa: BLE001 - told to whoever runs the simulation
                self.sim.fail(error)
            finally:
                worker.close()

        port.task = actor.task = self.sim.task(live)

    def _place(self, number: int) -> ShardActor | None:
        return self._shards[number] if number < len(self._shards) else None

    def _check(self) -> None:
        for actor in (self._coordinator, *self._workers, *self._shards):
            assert actor is not None
            if not actor.alive:
                raise StoreError(f"{actor.name} has died")
            if actor.task is not None and actor.task.ended.done:
                actor.task.ended.result()

    def _write(self, start: _Start, command: TakeSnapshot, shards: list[ShardActor]) -> Steps:
        """As cluster.snapshots.writing: every shard its part, then the manifest; the bytes, or None if it cannot be."""
        moment = command.moment
        written: list[Any] = []
        try:
            parts = [self._part(shard, moment) for shard in shards]
            for part in parts:
                written.append((yield part))  # noqa: PERF401 - a comprehension does not yield
            yield self._profile.slow_disk_s * self.sim.random.random()
            if self._profile.strikes(self.sim, "full_disk"):
                raise DiskFullError("no space left on device")
            whole = Written(command.state, moment, [changes for changes, _ in written])
            self.disk.commit(whole)
        except DiskFullError:
            return None
        tables, _ = self.disk.load(moment.snapshot) if not self._damaged(moment.snapshot) else ({}, [])
        self._universe.check_snapshot(
            self, whole, tables, [frozen for _, frozen in written], start.plan.start
        )
        if self._profile.strikes(self.sim, "damaged"):
            whole.damage = self.sim.random.choice(("manifest", "rows"))
            later = self.wire.delay_s() * self.sim.random.choice((1, 20))
            self.sim.after(later, partial(self._strike, self.sim.random.choice(("driver", "shard"))))
        return 1 + sum(len(change.state.keys) for changes, _ in written for change in changes.values())

    def _damaged(self, number: int) -> bool:
        return any(written.damage for written in self.disk._chain(number))

    def _part(self, shard: ShardActor, moment: Moment) -> Promise:
        promise = Promise()

        def begin() -> None:
            if not shard.alive:
                promise.settle(error=StoreError(f"{shard.name} has died"))
                return
            part = shard.write(moment, self._profile)
            part.then(lambda: promise.settle(part.value, part.error))

        self.sim.after(self.wire.delay_s(), begin)
        return promise
