"""ADWIN: a window that grows while its mean stays the same, and is cut where two parts of it have different means.

A. Bifet, R. Gavalda: Learning from Time-Changing Data with Adaptive Windowing, SDM 2007 (ADWIN2). The window lies in an
exponential histogram: level i holds up to `max_buckets` buckets of 2^i values each, and a further one merges the two
oldest into one of level i + 1. With n0 older and n1 newer values, their means m0, m1 and m = min_window_length, there
is a change if for any border between two buckets

    |m0 - m1| > sqrt(2 h v d) + 2/3 d h,   h = 1/(n0 - m + 1) + 1/(n1 - m + 1),   d = ln(2 ln(W) / delta)

with W the number of values in the window and v their variance. As in river, the window begins anew after a change
(the paper drops the older part only), so what is left of the histogram at a change does not matter.

The bound is Bernstein's, with 1 for the range of a value. It is fed with sums of blocks of B records, for which it is
the bound on single records: in means, the first term is the same and the second 2/3 d h / B. With means of blocks the
second would be B times too wide, and a loss of 0.4 that rises by 0.1 be found after 3,200 records instead of 700.

The state, f64: total, sum of squared distances from the mean, W, ticks, fired; then the number of buckets of each
level, and of each bucket its total and its own sum of squared distances, oldest first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numba import njit

from learning.drift_verdicts import FALL, NONE, RISE, Feed, expect_between

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["Adwin"]

_TOTAL, _SPREAD, _WIDTH, _TICK, _FIRED, _HEAD = range(6)
_LEVELS = 40
"""Room for 2^40 values since the last change, which do not come."""


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(state, counts, totals, spreads, x):  # noqa: ANN001, ANN202
    """Add a value as a bucket of level 0, and merge upwards where a level is over-full."""
    last = totals.shape[1] - 1
    state[_WIDTH] += 1.0
    width = state[_WIDTH]
    if width > 1.0:
        ahead = x - state[_TOTAL] / (width - 1.0)
        state[_SPREAD] += (width - 1.0) * ahead * ahead / width
    state[_TOTAL] += x
    level = 0
    at = np.int64(counts[0])
    totals[0, at], spreads[0, at] = x, 0.0
    counts[0] += 1.0
    while counts[level] > last:
        size = float(1 << level)
        apart = totals[level, 0] / size - totals[level, 1] / size
        spread = spreads[level, 0] + spreads[level, 1] + size * 0.5 * apart * apart
        at = np.int64(counts[level + 1])
        totals[level + 1, at] = totals[level, 0] + totals[level, 1]
        spreads[level + 1, at] = spread
        counts[level + 1] += 1.0
        for i in range(2, last + 1):
            totals[level, i - 2], spreads[level, i - 2] = totals[level, i], spreads[level, i]
        counts[level] -= 2.0
        level += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _verdict(state, counts, totals, delta, least):  # noqa: ANN001, ANN202
    """Look at every border between buckets, from the oldest on."""
    width, n1, u1 = state[_WIDTH], state[_WIDTH], state[_TOTAL]
    n0, u0 = 0.0, 0.0
    d = math.log(2.0 * math.log(width) / delta)
    variance = state[_SPREAD] / width
    for level in range(len(counts) - 1, -1, -1):
        size = float(1 << level)
        for i in range(np.int64(counts[level])):
            n0 += size
            n1 -= size
            u0 += totals[level, i]
            u1 -= totals[level, i]
            if n1 < least:
                return NONE
            if n0 < least:
                continue
            h = 1.0 / (n0 - least + 1.0) + 1.0 / (n1 - least + 1.0)
            ahead = u1 / n1 - u0 / n0
            if abs(ahead) > math.sqrt(2.0 * h * variance * d) + 2.0 / 3.0 * d * h:
                return RISE if ahead > 0.0 else FALL
    return NONE


@njit(cache=True, nogil=True, error_model="numpy")
def _update(state, values, delta, clock, max_buckets, least, grace, out):  # noqa: ANN001, ANN202
    places = max_buckets + 1
    counts = state[_HEAD : _HEAD + _LEVELS]
    first = _HEAD + _LEVELS
    totals = state[first : first + _LEVELS * places].reshape(_LEVELS, places)
    spreads = state[first + _LEVELS * places :].reshape(_LEVELS, places)
    for i in range(len(values)):
        if state[_FIRED] != 0.0:
            state[:] = 0.0
        _insert(state, counts, totals, spreads, values[i])
        state[_TICK] += 1.0
        verdict = NONE
        if state[_TICK] % clock == 0 and state[_WIDTH] > grace:
            verdict = _verdict(state, counts, totals, delta, least)
        state[_FIRED] = 0.0 if verdict == NONE else 1.0
        out[i] = verdict


@dataclass(frozen=True, slots=True)
class Adwin:
    """The default detector. `delta`: the smaller, the fewer false alarms; `clock`: looks at every clock-th value.

    river's default clock of 32 is for single records; a value here is a block of 32 already.
    """

    delta: float = 0.002
    clock: int = 1
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10

    kind: ClassVar[str] = "adwin"
    feeds: ClassVar[Feed] = "sums"

    def __post_init__(self) -> None:
        expect_between("delta", self.delta, 1e-300, 1.0)
        expect_between("clock", self.clock, 1, 2**31)
        expect_between("max_buckets", self.max_buckets, 2, 1000)
        expect_between("min_window_length", self.min_window_length, 1, 2**31)
        expect_between("grace_period", self.grace_period, 1, 2**31)

    def initial(self) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros(_HEAD + _LEVELS * (1 + 2 * (self.max_buckets + 1)))

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on values f64 (m,); changes the state in place."""
        out = np.empty(len(values), np.int8)
        _update(
            state, values, self.delta, self.clock, self.max_buckets,
            float(self.min_window_length), float(self.grace_period), out,
        )  # fmt: skip
        return out
