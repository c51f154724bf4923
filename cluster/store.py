"""Parameter stores: pull, push, wait - the three verbs by which a worker reaches the parameter state.

The same worker loop runs over both: `LocalStore` keeps the tables in this process, `ShardedStore` speaks to shards
through a transport (Ray's in a job, direct calls in one process and in tests).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actors.ports import Pulled, StoreError
from cluster.naming import names_of
from cluster.walks import Walk, begin_walk, carry_forward
from learning.exchange import Moment, Pull, Push, Rows, Wait, stream_time_s
from learning.grouping import GroupedKeys, KeyGrouper

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.learner import Learner, TableRows
    from learning.questions import Question

__all__ = ["ShardTransport", "ShardedStore"]

_PAUSE_MIN_S, _PAUSE_MAX_S = 0.0005, 0.004


class ShardTransport(Protocol):
    """Calls to shards, in the order made; `len` is the number of shards."""

    def __len__(self) -> int: ...

    def exchange(self, shard: int, worker: int, moment: Moment, push: Push | None, pull: Pull | None) -> Any:
        """Send one shard a worker's earlier push and next pull; returns a reference to the answer."""

    def ask(self, shard: int, question: Question) -> Any:
        """Ask one shard about its rows; returns a reference to the answer."""

    def gather(self, references: list[Any]) -> list[Any]:
        """The answers behind references, in order. Raises StoreError after a bounded wait."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to some shards, by their numbers; once it is answered, the first `pushes` pushes are applied."""

    references: dict[int, Any]
    pushes: int


@dataclass(slots=True)
class _Asked:
    """A pull on its way: `carries` if the batch before it was not pushed yet when it was sent."""

    batch: Batch
    grouped: list[GroupedKeys]
    carries: bool
    call: _Call | None = None


