"""Progressive metrics of all records, of each partition and of each slice (value of one feature), recent and for ever.

Slices are the first `slices_max` values that come, and the rest is `other`. Not the most frequent ones (Metwally's
space-saving): there a value that takes another's place inherits its sums, and a slice would be a mixture. Here a record
counts in exactly one slice for ever, so slices add up to the whole, and each is exact from the value's first record
on. Where values are frequent, the first to come are also the most frequent.

All sums are those of learning/metrics.py or ratings.py, with coarse histograms (`kind_of_slices`), since workers report
them every few seconds: exact, and the same to the bit in any order and grouping. The
recent window is the sums of the last one to two times `window_records` records of the whole: a checkpoint is taken
every `window_records`, between two batches, and the window begins at the last but one.

Sums of several workers add: `merge` takes slices by their value, in order, and what is more than `slices_max` goes to
`other`. Their windows are not in step, so a merged window is the workers' own windows together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from learning.metrics import CoarsePrequential, Prequential
from learning.ratings import Ratings
from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from learning.state_arrays import Forms

    Sums = CoarsePrequential | Prequential | Ratings
    Name = tuple[int, int]

__all__ = ["ALL", "OTHER", "PARTITION", "VALUE", "Slices", "kind_of_slices"]

ALL, PARTITION, VALUE, OTHER = range(4)
"""What a group of records is named by: (ALL, 0), (PARTITION, number), (VALUE, key), (OTHER, 0)."""


def kind_of_slices(kind: type[Any]) -> Any:
    """In what parts of a stream are measured whose whole is measured in `kind`: there may be hundreds of them."""
    return CoarsePrequential if issubclass(kind, Prequential) else kind


@dataclass(slots=True)
class _Group:
    """One group's sums: since the start, and as they were at the last two checkpoints, the older first."""

    total: Any
    older: Any
    newer: Any

    @property
    def recent(self) -> Any:
        """The sums since the last checkpoint but one, or since the start."""
        return self.total - self.older

    def joined(self, other: _Group) -> _Group:
        """The sums of both; the window is both windows."""
        total = self.total + other.total
        before = total - self.recent - other.recent
        return _Group(total, before, before.copy())


