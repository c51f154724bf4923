"""Detectors on a series of errors, 0 or 1 for each record: DDM, HDDM_A and HDDM_W, as in river.

DDM (J. Gama, P. Medas, G. Castillo, P. Rodrigues: Learning with Drift Detection, SBIA 2004): with the error rate p
after n records and s = sqrt(p (1 - p) / n), and (p', s') where p + s was least,

    warning if p + s > p' + warning_threshold s';   drift if p + s > p' + drift_threshold s'

HDDM (I. Frias-Blanco and others: Online and Non-Parametric Drift Detection Methods Based on Hoeffding's Bounds, TKDE
2015): a cut is kept where the mean plus its bound was least, and what came after is compared with what came before:
HDDM_A by means and Hoeffding's inequality, HDDM_W by exponentially weighted means and McDiarmid's.
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


__all__ = ["Ddm", "HddmA", "HddmW"]


@njit(cache=True, nogil=True, error_model="numpy")
def _ddm(state, values, warm_start, warning, drift, out):  # noqa: ANN001, ANN202
    """State: count, mean, p', s', p' + s', fired."""
    for i in range(len(values)):
        if state[5] != 0.0:
            state[:] = 0.0
        if state[0] == 0.0:
            state[4] = np.inf
        state[0] += 1.0
        state[1] += (1.0 / state[0]) * (values[i] - state[1])
        p = state[1]
        s = math.sqrt(max(p * (1.0 - p), 0.0) / state[0])
        verdict = NONE
        if state[0] > warm_start:
            if p + s <= state[4]:
                state[2], state[3], state[4] = p, s, p + s
            if p + s > state[2] + drift * state[3]:
                verdict = RISE
            elif p + s > state[2] + warning * state[3]:
                verdict = WARNING
        state[5] = 1.0 if verdict == RISE else 0.0
        out[i] = verdict


@njit(cache=True, nogil=True, error_model="numpy")
def _apart(n_cut, n, confidence):  # noqa: ANN001, ANN202
    """How far the means before a cut and of all may be apart by chance; infinitely, where the cut is now."""
    if n_cut == n:
        return np.inf
    m = (n - n_cut) / n_cut * (1.0 / n)
    return math.sqrt(m / 2 * math.log(2.0 / confidence))


@njit(cache=True, nogil=True, error_model="numpy")
def _hddm_a(state, values, drift, warning, two_sided, out):  # noqa: ANN001, ANN202
    """State: count and mean of all, up to the cut before a rise, up to the cut before a fall; fired."""
    bound = math.log(1.0 / drift)
    for i in range(len(values)):
        if state[6] != 0.0:
            state[:] = 0.0
        state[0] += 1.0
        state[1] += (1.0 / state[0]) * (values[i] - state[1])
        if state[2] == 0.0:
            state[2:6] = np.array((state[0], state[1], state[0], state[1]))
        n, mean = state[0], state[1]
        own = math.sqrt(1.0 / (2 * n) * bound)
        if state[3] + math.sqrt(1.0 / (2 * state[2]) * bound) >= mean + own:
            state[2], state[3] = n, mean
        if state[5] - math.sqrt(1.0 / (2 * state[4]) * bound) <= mean - own:
            state[4], state[5] = n, mean
        verdict = NONE
        if mean - state[3] >= _apart(state[2], n, drift):
            verdict = RISE
        elif two_sided and state[5] - mean >= _apart(state[4], n, drift):
            verdict = FALL
        elif mean - state[3] >= _apart(state[2], n, warning) or (
            two_sided and state[5] - mean >= _apart(state[4], n, warning)
        ):
            verdict = WARNING
        state[6] = 1.0 if verdict in (RISE, FALL) else 0.0
        out[i] = verdict


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _weigh(sample, x, rate):  # noqa: ANN001, ANN202
    """Sample: weighted mean, its bound's factor, whether it has seen anything."""
    sample[0] = rate * x + (1.0 - rate) * sample[0] if sample[2] else x
    sample[1] = rate * rate + (1.0 - rate) ** 2 * sample[1]
    sample[2] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _above(low, high, confidence):  # noqa: ANN001, ANN202
    """Whether the mean of sample `high` is above that of `low` by more than chance."""
    if low[2] == 0.0 or high[2] == 0.0:
        return False
    return high[0] - low[0] > math.sqrt((low[1] + high[1]) * math.log(1 / confidence) / 2)


