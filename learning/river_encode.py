"""A river model as arrays: its graph of objects as JSON, its numbers as bytes. Nothing is pickled.

The graph is a list of nodes, the model the first. A node is [kind, ...]; what it refers to is a number, a text, true,
false or null as it is, or [i], the i-th node. So shared objects stay shared, cycles are no matter, and no list is
nested deeper than three levels, however deep a tree is. Kinds:

    list, tuple, set, frozenset, dict, ordered, counter, defaultdict, deque     containers of the standard library
    object       [_, class, {attribute: ..}]   an instance of a class of river's: its __dict__ and slots
    enum, method, function, class, partial     of river's, by name
    array, scalar, bytes                       numpy's: type, shape and place of the numbers
    random, random_state, generator            Python's and numpy's generators of random numbers
    unseeded                                   one that nobody seeded and no model draws from
    vector       [_, factory, key, value, ..]  river.utils.VectorDict
    compiled     [_, class, arguments, place]  river's compiled statistics, in the bytes that they give themselves

Whatever else a model may hold is refused, with the way to it: learning/river_expert.py tries it before a job begins.
"""

from __future__ import annotations

import collections
import enum
import functools
import json
import random
import types
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.river_names import RiverError, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["BYTES_MAX", "NODES_MAX", "encoded", "slots_of"]

