"""Turns YAML and pydantic errors about a pipeline into sentences that name the key and the nearest valid one."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from learning.drift import DETECTORS
from learning.learners import KINDS, LEARNERS, RIVER
from learning.reactions import REACTIONS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PipelineError", "explain", "read_yaml", "with_overrides"]


_KINDS = {
    "source": ("kafka", "file"),
    "learner": KINDS,
    "learner.experts": (*LEARNERS, RIVER),
    "drift.detector": tuple(DETECTORS),
    "drift.reactions": tuple(REACTIONS),
}
_TAGS = [kind for kinds in _KINDS.values() for kind in kinds]
"""Steps of an error's place that stand in no file: pydantic names the kind that it took."""


class PipelineError(Exception):
    """The pipeline cannot be used; the message says which key, what was expected and what came."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping; raises PipelineError with the line where the text is no YAML."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"pipeline file {path} cannot be read: {error.strerror}; give the path of a YAML file"
        raise PipelineError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"pipeline file {path} is not valid YAML: {' '.join(str(error).split())}"
        raise PipelineError(msg) from error
    if not isinstance(values, dict):
        kind = type(values).__name__
        msg = f"pipeline file {path} should hold a mapping with the keys name and source, but holds {kind}"
        raise PipelineError(msg)
    return values


def with_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b=c` applied; c is read as YAML, so 8 is a number and [a, b] a list."""
    merged = {key: _copied(value) for key, value in values.items()}
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            msg = f"--set expects a.b=value, but came {override!r}; for example --set cluster.workers=4"
            raise PipelineError(msg)
        _assign(merged, path.strip().split("."), _value(text, override), override)
    return merged


def _value(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        msg = f"--set {override}: the value is not valid YAML ({problem}); put a text with special characters in quotes"
        raise PipelineError(msg) from error


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return value


def _assign(target: dict[str, Any], steps: list[str], value: Any, override: str) -> None:
    for step in steps[:-1]:
        inner = target.setdefault(step, {})
        if not isinstance(inner, dict):
            msg = f"--set {override}: {step!r} holds {inner!r}, which has no keys below it"
            raise PipelineError(msg)
        target = inner
    target[steps[-1]] = value


def explain(error: ValueError, values: dict[str, Any], model: type[BaseModel], origin: str) -> PipelineError:
    """All problems of a pydantic error, a sentence each."""
    if not isinstance(error, ValidationError):
        return PipelineError(f"{origin}: {error}")
    return PipelineError("\n".join(_sentence(problem, model, origin) for problem in error.errors()))


def _sentence(problem: Any, model: type[BaseModel], origin: str) -> str:
    steps = [str(step) for step in problem["loc"] if step not in _TAGS]
    key = ".".join(steps)
    if problem["type"] == "extra_forbidden":
        return f"{origin}: unknown key {key}; {_nearest(steps, problem['loc'], model)}"
    if problem["type"] == "missing":
        return f"{origin}: the key {key} is missing; add it"
    if problem["type"].startswith("union_tag"):
        came = (
            f"but came {problem['ctx']['tag']!r}"
            if problem["type"] == "union_tag_invalid"
            else "but is missing"
        )
        known = _KINDS.get(".".join(step for step in steps if not step.isdecimal()), _TAGS)
        kinds = " or ".join(known)
        return f"{origin}: the key {key}.kind should be {kinds}, {came}"
    came = "" if isinstance(problem["input"], dict) else f", but came {problem['input']!r}"
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{origin}: {key or 'pipeline'}: {reason[:1].lower()}{reason[1:]}{came}"


def _nearest(steps: list[str], loc: tuple[Any, ...], model: type[BaseModel]) -> str:
    if loc[0] == "learner" and (kinds := _learners_with(steps[-1])):
        return f"it belongs to the learner {' or '.join(kinds)}; name that with learner.kind: {kinds[0]}"
    names = _valid_names(loc[:-1], model)
    close = difflib.get_close_matches(steps[-1], names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"valid here: {', '.join(sorted(names))}"


def _learners_with(name: str) -> list[str]:
    """Kinds of learners that have a parameter of this name."""
    return [
        kind for kind, learner in LEARNERS.items() if name in {f.name for f in dataclasses.fields(learner)}
    ]


def _valid_names(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Field names of the section that `loc` leads to; a discriminator's value picks among a union's members."""
    candidates = [model]
    for step in loc:
        inner = [
            m
            for c in candidates
            if step in c.model_fields
            for m in _models_of(c.model_fields[step].annotation)
        ]
        candidates = inner or [c for c in candidates if _kind_of(c) == step] or candidates
    return [name for c in candidates for name in c.model_fields]


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_of(argument)]


def _kind_of(model: type[BaseModel]) -> object:
    field = model.model_fields.get("kind")
    return field.default if field else None
