"""Names below `river.`: what a pipeline file may name, and what a snapshot may hold.

Nothing is imported by name: river's own packages are loaded once, and a name is looked up among what is loaded then.
Packages that read files or the network (datasets, stream) or run other libraries are left out, and so is what
begins with an underscore, but for the few compiled classes that river's models are made of.
"""

from __future__ import annotations

import collections
import copy
import difflib
import importlib
import sys
import types
from functools import cache
from typing import Any

__all__ = ["COMPILED", "RiverError", "known_class", "known_function", "place_of", "public_class"]

PACKAGES = (
    "anomaly", "bandit", "base", "cluster", "compose", "covariance", "drift", "dummy", "ensemble", "facto",
    "feature_extraction", "feature_selection", "forest", "imblearn", "linear_model", "metrics", "misc",
    "model_selection", "multiclass", "naive_bayes", "neighbors", "optim", "preprocessing", "proba", "reco", "rules",
    "sketch", "stats", "tree", "utils",
)  # fmt: skip
"""Of river, what experts are made of."""

COMPILED = ("drift", "stats", "vectordict")
"""Modules below river._river_rust whose classes and functions occur in models."""

_PLAIN: dict[str, Any] = {
    **{f"builtins:{kind.__name__}": kind for kind in (bool, dict, float, int, list, set, str, tuple)},
    "collections:Counter": collections.Counter,
    "collections:OrderedDict": collections.OrderedDict,
    "collections:defaultdict": collections.defaultdict,
    "collections:deque": collections.deque,
    "copy:deepcopy": copy.deepcopy,
}
"""What is not river's and may be called by a model that came out of a snapshot."""

_NAME_MAX = 200
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


class RiverError(ValueError):
    """A river expert cannot be built, saved or read; the message says which part of it and why."""


@cache
def _loaded() -> None:
    importlib.import_module("river.api")


def public_class(dotted: str) -> type:
    """The class that a pipeline file calls `river.package.Name`. Raises RiverError, with the nearest name."""
    _loaded()
    steps = dotted.split(".")
    if len(steps) < 3 or steps[0] != "river" or steps[1] not in PACKAGES or len(dotted) > _NAME_MAX:
        close = difflib.get_close_matches(steps[1] if len(steps) > 1 else dotted, PACKAGES, n=1, cutoff=0.5)
        hint = f"did you mean river.{close[0]}?" if close else f"packages are {', '.join(PACKAGES)}"
        raise RiverError(f"expected a class as river.package.Name, but came {dotted!r}; {hint}")
    found: Any = sys.modules[f"river.{steps[1]}"]
    for i, step in enumerate(steps[2:], 2):
        names = [name for name in dir(found) if not name.startswith("_")]
        inside = isinstance(found, types.ModuleType) and found.__name__.startswith("river.")
        if not inside or step not in names:
            close = difflib.get_close_matches(step, names, n=1, cutoff=0.5)
            hint = f"; did you mean {'.'.join([*steps[:i], close[0]])}?" if close else ""
            raise RiverError(f"{'.'.join(steps[:i])} has no {step!r} that could be built{hint}")
        found = getattr(found, step)
    if not isinstance(found, type) or not _ours(found.__module__):
        raise RiverError(f"{dotted} is no class of river that could be built; name a model or a part of one")
    return found


def _ours(module: object) -> bool:
    """Whether a module is one of river's that models are made of."""
    if not isinstance(module, str):
        return False
    steps = module.split(".")
    if len(steps) < 2 or steps[0] != "river":
        return False
    if steps[1] == "_river_rust":
        return len(steps) == 3 and steps[2] in COMPILED
    return steps[1] in PACKAGES


def place_of(thing: Any) -> str | None:
    """`module:qualified.name` by which a class or function is found again; None if it is not one that may be."""
    for name, plain in _PLAIN.items():
        if thing is plain:
            return name
    module, qualified = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not _ours(module) or not isinstance(qualified, str):
        return None
    place = f"{module}:{qualified}"
    return place if _looked_up(place) is thing else None


def known_class(place: object) -> type:
    """The class at a place. Raises RiverError for anything that is no class of river's, or one of the plain ones."""
    found = _known(place)
    if not isinstance(found, type):
        raise RiverError(f"{place!r} is no class of river that a model is made of")
    return found


def known_function(place: object) -> Any:
    """The function or class at a place. Raises RiverError for anything else."""
    found = _known(place)
    if not isinstance(found, (type, *_FUNCTIONS)):
        raise RiverError(f"{place!r} is no function of river that a model is made of")
    return found


def _known(place: object) -> Any:
    if not isinstance(place, str) or len(place) > _NAME_MAX:
        raise RiverError(f"expected a place as module:name, got {type(place).__name__}")
    _loaded()
    return _PLAIN[place] if place in _PLAIN else _looked_up(place)


def _looked_up(place: str) -> Any:
    """What lies at module:qualified.name of river's, and was defined there; None if nothing does."""
    module, _, qualified = place.partition(":")
    found: Any = sys.modules.get(module) if _ours(module) else None
    for step in qualified.split("."):
        if not isinstance(found, (type, types.ModuleType)) or not step.isidentifier():
            return None
        found = vars(found).get(step)
        found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    return found if getattr(found, "__module__", None) == module else None
