"""Shards and workers of a simulated job: the real ones, in a world whose every call takes its time.

Some messages come again much later, when the job is in another generation: then they must be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.ports import DeadLetter, Decoded, StaleGenerationError, StreamUnavailableError
from actors.shard import ParameterShard
from actors.worker import Worker, World
from cluster.store import ShardedStore
from learning.exchange import Moment, Pull, Push, Rows
from learning.job_messages import Arrived, Directive, Reported
from learning.learner import Learner
from learning.observing import Observer
from learning.policy import TablePolicy
from learning.table_state import TableChange, TableState
from tests.actors.simulation import Promise, Simulation, Steps, Task
from tests.actors.simulation_disk import DiskFullError
from tests.actors.simulation_wire import CALL_TIMEOUT_S, Actor, Profile, Wire

if TYPE_CHECKING:
    import numpy as np

    from actors.coordinator import Coordinator
    from learning.batch import Batch, BatchId
    from learning.watching import WatchPlan
    from learning.worker_state import WorkerState

__all__ = ["Port", "Seen", "ShardActor", "Share"]


class ShardActor(Actor):
    """The process of one shard."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        super().__init__(f"shard {number}")
        self._simulation = simulation
        self.number = number
        self._frozen: list[dict[str, TableState]] = []

    def begin(self, made: ParameterShard) -> None:
        """Go on with another shard's content; copies how its tables are whenever they are frozen."""
        self.mind = made
        held = made.held
        freeze = held.freeze
        frozen: list[dict[str, TableState]] = []
        self._frozen = frozen

        def watched(moment: Moment) -> None:
            if moment.snapshot > held.frozen:
                frozen[:] = [
                    {
                        spec.name: table.changes.content(table._table.live().nonzero()[0])
                        for spec, table in zip(held.specs, held.tables, strict=True)
                    }
                ]
            freeze(moment)

        held.freeze = watched  # type: ignore[method-assign]

    def exchange(self, worker: int, moment: Moment, push: Push | None, pull: Pull | None) -> Any:
        """A worker's push and pull; as over a wire, the answer is a copy."""
        shard: ParameterShard = self.mind
        if moment.generation != shard._generation:
            shard.exchange(worker, moment, push, pull)  # raises StaleGenerationError
            raise AssertionError(f"{self.name} took a message of generation {moment.generation}")
        answer = shard.exchange(worker, moment, push, pull)
        return answer._replace(flat=answer.flat.copy()) if isinstance(answer, Rows) else answer

    def write(self, moment: Moment, profile: Profile) -> Promise:
        """Write this shard's part of a snapshot, beside its other work."""
        process = self._simulation.process(self._write(moment, profile))
        self.processes = [p for p in self.processes if not p.ended.done] + [process]
        return process.ended

    def _write(self, moment: Moment, profile: Profile) -> Steps:
        """As cluster/parts.py and cluster/snapshots/part_files.py do it; small pieces, with time between them."""
        sim, shard, frozen = self._simulation, self.mind, self._frozen
        yield profile.slow_disk_s * sim.random.random()
        shard.freeze(moment)
        (held,), part = frozen, shard.held.part(profile.rows_max)
        changes: dict[str, TableChange] = {}
        for spec, table in zip(shard.held.specs, shard.held.tables, strict=True):
            chunks = []
            for chunk in part.chunks(spec.name):
                chunks.append(chunk)
                if profile.strikes(sim, "full_disk"):
                    raise DiskFullError("no space left on device")
                yield profile.slow_disk_s * sim.random.random()
            state = TableState.join(chunks or [table.content(table._table.live().nonzero()[0][:0])])
            changes[spec.name] = TableChange(state, part.removed(spec.name), part.side(spec.name))
        return changes, held


@dataclass
class Seen:
    """What left the job: predictions by place, each with the batch's id; letters; both only once delivered."""

    predictions: dict[tuple[int, int], list[tuple[BatchId, float]]] = field(default_factory=dict)
    letters: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class Share:
    """What a worker is begun with (cluster.assembly.WorkerSpec)."""

    worker: int
    offsets: dict[int, int]
    turn: int | None
    state: WorkerState


