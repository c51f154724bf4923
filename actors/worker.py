"""Worker: takes its partitions' batches through encode, pull, learn, push and report.

Messages out:
    to the shards, through the store: pull, push (once a batch).
    to the coordinator: report (every `report_interval_s`, and when idle), arrive (barriers and the end), directive
        (while it waits).
Messages in: none; `run` is the whole life of a worker. Directives come as answers to reports.

Three batches are in hand at most: one is learnt, the next is pulled, and the one after it is polled and encoded while
the shards answer. A batch counts once its push is acknowledged, so offsets that the coordinator knows are always
contained in the state.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.ports import StaleGenerationError
from actors.worker_parts import BarrierTimeoutError, Learnt, Pacing, Prepared, Tally, World
from learning.exchange import Moment
from learning.job_messages import Arrived, Directive, Reported

if TYPE_CHECKING:
    from learning.learner import Learner
    from learning.observing import Observer
    from learning.worker_state import WorkerState

__all__ = ["REPORT_INTERVAL_S", "BarrierTimeoutError", "Worker", "World"]

REPORT_INTERVAL_S = 0.05
_BARRIER_POLL_S = 0.002
_SHOW_INTERVAL_S = 2.0
"""How often a worker tells what it knows by itself, for those who look."""


class Worker:
    """One worker of a job; belongs to one thread.

    `moment`: when its generation begins. `observer`: what drift is told by; None: nobody watches. `lag_records`: how
    far ahead of the coordinator a worker may be whose pace it may change (learning/watching.py); None: it never does.
    """

    def __init__(
        self,
        worker: int,
        learner: Learner,
        state: WorkerState,
        world: World,
        moment: Moment = Moment(),  # noqa: B008 - a tuple of numbers
        *,
        observer: Observer | None = None,
        lag_records: int | None = None,
        pulls_in_flight_max: int = 2,
        poll_timeout_s: float = 0.05,
        report_interval_s: float = REPORT_INTERVAL_S,
        barrier_timeout_s: float = 600.0,
    ) -> None:
        self._worker = worker
        self._learner = learner
        self._state = state
        self._world = world
        self._pulls_in_flight_max = pulls_in_flight_max
        self._poll_timeout_s = poll_timeout_s
        self._report_interval_s = report_interval_s
        self._reported_s = 0.0
        self._shown_s = 0.0
        self._tally = Tally(learner.metrics())
        self._observer = observer
        self._pacing = Pacing(worker, lag_records)
        self._barrier_timeout_s = barrier_timeout_s
        self._moment = moment
        self._directive = Directive(moment.snapshot, moment)
        world.store.advance(moment)
        self._prepared: Prepared | None = None
        self._pulled: deque[Prepared] = deque()
        self._unacknowledged: deque[Learnt] = deque()
        self._acknowledged = 0

    def run(self) -> None:
        """Learn until the source is exhausted or the directive says stop; every push is acknowledged at the end."""
        self._heed(self._world.coordinator.directive())  # a job that goes on may have read enough already
        self._state.begin(self._directive)
        while True:
            if not self._pulled:
                self._pull(0.0 if self._unacknowledged else self._poll_timeout_s)
            if self._pulled:
                self._learn()
                continue
            idle_from_s = self._world.clock_s()
            self._settle()
            if self._directive.stop or self._world.source.exhausted:
                break
            if self._barrier_due():
                self._stand_at_barrier()
                self._tally.pauses_s.append(self._world.clock_s() - idle_from_s)
        self._arrive(finished=True)

    def close(self) -> None:
        """Release streams and connections; may be called twice."""
        self._world.source.close()
        self._world.dead_letters.close()
        if self._world.predictions is not None:
            self._world.predictions.close()

    def _pull(self, timeout_s: float) -> None:
        """Pull the batch that is prepared, or the next one if nothing asks for a pause."""
        if self._prepared is None:
            self._prepared = self._prepare(timeout_s)
        if self._prepared is not None:
            self._world.store.pull(self._prepared.rehearsed)
            self._pulled.append(self._prepared)
            self._prepared = None

    def _prepare(self, timeout_s: float) -> Prepared | None:
        """Poll, decode and encode a batch. The state then includes it, so none may be left over at a barrier."""
        if self._barrier_due() or self._directive.stop:
            return None
        decoded = self._world.source.poll(timeout_s)
        if decoded is None:
            return None
        if decoded.dead:
            self._world.dead_letters.write(decoded.dead)
        batch = self._state.prepare(decoded.batch)
        return Prepared(decoded, batch, self._state.rehearse(batch))

    def _learn(self) -> None:
        """Learn the oldest pulled batch. The next one is pulled before, so that its answer comes meanwhile."""
        store = self._world.store
        if self._prepared is None:
            self._prepared = self._prepare(0.0)
        if not self._pacing.knows(self._directive):
            self._settle()
        pulled = store.wait()
        decoded, batch, rehearsed = self._pulled.popleft()
        if self._prepared is not None and self._pulls_in_flight_max > 1:
            self._pull(0.0)
        self._acknowledge()
        batch = self._pacing.paced(batch, self._directive)
        rehearsed = replace(rehearsed, pace=batch.pace)
        observer, watched = self._observer, None
        fresh = observer.fresh(pulled.tables, rehearsed)[: len(batch)] if observer is not None else None
        mixed = self._state.mix(self._learner.learn(pulled.tables, rehearsed)[: len(batch)], batch)
        predictions = mixed.predictions
        store.push(pulled)
        self._state.judge(predictions, batch)
        if observer is not None and fresh is not None:
            watched = observer.watched(decoded.batch, fresh, predictions)
        self._unacknowledged.append(Learnt(decoded, predictions, watched))
        if self._world.predictions is not None:
            own = predictions if predictions.ndim == 1 else predictions[:, 0]
            self._world.predictions.write(batch, mixed._replace(predictions=own), str(self._moment.snapshot))

    def _settle(self) -> None:
        """Have everything acknowledged and reported, and learn what is wanted: there is time to wait for the answer."""
        self._world.store.flush()
        self._acknowledge()
        self._report()
        self._heed(self._world.coordinator.directive())

    def _acknowledge(self) -> None:
        """Batches that the store holds for certain count as done, with their offsets; report when it is time."""
        now_s = self._world.clock_s()
        while self._acknowledged < self._world.store.acknowledged:
            decoded, predictions, watched = self._unacknowledged.popleft()
            batch, tally = decoded.batch, self._tally
            self._learner.judge(tally.metrics, predictions, batch)
            tally.delays.update(now_s - batch.produced_s)
            tally.dead += len(decoded.dead)
            tally.batches.append(batch.batch_id)
            if watched is not None:
                tally.watched.append(watched)
            self._acknowledged += 1
        if self._tally.batches and now_s - self._reported_s >= self._report_interval_s:
            self._report()

    def _report(self) -> None:
        tally, self._tally = self._tally, Tally(self._learner.metrics())
        self._reported_s = now_s = self._world.clock_s()
        shown = None
        if now_s - self._shown_s >= _SHOW_INTERVAL_S:
            shown, self._shown_s = self._state.shown(), now_s
        reported = Reported(
            self._worker, self._moment.generation, tally.metrics, tally.delays, tally.dead, tally.batches,
            self._world.source.lags(), tally.pauses_s, tally.watched, shown,
        )  # fmt: skip
        self._heed(self._world.coordinator.report(reported))

    def _heed(self, directive: Directive) -> None:
        """Take the newest directive. Raises StaleGenerationError if the job has gone back to a snapshot."""
        if directive.moment.generation != self._moment.generation:
            raise StaleGenerationError(
                f"worker {self._worker} is of generation {self._moment.generation} of the job, which is in generation "
                f"{directive.moment.generation} now; it ends, and its batches are learnt again"
            )
        self._directive = directive

    def _barrier_due(self) -> bool:
        return self._directive.barrier > self._moment.snapshot

    def _stand_at_barrier(self) -> None:
        """Arrive, and wait (bounded) until all others have too; then all that is sent belongs to the next snapshot."""
        barrier = self._directive.barrier
        self._arrive(finished=False)
        deadline_s = self._world.clock_s() + self._barrier_timeout_s
        while self._directive.moment.snapshot < barrier:
            if self._world.clock_s() > deadline_s:
                msg = (
                    f"worker {self._worker} waited {self._barrier_timeout_s:g} s at snapshot barrier {barrier}; "
                    f"another worker is stuck, look at their logs"
                )
                raise BarrierTimeoutError(msg)
            self._world.sleep(_BARRIER_POLL_S)
            self._heed(self._world.coordinator.directive())
        self._moment = self._directive.moment
        self._world.store.advance(self._moment)
        self._state.begin(self._directive)

    def _arrive(self, *, finished: bool) -> None:
        self._world.dead_letters.flush()
        if self._world.predictions is not None:
            self._world.predictions.flush()
        arrived = Arrived(
            self._worker, self._moment.generation, self._directive.barrier, self._state.arrays(), finished
        )
        self._heed(self._world.coordinator.arrive(arrived))
