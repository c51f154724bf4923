"""Kernels of the key index: look up, give birth, remove, rebuild; index_slots.py says how a slot is found.

`wanted` are keys u64. `parts` is i64 (parts, 4): address, capacity, and the births that the part can still take before
it grows. `state` is i64 (4,): rows ever numbered, first free row + 1 (0: none), free rows, rows reused by this call. A
free row's key holds the next free row + 1.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from learning.index_slots import (
    REST,
    ROWS_LIMIT,
    capacity_of,
    home_of,
    mix,
    next_slot,
    part_of,
    probe,
    row_of,
    slots_of,
    strange,
    tag_of,
)

__all__ = ["address_of", "count_parts", "fill_parts", "find", "live_rows", "locate", "remove"]

_ROW = np.uint32(ROWS_LIMIT)
_BLOCK = 64
"""Lookups whose cache misses are overlapped."""


@njit(inline="always")
def _look(wanted, first, count, parts, mask, keys, words, found):  # noqa: ANN001, ANN202
    """First candidates of wanted[first:first + count]: the word of a slot, and the key of the word's row.

    Loads within a loop do not wait for one another, so that the processor overlaps their cache misses.
    """
    for i in range(count):
        mixed = mix(wanted[first + i])
        part = part_of(mixed, mask)
        words[i] = slots_of(parts, part)[home_of(mixed, capacity_of(parts, part))]
    for i in range(count):
        word, mixed = words[i], mix(wanted[first + i])
        if strange(word, tag_of(mixed)):
            part = part_of(mixed, mask)
            slots, capacity, tag = slots_of(parts, part), capacity_of(parts, part), tag_of(mixed)
            slot = home_of(mixed, capacity)
            while strange(word, tag):
                slot = next_slot(slot, capacity)
                word = slots[slot]
            words[i] = word
    for i in range(count):  # a loop of its own: nothing is guessed wrong between these loads
        found[i] = keys[row_of(words[i])]


@njit(inline="always")
def _birth(key, keys, state, reused):  # noqa: ANN001, ANN202
    """A row for `key`, a free one if there is one; -1: there is no room."""
    if state[1] != 0:
        row = state[1] - 1
        state[1] = np.int64(keys[np.uint64(row)])
        state[2] -= 1
        reused[state[3]] = row
        state[3] += 1
    elif state[0] == len(keys):
        return np.int64(-1)
    else:
        row = state[0]
        state[0] += 1
    keys[np.uint64(row)] = key
    return row


@njit(cache=True, nogil=True, error_model="numpy")
def locate(wanted, start, parts, keys, state, reused, out):  # noqa: ANN001, ANN201
    """Row numbers of wanted[start:] into out, births included; stops early where one needs growth first.

    Returns (position reached, part that is full); -1 instead of a part: `keys` is full. Rows that were free before are
    listed in reused[:state[3]].
    """
    mask = np.uint64(len(parts) - 1)
    words, found = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint64)
    for first in range(start, len(wanted), _BLOCK):
        count = min(_BLOCK, len(wanted) - first)
        _look(wanted, first, count, parts, mask, keys, words, found)
        for i in range(count):
            key, word = wanted[first + i], words[i]
            if word == 0 or found[i] != key:
                mixed = mix(key)  # everything is read again: a birth of this block may have come in between
                part, tag = part_of(mixed, mask), tag_of(mixed)
                slots, capacity = slots_of(parts, part), capacity_of(parts, part)
                slot, word = probe(slots, capacity, home_of(mixed, capacity), tag, key, keys)
                if word == 0:
                    if parts[part, REST] <= 0:
                        return first + i, np.int64(part)
                    row = _birth(key, keys, state, reused)
                    if row < 0:
                        return first + i, np.int64(-1)
                    parts[part, REST] -= 1
                    word = tag | np.uint32(row + 1)
                    slots[slot] = word
            out[first + i] = np.int64(word & _ROW) - 1
    return len(wanted), np.int64(-1)


@njit(cache=True, nogil=True, error_model="numpy")
def find(wanted, parts, keys, out):  # noqa: ANN001, ANN201
    """Row numbers of wanted into out, -1 where there is no such key; returns how many there are not."""
    mask = np.uint64(len(parts) - 1)
    words, found = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint64)
    missing = 0
    for first in range(0, len(wanted), _BLOCK):
        count = min(_BLOCK, len(wanted) - first)
        _look(wanted, first, count, parts, mask, keys, words, found)
        for i in range(count):
            key, word = wanted[first + i], words[i]
            if word != 0 and found[i] != key:
                mixed = mix(key)
                part = part_of(mixed, mask)
                slots, capacity = slots_of(parts, part), capacity_of(parts, part)
                _, word = probe(slots, capacity, home_of(mixed, capacity), tag_of(mixed), key, keys)
            missing += word == 0
            out[first + i] = np.int64(word & _ROW) - 1
    return missing


@njit(cache=True, nogil=True, error_model="numpy")
def remove(rows, parts, keys, state):  # noqa: ANN001, ANN201
    """Take live `rows` (i64, distinct) out of the index, later slots of a run moving back; they become free."""
    mask = np.uint64(len(parts) - 1)
    for i in range(len(rows)):
        key = keys[np.uint64(rows[i])]
        mixed = mix(key)
        part = part_of(mixed, mask)
        slots, capacity = slots_of(parts, part), capacity_of(parts, part)
        hole, _ = probe(slots, capacity, home_of(mixed, capacity), tag_of(mixed), key, keys)
        slot = next_slot(hole, capacity)
        word = slots[slot]
        while word != 0:
            home = home_of(mix(keys[row_of(word)]), capacity)
            # It may move to the hole if its home is not behind the hole, counted around the end of the part.
            if (slot + capacity - home) % capacity >= (slot + capacity - hole) % capacity:
                slots[hole] = word
                hole = slot
            slot = next_slot(slot, capacity)
            word = slots[slot]
        slots[hole] = 0
        parts[part, REST] += 1
        keys[np.uint64(rows[i])] = np.uint64(state[1])
        state[1] = rows[i] + 1
        state[2] += 1


@njit(cache=True)
def address_of(slots):  # noqa: ANN001, ANN201
    """Where an array lies: i64. A tenth of what `ctypes.data` costs in Python, a thousand times at a split."""
    return np.int64(slots.ctypes.data)


@njit(cache=True, nogil=True, error_model="numpy")
def count_parts(words, keys, counts):  # noqa: ANN001, ANN201
    """Add to counts i64 (parts,) the slots `words` (u32; 0: empty) by the part of their keys."""
    mask = np.uint64(len(counts) - 1)
    for j in range(len(words)):
        if words[j] != 0:
            counts[part_of(mix(keys[row_of(words[j])]), mask)] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def fill_parts(words, keys, parts):  # noqa: ANN001, ANN201
    """Put the rows of slots `words` (u32; 0: empty, tags are not read) into parts where none of them is yet."""
    mask = np.uint64(len(parts) - 1)
    taken, mixes = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint64)
    for first in range(0, len(words), _BLOCK):
        count = 0
        for j in range(first, min(first + _BLOCK, len(words))):
            taken[count] = words[j]
            count += words[j] != 0
        for i in range(count):  # cache misses that overlap
            mixes[i] = mix(keys[row_of(taken[i])])
        for i in range(count):
            part = part_of(mixes[i], mask)
            slots, capacity = slots_of(parts, part), capacity_of(parts, part)
            slot = home_of(mixes[i], capacity)
            while slots[slot] != 0:
                slot = next_slot(slot, capacity)
            slots[slot] = tag_of(mixes[i]) | (taken[i] & _ROW)


@njit(cache=True, nogil=True, error_model="numpy")
def live_rows(keys, state):  # noqa: ANN001, ANN201
    """True for each numbered row that is not free: bool (state[0],)."""
    live = np.ones(state[0], np.bool_)
    free = state[1]
    while free != 0:
        live[free - 1] = False
        free = np.int64(keys[np.uint64(free - 1)])
    return live
