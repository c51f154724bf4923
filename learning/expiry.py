"""Expiry: the batch in which each row was last wanted, and which of these batches are too old.

A batch is a tick. Let R(t) be the records of batches 1 .. t, and T(t) the stream's newest time in them (before any time
is known, the first one that will be). A row last wanted at tick u is too old for batch t if

    R(t - 1) - R(u) >= expire_after_records    no batch in between wanted it, and these are their records
    T(t) - T(u)     >= expire_after_s

Both grow with t - u, so one tick c says it all: rows with u <= c are too old (`StreamAge`). The ticks that may still
matter are kept, with R and T, at most HISTORY_MAX of them: then every other one is dropped, and rows stay a little
longer than they should, by a fraction of 2 / HISTORY_MAX of the window.

Rows carry a stamp, u32: 0 for a free row, STAMP_NEVER for one that never goes, else the tick relative to a base.
`sweep` walks over the stamps like the hand of a clock, a bounded number at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HISTORY_MAX", "STAMP_NEVER", "StreamAge", "sample", "sweep", "touch"]

HISTORY_MAX = 1 << 16

STAMP_NEVER = 2**32 - 1


class StreamAge:
    """How old ticks are, in records and in seconds of the stream; 0 for a limit: never too old."""

    def __init__(
        self, expire_after_records: int, expire_after_s: float, history_max: int = HISTORY_MAX
    ) -> None:
        self._after_records = expire_after_records or math.inf
        self._after_s = expire_after_s or math.inf
        self._history_max = history_max
        self._history = np.zeros((history_max if expire_after_records or expire_after_s else 1, 3))
        self.restart(0)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the history so far."""
        return self._end * 3 * self._history.itemsize

    def restart(self, tick: int) -> None:
        """Begin anew: `tick` is the oldest that any row has, and no time is known."""
        self._records = 0
        self._time_s = math.nan
        self._first, self._end = 0, 1
        self._history[0] = (tick, 0, math.nan)
        self._cutoff = tick - 1

    def advance(self, tick: int, records: int, time_s: float) -> int:
        """The youngest tick that is too old for batch `tick`, which has `records` and newest time `time_s`."""
        if len(self._history) == 1:
            return self._cutoff
        if not math.isnan(time_s):
            if math.isnan(self._time_s):
                self._history[: self._end, 2] = time_s
                self._time_s = time_s
            self._time_s = max(self._time_s, time_s)
        while self._first < self._end and self._too_old(*self._history[self._first].tolist()):
            self._cutoff = int(self._history[self._first, 0])
            self._first += 1
        self._records += records
        self._append(tick)
        return self._cutoff

    def _too_old(self, _tick: float, records: float, time_s: float) -> bool:
        return self._records - records >= self._after_records or self._time_s - time_s >= self._after_s

    def _append(self, tick: int) -> None:
        if self._end == self._history_max:
            kept = self._history[self._first : self._end]
            if len(kept) > self._history_max // 2:
                kept = kept[
                    1::2
                ]  # the youngest of each pair: a row may stay too long, and never goes too early
            self._history[: len(kept)] = kept.copy()
            self._first, self._end = 0, len(kept)
        self._history[self._end] = (tick, self._records, self._time_s)
        self._end += 1


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

    Returns (hand, steps made, rows found); their stamps become 0.
    """
    count = 0
    for step in range(steps):
        if count == len(found):
            return hand, step, count
        if hand >= used:
            hand = 0
        if 0 < stamps[hand] <= limit:
            found[count] = hand
            count += 1
            stamps[hand] = 0
        hand += 1
    return hand, steps, count


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
