"""Parameter state in one process: `LocalStore` on the tables' own rows, `DirectShards` as shards called at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.ports import Pulled, StoreError
from actors.shard import ParameterShard
from actors.table_names import TableNames
from learning.exchange import Rows
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from actors.ports import Tables
    from learning.batch import Batch
    from learning.exchange import Pull, Push
    from learning.learner import Learner
    from learning.policy import TablePolicy
    from learning.questions import Question

__all__ = ["DirectShards", "LocalStore"]


class LocalStore:
    """The whole state in tables of this process; a pull is a look-up, and the learner works on the tables' own rows.

    It keeps every key; where a table has a policy, a `ShardedStore` over `DirectShards` is used instead.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._specs = learner.specs()
        self._tables = [Table(spec.width, birth=spec.birth) for spec in self._specs]
        self._biases = [
            int(table.locate(np.array([BIAS_KEY], np.uint64))[0]) if spec.bias else -1
            for spec, table in zip(self._specs, self._tables, strict=True)
        ]
        self._names = TableNames(learner)
        self._open: deque[Batch] = deque()
        self._pushes = 0

    @property
    def acknowledged(self) -> int:
        """All pushes: what is learnt is in the tables."""
        return self._pushes

    def pull(self, batch: Batch) -> None:
        """Remember the batch; rows are looked up by `wait`."""
        self._open.append(batch)

    def wait(self) -> Pulled:
        """The tables' own rows: what the learner changes is learnt at once."""
        if not self._open:
            raise StoreError("expected a pull before wait")
        batch = self._open.popleft()
        every = self._learner.keys(batch)
        index = [table.locate(keys) for table, keys in zip(self._tables, every, strict=True)]
        self._name(batch, index, every)
        tables = zip(self._tables, index, self._biases, strict=True)
        return Pulled(batch.batch_id, tuple(TableRows(table.rows, at, bias) for table, at, bias in tables))

    def _name(
        self, batch: Batch, index: list[NDArray[np.int64]], keys: tuple[NDArray[np.uint64], ...]
    ) -> None:
        """Keep the names of keys that are new in named tables."""
        for t, spec in enumerate(self._specs):
            if (role := self._learner.named.get(spec.name)) is not None and batch.role_texts is not None:
                self._names.see(t, index[t], keys[t], batch.role_texts[role])

    def push(self, pulled: Pulled) -> None:
        """Nothing to send."""
        self._pushes += 1

    def flush(self) -> None:
        """Nothing to wait for."""

    def snapshot(self) -> Tables:
        """Copies of all keys, rows and names by table."""
        tables = zip(self._specs, self._tables, strict=True)
        return {spec.name: self._names.snapshot(t, table) for t, (spec, table) in enumerate(tables)}

    def restore(self, tables: Tables) -> None:
        """Replace the content."""
        for i, (spec, table) in enumerate(zip(self._specs, self._tables, strict=True)):
            self._names.restore(i, table, tables[spec.name])
            if spec.bias:
                self._biases[i] = int(table.locate(np.array([BIAS_KEY], np.uint64))[0])

    def status(self) -> dict[str, Any]:
        """State of the tables, as a shard gives it."""
        return {
            "tables": {
                spec.name: self._names.counted(
                    t, {"rows": len(table), "bytes": table.memory_bytes, "load": table.load_factor}
                )
                for t, (spec, table) in enumerate(zip(self._specs, self._tables, strict=True))
            }
        }


class DirectShards:
    """The transport of a `ShardedStore` to shards in this very process: a call is answered before it returns."""

    def __init__(
        self,
        count: int,
        learner: Learner,
        policies: Mapping[str, TablePolicy] | None = None,
        staleness_examples_max: int | None = None,
        staleness_share_max: float | None = None,
    ) -> None:
        of_shard = {name: policy.of_shard(count) for name, policy in (policies or {}).items()}
        bounds = (staleness_examples_max, staleness_share_max)
        self.shards = [
            ParameterShard(shard, learner, of_shard, *((None, None) if shard else bounds))
            for shard in range(count)
        ]

    def __len__(self) -> int:
        return len(self.shards)

    def exchange(self, shard: int, worker: int, push: Push | None, pull: Pull | None) -> Any:
        """Call the shard; as over a wire, the answer is a copy."""
        answer = self.shards[shard].exchange(worker, push, pull)
        return answer._replace(flat=answer.flat.copy()) if isinstance(answer, Rows) else answer

    def ask(self, shard: int, question: Question) -> Any:
        """Ask the shard."""
        return self.shards[shard].ask(question)

    def gather(self, references: list[Any]) -> list[Any]:
        """The answers are there already."""
        return references
