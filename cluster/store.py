"""LocalStore: the parameter state in one table of this process, for one worker, without Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actors.ports import Pulled, StoreError
from learning.keys import BIAS_KEY
from learning.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.ftrl import Ftrl

__all__ = ["LocalStore"]


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
