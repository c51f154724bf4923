"""What a model holds on to: what a new run begins with, old records that are learnt again, and an older model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from cluster.config_learners import Section

if TYPE_CHECKING:
    from learning.learner import Learner

__all__ = ["BaseConfig", "DistillationConfig", "RehearsalConfig"]


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


class DistillationConfig(Section):
    """An older version of the run whose probabilities are learnt beside the labels (learning/distillation.py)."""

    weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    """What the loss against the teacher counts, beside that against the label; 0: there is no teacher."""
    version: PositiveInt | None = None
    """Of the registered model, a version of this run. None: the newest that there is when the job is started."""

    def check(self, learner: Learner) -> None:
        """Raise ValueError for a learner that has no use for a teacher."""
        if self.weight and learner.kind != "deep":
            raise ValueError(
                f"distillation: expected the learner deep, which learns a teacher's probabilities beside the labels, "
                f"but the learner is {learner.kind}; leave distillation.weight at 0"
            )
