"""Worker: takes its partitions' batches through encode, pull, learn, push and report.

Messages out:
    to the shards, through the store: pull, push (once a batch).
    to the coordinator: report (once a batch or idle wait), arrive (barriers and the end), directive (while it waits).
Messages in: none; `run` is the whole life of a worker. Directives come as answers to reports.

While the shards answer a pull, the next batch is already polled, decoded and encoded. A batch is reported once its
push is acknowledged, so offsets that the coordinator knows are always contained in the state.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        barrier_timeout_s: float = 600.0,
    ) -> None:
        self._worker = worker
        self._learner = learner
        self._encoder = encoder
        self._world = world
        self._poll_timeout_s = poll_timeout_s
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
        """Have everything acknowledged; an idle worker reports too, to learn of directives."""
        self._world.store.flush()
        if self._unacknowledged is None:
            self._report(Prequential.zero(), DelayHistogram(), None)
        self._acknowledge()

    def _acknowledge(self) -> None:
        """The store holds the last batch for certain: report it, and count its offsets as done."""
        if self._unacknowledged is None:
            return
        learnt, self._unacknowledged = self._unacknowledged, None
        batch = learnt.decoded.batch
        metrics, delays = Prequential.zero(), DelayHistogram()
        metrics.update(learnt.predictions, batch.labels)
        delays.update(self._world.clock_s() - batch.produced_s)
        self._offsets[batch.batch_id.partition] = batch.batch_id.next_offset
        self._report(metrics, delays, learnt.decoded)

    def _report(self, metrics: Prequential, delays: DelayHistogram, decoded: Decoded | None) -> None:
        batch_id = None if decoded is None else decoded.batch.batch_id
        dead = 0 if decoded is None else len(decoded.dead)
        reported = Reported(self._worker, batch_id, metrics, delays, dead, self._world.source.lag_records())
        self._directive = self._world.coordinator.report(reported)

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
