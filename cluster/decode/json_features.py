"""The features of one JSON record to entries, compiled: a number, text or literal under each name.

`out` is a json_kernel.Columns of pointers; entries are written to its `keys`, `values` and `kinds`. What is not
plain is refused with an end of -1 and left to the judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from cluster.decode.json_escapes import unescape
from cluster.decode.json_numbers import number
from cluster.decode.json_tokens import NULL, QUOTE, TRUE, literal, same, skip_space, string_end
from cluster.decode.record_rules import (
    AS_CATEGORICAL,
    AS_FOUND,
    AS_NUMERIC,
    AS_ROLE,
    FLOAT32_BOUND,
    IGNORED,
    category_kind,
)
from learning.batch import NUMBER, ROLE_FIRST
from learning.keys import xxh64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEATURES_MAX", "Names", "Overrides", "has_roles", "read_features"]

FEATURES_MAX = 4096
"""Features of one record that the kernel keeps apart; a record with more is slow."""

_SLOTS = 4 * FEATURES_MAX
_COMMA, _COLON, _CLOSE, _MINUS, _DOT, _ZERO, _NINE = 44, 58, 125, 45, 46, 48, 57
_SEED = np.uint64(0)
_WHOLE_BOUND = 2.0**53  # below it, the text of a whole number is its digits


class Names(NamedTuple):
    """The feature names of the latest record, in order: most records repeat them, and need not hash or compare them.

    Name j is data[starts[j]:starts[j] + sizes[j]]; the first filled[0] are valid and distinct.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    keys: NDArray[np.uint64]
    hows: NDArray[np.uint8]
    filled: NDArray[np.int64]
    slots: NDArray[np.uint64]
    stamps: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Names:
        """Room for FEATURES_MAX names."""
        n = FEATURES_MAX
        return cls(
            np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.uint64), np.zeros(n, np.uint8),
            np.zeros(1, np.int64), np.zeros(_SLOTS, np.uint64), np.full(_SLOTS, -1, np.int64),
        )  # fmt: skip


class Overrides(NamedTuple):
    """How named features are read, by name key in ascending order; the number of roles, of a record's texts that are
    noted (Rules.texts), and the range of labels.
    """

    keys: NDArray[np.uint64]
    hows: NDArray[np.uint8]
    size: int
    roles: int
    texts: int
    slice_key: np.uint64
    wants_features: bool
    label_min: float
    label_max: float


_category_kind = njit(category_kind)


@njit(cache=True, nogil=True, error_model="numpy")
def _override(overrides, key):  # noqa: ANN001, ANN202 - numba infers types
    """How the feature of this name key is read."""
    low, high = 0, overrides.size
    while low < high:
        middle = (low + high) // 2
        if overrides.keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    found = low < overrides.size and overrides.keys[low] == key
    return np.int64(overrides.hows[low]) if found else AS_FOUND


@njit(cache=True, nogil=True, error_model="numpy")
def _distinct(names, count, stamp):  # noqa: ANN001, ANN202
    """Whether the first `count` name keys differ; `stamp` is a number that no earlier call used."""
    for j in range(count):
        slot = np.int64(names.keys[j] & np.uint64(_SLOTS - 1))
        while names.stamps[slot] == stamp:  # ends: at most a quarter of the slots is taken
            if names.slots[slot] == names.keys[j]:
                return False
            slot = (slot + 1) % _SLOTS
        names.stamps[slot] = stamp
        names.slots[slot] = names.keys[j]
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _put(out, entry, key, value, kind):  # noqa: ANN001, ANN202
    """Write an entry; returns the place of the next one."""
    out.keys[entry] = key
    out.values[entry] = np.float32(value)
    out.kinds[entry] = kind
    return entry + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _text_key(data, at, seed, out):  # noqa: ANN001, ANN202
    """Hash the string whose first byte is at `at`: (place of its closing quote, key, its size in `scratch` or -1)."""
    end = string_end(data, at)
    if end >= 0:
        return end, xxh64(data, at, end - at, seed), -1
    end, size = unescape(data, at, out.scratch)
    return end, xxh64(out.scratch, 0, size, seed), size


@njit(cache=True, nogil=True, error_model="numpy")
def _place(overrides, key, how, i):  # noqa: ANN001, ANN202
    """Which place among the texts is for record i's text of the feature of this name key; -1 if it is not noted."""
    if overrides.texts and how >= AS_ROLE:
        return i * overrides.texts + how - AS_ROLE
    own = overrides.roles < overrides.texts and key == overrides.slice_key
    return i * overrides.texts + overrides.roles if own else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _note(out, place, start, end, size):  # noqa: ANN001, ANN202
    """Note where a text is: data[start:end], or, if it has a `size`, in `scratch`, from where it is copied."""
    if place < 0:
        return
    if size >= 0:
        start = out.filled[0]
        end = start + size
        for i in range(size):
            out.unescaped[start - out.filled[1] + i] = out.scratch[i]
        out.filled[0] = end
    out.text_starts[place], out.text_ends[place] = start, end


