"""Worker: takes its partitions' batches through encode, pull, learn, push and report.

Messages out:
    to the shards, through the store: pull, push (once a batch).
    to the coordinator: report (every `report_interval_s`, and when idle), arrive (barriers and the end), directive
        (while it waits).
Messages in: none; `run` is the whole life of a worker. Directives come as answers to reports.

While the shards answer a pull, the next batch is already polled, decoded and encoded. A batch counts once its push is
acknowledged, so offsets that the coordinator knows are always contained in the state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from learning.job_messages import Arrived, Directive, Reported
from learning.metrics import DelayHistogram, Prequential

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actors.ports import CoordinatorPort, DeadLetterPort, Decoded, ParameterStore, PredictionPort, Source
    from learning.batch import Batch
    from learning.encoding import NumericEncoder
    from learning.ftrl import Ftrl

__all__ = ["BarrierTimeoutError", "Worker", "World"]

_BARRIER_POLL_S = 0.01


class BarrierTimeoutError(Exception):
    """A snapshot barrier was not lowered in time; the message says which."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside a worker, injected: streams, state, coordinator, and time."""

    source: Source
    store: ParameterStore
    coordinator: CoordinatorPort
    dead_letters: DeadLetterPort
    predictions: PredictionPort | None
    clock_s: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(slots=True)
class _Tally:
    """What has been acknowledged since the last report."""

    metrics: Prequential = field(default_factory=Prequential.zero)
    delays: DelayHistogram = field(default_factory=DelayHistogram)
    dead: int = 0
    batches: int = 0
    next_offsets: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Learnt:
    """A batch whose push is not acknowledged yet."""

    decoded: Decoded
    predictions: NDArray[np.float64]


class Worker:
    """One worker of a job; belongs to one thread."""

    def __init__(
        self,
        worker: int,
        learner: Ftrl,
        encoder: NumericEncoder,
        world: World,
        *,
        poll_timeout_s: float = 0.2,
        report_interval_s: float = 0.05,
        barrier_timeout_s: float = 600.0,
    ) -> None:
        self._worker = worker
        self._learner = learner
        self._encoder = encoder
        self._world = world
        self._poll_timeout_s = poll_timeout_s
        self._report_interval_s = report_interval_s
        self._reported_s = 0.0
        self._tally = _Tally()
        self._barrier_timeout_s = barrier_timeout_s
        self._directive = Directive(barrier=0, released=0, stop=False)
        self._ahead: tuple[Decoded, Batch] | None = None
        self._unacknowledged: _Learnt | None = None
        self._offsets: dict[int, int] = {}

    def run(self) -> None:
        """Learn until the source is exhausted or the directive says stop; every push is acknowledged at the end."""
        while True:
            taken = self._take()
            if taken is not None:
                self._learn(*taken)
                continue
            self._settle()
            if self._directive.stop or self._world.source.exhausted:
                break
            if self._barrier_due():
                self._stand_at_barrier()
        self._arrive(finished=True)

    def close(self) -> None:
        """Release streams and connections; may be called twice."""
        self._world.source.close()
        self._world.dead_letters.close()
        if self._world.predictions is not None:
            self._world.predictions.close()

    def _take(self) -> tuple[Decoded, Batch] | None:
        """The batch in hand, or the next one if nothing asks for a pause."""
        if self._ahead is not None:
            taken, self._ahead = self._ahead, None
            return taken
        return self._prepare(0.0 if self._unacknowledged else self._poll_timeout_s)

    def _prepare(self, timeout_s: float) -> tuple[Decoded, Batch] | None:
        """Poll, decode and encode a batch. The encoder then includes it, so none may be left over at a barrier."""
        if self._barrier_due() or self._directive.stop:
            return None
        decoded = self._world.source.poll(timeout_s)
        if decoded is None:
            return None
        if decoded.dead:
            self._world.dead_letters.write(decoded.dead)
        return decoded, self._encoder.encode(decoded.batch)

    def _learn(self, decoded: Decoded, batch: Batch) -> None:
        store = self._world.store
        store.pull(batch)
        self._ahead = self._prepare(0.0)
        pulled = store.wait()
        self._acknowledge()
        predictions = self._learner.learn(pulled.rows, pulled.index, pulled.bias, batch)
        store.push(pulled)
        self._unacknowledged = _Learnt(decoded, predictions)
        if self._world.predictions is not None:
            self._world.predictions.write(batch, predictions, str(self._directive.released))

    def _settle(self) -> None:
        """Have everything acknowledged and reported; an idle worker reports too, to learn of directives."""
        self._world.store.flush()
        self._acknowledge()
        self._report()

    def _acknowledge(self) -> None:
        """The store holds the last batch for certain: count it and its offsets as done, and report when it is time."""
        if self._unacknowledged is None:
            return
        learnt, self._unacknowledged = self._unacknowledged, None
        batch, tally, now_s = learnt.decoded.batch, self._tally, self._world.clock_s()
        tally.metrics.update(learnt.predictions, batch.labels)
        tally.delays.update(now_s - batch.produced_s)
        tally.dead += len(learnt.decoded.dead)
        tally.batches += 1
        tally.next_offsets[batch.batch_id.partition] = batch.batch_id.next_offset
        if now_s - self._reported_s >= self._report_interval_s:
            self._report()

    def _report(self) -> None:
        tally, self._tally = self._tally, _Tally()
        self._offsets.update(tally.next_offsets)
        reported = Reported(
            self._worker, tally.metrics, tally.delays, tally.dead, tally.batches, tally.next_offsets,
            self._world.source.lag_records(),
        )  # fmt: skip
        self._directive = self._world.coordinator.report(reported)
        self._reported_s = self._world.clock_s()

    def _barrier_due(self) -> bool:
        return self._directive.barrier > self._directive.released

    def _stand_at_barrier(self) -> None:
        """Arrive, and wait (bounded) until the shards have copied their state."""
        barrier = self._directive.barrier
        self._arrive(finished=False)
        deadline_s = self._world.clock_s() + self._barrier_timeout_s
        while self._directive.released < barrier:
            if self._world.clock_s() > deadline_s:
                msg = (
                    f"worker {self._worker} waited {self._barrier_timeout_s:g} s at snapshot barrier {barrier}; "
                    f"a worker or shard is stuck, look at their logs"
                )
                raise BarrierTimeoutError(msg)
            self._world.sleep(_BARRIER_POLL_S)
            self._directive = self._world.coordinator.directive()

    def _arrive(self, *, finished: bool) -> None:
        self._world.dead_letters.flush()
        if self._world.predictions is not None:
            self._world.predictions.flush()
        encoder = self._encoder.state()
        arrived = Arrived(self._worker, self._directive.barrier, dict(self._offsets), encoder, finished)
        self._directive = self._world.coordinator.arrive(arrived)
