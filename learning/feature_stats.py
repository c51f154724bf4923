"""What is known of each feature: how often it is there, its moments, how many values it has.

Per feature: count of the records that had it, mean and M2 (sum of squared distances from the mean; Welford 1962, in
record order), the share of records without it, and the number of its distinct values (learning/feature_distinct.py).
How many of a record's keys are new is a series of drift watching (learning/observing.py).

Workers merge: counts are integers and add exactly; moments by Chan, Golub & LeVeque (1983), where a feature that only
one side has is taken as it is; HyperLogLog registers by their maximum, which is exactly what one worker with all
records would have. Features are the first `features_max`; what comes beyond is counted in `left_out`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numba import njit

from learning.batch import NUMBER
from learning.feature_distinct import RANK_MAX, REGISTERS, distinct, place_and_rank
from learning.state_arrays import restored
from learning.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.state_arrays import Forms

__all__ = ["FeatureStats", "FeatureSummary"]


@njit(cache=True, nogil=True, error_model="numpy")
def _add(at, values, keys, counts, moments, registers):  # noqa: ANN001, ANN202
    """Add entries: entry i is a value of feature `at[i]`; -1 is a feature without a place."""
    for i in range(len(at)):
        row = at[i]
        if row < 0:
            continue
        counts[row] += 1
        if not math.isnan(values[i]):
            # How many numbers there were is a moment: a category has none.
            moments[row, 0] += 1.0
            ahead = values[i] - moments[row, 1]
            moments[row, 1] += ahead / moments[row, 0]
            moments[row, 2] += ahead * (values[i] - moments[row, 1])
        place, rank = place_and_rank(keys[i])
        registers[row, place] = max(registers[row, place], rank)


@njit(cache=True, nogil=True, error_model="numpy")
def _roots(features, offsets):  # noqa: ANN001, ANN202
    """For each entry the first one of the same feature at the same place of the records before it, without a gap.

    Records mostly have the same features in the same order, so few of them have to be looked up.
    """
    roots = np.empty(len(features), np.int64)
    before = 0
    for i in range(len(offsets) - 1):
        first = offsets[i]
        for j in range(first, offsets[i + 1]):
            twin = before + j - first
            roots[j] = roots[twin] if twin < first and features[twin] == features[j] else j
        before = first
    return roots


@njit(cache=True, nogil=True, error_model="numpy")
def _values_of(keys, values, kinds, number, out_values, out_keys):  # noqa: ANN001, ANN202
    """What `update` takes: numbers, NaN for the rest; keys that tell values apart, of numbers their bits."""
    for i in range(len(keys)):
        is_number = kinds[i] == number
        out_values[i] = values[i] if is_number else np.nan
        out_keys[i] = keys[i]
    bits = out_values.view(np.uint64)
    for i in range(len(keys)):
        if kinds[i] == number:
            out_keys[i] = bits[i]


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """One feature's figures; mean and deviation are NaN where it had no number."""

    count: int
    missing_rate: float
    mean: float
    deviation: float
    distinct: float


