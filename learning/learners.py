"""The learners by the name that a pipeline file gives them: a new one is a file of its own and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from learning.deep import Deep
from learning.ensemble import Ensemble, Expert
from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.mixer import Mixing
from learning.population import Population
from learning.river_build import RiverSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from learning.learner import Learner

__all__ = ["KINDS", "LEARNERS", "RIVER", "learner_from"]

LEARNERS = {learner.kind: learner for learner in (Ftrl, Population, Factors, Deep)}
"""Those that may be an expert of an ensemble too."""

RIVER = "river"
"""The kind of an expert that is a model of river's."""

KINDS = (*LEARNERS, Ensemble.kind)


def learner_from(settings: Mapping[str, Any]) -> Learner:
    """The learner of a pipeline's `learner` section, as JSON spells it. Raises ValueError, in a sentence."""
    kind = settings.get("kind")
    if kind == Ensemble.kind:
        return _ensemble(settings)
    if kind not in LEARNERS:
        raise ValueError(f"expected a learner of kind {', '.join(KINDS)}, but came {kind!r}")
    learner: Learner = _built(LEARNERS[kind], settings, {"kind"})
    return learner


def _ensemble(settings: Mapping[str, Any]) -> Ensemble:
    experts, mixing = settings.get("experts"), settings.get("mixing") or {}
    if not isinstance(experts, (list, tuple)) or not all(isinstance(expert, dict) for expert in experts):
        raise ValueError("expected the experts of an ensemble as a list of learners' sections")
    if odd := sorted(set(settings) - {"kind", "experts", "mixing"}):
        raise ValueError(f"the learner ensemble has no such setting as {odd[0]}")
    return Ensemble(
        tuple(
            Expert(str(expert.get("name") or f"{expert.get('kind')}{i}"), _expert(expert))
            for i, expert in enumerate(experts)
        ),
        _built(Mixing, mixing | {"context": tuple(mixing.get("context", ()))}, set()),
    )


def _expert(settings: dict[str, Any]) -> Learner | RiverSettings:
    if settings.get("kind") == RIVER:
        listed = {name: tuple(settings.get(name, ())) for name in ("arguments", "transformers")}
        made: RiverSettings = _built(RiverSettings, settings | listed, {"kind", "name"})
        return made
    return learner_from({name: value for name, value in settings.items() if name != "name"})


def _built(kind: Any, settings: Mapping[str, Any], left_out: set[str]) -> Any:
    fields = {name: value for name, value in settings.items() if name not in left_out}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} has no such settings as {', '.join(fields)}") from error