@njit(cache=True, nogil=True, error_model="numpy")
def _number_entry(data, at, key, how, out, entry, place):  # noqa: ANN001, ANN202
    """Read a feature's number at `at`: (end, next entry)."""
    end, value, whole = number(data, at)
    if end < 0 or how == IGNORED:
        return end, entry
    if not abs(value) < FLOAT32_BOUND:
        return -1, entry
    if how < AS_CATEGORICAL:
        return end, _put(out, entry, key, value, NUMBER)
    text_end = end
    if not whole and data[end - 2] == _DOT and data[end - 1] == _ZERO and value != 0.0:
        whole, text_end = True, end - 2  # 3.0 is the category "3"
    if not whole or abs(value) >= _WHOLE_BOUND:
        return -1, entry
    _note(out, place, at, text_end, -1)
    return end, _put(out, entry, xxh64(data, at, text_end - at, key), 1.0, _category_kind(how))


@njit(cache=True, nogil=True, error_model="numpy")
def _entry(data, at, key, how, out, entry, place):  # noqa: ANN001, ANN202
    """Read a feature's value at `at`: (end, next entry). `place`: that of its text, or -1."""
    if data[at] == QUOTE:
        end, hashed, size = _text_key(data, at + 1, key, out)
        if end < 0 or how == AS_NUMERIC:
            return -1, entry
        _note(out, place, at + 1, end, size)
        return end + 1, entry if how == IGNORED else _put(out, entry, hashed, 1.0, _category_kind(how))
    if data[at] == _MINUS or _ZERO <= data[at] <= _NINE:
        return _number_entry(data, at, key, how, out, entry, place)
    end, which = literal(data, at)
    if end < 0 or which == NULL or how == IGNORED:
        return end, entry
    if how >= AS_CATEGORICAL:
        _note(out, place, at, end, -1)
        return end, _put(out, entry, xxh64(data, at, end - at, key), 1.0, _category_kind(how))
    return end, _put(out, entry, key, 1.0 if which == TRUE else 0.0, NUMBER)


@njit(cache=True, nogil=True, error_model="numpy")
def _name(data, at, j, out, names, overrides):  # noqa: ANN001, ANN202
    """Read the name at `at` (after its quote), the record's j-th, into `names`; the place of its closing quote."""
    end, key, _ = _text_key(data, at, _SEED, out)
    if end >= 0:
        names.filled[0] = min(names.filled[0], j)
        names.starts[j], names.sizes[j], names.keys[j] = at, end - at, key
        names.hows[j] = _override(overrides, key)
    return end


@njit(cache=True, nogil=True, error_model="numpy")
def has_roles(out, first, last, overrides):  # noqa: ANN001, ANN201
    """Whether there is an entry of each role among a record's entries first:last, whose names differ."""
    found = 0
    for entry in range(first, last if overrides.roles else first):
        found += out.kinds[entry] >= ROLE_FIRST
    return found == overrides.roles


@njit(cache=True, nogil=True, error_model="numpy")
def read_features(data, at, stamp, out, entry, names, overrides):  # noqa: ANN001, ANN201
    """Read the features' object after its brace: (end, next entry); `stamp` is the record's number."""
    at = skip_space(data, at)
    if data[at] == _CLOSE:
        return at + 1, entry
    for j in range(FEATURES_MAX):
        if data[at] != QUOTE:
            return -1, entry
        at += 1
        end = at + names.sizes[j]
        # `same` first: it never leaves the message, whereas `end` may lie outside of the buffer.
        if j >= names.filled[0] or not same(data, at, names.starts[j], names.sizes[j]) or data[end] != QUOTE:
            end = _name(data, at, j, out, names, overrides)
        at = skip_space(data, end + 1)
        if end < 0 or data[at] != _COLON:
            return -1, entry
        key, how = names.keys[j], names.hows[j]
        place = _place(overrides, key, how, stamp)
        at, after = _entry(data, skip_space(data, at + 1), key, how, out, entry, place)
        if at < 0:
            return -1, entry
        if overrides.wants_features and after > entry:
            out.features[entry] = key
        entry = after
        at = skip_space(data, at)
        if data[at] == _CLOSE:
            if names.filled[0] <= j and not _distinct(names, j + 1, stamp):
                return -1, entry
            names.filled[0] = max(names.filled[0], j + 1)
            return at + 1, entry
        if data[at] != _COMMA:
            return -1, entry
        at = skip_space(data, at + 1)
    return -1, entry
