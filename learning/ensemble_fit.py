"""Which learners can be experts of one ensemble: they predict the same kind of thing from the same entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learning.learner import Learner

__all__ = ["check_fit"]


def check_fit(learners: Sequence[Learner], context: bool) -> None:  # noqa: FBT001 - whether a bandit has one
    """Raise ValueError, in a sentence, for experts with tables that do not fit each other."""
    if not learners:
        raise ValueError(
            "an ensemble needs an expert with tables beside those of river; add one, such as ftrl"
        )
    if any(learner.kind == "ensemble" for learner in learners):
        raise ValueError("an ensemble is no expert of another one; list all experts in one")
    if any(getattr(learner, "feedback", "explicit") == "implicit" for learner in learners):
        raise ValueError(
            "factors of choices (feedback: implicit) compare items, and are no expert of an ensemble"
        )
    if any(getattr(learner, "more_labels", ()) for learner in learners):
        raise ValueError(
            "a model of several labels (multi_task) is no expert: the others would see its labels"
        )
    for learner in learners[1:]:
        same = type(learner.metrics()) is type(learners[0].metrics())
        if not same or learner.encodes != learners[0].encodes:
            raise ValueError(
                f"experts predict the same thing from the same entries, but {learners[0].kind} and {learner.kind} "
                "do not: one predicts ratings and the other probabilities, or one takes numbers as they were sent"
            )
    if context and not learners[0].encodes:
        raise ValueError(
            f"a bandit's context is made of z-scores, which {learners[0].kind} has none of; leave context out"
        )
