"""A learner that can say which items are best for a user: what it must have for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from learning.learner import Learner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from learning.ranking import Ranked

__all__ = ["ITEMS", "SCALE", "SEEN", "USERS", "Ranker", "ranker_of"]

USERS, ITEMS, SCALE, SEEN = "users", "items", "scale", "seen"
"""Its tables; `scale` has its bias row only, and there may be no `seen`. Roles 0 and 1 are the user and the item."""


class Ranker(Learner, Protocol):
    """A learner whose rows say which items are good for whom; meanings as in learning/factors.py."""

    @property
    def feedback(self) -> str:
        """explicit: scores stand for ratings; implicit: they stand for themselves."""

    def ratings_of(self, row: NDArray[np.float32]) -> int:
        """How many records a row has learnt."""

    def seen_keys(self, user_key: np.uint64, item_keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Keys in the table `seen` of one user with each of these items."""

    def top(
        self,
        user_row: NDArray[np.float32] | None,
        rows: NDArray[np.float32],
        keys: NDArray[np.uint64],
        live: NDArray[np.bool_],
        n: int,
    ) -> Ranked:
        """The n best of a shard's items for a user."""

    def similar(
        self,
        item_row: NDArray[np.float32],
        rows: NDArray[np.float32],
        keys: NDArray[np.uint64],
        live: NDArray[np.bool_],
        n: int,
    ) -> Ranked:
        """The n of a shard's items that are most alike to an item."""

    def grade(
        self,
        scores: NDArray[np.float64],
        user_row: NDArray[np.float32] | None,
        scale_row: NDArray[np.float32] | None,
    ) -> NDArray[np.float64]:
        """Scores as the ratings that they predict."""


def ranker_of(learner: Learner) -> Ranker:
    """The learner itself, if it can rank items. Raises ValueError, in a sentence, if it cannot."""
    if not hasattr(learner, "top"):
        raise ValueError(
            f"the learner {learner.kind} recommends nothing; learn with `learner: {{kind: factors}}`"
        )
    return learner  # type: ignore[return-value]  # it has what a Ranker has