class Slices:
    """Metrics of `kind` (CoarsePrequential, Prequential or Ratings) by group."""

    def __init__(
        self, kind: type[Sums] = CoarsePrequential, slices_max: int = 16, window_records: int = 50_000
    ) -> None:
        if slices_max < 0 or window_records < 1:
            raise ValueError(
                "slices_max should be 0 or more and window_records 1 or more, but they are "
                f"{slices_max} and {window_records}"
            )
        self.slices_max = slices_max
        self.window_records = window_records
        self._kind = kind
        self._groups: dict[Name, _Group] = {(ALL, 0): _Group(kind.zero(), kind.zero(), kind.zero())}
        self._values = np.empty(0, np.uint64)
        self._since_checkpoint = 0

    @property
    def groups(self) -> list[Name]:
        """What there is, as (what, key): all records first."""
        return [*self._groups]

    @property
    def values(self) -> list[int]:
        """The slices' keys, in order of first sight."""
        keys: list[int] = self._values.tolist()
        return keys

    @property
    def values_count(self) -> int:
        """How many slices there are."""
        return len(self._values)

    def update(
        self,
        partition: int,
        predictions: NDArray[np.float64],
        labels: NDArray[np.float32],
        keys: NDArray[np.uint64] | None = None,
    ) -> None:
        """Add a batch of one partition.

        Args:
            partition: its number.
            predictions: f64 (n,), made before their labels were learnt.
            labels: f32 (n,).
            keys: u64 (n,), each record's value of the feature (a key for "missing" among them); None: no slices.

        """
        self._checkpoint(len(labels))
        self._group((ALL, 0)).total.update(predictions, labels)
        self._group((PARTITION, partition)).total.update(predictions, labels)
        if keys is None or not len(keys):
            return
        if keys.shape != labels.shape:
            raise ValueError(f"expected a key for each of {len(labels)} records, got {keys.shape}")
        of_record = self._places(keys)
        order = np.argsort(of_record, kind="stable")
        ends = np.cumsum(np.bincount(of_record, minlength=len(self._values) + 1))[:-1]
        names = [*((VALUE, key) for key in self.values), (OTHER, 0)]
        parts = zip(names, np.split(predictions[order], ends), np.split(labels[order], ends), strict=True)
        for name, own_predictions, own_labels in parts:
            if len(own_labels):
                self._group(name).total.update(own_predictions, own_labels)

    def _places(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which of the slices each key is, i64 (n,); their number for `other`. Makes slices while there is room."""
        at = self._find(keys)
        if (room := self.slices_max - len(self._values)) > 0 and (unknown := at == len(self._values)).any():
            distinct, first = np.unique(keys[unknown], return_index=True)
            self._make(distinct[np.argsort(first)][:room])
            at = self._find(keys)
        return at

    def _find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        order = np.argsort(self._values)
        at = np.searchsorted(self._values[order], keys)
        found = at < len(order)
        found[found] = self._values[order[at[found]]] == keys[found]
        places = np.full(len(keys), len(order), np.int64)
        places[found] = order[at[found]]
        return places

    def _make(self, keys: NDArray[np.uint64]) -> None:
        self._values = np.concatenate((self._values, keys))
        for key in keys.tolist():
            self._group((VALUE, key))

    def _group(self, name: Name) -> _Group:
        group = self._groups.get(name)
        if group is None:
            zero = self._kind.zero
            group = self._groups[name] = _Group(zero(), zero(), zero())
        return group

    def _checkpoint(self, coming: int) -> None:
        """Before a batch: where it would reach over a window's length, the window moves on."""
        if self._since_checkpoint and self._since_checkpoint + coming > self.window_records:
            for group in self._groups.values():
                group.older, group.newer = group.newer, group.total.copy()
            self._since_checkpoint = 0
        self._since_checkpoint += coming

    def total(self, what: int = ALL, key: int = 0) -> Any:
        """A copy of a group's sums since the start; zero for a group that has no record."""
        group = self._groups.get((what, key))
        return group.total.copy() if group else self._kind.zero()

    def recent(self, what: int = ALL, key: int = 0) -> Any:
        """A group's sums over the recent window; zero for a group that has no record."""
        group = self._groups.get((what, key))
        return group.recent if group else self._kind.zero()

    def like(self, arrays: Mapping[str, NDArray[Any]]) -> Slices:
        """The slices that gave `arrays`, made with what these were; raises ValueError for anything else."""
        return type(self).of(arrays, self._kind, self.slices_max, self.window_records)

    def merge(self, other: Slices) -> None:
        """Add another worker's sums; its slices beyond `slices_max` count as `other` here."""
        known = self._places(other._values) < len(self._values)
        rest = {(VALUE, key) for key in other._values[~known].tolist()}
        for group_name, group in other._groups.items():
            name = (OTHER, 0) if group_name in rest else group_name
            self._groups[name] = self._group(name).joined(group)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, by name: of G groups what they are i64 (G,), their keys u64 (G,), and all sums stacked.

        Sums are (G, 3, ...): since the start, at the older checkpoint, and at the newer one.
        """
        groups = list(self._groups.values())
        parts = [[sums.arrays() for sums in (group.total, group.older, group.newer)] for group in groups]
        names = parts[0][0]
        return {
            "what": np.array([what for what, _ in self._groups], np.int64),
            "keys": np.array([key for _, key in self._groups], np.uint64),
            "since_checkpoint": np.array([self._since_checkpoint], np.int64),
            **{f"sums.{name}": np.array([[one[name] for one in part] for part in parts]) for name in names},
        }

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        kind: type[Sums] = CoarsePrequential,
        slices_max: int = 16,
        window_records: int = 50_000,
    ) -> Self:
        """The slices that gave `arrays`, given what they were made with; raises ValueError for anything else."""
        forms: Forms = {
            "what": (np.int64, ("G",)),
            "keys": (np.uint64, ("G",)),
            "since_checkpoint": (np.int64, (1,)),
        }
        for sums, array in kind.zero().arrays().items():
            forms[f"sums.{sums}"] = (array.dtype, ("G", 3, *array.shape))
        found = restored(arrays, forms)
        slices = cls(kind, slices_max, window_records)
        slices._since_checkpoint = int(found["since_checkpoint"][0])
        stacks = {key[5:]: array for key, array in found.items() if key.startswith("sums.")}
        names = list(zip(found["what"].tolist(), found["keys"].tolist(), strict=True))
        if (ALL, 0) not in names or len(set(names)) != len(names):
            raise ValueError(f"expected groups of different names, the first of all records, got {names}")
        for i, name in enumerate(names):
            parts = [kind.of({k: a[i, j] for k, a in stacks.items()}) for j in range(3)]
            slices._groups[name] = _Group(*parts)
        slices._values = found["keys"][found["what"] == VALUE]
        return slices