class Port:
    """The whole world of one worker: its source, sinks, coordinator and the way to the shards, all of which block."""

    def __init__(
        self, simulation: Simulation, wire: Wire, share: Share, streams: dict[int, list[Decoded]], seen: Seen
    ) -> None:
        self._simulation = simulation
        self._wire = wire
        self._seen = seen
        self._share = share
        self._streams = {partition: streams[partition] for partition in sorted(share.offsets)}
        self._at = {
            p: next((i for i, d in enumerate(s) if d.batch.batch_id.first_offset >= share.offsets[p]), len(s))
            for p, s in self._streams.items()
        }
        partitions = list(self._streams)
        after = sum(1 for p in partitions if share.turn is not None and p <= share.turn)
        self._turns = deque(partitions[after:] + partitions[:after])
        self._unsent: list[tuple[Batch, np.ndarray]] = []
        self._unwritten: list[DeadLetter] = []
        self._caller = object()
        self._in_flight: Promise | None = None
        self.task: Task | None = None

    def _blocking(self) -> Task:
        assert self.task is not None
        return self.task

    # The stream.

    def poll(self, timeout_s: float) -> Decoded | None:
        """The next batch round robin, as a bounded stream gives it; or none yet."""
        sim = self._simulation
        if self.exhausted:
            return None
        if self._wire.profile.strikes(sim, "no_stream"):
            raise StreamUnavailableError("the broker is away")
        draw = sim.random.random()
        if draw < 0.3:
            self._blocking().sleep(timeout_s * sim.random.random() if draw < 0.15 else timeout_s)
        if draw < 0.15:
            return None
        while self._at[self._turns[0]] == len(self._streams[self._turns[0]]):
            self._turns.rotate(-1)
        partition = self._turns[0]
        self._turns.rotate(-1)
        self._at[partition] += 1
        return self._streams[partition][self._at[partition] - 1]

    @property
    def exhausted(self) -> bool:
        """True at the end of all partitions."""
        return all(self._at[partition] == len(stream) for partition, stream in self._streams.items())

    def lags(self) -> dict[int, int]:
        """Nobody looks."""
        return {}

    # Sinks: a death loses what was not flushed, or a part of it.

    def write(self, *given: Any) -> None:
        """Predictions of a batch, or letters."""
        if len(given) == 1:
            self._unwritten += given[0]
        else:
            self._unsent.append((given[0], given[1].predictions.copy()))

    def flush(self) -> None:
        """Deliver everything."""
        self._blocking().sleep(self._wire.delay_s())
        self._deliver(len(self._unsent), len(self._unwritten))

    def close(self) -> None:
        """The process ends; some of what it had not flushed goes out."""
        random = self._simulation.random
        self._deliver(random.randint(0, len(self._unsent)), random.randint(0, len(self._unwritten)))
        self._unsent, self._unwritten = [], []

    def _deliver(self, predictions: int, letters: int) -> None:
        for batch, values in self._unsent[:predictions]:
            for position, value in zip(batch.positions.tolist(), values.tolist(), strict=True):
                place = (batch.batch_id.partition, position)
                self._seen.predictions.setdefault(place, []).append((batch.batch_id, value))
        self._seen.letters |= {(letter.partition, letter.offset) for letter in self._unwritten[:letters]}
        del self._unsent[:predictions], self._unwritten[:letters]

    # The coordinator, as cluster.remote.RemoteCoordinator speaks to it: one report in flight.

    def meet(self, coordinator: Actor, moment: Moment) -> None:
        """Its coordinator, and what it said last."""
        self._coordinator = coordinator
        self._directive = Directive(moment.snapshot, moment)

    def report(self, reported: Reported) -> Directive:
        """Send figures; the newest directive known."""
        self._settle()
        self._in_flight = self._tell(lambda mind: mind.report(reported))
        return self._directive

    def arrive(self, arrived: Arrived) -> Directive:
        """Stand at a barrier, or finish."""
        self._settle()
        self._directive = self._blocking().wait(self._tell(lambda mind: mind.arrive(arrived)))
        return self._directive

    def directive(self) -> Directive:
        """The present directive."""
        self._settle()
        self._directive = self._blocking().wait(self._tell(lambda mind: mind.directive()))
        return self._directive

    def _settle(self) -> None:
        if self._in_flight is not None:
            answer, self._in_flight = self._in_flight, None
            self._directive = self._blocking().wait(answer)

    def _tell(self, function: Callable[[Coordinator], Directive]) -> Promise:
        actor = self._coordinator
        return self._wire.call(self._caller, actor, lambda: function(actor.mind))

    # The shards.

    def connect(self, shards: list[ShardActor], place: Callable[[int], ShardActor | None]) -> None:
        """Its shards; `place` finds who has a shard's place later on."""
        self._shards, self._place = shards, place

    def __len__(self) -> int:
        return len(self._shards)

    def exchange(
        self, shard: int, worker: int, moment: Moment, push: Push | None, pull: Pull | None
    ) -> Promise:
        """Send a push and a pull."""
        sim, wire = self._simulation, self._wire
        sent = None if push is None else push._replace(rows=push.rows.copy())
        if wire.profile.strikes(sim, "late"):
            sim.after(
                sim.random.expovariate(1.0) * 5.0, lambda: self._come_late(shard, worker, moment, sent, pull)
            )
        actor = self._shards[shard]
        return wire.call(
            self._caller, actor, lambda: actor.exchange(worker, moment, sent, pull), repeats=True
        )

    def _come_late(
        self, shard: int, worker: int, moment: Moment, push: Push | None, pull: Pull | None
    ) -> None:
        """A message of another generation is refused; of this one it would have come before."""
        actor = self._place(shard)
        if actor and actor.alive and actor.mind and actor.mind._generation != moment.generation:
            try:
                actor.exchange(worker, moment, push, pull)
            except StaleGenerationError:
                self._wire.refused += 1

    def ask(self, shard: int, question: Any) -> Any:
        """Nobody asks."""
        raise NotImplementedError

    def gather(self, references: list[Promise]) -> list[Any]:
        """The answers."""
        return [self._blocking().wait(reference) for reference in references]

    def worker(
        self,
        learner: Learner,
        policies: dict[str, TablePolicy],
        moment: Moment,
        report_s: float,
        in_flight: int,
        watch: WatchPlan | None = None,
    ) -> Worker:
        """The worker in this world."""
        store = ShardedStore(
            self._share.worker, self, learner,
            has_policies=bool(policies), wait_timeout_s=CALL_TIMEOUT_S, sleep=lambda s: self._blocking().sleep(s),
        )  # fmt: skip
        world = World(
            source=self, store=store, coordinator=self, dead_letters=self, predictions=self,
            clock_s=lambda: self._simulation.now_s, sleep=lambda s: self._blocking().sleep(s),
        )  # fmt: skip
        return Worker(
            self._share.worker, learner, self._share.state, world, moment,
            pulls_in_flight_max=in_flight, report_interval_s=report_s,
            observer=None if watch is None else Observer(learner),
            lag_records=None if watch is None else watch.lag_records,
        )  # fmt: skip
