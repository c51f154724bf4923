"""Distillation: a model also learns what an older, frozen one says of each record, as an anchor against forgetting.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; against forgetting as in Li and Hoiem,
"Learning without Forgetting", ECCV 2016. With logit s, label y, the teacher's probability t and the weight lambda, a
record's loss is

    BCE(s, y) + lambda BCE(s, t) = (1 + lambda) BCE(s, (y + lambda t) / (1 + lambda))

because BCE with logits is affine in its target. So a taught record is one with another label and another weight, which
any loss of probabilities takes; metrics see the labels as they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from learning.batch import Batch

__all__ = ["Taught", "Teacher"]


class Taught(NamedTuple):
    """What a teacher says of a batch: probabilities f64 (n,), NaN where it was not asked, and lambda."""

    probabilities: NDArray[np.float64]
    weight: float

    def extended(self, records: int) -> Taught:
        """The same with so many records behind, of which the teacher was not asked."""
        return self._replace(probabilities=np.append(self.probabilities, np.full(records, np.nan)))

    def softened(
        self, labels: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels and weights f32 (n,) whose loss is that of the labels and of the teacher together."""
        known = np.isfinite(self.probabilities)
        both = (labels + self.weight * self.probabilities) / (1.0 + self.weight)
        softened = np.where(known, both, labels).astype(np.float32)
        return softened, np.where(known, weights * (1.0 + self.weight), weights).astype(np.float32)


class Teacher:
    """The frozen model of snapshot `snapshot`; `score` gives its probabilities f64 (n,) for a batch as it was read."""

    def __init__(self, snapshot: int, score: Callable[[Batch], NDArray[np.float64]], weight: float) -> None:
        self._snapshot, self._score, self._weight = snapshot, score, weight

    def of(self, batch: Batch) -> Taught:
        """What it says of a batch's records."""
        return Taught(self._score(batch) if len(batch) else np.empty(0), self._weight)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Whose model it is, for snapshots: `snapshot` i64 (1,)."""
        return {"snapshot": np.array([self._snapshot], np.int64)}
