"""The way back from learning/river_encode.py: builds river's classes and plain containers, and runs nothing else.

What is read may be damaged or hostile: every name is looked up among river's (learning/river_names.py), instances are
made without calling their class, numbers are taken from what is really there, and lengths are bounded by it. Mutable
things are made empty first and filled when all are there, so cycles are no matter; immutable ones are nested only so
deep. Tuples that share tuples are as large, to whoever hashes them, as if nothing were shared, which doubles with each
level; so parts are counted as often as they are met, and bounded, most of all in keys.
"""

from __future__ import annotations

import collections
import enum
import functools
import json
import types
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.river_encode import BYTES_MAX, NODES_MAX, slots_of
from learning.river_names import RiverError, known_class, known_function
from learning.river_parts import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["decoded"]

_NESTED_MAX = 200
_PARTS_MAX = 100_000
"""Of a tuple or frozenset, counted as often as they are met."""
_KEY_PARTS_MAX = 256
"""Of what is hashed while a model is read."""
_MAPPINGS: dict[str, Any] = {"dict": dict, "ordered": collections.OrderedDict, "counter": collections.Counter}
_SCALARS = (bool, int, float, str)
_MUTABLE: dict[Any, Any] = {**_MAPPINGS, "list": list, "set": set}
_DAMAGE = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