@njit(cache=True, nogil=True, error_model="numpy")
def _hddm_w(state, values, drift, warning, rate, two_sided, out):  # noqa: ANN001, ANN202
    """State: begun, fired, the two cutpoints; samples of 3: all, before and after a rise, after and before a fall."""
    samples = state[4:].reshape(5, 3)
    for i in range(len(values)):
        if state[1] != 0.0:
            state[:] = 0.0
        if state[0] == 0.0:
            state[0], state[2], state[3] = 1.0, np.inf, -np.inf
            samples[:, 1] = 1.0
        x = values[i]
        _weigh(samples[0], x, rate)
        bound = math.sqrt(samples[0, 1] * math.log(1 / drift) / 2)
        if samples[0, 0] + bound < state[2]:
            state[2] = samples[0, 0] + bound
            samples[1] = samples[0]
            samples[2, 0], samples[2, 1], samples[2, 2] = 0.0, 1.0, 0.0
        else:
            _weigh(samples[2], x, rate)
        if samples[0, 0] - bound > state[3]:
            state[3] = samples[0, 0] - bound
            samples[4] = samples[0]
            samples[3, 0], samples[3, 1], samples[3, 2] = 0.0, 1.0, 0.0
        else:
            _weigh(samples[3], x, rate)
        verdict = NONE
        if _above(samples[1], samples[2], drift):
            verdict = RISE
        elif two_sided and _above(samples[3], samples[4], drift):
            verdict = FALL
        elif _above(samples[1], samples[2], warning) or (
            two_sided and _above(samples[3], samples[4], warning)
        ):
            verdict = WARNING
        state[1] = 1.0 if verdict in (RISE, FALL) else 0.0
        out[i] = verdict


@dataclass(frozen=True, slots=True)
class Ddm:
    """`warm_start` records without a verdict; the thresholds are in standard deviations."""

    warm_start: int = 30
    warning_threshold: float = 2.0
    drift_threshold: float = 3.0

    kind: ClassVar[str] = "ddm"
    feeds: ClassVar[Feed] = "errors"

    def __post_init__(self) -> None:
        expect_between("warm_start", self.warm_start, 1, 2**31)
        expect_between("drift_threshold", self.drift_threshold, 0.0, math.inf)
        expect_between("warning_threshold", self.warning_threshold, 0.0, self.drift_threshold)

    def initial(self) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros(6)

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on errors f64 (m,); changes the state in place."""
        out = np.empty(len(values), np.int8)
        _ddm(state, values, float(self.warm_start), self.warning_threshold, self.drift_threshold, out)
        return out


@dataclass(frozen=True, slots=True)
class HddmA:
    """The confidences are chances of a false verdict at one look; `two_sided`: falls are found too."""

    drift_confidence: float = 0.001
    warning_confidence: float = 0.005
    two_sided: bool = False

    kind: ClassVar[str] = "hddm_a"
    feeds: ClassVar[Feed] = "errors"

    def __post_init__(self) -> None:
        expect_between("drift_confidence", self.drift_confidence, 1e-300, 1.0)
        expect_between("warning_confidence", self.warning_confidence, self.drift_confidence, 1.0)

    def initial(self) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros(7)

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on errors f64 (m,); changes the state in place."""
        out = np.empty(len(values), np.int8)
        _hddm_a(state, values, self.drift_confidence, self.warning_confidence, self.two_sided, out)
        return out


@dataclass(frozen=True, slots=True)
class HddmW:
    """As HddmA; `rate`: weight of the newest error in the means (river's lambda_val)."""

    drift_confidence: float = 0.001
    warning_confidence: float = 0.005
    rate: float = 0.05
    two_sided: bool = False

    kind: ClassVar[str] = "hddm_w"
    feeds: ClassVar[Feed] = "errors"

    def __post_init__(self) -> None:
        expect_between("drift_confidence", self.drift_confidence, 1e-300, 1.0)
        expect_between("warning_confidence", self.warning_confidence, self.drift_confidence, 1.0)
        expect_between("rate", self.rate, 1e-9, 1.0)

    def initial(self) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros(4 + 5 * 3)

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on errors f64 (m,); changes the state in place."""
        out = np.empty(len(values), np.int8)
        _hddm_w(state, values, self.drift_confidence, self.warning_confidence, self.rate, self.two_sided, out)
        return out