NODES_MAX = 20_000_000
BYTES_MAX = 2**30
_LISTS: dict[Any, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_DICTS: dict[Any, str] = {dict: "dict", collections.OrderedDict: "ordered", collections.Counter: "counter"}


def encoded(model: object) -> dict[str, NDArray[np.uint8]]:
    """The model as `graph` u8 (JSON in UTF-8) and `data` u8. Raises RiverError, naming the attribute it fails at."""
    return _Encoder().run(model)


def slots_of(kind: type) -> dict[str, Any]:
    """Slots of a class and its bases by name: the descriptors that read and write them."""
    return {
        name: value
        for base in reversed(kind.__mro__)
        for name, value in vars(base).items()
        if isinstance(value, types.MemberDescriptorType)
    }


class _Encoder:
    """One walk over a graph, without recursion."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._places: dict[int, int] = {}
        self._alive: list[object] = []
        """Of each node its object, so that no other gets its id meanwhile."""
        self._ways: list[tuple[int, str]] = []
        """Of each node the one that referred to it first, and how."""
        self._data = bytearray()

    def run(self, model: object) -> dict[str, NDArray[np.uint8]]:
        self._ref(model, -1, type(model).__name__)
        for at, thing in enumerate(self._alive):  # which grows meanwhile
            self._nodes[at] = self._node(thing, at)
        graph = json.dumps(self._nodes, separators=(",", ":")).encode()
        if len(graph) + len(self._data) > BYTES_MAX:
            raise RiverError(f"the model is larger than {BYTES_MAX:,} bytes; bound it by its parameters")
        return {"graph": np.frombuffer(graph, np.uint8), "data": np.frombuffer(bytes(self._data), np.uint8)}

    def _ref(self, value: object, parent: int, way: str) -> Any:
        """How a node refers to `value`."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is frozenset and not value:
            value = _NOTHING  # of which Python may have several, all equal
        at = self._places.get(id(value))
        if at is None:
            at = self._places[id(value)] = len(self._nodes)
            if at >= NODES_MAX:
                raise RiverError(f"the model has more than {NODES_MAX:,} parts; bound it by its parameters")
            self._nodes.append(None)
            self._alive.append(value)
            self._ways.append((parent, way))
        return [at]

    def _refs(self, values: Iterable[object], at: int) -> list[Any]:
        return [self._ref(value, at, f"[{i}]") for i, value in enumerate(values)]

    def _items(self, mapping: Any, at: int) -> list[Any]:
        """Keys and values in turn."""
        out = []
        for key, value in mapping.items():
            out += [self._ref(key, at, ".key"), self._ref(value, at, f"[{key!r:.40}]")]
        return out

    def _way_to(self, at: int) -> str:
        steps: list[str] = []
        while at >= 0:
            at, way = self._ways[at]
            steps.append(way)
        return "".join(reversed(steps))

    def _put(self, data: bytes) -> list[int]:
        start = len(self._data)
        self._data += data
        return [start, len(data)]

    def _node(self, thing: Any, at: int) -> list[Any]:
        kind = type(thing)
        if kind in _LISTS:
            # Texts of a set come in another order in each process: sorted, equal models are equal arrays.
            texts = kind in {set, frozenset} and all(type(item) is str for item in thing)
            return [_LISTS[kind], *self._refs(sorted(thing) if texts else thing, at)]
        if kind in _DICTS:
            return [_DICTS[kind], *self._items(thing, at)]
        if kind is collections.defaultdict:
            factory = self._ref(thing.default_factory, at, ".default_factory")
            return ["defaultdict", factory, *self._items(thing, at)]
        if kind is collections.deque:
            return ["deque", thing.maxlen, *self._refs(thing, at)]
        if kind is bytes:
            return ["bytes", *self._put(thing)]
        if kind is np.ndarray or isinstance(thing, np.generic):
            return self._numbers(thing, at)
        if kind in (random.Random, np.random.RandomState, np.random.Generator):
            return self._random(thing, at)
        if thing is _UNSEEDED:
            return ["unseeded"]
        if isinstance(thing, (type, functools.partial, types.MethodType, *_FUNCTIONS)):
            return self._callable(thing, at)
        return self._object(thing, at)

    def _numbers(self, thing: Any, at: int) -> list[Any]:
        if thing.dtype.kind not in "biuf" or thing.dtype.itemsize > 8:
            raise RiverError(
                f"{self._way_to(at)} is an array of {thing.dtype}, which is not saved; leave it out"
            )
        dtype = thing.dtype.newbyteorder("<")
        if isinstance(thing, np.generic):
            return ["scalar", dtype.str, *self._put(np.asarray(thing, dtype).tobytes())]
        order = "F" if thing.flags.f_contiguous and not thing.flags.c_contiguous else "C"
        return ["array", dtype.str, list(thing.shape), order, *self._put(thing.astype(dtype).tobytes(order))]

    def _random(self, thing: Any, at: int) -> list[Any]:
        if isinstance(thing, random.Random):
            _, words, gauss = thing.getstate()
            return ["random", *self._put(np.array(words, "<u4").tobytes()), gauss]
        if isinstance(thing, np.random.RandomState):
            _, words, place, has_gauss, gauss = thing.get_state(legacy=True)
            return [
                "random_state",
                *self._put(np.array(words, "<u4").tobytes()),
                int(place),
                int(has_gauss),
                float(gauss),
            ]
        state: Any = thing.bit_generator.state
        if state["bit_generator"] != "PCG64":
            raise RiverError(f"{self._way_to(at)} draws by {state['bit_generator']}; only PCG64 is saved")
        own = state["state"]
        return [
            "generator",
            str(own["state"]),
            str(own["inc"]),
            int(state["has_uint32"]),
            int(state["uinteger"]),
        ]

    def _callable(self, thing: Any, at: int) -> list[Any]:
        if type(thing) is functools.partial:
            parts = {".func": thing.func, ".args": thing.args, ".keywords": thing.keywords}
            return ["partial", *(self._ref(part, at, way) for way, part in parts.items())]
        if isinstance(thing, types.MethodType):
            owner, name = thing.__self__, thing.__func__.__name__
            found = getattr(type(owner), name, None)
            if place_of(type(owner)) is not None and found is thing.__func__:
                return ["method", self._ref(owner, at, ".__self__"), name]
        place = place_of(thing)
        if place is None:
            raise RiverError(
                f"{self._way_to(at)} is {thing!r:.80}, which is not of river and is not saved; leave it out"
            )
        return ["class" if isinstance(thing, type) else "function", place]

    def _object(self, thing: Any, at: int) -> list[Any]:
        kind = type(thing)
        place = place_of(kind)
        if place is None or not place.startswith("river."):
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise RiverError(
                f"{self._way_to(at)} is of {name}, which is not of river and is not saved; leave it out"
            )
        if isinstance(thing, enum.Enum):
            return ["enum", place, thing.name]
        if place.startswith("river._river_rust."):
            return self._compiled(thing, place, at)
        odd = next((base for base in kind.__mro__ if not _plain_base(base)), None)
        if odd is not None:
            raise RiverError(
                f"{self._way_to(at)} of {place} is a {odd.__name__}, which is not saved; leave it out"
            )
        values = dict(getattr(thing, "__dict__", {}))
        slots = slots_of(kind)
        values |= {name: slot.__get__(thing) for name, slot in slots.items() if hasattr(thing, name)}
        if place.startswith("river.proba.") and values.get("seed", 0) is None:
            # Each distribution in a tree has a generator of 2.5 kB, seeded by chance, from which no model draws.
            values["_rng"] = _UNSEEDED
        return [
            "object",
            place,
            {name: self._ref(value, at, f".{name}") for name, value in sorted(values.items())},
        ]

    def _compiled(self, thing: Any, place: str, at: int) -> list[Any]:
        if place.endswith(":VectorDict"):
            _, (data, factory, mask, _) = thing.__reduce__()
            if mask is not None:
                raise RiverError(
                    f"{self._way_to(at)} is a vector with a mask, which is not saved; leave it out"
                )
            return ["vector", self._ref(factory, at, ".default_factory"), *self._items(data, at)]
        arguments = thing.__getnewargs__() if hasattr(thing, "__getnewargs__") else ()
        return ["compiled", place, list(arguments), *self._put(bytes(thing.__getstate__()))]


_UNSEEDED, _NOTHING = object(), frozenset[object]()
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
_BASES = {"abc", "collections.abc", "typing", "_collections_abc"}


def _plain_base(base: type) -> bool:
    """Whether instances keep all that is in them in __dict__ and slots."""
    if base in (object, collections.UserList, collections.UserDict) or base.__module__ in _BASES:
        return True
    return base.__module__.startswith("river.") and not base.__module__.startswith("river._river_rust")
