"""Expiry: which batches are so old that a row last wanted by them is too old.

A batch is a tick. Let R(t) be the records of batches 1 .. t, and T(t) the stream's newest time in them, each batch's
being its middle one (before any time is known, the first one that will be). A row last wanted at tick u is too old
for batch t if

    R(t - 1) - R(u) >= expire_after_records    no batch in between wanted it, and these are their records
    T(t) - T(u)     >= expire_after_s

T never goes back, and does not follow one batch that is ahead by more than expire_after_s (an absurd time, or a batch
without event times beside ones that have them): only once CONFIRMED batches in a row agree on such a leap is it taken.

Both grow with t - u, so one tick c says it all: rows with u <= c are too old. The ticks that may still matter are
kept, with R and T, at most HISTORY_MAX of them: then every other one is dropped, and rows stay a little longer than
they should, by a fraction of 2 / HISTORY_MAX of the window.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONFIRMED", "HISTORY_MAX", "StreamAge"]

HISTORY_MAX = 1 << 16

CONFIRMED = 8


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
        self._time_s = self._leap_s = math.nan
        self._leaps = 0
        self._first, self._end = 0, 1
        self._history[0] = (tick, 0, math.nan)
        self._cutoff = tick - 1

    def state(self, tick: int, cutoff: int) -> NDArray[np.float64]:
        """All that it knows, and the table's tick and cutoff: f64 (3 + k, 3), for `restore`."""
        head = [
            (tick, cutoff, self._cutoff),
            (self._records, self._time_s, self._leap_s),
            (self._leaps, self._first, 0),
        ]
        return np.concatenate((np.array(head, np.float64), self._history[self._first : self._end]))

    def restore(self, state: NDArray[np.float64]) -> tuple[int, int]:
        """Go on from `state`; returns the table's tick and cutoff."""
        tick, cutoff, self._cutoff = (int(number) for number in state[0])
        self._records, self._time_s, self._leap_s = int(state[1, 0]), float(state[1, 1]), float(state[1, 2])
        self._leaps = int(state[2, 0])
        kept = state[3:][-len(self._history) :]
        # Where they lay decides when every other one is dropped.
        self._first = min(int(state[2, 1]), len(self._history) - len(kept))
        self._end = self._first + len(kept)
        self._history[self._first : self._end] = kept
        return tick, cutoff

    def advance(self, tick: int, records: int, time_s: float) -> int:
        """The youngest tick that is too old for batch `tick`, which has `records` and newest time `time_s`."""
        if len(self._history) == 1:
            return self._cutoff
        if not math.isnan(time_s):
            if math.isnan(self._time_s):
                self._history[: self._end, 2] = time_s
                self._time_s = time_s
            self._time_s = max(self._time_s, self._confirmed(time_s))
        while self._first < self._end and self._too_old(*self._history[self._first].tolist()):
            self._cutoff = int(self._history[self._first, 0])
            self._first += 1
        self._records += records
        self._append(tick)
        return self._cutoff

    def _confirmed(self, time_s: float) -> float:
        """`time_s`, unless it leaps ahead and has not been confirmed; then the time as it was."""
        if time_s < self._time_s + self._after_s:
            self._leaps = 0
            return time_s
        near = self._leaps and abs(time_s - self._leap_s) < self._after_s
        self._leaps = self._leaps + 1 if near else 1
        self._leap_s = time_s
        return time_s if self._leaps >= CONFIRMED else self._time_s

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
