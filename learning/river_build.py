"""River models from the names and parameters of a pipeline file.

A component is the dotted name of a class, or {model: name, parameters: {...}, arguments: [...]}, and a parameter may be
one again, alone or in a list: {model: river.linear_model.LogisticRegression, parameters: {optimizer:
{model: river.optim.Adam, parameters: {lr: 0.01}}}}. A component that takes a seed and is given none gets that of the
expert, so that a run can be repeated.
"""

from __future__ import annotations

import difflib
import inspect
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from learning.river_names import RiverError, public_class

__all__ = ["RiverSettings", "built_model"]

_PARTS = {"model", "parameters", "arguments"}
_NESTED_MAX = 20


@dataclass(frozen=True, slots=True)
class RiverSettings:
    """An expert that is a model of river's; each worker has its own."""

    model: str
    """The class, as river.package.Name."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of that class, by name; whatever is left out is river's default."""
    arguments: tuple[Any, ...] = ()
    """Of that class, by position: the steps of river.compose.Pipeline, say."""
    transformers: tuple[Any, ...] = ()
    """Components that records go through before the model, first to last."""
    clip: float = 0.001
    """Probabilities are kept this far from 0 and 1, at which one mistake would cost an infinite loss."""
    seed: int = 0

    libraries: ClassVar[tuple[str, ...]] = ("river",)
    """What a model with such an expert needs to be installed."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.clip < 0.5:
            raise ValueError(f"clip should be from 0 to below 0.5, but is {self.clip}")

    def key(self) -> str:
        """The settings in one spelling."""
        shown = {
            name: getattr(self, name) for name in ("model", "parameters", "arguments", "transformers", "seed")
        }
        try:
            return json.dumps(shown, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RiverError(
                f"parameters of a river model should be numbers, texts, lists and mappings: {error}"
            ) from error


def built_model(settings: RiverSettings) -> Any:
    """The river model itself, which has learnt nothing. Raises RiverError."""
    own = {"model": settings.model, "parameters": settings.parameters, "arguments": [*settings.arguments]}
    model = _component(own, settings.seed, 0)
    if settings.transformers:
        steps = [_component(step, settings.seed, 0) for step in settings.transformers]
        model = _made(public_class("river.compose.Pipeline"), (*steps, model), {})
    return model


def _component(spec: Any, seed: int, nested: int) -> Any:
    if nested > _NESTED_MAX:
        raise RiverError(f"a river model has components in components, more than {_NESTED_MAX} levels deep")
    parts = {"model": spec} if isinstance(spec, str) else spec
    if not isinstance(parts, dict) or not isinstance(parts.get("model"), str):
        raise RiverError(
            f"expected the name of a class of river, or a mapping with model, but came {spec!r:.100}"
        )
    if odd := sorted(map(str, set(parts) - _PARTS)):
        raise RiverError(f"a component of river has model, parameters and arguments, but not {odd[0]!r}")
    kind = public_class(parts["model"])
    named, given = parts.get("parameters") or {}, parts.get("arguments") or ()
    if not isinstance(named, dict) or not isinstance(given, (list, tuple)):
        raise RiverError(f"{parts['model']}: parameters should be a mapping and arguments a list")
    _check_names(parts["model"], kind, named)
    values = {name: _value(value, seed, nested + 1) for name, value in named.items()}
    known = inspect.signature(kind).parameters
    if "seed" in known and "seed" not in values:
        values["seed"] = seed
    return _made(kind, tuple(_value(value, seed, nested + 1) for value in given), values)


def _check_names(dotted: str, kind: type, named: dict[str, Any]) -> None:
    known = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for name in named:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"valid here: {', '.join(known) or 'none'}"
            raise RiverError(f"{dotted} has no parameter {name!r}; {hint}")


def _value(value: Any, seed: int, nested: int) -> Any:
    """A parameter: a component, a list or mapping of values, or a plain value."""
    if nested > _NESTED_MAX:
        raise RiverError(f"parameters of a river model are more than {_NESTED_MAX} levels deep")
    if (isinstance(value, str) and value.startswith("river.")) or (
        isinstance(value, dict) and "model" in value
    ):
        return _component(value, seed, nested)
    if isinstance(value, (list, tuple)):
        return [_value(item, seed, nested + 1) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise RiverError(
                f"the recorded pipeline is JSON, where keys are texts; {value!r:.80} would not come back"
            )
        return {key: _value(item, seed, nested + 1) for key, item in value.items()}
    return value


def _made(kind: type, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        return kind(*given, **named)
    except Exception as error:
        raise RiverError(f"{kind.__name__} of river cannot be built: {error}") from error