class ShardedStore:
    """The state in ParameterShards, as one worker sees it.

    A pull sends each shard its distinct keys and the newest push that is ready: one round trip a shard and batch. A
    shard runs a worker's calls in the order sent. A pull that is sent before the batch before it is pushed gets older
    rows; `wait` then takes that batch's own walk into them, as the shards do with theirs, so one worker computes
    exactly what `LocalStore` does.

    `has_policies`: some table holds keys back or drops them, so shards must know sights and times. `sleep` is used
    where a pull has to wait for slower workers, `wait_timeout_s` at most.
    """

    def __init__(
        self,
        worker: int,
        shards: ShardTransport,
        learner: Learner,
        *,
        has_policies: bool = False,
        wait_timeout_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._worker = worker
        self._shards = shards
        self._learner = learner
        self._widths = [spec.width for spec in learner.specs()]
        self._groupers = [KeyGrouper(len(shards), bias=spec.bias) for spec in learner.specs()]
        self._has_policies = has_policies
        self._wait_timeout_s = wait_timeout_s
        self._sleep = sleep
        self._open: deque[_Asked] = deque()
        self._learning: Walk | None = None
        self._learnt: Walk | None = None
        self._pending: list[Push] | None = None
        self._unheard: deque[_Call] = deque()
        self._pushes = self._acknowledged = 0
        self._moment = Moment()

    @property
    def acknowledged(self) -> int:
        """How many pushes the shards have applied for certain."""
        return self._acknowledged

    def advance(self, moment: Moment) -> None:
        """Have all calls from here on belong to this moment; nothing is in hand, so nothing is carried over."""
        self._moment, self._learnt = moment, None

    def pull(self, batch: Batch) -> None:
        """Send each shard its keys, together with the push that is ready."""
        carries = self._learning is not None or bool(self._open)
        keys = self._learner.keys(batch)
        grouped = [g.group(k, carry=carries) for g, k in zip(self._groupers, keys, strict=True)]
        asked = _Asked(batch, grouped, carries)
        asked.call = self._call(self._pulls(asked))
        self._open.append(asked)

    def wait(self) -> Pulled:
        """The rows of the oldest open pull, with this worker's own learning in them."""
        if not self._open or self._learning is not None:
            raise StoreError("expected a pull, and the push of the batch before, before wait")
        asked = self._open.popleft()
        walk = begin_walk(asked.batch, asked.grouped, self._answers(asked), self._widths)
        if asked.carries and self._learnt is not None:
            carry_forward(self._learner, self._learnt, walk)
        walk.bases = [table.rows.copy() for table in walk.tables]
        self._learning, self._learnt = walk, None
        return Pulled(asked.batch.batch_id, walk.tables)

    def push(self, pulled: Pulled) -> None:
        """Keep the rows, and how strongly their walk is coupled, for the next call to the shards."""
        walk, self._learning = self._learning, None
        if walk is None or walk.batch.batch_id != pulled.batch_id:
            raise StoreError("expected a wait before push")
        if self._pending is not None:
            self._unheard.append(self._call([None] * len(self._shards)))
        walk.coupling = self._learner.coupling(walk.bases, walk.tables, walk.batch)
        self._pending = [
            Push(
                pulled.batch_id,
                _joined([table.rows[part].ravel() for table, part in self._parts(walk, shard)]),
                walk.coupling,
                names_of(self._learner, walk, shard),
            )
            for shard in range(len(self._shards))
        ]
        self._learnt = walk

    def flush(self) -> None:
        """Send a push that is still held back, and wait for the shards."""
        if self._pending is not None:
            self._unheard.append(self._call([None] * len(self._shards)))
        self._hear()

    def _parts(self, walk: Walk, shard: int) -> list[tuple[TableRows, slice]]:
        return [
            (table, slice(grouped.bounds[shard], grouped.bounds[shard + 1]))
            for table, grouped in zip(walk.tables, walk.grouped, strict=True)
        ]

    def _call(self, pulls: list[Pull | None]) -> _Call:
        """Send each shard the pending push and its pull; a shard that would get neither is left alone."""
        pending, self._pending = self._pending, None
        pushes: list[Push | None] = [None] * len(self._shards) if pending is None else [*pending]
        self._pushes += pending is not None
        references = {
            shard: self._shards.exchange(shard, self._worker, self._moment, push, pull)
            for shard, (push, pull) in enumerate(zip(pushes, pulls, strict=True))
            if push is not None or pull is not None
        }
        return _Call(references, self._pushes)

    def _hear(self, call: _Call | None = None) -> dict[int, Rows | Wait]:
        """Wait for calls whose answers hold nothing but that they came, and for `call`; its answers by shard."""
        calls = [*self._unheard, call] if call is not None else [*self._unheard]
        self._unheard.clear()
        answers: dict[int, Rows | Wait] = {}
        for each in calls:
            gathered = self._shards.gather([*each.references.values()])
            answers = dict(zip(each.references, gathered, strict=True))
            self._acknowledged = each.pushes
        return answers

    def _answers(self, asked: _Asked) -> list[Rows]:
        """The shards' answers. Where the pull has to wait it only asks whether it may come in, until it may."""
        answers = self._hear(asked.call)
        waits = {shard: answer.pushed for shard, answer in answers.items() if isinstance(answer, Wait)}
        if waits:
            self._come_in(asked.batch, waits)
            asked.carries = False  # the push that this pull was to overtake has gone before it
            answers = self._hear(self._call(self._pulls(asked)))
        return [answer for _, answer in sorted(answers.items()) if isinstance(answer, Rows)]

    def _come_in(self, batch: Batch, waits: dict[int, int]) -> None:
        """Ask the shards in `waits`, which had seen so many records pushed, until all of them let the batch in.

        Raises StoreError once nobody has pushed for `wait_timeout_s`, so that nobody makes room.
        """
        asking = Pull(batch.batch_id, len(batch), float("nan"), (), (), _NO_KEYS, _NOTHING, None)
        pause_s, waited_s = _PAUSE_MIN_S, 0.0
        while waits:
            if waited_s > self._wait_timeout_s:
                raise StoreError(
                    f"worker {self._worker} waited {waited_s:.0f} s for slower workers to push what they have pulled "
                    f"(cluster.staleness_examples_max, staleness_share_max), and none did; look at their logs"
                )
            self._sleep(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, _PAUSE_MAX_S)
            pulls = [asking if shard in waits else None for shard in range(len(self._shards))]
            answers = self._hear(self._call(pulls))
            seen, waits = waits, {s: a.pushed for s in waits if isinstance(a := answers[s], Wait)}
            if any(pushed > seen[shard] for shard, pushed in waits.items()):
                waited_s = 0.0

    def _pulls(self, asked: _Asked) -> list[Pull | None]:
        """The pull as each shard gets it."""
        batch = asked.batch
        time_s = stream_time_s(batch) if self._has_policies else float("nan")
        pulls: list[Pull | None] = []
        for shard in range(len(self._shards)):
            grouped = [(g, slice(g.bounds[shard], g.bounds[shard + 1])) for g in asked.grouped]
            carried = [g.carried_of(shard) if asked.carries else _NOTHING for g, _ in grouped]
            pulls.append(
                Pull(
                    batch_id=batch.batch_id,
                    records=len(batch),
                    time_s=time_s,
                    sizes=tuple(int(part.stop - part.start) for _, part in grouped),
                    carries=tuple(map(len, carried)),
                    keys=_joined([g.keys[part] for g, part in grouped]),
                    carried=_joined(carried),
                    sights=_joined([g.sights[part] for g, part in grouped]) if self._has_policies else None,
                )
            )
        return pulls


_NOTHING, _NO_KEYS = np.empty(0, np.int32), np.empty(0, np.uint64)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