def decoded(arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The model that gave `arrays`. Raises RiverError for anything that is not such a model."""
    if set(arrays) != {"graph", "data"}:
        raise RiverError(f"expected the arrays graph and data of a river model, got {sorted(arrays)}")
    for name, array in arrays.items():
        if array.dtype != np.uint8 or array.ndim != 1 or len(array) > BYTES_MAX:
            raise RiverError(
                f"expected {name} as bytes, at most {BYTES_MAX:,}, got {array.dtype} {array.shape}"
            )
    try:
        nodes = json.loads(arrays["graph"].tobytes())
    except (ValueError, RecursionError) as error:
        raise RiverError(f"the graph of a river model is not JSON: {error}") from error
    if not isinstance(nodes, list) or not 0 < len(nodes) <= NODES_MAX:
        raise RiverError(f"expected a list of 1 to {NODES_MAX:,} nodes as the graph of a river model")
    try:
        return _Decoder(nodes, arrays["data"].tobytes()).run()
    except RiverError:
        raise
    except _DAMAGE as error:
        raise RiverError(f"the graph of a river model is damaged: {error!r:.200}") from error


class _Decoder:
    """One graph; `_things` are what its nodes became, `_MISSING` until then."""

    def __init__(self, nodes: list[Any], data: bytes) -> None:
        self._nodes = nodes
        self._data = data
        self._things: list[Any] = [_MISSING] * len(nodes)
        self._parts: dict[int, int] = {}
        """How many parts a tuple or frozenset has, by node."""
        self._nested = 0

    def run(self) -> Any:
        for at in range(len(self._nodes)):
            self._get([at])
        # Attributes come first, and what is hashed last: a key's hash may depend on its attributes.
        for kinds in ({"object"}, {"list", "deque"}, {"set", "vector", "defaultdict", *_MAPPINGS}):
            for at, node in enumerate(self._nodes):
                if node[0] in kinds:
                    self._fill(self._things[at], node)
        return self._things[0]

    def _get(self, ref: Any) -> Any:
        """What a reference means; what is mutable may still be empty."""
        if ref is None or type(ref) in _SCALARS:
            return ref
        one = type(ref) is list and len(ref) == 1 and type(ref[0]) is int
        if not one or not 0 <= ref[0] < len(self._nodes):
            raise RiverError(f"{ref!r:.60} refers to no part of a river model")
        at = ref[0]
        if self._things[at] is _MISSING:
            node = self._nodes[at]
            if not isinstance(node, list) or not node or not isinstance(node[0], str):
                raise RiverError(f"{node!r:.60} is no part of a river model")
            self._nested += 1
            if self._nested > _NESTED_MAX:
                raise RiverError(f"a river model nests more than {_NESTED_MAX} parts that cannot change")
            self._things[at] = self._made(node)
            self._nested -= 1
            if node[0] in {"tuple", "frozenset"}:
                self._parts[at] = 1 + sum(self._parts_of(part) for part in node[1:])
                if self._parts[at] > _PARTS_MAX:
                    raise RiverError(
                        f"a {node[0]} in a river model has more than {_PARTS_MAX:,} parts, counted as often as met"
                    )
        return self._things[at]

    def _parts_of(self, ref: Any) -> int:
        return self._parts.get(ref[0], 1) if isinstance(ref, list) else 1

    def _key(self, ref: Any) -> Any:
        """What a reference means, to be hashed."""
        found = self._get(ref)
        if self._parts_of(ref) > _KEY_PARTS_MAX:
            raise RiverError(
                f"a key or member in a river model has more than {_KEY_PARTS_MAX} parts, counted as often as met"
            )
        return found

    def _made(self, node: list[Any]) -> Any:
        """The thing of a node, empty if it is mutable."""
        kind, *args = node
        if kind in _MUTABLE:
            return _MUTABLE[kind]()
        if kind in PARTS:
            return PARTS[kind](self._take, *args)
        match kind:
            case "tuple":
                return tuple(self._get(ref) for ref in args)
            case "frozenset":
                return frozenset(self._key(ref) for ref in args)
            case "defaultdict":
                return collections.defaultdict(self._factory(args[0]))
            case "deque":
                return collections.deque(maxlen=args[0])
            case "object":
                return _empty_object(*args)
            case "enum":
                return _member(*args)
            case "class":
                return known_class(*args)
            case "function":
                return known_function(*args)
            case "method":
                return _method(self._get(args[0]), args[1])
            case "partial":
                return _partial(*(self._get(ref) for ref in args))
            case "vector":
                vector: Any = known_class("river._river_rust.vectordict:VectorDict")
                return vector(None, self._factory(args[0]))
        raise RiverError(f"{kind!r:.60} is no kind of part of a river model")

    def _fill(self, thing: Any, node: list[Any]) -> None:
        kind = node[0]
        if kind == "object":
            _set_attributes(thing, {name: self._get(ref) for name, ref in node[2].items()})
        elif kind in {"list", "deque"}:
            thing.extend(self._get(ref) for ref in node[1 if kind == "list" else 2 :])
        elif kind == "set":
            thing.update(self._key(ref) for ref in node[1:])
        elif kind == "vector":
            for key, value in self._pairs(node[2:]):
                thing[key] = value
        else:
            for key, value in self._pairs(node[2 if kind == "defaultdict" else 1 :]):
                dict.__setitem__(thing, key, value)

    def _pairs(self, refs: list[Any]) -> Iterator[tuple[Any, Any]]:
        return ((self._key(key), self._get(value)) for key, value in zip(refs[::2], refs[1::2], strict=True))

    def _take(self, start: Any, size: Any) -> bytes:
        numbers = type(start) is int and type(size) is int
        if not numbers or not 0 <= start <= start + size <= len(self._data):
            raise RiverError("a part of a river model refers to bytes that are not there")
        return self._data[start : start + size]

    def _factory(self, ref: Any) -> Any:
        found = self._get(ref)
        if found is not None and not callable(found):
            raise RiverError("the default of a mapping in a river model is nothing that can be called")
        return found


def _empty_object(place: Any, attributes: Any) -> Any:
    kind = known_class(place)
    if not isinstance(attributes, dict) or not place.startswith("river.") or issubclass(kind, enum.Enum):
        raise RiverError(f"{place} is no class of river whose parts could be set")
    return object.__new__(kind)


def _member(place: Any, name: Any) -> Any:
    kind: Any = known_class(place)
    if not issubclass(kind, enum.Enum):
        raise RiverError(f"{place} is no enumeration of river")
    return kind[name]


def _method(owner: Any, name: Any) -> Any:
    found = getattr(type(owner), name)
    if not type(owner).__module__.startswith("river.") or not isinstance(found, types.FunctionType):
        raise RiverError(f"{name} is no method of a part of river")
    return types.MethodType(found, owner)


def _partial(function: Any, own: Any, named: Any) -> Any:
    if not callable(function) or type(own) is not tuple or type(named) is not dict:
        raise RiverError("expected a partial as a function, arguments and named arguments")
    made: Any = functools.partial(function, *own)
    # Named arguments are filled later, so they are set as the very dictionary that they are.
    made.__setstate__((function, own, named, None))
    return made


_MISSING = object()


def _set_attributes(thing: Any, values: dict[str, Any]) -> None:
    """Set them as they are, past properties and __setattr__."""
    slots = slots_of(type(thing))
    for name, value in values.items():
        if name in slots:
            slots[name].__set__(thing, value)
        elif name.isidentifier() and not name.startswith("__"):
            thing.__dict__[name] = value
        else:
            raise RiverError(f"{name!r:.60} is no attribute of a part of river")
