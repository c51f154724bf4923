"""Pulling ahead of a push, by several workers at once: worker and shards carry walks forward alike, to the bit."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.ports import StoreError
from actors.shard import ParameterShard
from cluster.local_store import DirectShards
from cluster.store import ShardedStore
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from tests.direct import rows_by_key
from tests.streams import cut, stream

if TYPE_CHECKING:
    from learning.batch import Batch
    from learning.exchange import Push

LEARNER = Ftrl(alpha=0.3, l1=0.1)
WORKERS, SHARDS = 3, 2


class WatchedShard(ParameterShard):
    """Remembers from which rows the shard thinks each push began."""

    def _apply(self, worker: int, push: Push) -> None:
        self.bases = [base.copy() for base in self._open[worker][0].base]
        super()._apply(worker, push)


class Watched:
    """A worker's store whose every push is compared with what the shards think it began from."""

    def __init__(self, worker: int, shards: DirectShards, batches: list[Batch]) -> None:
        self.store = ShardedStore(worker, shards, LEARNER)
        self.shards = shards
        self.batches = batches
        self.pulled: list[Batch] = []
        self.ready: Any = None
        self.pushed = 0

    def pull(self) -> None:
        """Pull the next batch, if two are not open already."""
        if self.batches and len(self.pulled) + (self.ready is not None) < 2:
            self.pulled.append(self.batches.pop(0))
            self._call(self.store.pull, self.pulled[-1])

    def wait(self) -> None:
        """Take the oldest pull's rows."""
        if self.pulled and self.ready is None:
            self.ready = (self.pulled.pop(0), self.store.wait())

    def push(self) -> None:
        """Learn and push."""
        if self.ready is not None:
            batch, pulled = self.ready
            LEARNER.learn(pulled.tables, batch)
            self._call(self.store.push, pulled)
            self.ready = None
            self.pushed += 1

    def flush(self) -> None:
        """Have all pushes applied."""
        self._call(self.store.flush)

    def _call(self, function: Any, *arguments: Any) -> None:
        """Make a call; if it brought the pending push to the shards, compare the two sides' bases."""
        walk = self.store._learnt if self.store._pending is not None else None
        bases = None if walk is None else walk.bases[0].copy()
        bounds = None if walk is None else walk.grouped[0].bounds
        function(*arguments)
        if bases is not None and bounds is not None:
            for shard, (a, b) in zip(self.shards.shards, pairwise(bounds), strict=True):
                assert isinstance(shard, WatchedShard)
                assert np.array_equal(shard.bases[0], bases[a:b])


def watched(records: int = 600, size: int = 20) -> list[Watched]:
    """Three workers over two shards, each with its own stream."""
    shards = DirectShards(SHARDS, LEARNER)
    shards.shards = [WatchedShard(shard, LEARNER) for shard in range(SHARDS)]
    encoders = [NumericEncoder() for _ in range(WORKERS)]
    streams = [cut(stream(records, seed=w, partition=w), size) for w in range(WORKERS)]
    return [Watched(w, shards, [encoders[w].encode(batch) for batch in streams[w]]) for w in range(WORKERS)]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(["pull", "wait", "push", "flush"]))))
def test_worker_and_shards_agree_from_where_every_walk_began(steps: list[tuple[int, str]]) -> None:
    """Any interleaving of three workers' pulls, waits, pushes and flushes; every push is compared."""
    workers = watched()
    for number, action in steps:
        if action != "flush" or workers[number].ready is None:
            getattr(workers[number], action)()
    for worker in workers:
        worker.push()
        worker.wait()
        worker.push()
        worker.flush()
        assert worker.store.acknowledged == worker.pushed


def test_workers_that_pull_ahead_see_each_others_learning() -> None:
    """Three workers in turns, each a batch ahead: the rows that a worker learns on hold what the others pushed."""
    workers = watched()
    for worker in workers:
        worker.pull()
    for _ in range(29):
        for worker in workers:
            worker.wait()
            worker.pull()
            worker.push()
    for worker in workers:
        worker.wait()
        worker.push()
        worker.flush()
    shards = workers[0].shards.shards
    assert sum(worker.pushed for worker in workers) == 90
    assert all(shard.status()["pushes"] == 90 for shard in shards)
    assert sum(shard.status()["moved_rows"] for shard in shards) > 100
    assert max(shard.status()["staleness_max"] for shard in shards) <= 2 * 3 * 20
    assert all(np.isfinite(row).all() for row in rows_by_key(shards).values())


def test_a_pull_that_waits_is_let_in_once_the_others_have_pushed() -> None:
    """The bound leaves room for two open batches; the third worker's store asks again until there is room."""
    shards = DirectShards(SHARDS, LEARNER, staleness_examples_max=20)
    first, second, third = (ShardedStore(w, shards, LEARNER, sleep=lambda _: turn()) for w in range(3))
    batches = [stream(20, seed=w, partition=w) for w in range(3)]
    first.pull(batches[0])
    second.pull(batches[1])
    third.pull(batches[2])
    turns: list[str] = []

    def turn() -> None:
        for name, store in (("first", first), ("second", second)):
            if name not in turns:
                turns.append(name)
                pulled = store.wait()
                LEARNER.learn(pulled.tables, batches[len(turns) - 1])
                store.push(pulled)
                store.flush()
                return

    third.push(third.wait())
    third.flush()
    assert "first" in turns
    status = shards.shards[0].status()
    assert status["waits"] > 0
    assert status["staleness_max"] <= 20


def test_a_pull_that_is_never_let_in_ends_with_a_sentence() -> None:
    """Another worker has died with its batch open: the wait is bounded."""
    shards = DirectShards(1, LEARNER, staleness_examples_max=0)
    stuck = ShardedStore(0, shards, LEARNER)
    stuck.pull(stream(10))
    waiting = ShardedStore(1, shards, LEARNER, wait_timeout_s=1.0, sleep=lambda _: None)
    waiting.pull(stream(10, partition=1))
    with pytest.raises(StoreError, match=r"worker 1 waited 1 s .*staleness_examples_max"):
        waiting.wait()
