"""Staleness: how many records other workers pushed between a worker's pull and its push; counted, and bounded.

The bound is kept where pulls are let in (stale synchronous parallel, Ho et al. 2013, in records instead of clocks). An
open pull of b records will be stale by its age, which others have pushed since, plus what others still have open:

    a pull of b records is let in if, for every open pull o of another worker,
        age(o) + records open elsewhere than at o's worker + b <= bound,
    and the same holds for itself: records open at other workers <= bound

A push only moves records from open to age, so what was let in never breaks the bound, and a push is never refused:
whoever waits has nothing open that others wait for in vain. Who has to wait is let in before all who come later, or
workers that pull ahead would never leave room for it. With a bound of 0, workers take turns.

The bound may also be a share of all records pushed so far. What a record misses costs most at the beginning, where a
few thousand records are all that there is to know: several workers that start together on empty tables learn the same
first steps several times over. So they start in turns, and overlap the more the more they know; after some ten times
the records that they have open at once, this bound is none any more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

__all__ = ["StalenessGate", "StalenessHistogram"]

_BINS = 48


class StalenessHistogram:
    """Counts of pushes by staleness in records: 0, then one bin for each power of two; quantiles are upper bounds."""

    def __init__(self, counts: list[int] | None = None) -> None:
        self.counts = np.zeros(_BINS, np.int64) if counts is None else np.array(counts, np.int64)

    def add(self, records: int) -> None:
        """Count a push that was `records` behind."""
        self.counts[min(records.bit_length(), _BINS - 1)] += 1

    def quantile(self, share: float) -> float:
        """Records that `share` of the pushes were not staler than (the bin's upper end); NaN without a push."""
        total = int(self.counts.sum())
        if not total:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return float(2 ** min(place, _BINS - 1) - 1)


@dataclass(slots=True)
class _Open:
    worker: int
    records: int
    age: int = 0


@dataclass(slots=True)
class StalenessGate:
    """Lets pulls in. Not thread-safe.

    `bound` in records; None: none. `share_max`: nor may a pull be staler than this share of all records pushed so far;
    None: no such bound either.
    """

    bound: int | None = None
    share_max: float | None = None
    pushed: int = 0
    denied: int = 0
    staleness_max: int = 0
    _open: dict[tuple[int, object], _Open] = field(default_factory=dict)
    _waiting: dict[int, None] = field(default_factory=dict)
    """Workers in the order in which they began to wait."""

    def enter(self, worker: int, pull: object, records: int) -> bool:
        """Open `pull` (any name that is unique for the worker) of `records` records, or say that it has to wait.

        One that is open already stays so.
        """
        if (worker, pull) in self._open:
            return True
        if self.bound is not None or self.share_max is not None:
            first = next(iter(self._waiting), worker)
            if first != worker or not self._fits(worker, records):
                self._waiting.setdefault(worker)
                self.denied += 1
                return False
            self._waiting.pop(worker, None)
        self._open[worker, pull] = _Open(worker, records)
        return True

    def leave(self, worker: int, pull: object) -> int:
        """The pull's push is applied; returns how stale it was."""
        mine = self._open.pop((worker, pull))
        self.pushed += mine.records
        for other in self._open.values():
            if other.worker != worker:
                other.age += mine.records
        self.staleness_max = max(self.staleness_max, mine.age)
        return mine.age

    def _fits(self, worker: int, records: int) -> bool:
        bound = math.inf if self.bound is None else self.bound
        if self.share_max is not None:
            bound = min(bound, self.share_max * self.pushed)
        elsewhere = sum(o.records for o in self._open.values() if o.worker != worker)
        if elsewhere > bound:
            return False
        everywhere = sum(o.records for o in self._open.values())
        for other in self._open.values():
            if other.worker == worker:
                continue
            own = sum(o.records for o in self._open.values() if o.worker == other.worker)
            if other.age + everywhere - own + records > bound:
                return False
        return True
