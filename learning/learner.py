"""What every learner is: hyperparameters, the tables that it keeps, and pure functions of their rows.

A learner is one frozen dataclass in one file of learning/, and one line in learners.py. Its fields are the keys of the
pipeline's `learner` section; `kind` names it there. It never sees a shard, and a shard never sees a record:

    keys(batch)                       -> for each table, the keys of the batch's entries (repeats allowed)
    learn(tables, batch)              -> predictions, each made before its record's label was used; changes the rows
    merge(table, rows, at, base, ...) -> a worker's walks taken into rows that others may have moved

`tables` are a batch's rows, one `TableRows` for each table of `specs()`, in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.birth import RowBirth

__all__ = ["Forgetting", "Learner", "Metrics", "TableRows", "TableSpec", "experts_of", "forgetting_tables"]


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One of a learner's tables: rows of `width` float32; `bias`: every batch also has the row of BIAS_KEY."""

    name: str
    width: int
    bias: bool = False
    birth: RowBirth | None = None
    """How a new row begins; None: as zeros."""
    learnt: int = -1
    """A column that is 0 in a row which was never learnt, and above 0 in any other; -1: there is none."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """A batch's share of one table.

    Attributes:
        rows: f32 (r, width), writable; what a learner changes here is learnt.
        index: i64 (entries,), the row of each key that `keys` gave for this table; -1 (only in `predict`): no row.
        bias: row of the bias; -1 where the table has none.

    """

    rows: NDArray[np.float32]
    index: NDArray[np.int64]
    bias: int = -1


class Metrics(Protocol):
    """Prequential metrics as sums: over batches and workers they add, a window is a difference of two.

    Sums are exact: the same to the bit whatever the order and the grouping of what was added.
    """

    records: int

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `arrays` gave; raises ValueError for other names, types or shapes."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, as copies by name; `of` is the way back."""

    def copy(self) -> Self:
        """An independent copy."""

    def __add__(self, other: Self) -> Self: ...

    def __sub__(self, other: Self) -> Self: ...

    def summary(self) -> dict[str, float]:
        """All metrics by name, the most telling two first; NaN where they are undefined."""


@runtime_checkable
class Forgetting(Protocol):
    """A learner that can forget a part of what its optimiser remembers, so that later steps are larger."""

    def forget(self, table: int, rows: NDArray[np.float32], bias: int, keep: float) -> None:
        """Have rows f32 (k, width) of a table keep the share `keep` of their memory; no prediction changes.

        `bias`: the place of the bias's row among them; -1: it is not.
        """


def experts_of(learner: Learner) -> Mapping[str, tuple[int, ...]]:
    """By name the tables, by number, of each expert of an ensemble; nothing for any other learner."""
    found: Mapping[str, tuple[int, ...]] = getattr(learner, "tables_of_experts", {})
    return found


def forgetting_tables(learner: Learner) -> tuple[int, ...]:
    """The tables, by number, whose rows a learner can have forget; of an ensemble those of the experts that can."""
    if not isinstance(learner, Forgetting):
        return ()
    found: tuple[int, ...] | None = getattr(learner, "forgetting_tables", None)
    return tuple(range(len(learner.specs()))) if found is None else found


class Learner(Protocol):
    """A learner's parameters and mathematics; frozen, and the same object in worker, shard and scorer."""

    kind: ClassVar[str]

    @property
    def encodes(self) -> bool:
        """True: numbers come as z-scores and bins (learning/encoding.py); False: entries come as they were sent."""

    @property
    def reacts(self) -> frozenset[str]:
        """Which of the reactions raise_rates, raise_share and forget (learning/reactions.py) change something of it."""

    @property
    def label_range(self) -> tuple[float, float]:
        """Labels outside are dead letters."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the features that every record must have; entries of role i have the kind ROLE_FIRST + i."""

    @property
    def named(self) -> dict[str, int]:
        """Tables whose keys are to be told as they were sent: by name, the number of the role that they are of. Such
        a table has one key a record, and no bias.
        """

    def specs(self) -> tuple[TableSpec, ...]:
        """The tables, in the order in which they are passed everywhere."""

    def keys(self, batch: Batch) -> tuple[NDArray[np.uint64], ...]:
        """For each table the keys u64 of the batch's entries in it."""

    def learn(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Predict and learn each record in order, changing the rows in place; f64 (n,) or, with what the learner
        compared each record with, (n, 1 + m): column 0 is the record's own prediction. Of an ensemble (n, K), a column
        for each expert.
        """

    def predict(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Predictions f64 (n,), of an ensemble (n, K), without learning; an index or bias of -1 is a row that was never
        born.
        """

    def merge(
        self,
        table: int,
        rows: NDArray[np.float32],
        at: NDArray[np.int64],
        base: NDArray[np.float32],
        end: NDArray[np.float32],
        bias: int,
        coupling: float,
    ) -> int:
        """Merge walks from `base` to `end` (f32 (k, width)) into rows[at] of a table; returns how many had moved.

        A row that nobody touched since the pull becomes its end row to the bit.
        """

    def coupling(
        self, bases: Sequence[NDArray[np.float32]], tables: Sequence[TableRows], batch: Batch
    ) -> float:
        """One number about a whole walk, at least 1, that travels with its push to `merge`."""

    def metrics(self) -> Metrics:
        """Metrics of no records."""

    def judge(self, metrics: Any, predictions: NDArray[np.float64], batch: Batch) -> None:
        """Add a batch's predictions (as `learn` gave them) to `metrics`."""
