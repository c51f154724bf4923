"""Parameter stores: pull, push, wait - the three verbs by which a worker reaches the parameter state.

The same worker loop runs over both: `LocalStore` keeps one table in this process, `ShardedStore` speaks to shards
through a transport (Ray's in a job, direct calls in tests).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actors.ports import Pulled, StoreError
from learning.grouping import GroupedKeys, KeyGrouper
from learning.keys import BIAS_KEY
from learning.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import Batch, BatchId
    from learning.ftrl import Ftrl

    Push = tuple[BatchId, NDArray[np.float32], float]
    Pull = tuple[BatchId, NDArray[np.uint64]]

__all__ = ["LocalStore", "ShardTransport", "ShardedStore"]


class ShardTransport(Protocol):
    """Calls to shards, in the order made; `len` is the number of shards."""

    def __len__(self) -> int: ...

    def exchange(self, shard: int, worker: int, push: Push | None, pull: Pull | None) -> Any:
        """Send one shard a worker's last push and next pull; returns a reference to the answer."""

    def gather(self, references: list[Any]) -> list[NDArray[np.float32]]:
        """The answers behind references, in order. Raises StoreError after a bounded wait."""


class LocalStore:
    """The whole state in one table; a pull is a lookup, and the learner works on the table's own rows."""

    def __init__(self, learner: Ftrl) -> None:
        self._table = Table(learner.width)
        self._bias = int(self._table.locate(np.array([BIAS_KEY], np.uint64))[0])
        self._batch: Batch | None = None

    def pull(self, batch: Batch) -> None:
        """Remember the batch; rows are looked up by `wait`, because a lookup may grow the table."""
        self._batch = batch

    def wait(self) -> Pulled:
        """The table's own rows: what the learner changes is learnt at once."""
        if self._batch is None:
            msg = "expected a pull before wait"
            raise StoreError(msg)
        batch, self._batch = self._batch, None
        index = self._table.locate(batch.keys)
        return Pulled(batch.batch_id, self._table.rows, index, self._bias)

    def push(self, pulled: Pulled) -> None:
        """Nothing to send."""

    def flush(self) -> None:
        """Nothing to wait for."""

    def snapshot(self) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Copies of all keys and rows."""
        return self._table.keys.copy(), self._table.rows.copy()

    def status(self) -> dict[str, int]:
        """Counters as a shard gives them."""
        return {"rows": len(self._table), "bytes": self._table.memory_bytes}


class ShardedStore:
    """The state in ParameterShards, as one worker sees it.

    A pull sends each shard its distinct keys, once a batch; the push of the batch before travels in the same call,
    so a batch costs one round trip a shard. A shard runs a worker's calls in the order sent, so a pull sees every
    earlier push of the same worker: one worker computes exactly what `LocalStore` does.
    """

    def __init__(self, worker: int, shards: ShardTransport, learner: Ftrl) -> None:
        self._worker = worker
        self._shards = shards
        self._learner = learner
        self._grouper = KeyGrouper(len(shards))
        self._open: tuple[Batch, GroupedKeys, list[Any]] | None = None
        self._learning: tuple[Batch, NDArray[np.float32]] | None = None
        self._pending: list[Push] | None = None
        self._bounds: NDArray[np.int64] = np.zeros(len(shards) + 1, np.int64)

    def pull(self, batch: Batch) -> None:
        """Send each shard its keys, together with the rows of the batch before."""
        grouped = self._grouper.group(batch.keys)
        keys = [grouped.keys[a:b] for a, b in zip(grouped.bounds[:-1], grouped.bounds[1:], strict=True)]
        refs = self._exchange([(batch.batch_id, part) for part in keys])
        self._open = (batch, grouped, refs)

    def wait(self) -> Pulled:
        """The pulled rows, joined in the order of the grouped keys; acknowledges the push before."""
        if self._open is None:
            msg = "expected a pull before wait"
            raise StoreError(msg)
        batch, grouped, refs = self._open
        self._open = None
        rows = np.empty((len(grouped.keys), self._learner.width), np.float32)
        np.concatenate(self._shards.gather(refs), out=rows)
        self._bounds, self._learning = grouped.bounds, (batch, rows.copy())
        return Pulled(batch.batch_id, rows, grouped.index, grouped.bias)

    def push(self, pulled: Pulled) -> None:
        """Keep the rows, and how strongly their walk is coupled, for the next call to the shards."""
        if self._learning is None:
            raise StoreError("expected a wait before push")
        (batch, base), self._learning = self._learning, None
        coupling = self._learner.coupling(base, pulled.rows, pulled.index, pulled.bias, batch)
        bounds = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        self._pending = [(pulled.batch_id, pulled.rows[a:b], coupling) for a, b in bounds]

    def flush(self) -> None:
        """Send a push that is still held back, and wait for the shards."""
        if self._pending is not None:
            self._shards.gather(self._exchange([None] * len(self._shards)))

    def _exchange(self, pulls: list[Pull | None]) -> list[Any]:
        pending, self._pending = self._pending, None
        pushes: list[Push | None] = [None] * len(self._shards) if pending is None else [*pending]
        return [
            self._shards.exchange(shard, self._worker, sent, pull)
            for shard, (sent, pull) in enumerate(zip(pushes, pulls, strict=True))
        ]
