"""Last use: the batch (tick) in which each row was last wanted, and the search for rows that were not for long.

Rows carry a stamp, u32: 0 for a free row, STAMP_NEVER for one that never goes, else the tick relative to a base.
`sweep` walks over the stamps like the hand of a clock, a bounded number at a time. Which ticks are too old: expiry.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from learning.index_memory import Column

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["STAMP_NEVER", "LastUse", "rebase", "sample", "sweep", "touch"]

STAMP_NEVER = 2**32 - 1

_SAMPLE = 4096


@njit(cache=True, nogil=True, error_model="numpy")
def touch(rows, stamps, cutoff, stamp, stale):  # noqa: ANN001, ANN201
    """Stamp `rows` (i64; -1: none); those with a stamp <= cutoff become -1 and are listed in `stale`.

    Returns how many are stale.
    """
    count = 0
    for i in range(len(rows)):
        row = rows[i]
        if row >= 0:
            if stamps[row] <= cutoff:
                stale[count] = row
                count += 1
                rows[i] = -1
            elif stamps[row] != STAMP_NEVER:
                stamps[row] = stamp
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def sweep(stamps, used, hand, steps, limit, found):  # noqa: ANN001, ANN201
    """Rows with stamps 1 .. limit among the `steps` rows of stamps[:used] from `hand` on, as many as `found` holds.

    Returns (hand, rows found).
    """
    count = 0
    for _ in range(steps):
        if count == len(found):
            return hand, count
        if hand >= used:
            hand = 0
        if 0 < stamps[hand] <= limit:
            found[count] = hand
            count += 1
        hand += 1
    return hand, count


@njit(cache=True, nogil=True, error_model="numpy")
def sample(stamps, used, limit, seed, taken):  # noqa: ANN001, ANN201
    """Stamps 1 .. limit of randomly chosen rows, or of all rows if `taken` holds them; returns how many."""
    count, state = 0, np.uint64(seed)
    for i in range(min(used, len(taken))):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        drawn = np.int64(((state >> np.uint64(32)) * np.uint64(used)) >> np.uint64(32))
        row = i if used <= len(taken) else drawn
        if 0 < stamps[row] <= limit:
            taken[count] = stamps[row]
            count += 1
    return count


def rebase(stamps: NDArray[np.uint32], by: int) -> None:
    """Make stamps 1 .. smaller by `by`, but keep what they mean: 0, STAMP_NEVER, and at least 1."""
    moved = (stamps > 0) & (stamps < STAMP_NEVER)
    stamps[moved] = np.maximum(stamps[moved].astype(np.int64) - by, 1)


class LastUse:
    """The stamp of each row of a table with `numbered` rows, and the sweep's hand; speaks in ticks."""

    def __init__(self, stamp_max: int = STAMP_NEVER - 1) -> None:
        self._stamp_max = stamp_max
        self.restart(0, np.zeros(0, np.int64))

    def restart(self, tick: int, ticks: NDArray[np.int64]) -> None:
        """Begin anew at `tick` with rows last wanted at `ticks`; -1: a row that never goes."""
        self._base, self._hand = int(ticks.min(where=ticks >= 0, initial=tick)), 0
        self._stamps = Column(0, np.uint32, 1024)
        self._stamps.reach(len(ticks), 0)
        self._stamps.array[: len(ticks)] = np.where(ticks < 0, STAMP_NEVER, ticks - self._base + 1)

    def used_bytes(self, numbered: int) -> int:
        """Bytes in use."""
        return self._stamps.used_bytes(numbered)

    def reach(self, numbered: int, more: int) -> None:
        """Make room for `more` rows."""
        self._stamps.reach(numbered + more, numbered)

    def touch(self, rows: NDArray[np.int64], cutoff: int, tick: int, numbered: int) -> NDArray[np.int64]:
        """Note that `rows` (-1: none) are wanted; returns those too old, which are -1 from here on: to be forgotten."""
        if self._stamp(tick) > self._stamp_max:
            by = self._stamp(tick) - self._stamp_max // 2
            rebase(self._stamps.array[:numbered], by)
            self._base += by
        stale = np.empty(len(rows), np.int64)
        return stale[: touch(rows, self._stamps.array, self._stamp(cutoff), self._stamp(tick), stale)]

    def forget(self, rows: NDArray[np.int64]) -> None:
        """`rows` are free from here on."""
        self._stamps.array[rows] = 0

    def ticks(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When `rows` were last wanted; -1 for those that never go."""
        stamps = self._stamps.array[rows].astype(np.int64)
        ticks: NDArray[np.int64] = np.where(stamps == STAMP_NEVER, -1, stamps + self._base - 1)
        return ticks

    def born(self, rows: NDArray[np.int64], tick: int, never: NDArray[np.bool_]) -> None:
        """Note that `rows` were born; those of `never` never go."""
        self._stamps.array[rows] = np.where(never, STAMP_NEVER, self._stamp(tick))

    def young(self, rows: NDArray[np.int64] | slice, cutoff: int) -> NDArray[np.bool_]:
        """True for the numbered rows that are live and not too old."""
        young: NDArray[np.bool_] = self._stamps.array[rows] > max(self._stamp(cutoff), 0)
        return young

    def coldest(self, before: int, share: float, rows_least: int, numbered: int) -> int:
        """The tick up to which about a `share` of the rows last wanted up to `before` were; at least `rows_least`
        rows where the table is no larger than the sample.
        """
        taken = np.empty(_SAMPLE, np.uint32)
        count = sample(self._stamps.array, numbered, self._stamp(before), self._hand, taken)
        if share >= 1 or not count:
            return before
        rank = min(max(int(count * share), rows_least if numbered <= _SAMPLE else 1), count) - 1
        return int(np.partition(taken[:count], rank)[rank]) + self._base - 1

    def sweep(self, until: int, steps: int, rows_most: int, numbered: int) -> NDArray[np.int64]:
        """Up to `rows_most` rows last wanted up to tick `until`, of the next `steps`: to be forgotten."""
        steps = min(steps, numbered)
        found = np.empty(min(rows_most, steps), np.int64)
        if self._stamp(until) < 1 or not len(found):
            return found[:0]
        self._hand, count = sweep(self._stamps.array, numbered, self._hand, steps, self._stamp(until), found)
        return found[:count]

    def _stamp(self, tick: int) -> int:
        return tick - self._base + 1
