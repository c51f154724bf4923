"""Is an older model better than the present one, on the same records, by more than noise? A confidence sequence.

With d_i = loss of the present model - loss of the older one on record i, and D_j the mean of d over the j-th block of
`block_records` consecutive records (neighbours depend on each other, blocks hardly), after t blocks of mean m and
sample variance v the mean of the D lies within

    m +- sqrt(v) sqrt(2 (t r + 1) / (t^2 r) ln(sqrt(t r + 1) / alpha)),   r = (-2 ln alpha + ln(1 - 2 ln alpha)) / t*

at all t at once with probability 1 - alpha, for large t: one may look after every batch and stop when it tells
enough. It is narrowest near t* = 5 `blocks_min`. I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas:
Time-uniform central limit theory and asymptotic confidence sequences (2021).

The older model is better if the lower end is above `margin`: a false alarm in at most a share alpha of all streams
(about half of it, for an interval has two ends). Who compares with k older models divides alpha by k.

What no record has shown yet is in no variance. Where labels are rare (one in 10,000), two thousand records may hold no
positive, and a model that merely predicts less looks better without any doubt; so with `labels` no decision falls
before `rarer_min` records of the rarer class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Comparison"]

_NARROWEST_BLOCKS = 5
_LOSS_MAX = 1e100


@dataclass(slots=True)
class Comparison:
    """Losses of two models on the same records, in bounded memory; the same to the bit for any split into batches.

    Attributes:
        alpha: share of streams with a false alarm, at most and over all time; divide it by the number of candidates.
        block_records: records whose differences are averaged into one observation.
        blocks_min: no decision before so many.
        margin: by how much the older model's mean loss has to be lower.
        rarer_min: no decision before so many labels of either class, where labels are given.
        records: how many were added; those of the last block count in mean and interval once it is full.
        blocks: how many are full.

    """

    alpha: float = 0.01
    block_records: int = 100
    blocks_min: int = 20
    margin: float = 0.0
    rarer_min: int = 50
    records: int = field(default=0, init=False)
    blocks: int = field(default=0, init=False)
    _mean: float = field(default=0.0, init=False)
    _squares: float = field(default=0.0, init=False)
    _open: list[float] = field(default_factory=list, init=False)
    _labelled: bool = field(default=False, init=False)
    _classes: list[int] = field(default_factory=lambda: [0, 0], init=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha should be between 0 and 1, but is {self.alpha}")
        if self.block_records < 1 or self.blocks_min < 2:
            numbers = f"{self.block_records} and {self.blocks_min}"
            raise ValueError(f"block_records should be 1 and blocks_min 2 or more, but they are {numbers}")

    def add(
        self,
        present: NDArray[np.float64],
        older: NDArray[np.float64],
        labels: NDArray[np.float32] | None = None,
    ) -> None:
        """Add losses f64 (n,) of both models on the next records, in order; labels f32 (n,) where they are classes.

        Losses beyond 1e100, or NaN, count as 1e100: a model that is lost is the worse one, and two are equal.
        """
        if present.ndim != 1 or present.shape != older.shape:
            raise ValueError(f"expected as many losses of both models, got {present.shape} and {older.shape}")
        if labels is not None:
            positives = int(np.count_nonzero(labels >= 0.5))
            self._labelled = True
            self._classes[0] += len(labels) - positives
            self._classes[1] += positives
        self.records += len(present)
        self._open += (_bounded(present) - _bounded(older)).tolist()
        whole = len(self._open) - len(self._open) % self.block_records
        for first in range(0, whole, self.block_records):
            # fsum is exact, and so independent of how the block came.
            self._close(math.fsum(self._open[first : first + self.block_records]) / self.block_records)
        del self._open[:whole]

    def _close(self, observation: float) -> None:
        """Welford's update."""
        self.blocks += 1
        ahead = observation - self._mean
        self._mean += ahead / self.blocks
        self._squares += ahead * (observation - self._mean)

    @property
    def mean(self) -> float:
        """Mean over the full blocks of present less older loss; NaN where there are none."""
        return self._mean if self.blocks else math.nan

    @property
    def lower(self) -> float:
        """Lower end of the confidence sequence; minus infinity before there are two blocks."""
        return self._mean - self._radius()

    @property
    def upper(self) -> float:
        """Upper end of the confidence sequence; infinity before there are two blocks."""
        return self._mean + self._radius()

    def _radius(self) -> float:
        if self.blocks < 2:
            return math.inf
        log_alpha = math.log(self.alpha)
        rate = (math.log1p(-2.0 * log_alpha) - 2.0 * log_alpha) / (_NARROWEST_BLOCKS * self.blocks_min)
        grown = self.blocks * rate + 1.0
        units = 2.0 * grown / (self.blocks * rate) * (0.5 * math.log(grown) - log_alpha)
        return math.sqrt(units * self._squares / ((self.blocks - 1) * self.blocks))

    @property
    def older_is_better(self) -> bool:
        """Whether there is enough to decide on, and it says that the older model is better by more than `margin`."""
        enough = self.blocks >= self.blocks_min
        if self._labelled:
            enough = enough and min(self._classes) >= self.rarer_min
        return enough and self.lower > self.margin


def _bounded(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(np.clip(losses, -_LOSS_MAX, _LOSS_MAX), nan=_LOSS_MAX)
