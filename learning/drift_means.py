"""Detectors on a series of means: Page-Hinkley, and a recent window against a baseline.

Page-Hinkley (E. S. Page: Continuous Inspection Schemes, Biometrika 1954; as in river, with forgetting alpha): with the
running mean m_t,

    up_t = alpha up_{t-1} + (x_t - m_t) - delta;   down_t = alpha down_{t-1} + (x_t - m_t) + delta
    rise if up_t - min up > threshold;   fall if max down - down_t > threshold

Window: the mean of the last `recent` values against the baseline, which is all values since the last change but
those, at least `baseline_min`. With the baseline's variance v of n values there is a rise if

    z = (mean of recent - mean of baseline) / sqrt(v (1 / n + 1 / recent))

is above `threshold`, and a fall if it is below its negative. The baseline knows how uncertain it is (one that does not
gives false alarms in most stationary streams), and both a rise and a fall begin it anew (one that only goes up is blind
to what comes again).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numba import njit

from learning.drift_verdicts import FALL, NONE, RISE, WARNING, Feed, expect_between

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["PageHinkley", "Window"]


@njit(cache=True, nogil=True, error_model="numpy")
def _page_hinkley(state, values, min_instances, delta, threshold, alpha, rises, falls, out):  # noqa: ANN001, ANN202
    """State: count, mean, up, down, least up, largest down, fired."""
    for i in range(len(values)):
        if state[6] != 0.0:
            state[:] = 0.0
        if state[0] == 0.0:
            state[4], state[5] = np.inf, -1.0
        x = values[i]
        state[0] += 1.0
        state[1] += (1.0 / state[0]) * (x - state[1])
        ahead = x - state[1]
        state[2] = alpha * state[2] + ahead - delta
        state[3] = alpha * state[3] + ahead + delta
        state[4] = min(state[4], state[2])
        state[5] = max(state[5], state[3])
        verdict = NONE
        if state[0] >= min_instances:
            if rises and state[2] - state[4] > threshold:
                verdict = RISE
            elif falls and state[5] - state[3] > threshold:
                verdict = FALL
        state[6] = 0.0 if verdict == NONE else 1.0
        out[i] = verdict


@dataclass(frozen=True, slots=True)
class PageHinkley:
    """`delta`: changes that do not matter; `threshold`: what the excess has to sum up to; `mode`: up, down or both.

    The defaults are for means of blocks of log-loss; river's (0.005 and 50) are for single records.
    """

    min_instances: int = 30
    delta: float = 0.02
    threshold: float = 3.0
    alpha: float = 1 - 0.0001
    mode: str = "both"

    kind: ClassVar[str] = "page_hinkley"
    feeds: ClassVar[Feed] = "means"

    def __post_init__(self) -> None:
        expect_between("min_instances", self.min_instances, 1, 2**31)
        expect_between("delta", self.delta, 0.0, math.inf)
        expect_between("threshold", self.threshold, 0.0, math.inf)
        expect_between("alpha", self.alpha, 0.0, 1.0)
        if self.mode not in {"up", "down", "both"}:
            raise ValueError(f"mode should be up, down or both, but is {self.mode!r}")

    def initial(self) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros(7)

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on values f64 (m,); changes the state in place."""
        out = np.empty(len(values), np.int8)
        _page_hinkley(
            state, values, float(self.min_instances), self.delta, self.threshold, self.alpha,
            self.mode != "down", self.mode != "up", out,
        )  # fmt: skip
        return out


@njit(cache=True, nogil=True, error_model="numpy")
def _window(state, values, recent, baseline_min, threshold, warning, out):  # noqa: ANN001, ANN202
    """State: count, mean and sum of squared distances of the baseline, values so far, fired, the recent ones."""
    ring = state[5:]
    for i in range(len(values)):
        if state[4] != 0.0:
            state[:] = 0.0
        at = np.int64(state[3]) % recent
        if state[3] >= recent:
            state[0] += 1.0
            ahead = ring[at] - state[1]
            state[1] += ahead / state[0]
            state[2] += ahead * (ring[at] - state[1])
        ring[at] = values[i]
        state[3] += 1.0
        verdict = NONE
        if state[0] >= baseline_min:
            mean = 0.0
            for j in range(recent):
                mean += ring[j]
            ahead = mean / recent - state[1]
            error = math.sqrt(state[2] / (state[0] - 1.0) * (1.0 / state[0] + 1.0 / recent))
            if ahead > threshold * error:
                verdict = RISE
            elif ahead < -threshold * error:
                verdict = FALL
            elif ahead > warning * error:
                verdict = WARNING
        state[4] = 1.0 if verdict in (RISE, FALL) else 0.0
        out[i] = verdict


@dataclass(frozen=True, slots=True)
class Window:
    """`recent` values against at least `baseline_min` before them; `threshold` and `warning` in standard errors."""

    recent: int = 32
    baseline_min: int = 64
    threshold: float = 4.5
    warning: float = 3.5

    kind: ClassVar[str] = "window"
    feeds: ClassVar[Feed] = "means"

    def __post_init__(self) -> None:
        expect_between("recent", self.recent, 1, 100_000)
        expect_between("baseline_min", self.baseline_min, 2, 2**31)
        expect_between("threshold", self.threshold, 0.0, math.inf)
        expect_between("warning", self.warning, 0.0, self.threshold)

    def initial(self) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros(5 + self.recent)

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on values f64 (m,); changes the state in place."""
        out = np.empty(len(values), np.int8)
        _window(state, values, self.recent, float(self.baseline_min), self.threshold, self.warning, out)
        return out
