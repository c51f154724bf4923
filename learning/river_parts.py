"""Parts of a saved river model that hold nothing else: numbers, generators of random numbers, compiled statistics.

Each maker takes `take`, which gives the bytes at (start, size) of the model's data, and what stands in the node. Sizes
come from the bytes that are there, never from what a node claims.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.river_names import RiverError, known_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Take = Callable[[Any, Any], bytes]

__all__ = ["PARTS"]

_ARGUMENT_MAX = 10_000_000
_ITEM_BYTES_MAX = 8


def _array(take: Take, dtype: Any, shape: Any, order: Any, start: Any, size: Any) -> NDArray[Any]:
    kind, sides = _dtype(dtype), tuple(int(side) for side in shape)
    if order not in {"C", "F"} or any(side < 0 for side in sides):
        raise RiverError(f"{sides} is no shape of an array")
    numbers = np.frombuffer(take(start, size), kind).astype(kind.newbyteorder("="))
    return numbers.reshape(sides, order=order)


def _scalar(take: Take, dtype: Any, start: Any, size: Any) -> Any:
    kind = _dtype(dtype)
    return np.frombuffer(take(start, size), kind).astype(kind.newbyteorder("="))[0]


def _dtype(text: Any) -> np.dtype[Any]:
    kind = np.dtype(str(text))
    if kind.kind not in "biuf" or kind.itemsize > _ITEM_BYTES_MAX:
        raise RiverError(f"{text!r:.20} is no type of numbers that a river model has")
    return kind


def _bytes(take: Take, start: Any, size: Any) -> bytes:
    return take(start, size)


def _unseeded(take: Take) -> random.Random:
    return random.Random(0)


def _random(take: Take, start: Any, size: Any, gauss: Any) -> random.Random:
    words = np.frombuffer(take(start, size), "<u4").tolist()
    made = random.Random(0)
    made.setstate((3, tuple(words), None if gauss is None else float(gauss)))
    return made


def _random_state(take: Take, start: Any, size: Any, place: Any, has_gauss: Any, gauss: Any) -> Any:
    words = np.frombuffer(take(start, size), "<u4").astype(np.uint32)
    if not 0 <= place <= len(words):
        raise RiverError("expected the place of a generator among its numbers")
    made = np.random.RandomState(0)
    made.set_state(("MT19937", words, int(place), int(has_gauss), float(gauss)))
    return made


def _generator(take: Take, state: Any, step: Any, has_uint32: Any, uinteger: Any) -> Any:
    made: Any = np.random.PCG64(0)
    own = {"state": int(state), "inc": int(step)}
    made.state = {
        "bit_generator": "PCG64", "state": own, "has_uint32": int(has_uint32), "uinteger": int(uinteger)
    }  # fmt: skip
    return np.random.Generator(made)


def _compiled(take: Take, place: Any, arguments: Any, start: Any, size: Any) -> Any:
    kind = known_class(place)
    numbers = all(type(x) in {bool, float} or (type(x) is int and abs(x) <= _ARGUMENT_MAX) for x in arguments)
    if not place.startswith("river._river_rust.") or not numbers:
        raise RiverError(f"{place} is no compiled part of river with arguments {arguments!r:.80}")
    made = kind(*arguments)
    try:
        made.__setstate__(take(start, size))
    except BaseException as error:  # river's compiled code panics, which is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise RiverError(f"the bytes of {place} are not those of its state") from error
    return made


PARTS: dict[str, Callable[..., Any]] = {
    "array": _array, "bytes": _bytes, "compiled": _compiled, "generator": _generator, "random": _random,
    "random_state": _random_state, "scalar": _scalar, "unseeded": _unseeded,
}  # fmt: skip
"""By the kind of node."""
