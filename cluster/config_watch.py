"""Sections of the pipeline file about looking at the stream: drift and what is done about it, slices, statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from cluster.config_learners import Described, Section, one_of, section_of
from learning.drift import DETECTORS, WatchSettings
from learning.learner import experts_of
from learning.reactions import REACTIONS, Forget, RaiseRates, RaiseShare, Reaction, Renew

if TYPE_CHECKING:
    from learning.drift_verdicts import Detector
    from learning.learner import Learner

__all__ = ["DEFAULT_DETECTOR", "DriftConfig", "SlicesConfig", "StatisticsConfig", "default_detector"]

DEFAULT_DETECTOR = next(iter(DETECTORS))


class _DetectorConfig(Described):
    """A detector by its `kind`; its other keys are the fields of its class in learning/."""

    def build(self) -> Detector:
        """The detector itself."""
        detector: Detector = DETECTORS[self.kind](**self.model_dump(exclude={"kind"}))
        return detector


class _ReactionConfig(Described):
    """A reaction by its `kind`; its other keys, but `event`, are the fields of its class in learning/reactions.py."""

    event: str

    def build(self) -> Reaction:
        """The reaction itself."""
        reaction: Reaction = REACTIONS[self.kind](**self.model_dump(exclude={"kind", "event"}))
        return reaction


_DETECTORS = {
    kind: section_of(made, _DetectorConfig, f"{made.__name__}Config", kind=(Literal[kind], kind))
    for kind, made in DETECTORS.items()
}
_REACTIONS = {
    kind: section_of(
        made, _ReactionConfig, f"{made.__name__}Config", kind=(Literal[kind], ...),
        event=(Literal["drift", "warning"], "drift"),
    )
    for kind, made in REACTIONS.items()
}  # fmt: skip


def default_detector() -> _DetectorConfig:
    """The detector of a pipeline that names none."""
    detector: _DetectorConfig = _DETECTORS[DEFAULT_DETECTOR]()
    return detector


if TYPE_CHECKING:
    AnyDetector = _DetectorConfig
    AnyReaction = _ReactionConfig
else:
    AnyDetector = one_of(_DETECTORS, DEFAULT_DETECTOR)
    AnyReaction = one_of(_REACTIONS)

_SETTINGS = WatchSettings()
_NOTHING = {
    RaiseRates.kind: "no rate of its is read from the stream's pace",
    RaiseShare.kind: "it has no experts among which a share goes round (as population, and an ensemble mixed by "
    "fixed_share, have)",
    Forget.kind: "its optimiser cannot forget",
}
"""Why a reaction may change nothing."""


class DriftConfig(Section):
    """Whether the losses of the stream change, and what is done about it."""

    enabled: bool = True
    detector: AnyDetector = Field(default_factory=default_detector)
    block_records: PositiveInt = _SETTINGS.block_records
    """Records whose mean loss is one value for the detector."""
    window_records: PositiveInt = _SETTINGS.window_records
    """How long a partition's vote counts, in records of each."""
    quorum: Annotated[float, Field(gt=0, le=1)] = _SETTINGS.quorum
    """Share of the partitions whose votes make a drift."""
    warning_quorum: Annotated[float, Field(gt=0, le=1)] = _SETTINGS.warning_quorum
    features: tuple[str, ...] = ()
    """Features whose missing values and means are watched beside the loss, to tell what moved."""
    reactions: tuple[AnyReaction, ...] = ()
    """What is done, in this order; nothing by default."""
    lag_records: Annotated[int, Field(ge=1)] | None = None
    """A raise begins so many records of a worker behind the drift; None: four batches."""

    def check(self, learner: Learner) -> None:
        """Raise ValueError for a reaction that a job of this learner could not carry out."""
        for reaction in (*self.reactions_on("drift"), *self.reactions_on("warning")):
            if reaction.kind in _NOTHING and reaction.kind not in learner.reacts:
                known = ", ".join(sorted(learner.reacts)) or "none of raise_rates, raise_share and forget"
                raise ValueError(
                    f"drift.reactions: {reaction.kind} changes nothing of the learner {learner.kind} as it is set, for "
                    f"{_NOTHING[reaction.kind]}; leave it out. What changes something: {known}"
                )
            if isinstance(reaction, Renew) and reaction.expert not in experts_of(learner):
                known = ", ".join(experts_of(learner)) or "none, for it is no ensemble"
                raise ValueError(
                    f"drift.reactions: renew names {reaction.expert!r}; experts of the learner: {known}"
                )

    def settings(self, loss_max: float) -> WatchSettings:
        """How detectors are read."""
        return WatchSettings(
            block_records=self.block_records,
            window_records=self.window_records,
            quorum=self.quorum,
            warning_quorum=self.warning_quorum,
            loss_max=loss_max,
        )

    def reactions_on(self, event: str) -> tuple[Reaction, ...]:
        """What is done about `drift` or `warning`."""
        return tuple(reaction.build() for reaction in self.reactions if reaction.event == event)


class SlicesConfig(Section):
    """Metrics of parts of the stream, recent and since the start."""

    partitions: bool = True
    """Of each partition."""
    feature: str | None = None
    """Of each value of this feature."""
    values_max: Annotated[int, Field(ge=1, le=200)] = 16
    """The first so many values; others count as one more."""
    window_records: PositiveInt = 50_000
    """The recent window holds one to two times so many records of a worker."""


class StatisticsConfig(Section):
    """What is known of each feature: how often it is missing, mean, deviation, how many values."""

    enabled: bool = True
    features_max: Annotated[int, Field(ge=1, le=100_000)] = 1000
