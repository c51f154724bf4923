"""ShardedStore: the parameter state in ParameterShard actors on Ray, as one worker sees it.

A pull sends each shard its distinct keys, once a batch; the push of the batch before travels in the same call, so a
batch costs one round trip a shard. A shard runs a worker's calls in the order sent, so a pull sees every earlier push
of the same worker: one worker computes exactly what `LocalStore` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from actors.ports import Pulled, StoreError
from learning.grouping import GroupedKeys, KeyGrouper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import Batch, BatchId
    from learning.ftrl import Ftrl

__all__ = ["ShardedStore"]


class ShardedStore:
    """The state in ParameterShard actors (`shards`: their Ray handles, in order), seen by one worker."""

    def __init__(self, worker: int, shards: list[Any], learner: Ftrl, *, call_timeout_s: float = 60.0) -> None:
        self._worker = worker
        self._shards = shards
        self._width = learner.width
        self._call_timeout_s = call_timeout_s
        self._grouper = KeyGrouper(len(shards))
        self._open: tuple[BatchId, GroupedKeys, list[Any]] | None = None
        self._pending: tuple[BatchId, list[NDArray[np.float32]]] | None = None
        self._bounds: NDArray[np.int64] = np.zeros(len(shards) + 1, np.int64)

    def pull(self, batch: Batch) -> None:
        """Send each shard its keys, together with the rows of the batch before."""
        grouped = self._grouper.group(batch.keys)
        keys = [grouped.keys[a:b] for a, b in zip(grouped.bounds[:-1], grouped.bounds[1:], strict=True)]
        refs = self._exchange([(batch.batch_id, part) for part in keys])
        self._open = (batch.batch_id, grouped, refs)

    def wait(self) -> Pulled:
        """The pulled rows, joined in the order of the grouped keys; acknowledges the push before."""
        if self._open is None:
            msg = "expected a pull before wait"
            raise StoreError(msg)
        batch_id, grouped, refs = self._open
        self._open = None
        rows = np.empty((len(grouped.keys), self._width), np.float32)
        np.concatenate(self._get(refs), out=rows)
        self._bounds = grouped.bounds
        return Pulled(batch_id, rows, grouped.index, grouped.bias)

    def push(self, pulled: Pulled) -> None:
        """Keep the rows for the next call to the shards."""
        bounds = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        self._pending = (pulled.batch_id, [pulled.rows[a:b] for a, b in bounds])

    def flush(self) -> None:
        """Send a push that is still held back, and wait for the shards."""
        if self._pending is not None:
            self._get(self._exchange([None] * len(self._shards)))

    def _exchange(self, pulls: list[Any]) -> list[Any]:
        push, self._pending = self._pending, None
        pushes = [None] * len(self._shards) if push is None else [(push[0], part) for part in push[1]]
        return [
            shard.exchange.remote(self._worker, sent, pull)
            for shard, sent, pull in zip(self._shards, pushes, pulls, strict=True)
        ]

    def _get(self, refs: list[Any]) -> list[NDArray[np.float32]]:
        try:
            return ray.get(refs, timeout=self._call_timeout_s)
        except ray.exceptions.GetTimeoutError as error:
            msg = (
                f"worker {self._worker} expected {len(refs)} shards to answer within {self._call_timeout_s:g} s, "
                f"but they did not; look at the shards' logs, or raise cluster.call_timeout_s"
            )
            raise StoreError(msg) from error
