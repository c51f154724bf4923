"""What a model holds on to: what a new run begins with, and old records that are learnt again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cluster.config_learners import Section

if TYPE_CHECKING:
    from learning.learner import Learner

__all__ = ["BaseConfig", "RehearsalConfig"]


class BaseConfig(Section):
    """What a new run begins with (cluster/warm_start.py), besides nothing."""

    path: str | None = None
    """A .safetensors file or state_dict (.pt, .pth, .bin), weights as .json, the folder of a model, or models:/..."""
    confidence: Annotated[float, Field(ge=0)] = 1.0
    """Squared gradients that weights as JSON are trusted for; more holds them longer."""


class RehearsalConfig(Section):
    """Old records that are learnt again with each batch (learning/rehearsal.py); `records` 0: none."""

    records: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many each worker keeps: a uniform sample of all that it has seen, in its memory and in snapshots."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """How many are learnt with a batch, as a share of its records."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """What an old record counts, beside its own weight."""

    def check(self, learner: Learner) -> None:
        """Raise ValueError for a learner that cannot learn old records."""
        if self.records and (learner.named or hasattr(learner, "experts")):
            raise ValueError(
                f"rehearsal: the learner {learner.kind} cannot learn old records again: it needs their names, or "
                "experts that have seen them; leave rehearsal.records at 0"
            )
