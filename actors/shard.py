"""ParameterShard: owns the rows of some segments of the key space.

Messages in:
    exchange(worker, push, pull) -> rows, merged: apply a worker's last push and answer its next pull, in one call.
    snapshot() -> keys and rows: copies, taken between two exchanges.
    restore(keys, rows): replace the content.
    status() -> rows, bytes, pushes and how many rows other workers had moved.
Messages out: none.

A shard never sees records. What it hands out for a pull it keeps as that worker's *base* until the push comes, so a
push carries only the end rows and the walk's coupling under the pull's batch id, no keys. A push of a batch id that
was applied before is answered and dropped; one of any other id is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learning.keys import BIAS_KEY
from learning.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import BatchId
    from learning.ftrl import Ftrl

__all__ = ["ParameterShard", "StalePushError"]


class StalePushError(Exception):
    """A push that belongs to no pull this shard remembers; the message names shard, worker and batch."""


@dataclass(slots=True)
class _Ticket:
    """A worker's open pull: the rows it was given, and which batch it will push them back for."""

    batch_id: BatchId
    at: NDArray[np.int64]
    base: NDArray[np.float32]


class ParameterShard:
    """One shard of the parameter state of `learner`. Not thread-safe: one call at a time."""

    def __init__(self, shard: int, learner: Ftrl) -> None:
        self._shard = shard
        self._learner = learner
        self._table = Table(learner.width)
        self._tickets: dict[int, _Ticket] = {}
        self._applied: dict[int, BatchId] = {}
        self._pushes = 0
        self._repeats = 0
        self._moved_rows = 0

    def exchange(
        self,
        worker: int,
        push: tuple[BatchId, NDArray[np.float32], float] | None,
        pull: tuple[BatchId, NDArray[np.uint64]] | None,
    ) -> NDArray[np.float32]:
        """Apply `push` = (batch id, end rows f32 (k, width), coupling), then answer `pull` = (batch id, keys u64).

        Returns:
            f32 (keys, width): the present rows of the pulled keys, in their order; empty without a pull.

        Raises:
            StalePushError: the push belongs to no open pull of this worker.

        """
        if push is not None:
            self._apply(worker, *push)
        if pull is None:
            return np.empty((0, self._learner.width), np.float32)
        batch_id, keys = pull
        # Arrays that arrive from another process are read-only, which numba would compile for a second time.
        at = self._table.locate(keys.copy())
        base = self._table.rows[at]
        self._tickets[worker] = _Ticket(batch_id, at, base)
        return base

    def _apply(self, worker: int, batch_id: BatchId, end: NDArray[np.float32], coupling: float) -> None:
        if self._applied.get(worker) == batch_id:
            self._repeats += 1
            return
        ticket = self._tickets.get(worker)
        if ticket is None or ticket.batch_id != batch_id or ticket.base.shape != end.shape:
            opened = "none" if ticket is None else f"{ticket.batch_id} with {len(ticket.base)} rows"
            msg = (
                f"shard {self._shard} expected worker {worker} to push the batch it pulled ({opened}), but came batch "
                f"{batch_id} with {len(end)} rows; restart the job from its last snapshot"
            )
            raise StalePushError(msg)
        bias = int(self._table.find(np.array([BIAS_KEY], np.uint64))[0])
        rows = self._table.rows
        self._moved_rows += self._learner.merge(rows, ticket.at, ticket.base, end.copy(), bias, coupling)
        self._applied[worker] = batch_id
        self._pushes += 1
        del self._tickets[worker]

    def snapshot(self) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Copies of all keys u64 (rows,) and rows f32 (rows, width), in order of birth."""
        return self._table.keys.copy(), self._table.rows.copy()

    def restore(self, keys: NDArray[np.uint64], rows: NDArray[np.float32]) -> None:
        """Replace the content by `keys` and `rows`; open pulls are forgotten."""
        self._table.restore(keys, rows)
        self._tickets.clear()
        self._applied.clear()

    def status(self) -> dict[str, int]:
        """Counters: rows and bytes now; pushes, repeated pushes and rows moved by others since the start."""
        return {
            "rows": len(self._table),
            "bytes": self._table.memory_bytes,
            "pushes": self._pushes,
            "repeated_pushes": self._repeats,
            "moved_rows": self._moved_rows,
        }
