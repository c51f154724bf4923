"""Slots of the key index: open addressing over parts that lie in separate pieces of memory.

A key k is mixed, h = m ^ (m >> 32) with m = k * golden (mod 2^64), and cut into three:

    bits 54 .. 63   the part (one of 1, or of 256, by the lower 8 of them)
    bits 22 .. 53   a fraction f < 2^32; the home slot is f * capacity >> 32, so a capacity may be any number
    bits  0 .. 3    a tag

A slot is a u32: the tag in its top 4 bits, row + 1 below; 0 is empty. Probing is linear. The tag lets 15 of 16
strangers be passed without reading their keys, each of which would be a cache miss; so parts may be rather full.

A key's own top 10 bits are its segment, of which a shard sees few: hence the mix. Parts are reached through their
addresses; whoever calls keeps the arrays alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "ADDRESS",
    "CAPACITY",
    "REST",
    "ROWS_LIMIT",
    "capacity_of",
    "home_of",
    "mix",
    "next_slot",
    "part_of",
    "probe",
    "row_of",
    "slots_of",
    "strange",
    "tag_of",
]

ROWS_LIMIT = (1 << 28) - 1
"""Rows that 28 bits can number from 1 on."""

ADDRESS, CAPACITY, REST = range(3)
"""Columns of `parts`, i64 (parts, 4); the fourth is not used, so that no part's numbers lie in two cache lines."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROW = np.uint32(ROWS_LIMIT)


@intrinsic
def _slots_at(typing_context: Any, address: Any) -> Any:
    """The u32 slots at an address (u64), as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint32)(types.uint64), generate


@njit(inline="always")
def slots_of(parts, part):  # noqa: ANN001, ANN201 - numba infers types; annotations would only repeat the docstring
    """The slots of a part, as a pointer."""
    return _slots_at(np.uint64(parts[part, ADDRESS]))


@njit(inline="always")
def capacity_of(parts, part):  # noqa: ANN001, ANN201
    """How many slots a part has: u64."""
    return np.uint64(parts[part, CAPACITY])


@njit(inline="always")
def mix(key):  # noqa: ANN001, ANN201
    """The mixed key, from which part, home slot and tag are cut."""
    mixed = key * _GOLDEN
    return mixed ^ (mixed >> np.uint64(32))


@njit(inline="always")
def part_of(mixed, mask):  # noqa: ANN001, ANN201
    """The part; `mask` is the number of parts less one."""
    return (mixed >> np.uint64(54)) & mask


@njit(inline="always")
def home_of(mixed, capacity):  # noqa: ANN001, ANN201
    """The first slot to look at."""
    return (((mixed >> np.uint64(22)) & np.uint64(0xFFFFFFFF)) * capacity) >> np.uint64(32)


@njit(inline="always")
def tag_of(mixed):  # noqa: ANN001, ANN201
    """The tag, in its place."""
    return np.uint32((mixed & np.uint64(15)) << np.uint64(28))


@njit(inline="always")
def strange(word, tag):  # noqa: ANN001, ANN201
    """True if the slot belongs to a key with another tag."""
    return word != 0 and np.uint32(word ^ tag) > _ROW


@njit(inline="always")
def row_of(word):  # noqa: ANN001, ANN201
    """The row of a slot; 0 for an empty one, so that reading its key is harmless."""
    return np.uint64(max(word & _ROW, np.uint32(1)) - np.uint32(1))


@njit(inline="always")
def next_slot(slot, capacity):  # noqa: ANN001, ANN201
    """The slot after this one, around the end of the part."""
    following = slot + np.uint64(1)
    return following if following < capacity else np.uint64(0)


@njit(inline="always")
def probe(slots, capacity, slot, tag, key, keys):  # noqa: ANN001, ANN201
    """(slot, word) of `key` from `slot` on; word 0: it is not there, and this slot is free for it."""
    word = slots[slot]
    while strange(word, tag) or (word != 0 and keys[row_of(word)] != key):
        slot = next_slot(slot, capacity)
        word = slots[slot]
    return slot, word
