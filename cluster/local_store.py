"""Parameter state in one process: `LocalStore` on the tables' own rows, `DirectShards` as shards called at once."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.holding import Holding, HoldingPart
from actors.ports import Pulled, StoreError
from actors.shard import ParameterShard
from learning.exchange import Rows
from learning.keys import BIAS_KEY
from learning.learner import TableRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from actors.ports import Sides, Tables
    from learning.batch import Batch
    from learning.exchange import Moment, Pull, Push
    from learning.learner import Learner
    from learning.policy import TablePolicy
    from learning.questions import Question

__all__ = ["DirectShards", "LocalStore"]

_BIAS = np.array([BIAS_KEY], np.uint64)


class LocalStore:
    """The whole state in tables of this process; a pull is a look-up, and the learner works on the tables' own rows.

    It keeps every key; where a table has a policy, a `ShardedStore` over `DirectShards` is used instead.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.held = Holding(learner)
        self._tables, self._names = self.held.tables, self.held.names
        self._biases = [self._bias(t) for t in range(len(self._tables))]
        self._open: deque[Batch] = deque()
        self._pushes = 0

    def _bias(self, t: int) -> int:
        """The row of table t's bias, which is born here; -1 where it has none."""
        if self.held.specs[t].bias:
            self._tables[t].open(_BIAS, None, 0, math.nan, 0)
        return self.held.bias_row(t)

    def advance(self, moment: Moment) -> None:
        """Begin the moment's snapshot."""
        self.freeze(moment)

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
        with self.held.lock:
            index = [
                table.open(keys, None, len(batch), math.nan, 0)
                for table, keys in zip(self._tables, every, strict=True)
            ]
            for t, bias in enumerate(self._biases):
                if bias >= 0:
                    self._tables[t].open(_BIAS, None, 0, math.nan, 0)
            self._name(batch, index, every)
        tables = zip(self._tables, index, self._biases, strict=True)
        return Pulled(batch.batch_id, tuple(TableRows(table.rows, at, bias) for table, at, bias in tables))

    def _name(
        self, batch: Batch, index: list[NDArray[np.int64]], keys: tuple[NDArray[np.uint64], ...]
    ) -> None:
        """Keep the names of keys that are new in named tables."""
        for t, spec in enumerate(self.held.specs):
            if (role := self._learner.named.get(spec.name)) is not None and batch.role_texts is not None:
                self._names.see(t, index[t], keys[t], batch.role_texts[role])

    def push(self, pulled: Pulled) -> None:
        """Nothing to send."""
        self._pushes += 1

    def flush(self) -> None:
        """Nothing to wait for."""

    def snapshot(self) -> Tables:
        """Copies of all keys, rows and names by table."""
        return self.held.snapshot()

    def freeze(self, moment: Moment) -> None:
        """Begin the moment's snapshot, if it has not begun."""
        self.held.freeze(moment)

    def part(self) -> HoldingPart:
        """The snapshot that has begun, to be read once, in any thread."""
        return self.held.part()

    def restore(
        self, tables: Tables, sides: Sides | None = None, moment: Moment | None = None, pushed: int = 0
    ) -> None:
        """Replace the content by that of the moment's snapshot."""
        self.held.restore(tables, sides, moment)
        self._biases = [self._bias(t) for t in range(len(self._tables))]

    def status(self) -> dict[str, Any]:
        """State of the tables, as a shard gives it."""
        return {"tables": self.held.status()}


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

    @classmethod
    def of(cls, shards: list[ParameterShard]) -> DirectShards:
        """Over shards that are there already."""
        made = cls.__new__(cls)
        made.shards = shards
        return made

    def exchange(self, shard: int, worker: int, moment: Moment, push: Push | None, pull: Pull | None) -> Any:
        """Call the shard; as over a wire, the answer is a copy."""
        answer = self.shards[shard].exchange(worker, moment, push, pull)
        return answer._replace(flat=answer.flat.copy()) if isinstance(answer, Rows) else answer

    def __len__(self) -> int:
        return len(self.shards)

    def ask(self, shard: int, question: Question) -> Any:
        """Ask the shard."""
        return self.shards[shard].ask(question)

    def gather(self, references: list[Any]) -> list[Any]:
        """The answers are there already."""
        return references