class FeatureStats:
    """Running statistics of features by key."""

    def __init__(self, features_max: int = 1000) -> None:
        if features_max < 1:
            raise ValueError(f"features_max should be 1 or more, but is {features_max}")
        self.features_max = features_max
        self.records = self.left_out = 0
        """Records so far, and entries of features that had no place."""
        self._places = Table(0, rows_initial=64)
        self._counts = np.zeros(0, np.int64)
        self._moments, self._registers = np.zeros((0, 3)), np.zeros((0, REGISTERS), np.uint8)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Keys u64 (F,) of the features, in order of first sight."""
        return self._places.keys.copy()

    def update(
        self,
        features: NDArray[np.uint64],
        values: NDArray[np.float64],
        keys: NDArray[np.uint64],
        records: int,
    ) -> None:
        """Add a batch's entries, in record order.

        Args:
            features: u64 (m,), the feature's key of each entry; at most once a record.
            values: f64 (m,), numbers; NaN for a category.
            keys: u64 (m,), what tells values of the feature apart: the key of a category, the bits of a number.
            records: in the batch, those without any entry among them.

        """
        if not len(features) == len(values) == len(keys):
            raise ValueError(
                f"expected as many values and keys as features, got {len(values)} and {len(keys)} of {len(features)}"
            )
        at = self._locate(np.require(features, np.uint64, ["C", "W"]))
        values, keys = np.require(values, np.float64, ["C", "W"]), np.require(keys, np.uint64, ["C", "W"])
        self._take(at, values, keys, records)

    def _take(
        self,
        at: NDArray[np.int64],
        values: NDArray[np.float64],
        keys: NDArray[np.uint64],
        records: int,
    ) -> None:
        self.records += records
        self.left_out += int(np.count_nonzero(at < 0))
        _add(at, values, keys, self._counts, self._moments, self._registers)

    def update_batch(self, batch: Batch) -> None:
        """Add all entries of a batch that says of which feature each is, and that no encoder has seen."""
        assert batch.features is not None, "decode with want_features"
        values, keys = np.empty(batch.entries), np.empty(batch.entries, np.uint64)
        _values_of(batch.keys, batch.values, batch.kinds, np.uint8(NUMBER), values, keys)
        roots = _roots(batch.features, batch.offsets)
        own = np.flatnonzero(roots == np.arange(len(roots)))
        places = np.empty(len(roots), np.int64)
        places[own] = self._locate(batch.features[own])
        self._take(places[roots], values, keys, len(batch))

    def _locate(self, features: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Places i64 (m,); -1 where there is no room for another feature."""
        at = self._places.find(features)
        unknown = features[at < 0]
        room = self.features_max - len(self._places)
        if not len(unknown) or not room:
            return at
        distinct, first = np.unique(unknown, return_index=True)
        self._places.locate(distinct[np.argsort(first)][:room].copy())
        grown = len(self._places) - len(self._counts)
        self._counts = np.append(self._counts, np.zeros(grown, np.int64))
        self._moments = np.concatenate((self._moments, np.zeros((grown, 3))))
        self._registers = np.concatenate((self._registers, np.zeros((grown, REGISTERS), np.uint8)))
        return self._places.find(features)

    def merge(self, other: FeatureStats) -> None:
        """Add what another worker saw."""
        at = self._locate(other.keys)
        known = at >= 0
        at = at[known]
        self.records += other.records
        self.left_out += other.left_out + int(other._counts[~known].sum())
        self._counts[at] += other._counts[known]
        self._registers[at] = np.maximum(self._registers[at], other._registers[known])
        self._moments[at] = _joined(self._moments[at], other._moments[known])

    def summary(self, features_max: int | None = None) -> dict[int, FeatureSummary]:
        """Figures by the feature's key, of the first `features_max` or of all."""
        found = {}
        for i, key in enumerate(self._places.keys[:features_max].tolist()):
            count, (numbers, mean, spread) = int(self._counts[i]), self._moments[i].tolist()
            found[key] = FeatureSummary(
                count,
                1.0 - count / self.records if self.records else math.nan,
                mean if numbers else math.nan,
                math.sqrt(spread / numbers) if numbers else math.nan,
                distinct(self._registers[i]),
            )
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, by name; see `of` for types and shapes."""
        return {
            "keys": self.keys,
            "job": np.array([self.records, self.left_out], np.int64),
            "counts": self._counts.copy(),
            "moments": self._moments.copy(),
            "registers": self._registers.copy(),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], features_max: int = 1000) -> Self:
        """The statistics that gave `arrays`; raises ValueError for anything else."""
        forms: Forms = {
            "keys": (np.uint64, ("F",)), "job": (np.int64, (2,)), "counts": (np.int64, ("F",)),
            "moments": (np.float64, ("F", 3)), "registers": (np.uint8, ("F", REGISTERS)),
        }  # fmt: skip
        found = restored(arrays, forms)
        if len(np.unique(found["keys"])) != len(found["keys"]) or (found["registers"] > RANK_MAX).any():
            raise ValueError(f"expected features that differ, and registers of at most {RANK_MAX}")
        stats = cls(max(features_max, len(found["keys"])))
        stats._locate(found["keys"])
        stats.records, stats.left_out = (int(n) for n in found["job"])
        stats._counts, stats._moments = found["counts"], found["moments"]
        stats._registers = found["registers"]
        return stats


def _joined(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moments f64 (F, 3) of both parts of a stream; a part without numbers changes nothing."""
    total = first[:, 0] + second[:, 0]
    ahead, whole = second[:, 1] - first[:, 1], np.maximum(total, 1.0)
    mean = first[:, 1] + ahead * second[:, 0] / whole
    spread = first[:, 2] + second[:, 2] + ahead**2 * first[:, 0] * second[:, 0] / whole
    both = np.stack((total, mean, spread), axis=1)
    only_second = np.where(first[:, :1] == 0.0, second, both)
    return np.where(second[:, :1] == 0.0, first, only_second)
