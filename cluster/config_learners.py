"""Sections of the pipeline file that are the fields of classes in learning/: learners, and policies of their tables.

So a new learner is one file in learning/ and one line in learning/learners.py, and its keys, types and defaults stand
in one place.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_type_hints

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model, model_validator

from learning.ensemble import Ensemble
from learning.learners import LEARNERS, RIVER, learner_from
from learning.mixer import Mixing
from learning.policy import TablePolicy
from learning.river_build import RiverSettings
from learning.river_check import check_river
from learning.river_names import RiverError

if TYPE_CHECKING:
    from learning.learner import Learner

__all__ = [
    "DEFAULT_LEARNER",
    "AnyLearnerConfig",
    "Described",
    "LearnerConfig",
    "Section",
    "TablePolicyConfig",
    "default_learner",
    "one_of",
    "section_of",
]

DEFAULT_LEARNER = "population"


class Section(BaseModel):
    """A mapping of the pipeline file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Described(Section):
    """A mapping whose `kind` names a class in learning/, which says what it makes of the other keys."""

    kind: str

    def build(self) -> Any:
        """What it describes."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _accepted(self) -> Self:
        self.build()  # which refuses values that make no sense, in a sentence
        return self


class LearnerConfig(Described):
    """A learner by its `kind`; its other keys are the fields of that learner's class in learning/."""

    def build(self) -> Learner:
        """The learner itself, with the module imported that the pipeline file names; a recorded one imports nothing."""
        learner = learner_from(self.model_dump(exclude={"name"}))  # which an expert may have
        for module in getattr(learner, "imports", ()):
            _import(module)
        return learner


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the module {module} that learner.model names cannot be imported ({error}); run from the folder in which "
            "it lies, and on a cluster ship that folder with the job (working_dir)"
        ) from error


def _default(of: dataclasses.Field[Any]) -> Any:
    """A field's default as pydantic takes it."""
    if of.default_factory is not dataclasses.MISSING:
        return Field(default_factory=of.default_factory)
    return ... if of.default is dataclasses.MISSING else of.default


def section_of(fields_of: type, base: type[Section], name: str, **more: Any) -> Any:
    """A section whose keys, types and defaults are the fields of a dataclass."""
    hints = get_type_hints(fields_of)
    keys: dict[str, Any] = {f.name: (hints[f.name], _default(f)) for f in dataclasses.fields(fields_of)}
    return _importable(create_model(name, __base__=base, __doc__=fields_of.__doc__, **(more | keys)))


def _importable(section: Any) -> Any:
    """The section, where pickle finds it by its name: else an actor would get a class of its own for it."""
    section.__module__ = __name__
    globals()[section.__name__] = section
    return section


def one_of(sections: dict[str, Any], default: str | None = None) -> Any:
    """The type of a key that holds one of `sections`, by its `kind`; one that names none is of the `default`."""

    def kind_of(values: Any) -> Any:
        return values.get("kind", default) if isinstance(values, dict) else getattr(values, "kind", default)

    tagged = tuple(Annotated[section, Tag(kind)] for kind, section in sections.items())
    return Annotated[Union[tagged], Discriminator(kind_of)]  # noqa: UP007 - made here


_LEARNER_SECTIONS: dict[str, Any] = {
    kind: section_of(learner, LearnerConfig, f"{learner.__name__}Config", kind=(Literal[kind], kind))
    for kind, learner in LEARNERS.items()
}
_NAME: Any = (str | None, None)
_EXPERT_SECTIONS: dict[str, Any] = {
    kind: _importable(create_model(f"{section.__name__}OfExpert", __base__=section, name=_NAME))
    for kind, section in _LEARNER_SECTIONS.items()
}
_river_section = section_of(RiverSettings, Section, "RiverModelConfig", kind=(Literal[RIVER], RIVER))
_EXPERT_SECTIONS[RIVER] = _importable(create_model("RiverConfig", __base__=_river_section, name=_NAME))


if TYPE_CHECKING:
    AnyExpertConfig = Section
    MixingConfig = Section
else:
    AnyExpertConfig = one_of(_EXPERT_SECTIONS)
    MixingConfig = section_of(Mixing, Section, "MixingConfig")


class EnsembleConfig(LearnerConfig):
    """Several learners over the same records, and how their predictions are mixed."""

    kind: Literal["ensemble"] = "ensemble"
    experts: tuple[AnyExpertConfig, ...]
    mixing: MixingConfig = Field(default_factory=MixingConfig)

    @model_validator(mode="after")
    def _river_fits(self) -> Self:
        ensemble = self.build()
        assert isinstance(ensemble, Ensemble), "by its kind"
        for name, settings in ensemble.outside.items():
            try:
                check_river(settings, ratings=ensemble.of_ratings)
            except RiverError as error:
                msg = f"the expert {name}: {error}"
                raise ValueError(msg) from error
        return self


_LEARNER_SECTIONS[Ensemble.kind] = EnsembleConfig


if TYPE_CHECKING:
    AnyLearnerConfig = LearnerConfig
    TablePolicyConfig = Section
else:
    AnyLearnerConfig = one_of(_LEARNER_SECTIONS, DEFAULT_LEARNER)
    TablePolicyConfig = section_of(TablePolicy, Section, "TablePolicyConfig")


def default_learner() -> LearnerConfig:
    """The learner of a pipeline that names none."""
    learner: LearnerConfig = _LEARNER_SECTIONS[DEFAULT_LEARNER]()
    return learner
