"""KSWIN: the newest values against a sample of those before them, by the two-sample Kolmogorov-Smirnov test.

C. Raab, M. Heusinger, F.-M. Schleif: Reactive Soft Prototype Computing for Concept Drift Streams, Neurocomputing 2020.
Of the last `window_size` values, the newest r = `stat_size` are compared with r drawn from the others. Of two samples
of r values from one distribution, the distribution functions come apart by h / r or more with the probability

    P(D >= h/r) = 2 sum_{k>=1} (-1)^(k-1) C(2r, r - k h) / C(2r, r)       (B. Gnedenko, V. Korolyuk 1951)

and there is a change if that is at most alpha (and h/r above 0.1). After a change the newest r values remain.

The state, f64: values in the window, draws begun, fired; the window; the 625 words of the generator, which is the one
of Python's `random` (as in river): each is below 2^32, so it fits into a float without loss.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from learning.drift_verdicts import FALL, NONE, RISE, Feed, expect_between

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["Kswin", "ks_chance"]

_HEAD = 2
_WORDS = 625
_GENERATOR_VERSION = 3
_LEAST_DISTANCE = 0.1


def ks_chance(r: int, h: int) -> float:
    """P(D >= h / r) for two samples of r values from one distribution, two-sided and exact."""
    if h <= 0:
        return 1.0
    chance = 0.0
    for k in range(r // h, 0, -1):
        term = 1.0  # C(2r, r - k h) / C(2r, r), as a Horner scheme over k
        for j in range(h):
            term *= (r - (k - 1) * h - j) / (r + (k - 1) * h + j + 1)
        chance = term * (1.0 - chance)
    return min(2.0 * chance, 1.0)


def _distance(older: NDArray[np.float64], newer: NDArray[np.float64]) -> int:
    """r times the largest distance of the distribution functions of two samples f64 (r,)."""
    both = np.concatenate((older, newer))
    below_older = np.searchsorted(np.sort(older), both, side="right")
    below_newer = np.searchsorted(np.sort(newer), both, side="right")
    return int(np.abs(below_older - below_newer).max())


@dataclass(frozen=True, slots=True)
class Kswin:
    """`alpha`: chance of a false verdict at one look; there is one at every value, so choose it small."""

    alpha: float = 0.0005
    window_size: int = 200
    stat_size: int = 60
    seed: int = 0

    kind: ClassVar[str] = "kswin"
    feeds: ClassVar[Feed] = "means"

    def __post_init__(self) -> None:
        expect_between("alpha", self.alpha, 0.0, 1.0)
        expect_between("stat_size", self.stat_size, 1, 10_000)
        # river allows less, and fails when it draws more values than there are.
        expect_between("window_size", self.window_size, 2 * self.stat_size, 1_000_000)

    def initial(self) -> NDArray[np.float64]:
        """An empty window, and the generator as the seed makes it."""
        state = np.zeros(_HEAD + self.window_size + _WORDS)
        state[-_WORDS:] = random.Random(self.seed).getstate()[1]
        return state

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on values f64 (m,); changes the state in place."""
        out = np.zeros(len(values), np.int8)
        generator = random.Random()
        generator.setstate((_GENERATOR_VERSION, tuple(int(word) for word in state[-_WORDS:]), None))
        window = state[_HEAD:-_WORDS]
        for i, x in enumerate(values.tolist()):
            if state[1]:
                state[:-_WORDS] = 0.0
                generator.seed(self.seed)
            if state[0] == self.window_size:
                window[:-1] = window[1:].copy()
                window[-1] = x
            else:
                window[int(state[0])] = x
                state[0] += 1.0
            if state[0] == self.window_size:
                out[i] = self._look(window, generator)
                state[1] = float(out[i] != NONE)
        state[-_WORDS:] = generator.getstate()[1]
        return out

    def _look(self, window: NDArray[np.float64], generator: random.Random) -> int:
        border = self.window_size - self.stat_size
        older = window[generator.sample(range(border), self.stat_size)]
        newer = window[border:]
        h = _distance(older, newer)
        if h / self.stat_size <= _LEAST_DISTANCE or ks_chance(self.stat_size, h) > self.alpha:
            return NONE
        return RISE if newer.mean() > window[:border].mean() else FALL
