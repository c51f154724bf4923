"""JSON records to columns, compiled: many messages in one buffer, record after record, without strings or dicts.

It takes a plain, strictly valid subset of what cluster/json_records.py takes: no backslash escapes, no nested values,
no repeated names, numbers that cluster/json_numbers.py rounds with certainty. A record outside of it, good or bad,
only gets the status SLOW and is left to the judge; nothing is refused here, so nothing can be refused by mistake.

Buffer: u8, the messages one after another, a zero byte after each and 16 more at the end. No scanner passes a zero
byte (it is no part of any token), so none needs to compare its place with the end of the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from cluster.json_numbers import iso_time, number
from cluster.json_records import AS_CATEGORICAL, AS_FOUND, AS_NUMERIC, FLOAT32_ABOVE_0, FLOAT32_BOUND, IGNORED
from cluster.json_tokens import FALSE, NULL, QUOTE, TRUE, literal, pointer, same, skip_space, string_end, word
from learning.keys import xxh64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEATURES_MAX", "Columns", "Names", "Overrides", "parse"]

FEATURES_MAX = 4096
"""Features of one record that the kernel keeps apart; a record with more is slow."""

_SLOTS = 4 * FEATURES_MAX
_FEATURES, _LABEL, _WEIGHT, _ID, _TIME, _UNKNOWN = 1, 2, 4, 8, 16, 32
_COMMA, _COLON, _OPEN, _CLOSE, _MINUS, _DOT, _ZERO, _NINE = 44, 58, 123, 125, 45, 46, 48, 57
_SEED = np.uint64(0)
_WHOLE_BOUND = 2.0**53  # below it, the text of a whole number is its digits
_WORDS = tuple(np.uint64(int.from_bytes(name, "little")) for name in (b"features", b"label", b"weight", b"id", b"ts"))


class Columns(NamedTuple):
    """What `parse` fills: entries one after another, and one element a record for the rest."""

    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    numeric: NDArray[np.uint8]
    ends: NDArray[np.int64]  # end of the record's entries; equal to the end before it where the record is slow
    labels: NDArray[np.float64]
    weights: NDArray[np.float64]
    times_s: NDArray[np.float64]
    id_starts: NDArray[np.int64]  # place of the id's text in the buffer
    id_ends: NDArray[np.int64]  # equal to its start where there is none
    slow: NDArray[np.uint8]


class Names(NamedTuple):
    """The feature names of the latest record, in order: most records repeat them, and need not hash or compare them.

    Name j is data[starts[j]:starts[j] + sizes[j]]; the first count[0] are valid and distinct.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    keys: NDArray[np.uint64]
    kinds: NDArray[np.uint8]
    count: NDArray[np.int64]
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
    """Features whose kind the pipeline gives, by name key in ascending order, and the range of labels."""

    keys: NDArray[np.uint64]
    kinds: NDArray[np.uint8]
    count: int
    label_min: float
    label_max: float


@njit(cache=True, nogil=True, error_model="numpy")
def _override(overrides, key):  # noqa: ANN001, ANN202 - numba infers types; annotations would only repeat the docstring
    """The kind that the pipeline gives to the feature of this name key."""
    low, high = 0, overrides.count
    while low < high:
        middle = (low + high) // 2
        if overrides.keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    found = low < overrides.count and overrides.keys[low] == key
    return np.int64(overrides.kinds[low]) if found else AS_FOUND


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
def _put(out, entry, key, value, numeric):  # noqa: ANN001, ANN202
    """Write an entry; returns the place of the next one."""
    out.keys[entry] = key
    out.values[entry] = np.float32(value)
    out.numeric[entry] = numeric
    return entry + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _number_entry(data, at, key, kind, out, entry):  # noqa: ANN001, ANN202
    """Read a feature's number at `at`: (end, next entry)."""
    end, value, whole = number(data, at)
    if end < 0 or kind == IGNORED:
        return end, entry
    if not abs(value) < FLOAT32_BOUND:
        return -1, entry
    if kind != AS_CATEGORICAL:
        return end, _put(out, entry, key, value, True)
    text_end = end
    if not whole and data[end - 2] == _DOT and data[end - 1] == _ZERO and value != 0.0:
        whole, text_end = True, end - 2  # 3.0 is the category "3"
    if not whole or abs(value) >= _WHOLE_BOUND:
        return -1, entry
    return end, _put(out, entry, xxh64(data, at, text_end - at, key), 1.0, False)


@njit(cache=True, nogil=True, error_model="numpy")
def _entry(data, at, key, kind, out, entry):  # noqa: ANN001, ANN202
    """Read a feature's value at `at`: (end, next entry)."""
    if data[at] == QUOTE:
        end = string_end(data, at + 1)
        if end < 0 or kind == AS_NUMERIC:
            return -1, entry
        if kind == IGNORED:
            return end + 1, entry
        return end + 1, _put(out, entry, xxh64(data, at + 1, end - at - 1, key), 1.0, False)
    if data[at] == _MINUS or _ZERO <= data[at] <= _NINE:
        return _number_entry(data, at, key, kind, out, entry)
    end, which = literal(data, at)
    if end < 0 or which == NULL or kind == IGNORED:
        return end, entry
    if kind == AS_CATEGORICAL:
        return end, _put(out, entry, xxh64(data, at, end - at, key), 1.0, False)
    return end, _put(out, entry, key, 1.0 if which == TRUE else 0.0, True)


@njit(cache=True, nogil=True, error_model="numpy")
def _name(data, at, j, names, overrides):  # noqa: ANN001, ANN202
    """Read the name at `at` (after its quote), the record's j-th, into `names`; the place of its closing quote."""
    end = string_end(data, at)
    if end >= 0:
        names.count[0] = min(names.count[0], j)
        key = xxh64(data, at, end - at, _SEED)
        names.starts[j], names.sizes[j], names.keys[j] = at, end - at, key
        names.kinds[j] = _override(overrides, key)
    return end


@njit(cache=True, nogil=True, error_model="numpy")
def _features(data, at, stamp, out, entry, names, overrides):  # noqa: ANN001, ANN202
    """Read the features' object after its brace: (end, next entry)."""
    at = skip_space(data, at)
    if data[at] == _CLOSE:
        return at + 1, entry
    for j in range(FEATURES_MAX):
        if data[at] != QUOTE:
            return -1, entry
        at += 1
        end = at + names.sizes[j]
        # `same` first: it never leaves the message, whereas `end` may lie outside of the buffer.
        if j >= names.count[0] or not same(data, at, names.starts[j], names.sizes[j]) or data[end] != QUOTE:
            end = _name(data, at, j, names, overrides)
        at = skip_space(data, end + 1)
        if end < 0 or data[at] != _COLON:
            return -1, entry
        at, entry = _entry(data, skip_space(data, at + 1), names.keys[j], names.kinds[j], out, entry)
        if at < 0:
            return -1, entry
        at = skip_space(data, at)
        if data[at] == _CLOSE:
            if names.count[0] <= j and not _distinct(names, j + 1, stamp):
                return -1, entry
            names.count[0] = max(names.count[0], j + 1)
            return at + 1, entry
        if data[at] != _COMMA:
            return -1, entry
        at = skip_space(data, at + 1)
    return -1, entry


@njit(cache=True, nogil=True, error_model="numpy")
def _field(name):  # noqa: ANN001, ANN202
    """Which top-level field a name of at most eight bytes is."""
    field = 1
    for known in _WORDS:
        if name == known:
            return field
        field *= 2
    return _UNKNOWN


@njit(cache=True, nogil=True, error_model="numpy")
def _take_number(data, at, field, i, out, overrides):  # noqa: ANN001, ANN202
    """Read record i's label, weight, id or time, given as a number; its end."""
    end, value, whole = number(data, at)
    fits = end >= 0
    if field == _LABEL:
        out.labels[i] = value
        fits &= overrides.label_min <= value <= overrides.label_max and abs(value) < FLOAT32_BOUND
    elif field == _WEIGHT:
        out.weights[i] = value
        fits &= FLOAT32_ABOVE_0 < value < FLOAT32_BOUND
    elif field == _ID:
        out.id_starts[i], out.id_ends[i] = at, end
        fits &= whole
    elif field == _TIME:
        out.times_s[i] = value
    return end if fits else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _take(data, at, field, i, out, overrides):  # noqa: ANN001, ANN202
    """Read record i's label, weight, id, time or something unknown; its end."""
    if data[at] == _MINUS or _ZERO <= data[at] <= _NINE:
        return _take_number(data, at, field, i, out, overrides)
    if data[at] != QUOTE:
        end, which = literal(data, at)
        if field == _LABEL and which != NULL:
            out.labels[i] = 1.0 if which == TRUE else 0.0
            return end if overrides.label_min <= out.labels[i] <= overrides.label_max else -1
        return end if field == _UNKNOWN or (which == NULL and field != _LABEL) else -1
    end = string_end(data, at + 1)
    if end < 0 or field == _LABEL or field == _WEIGHT:
        return -1
    if field == _ID:
        out.id_starts[i], out.id_ends[i] = at + 1, end
    if field == _TIME:
        read, out.times_s[i] = iso_time(data, at + 1, end)
        return end + 1 if read >= 0 else -1
    return end + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _record(data, at, i, out, entry, names, overrides):  # noqa: ANN001, ANN202
    """Read record i at `at`: (end, next entry)."""
    seen = 0
    out.weights[i], out.times_s[i], out.id_starts[i], out.id_ends[i] = 1.0, np.nan, 0, 0
    at = skip_space(data, at)
    if data[at] != _OPEN:
        return -1, entry
    at = skip_space(data, at + 1)
    while data[at] == QUOTE:
        end = string_end(data, at + 1)
        field = _field(word(data, at + 1, end - at - 1)) if end - at <= 9 else _UNKNOWN
        at = skip_space(data, end + 1)
        if end < 0 or data[at] != _COLON or seen & field & ~_UNKNOWN:
            return -1, entry
        seen |= field
        at = skip_space(data, at + 1)
        if field == _FEATURES and data[at] == _OPEN:
            at, entry = _features(data, at + 1, i, out, entry, names, overrides)
        else:
            at = _take(data, at, field, i, out, overrides) if field != _FEATURES else -1
        if at < 0:
            return -1, entry
        at = skip_space(data, at)
        if data[at] == _CLOSE:
            complete = seen & (_FEATURES | _LABEL) == _FEATURES | _LABEL
            return skip_space(data, at + 1) if complete else -1, entry
        if data[at] != _COMMA:
            return -1, entry
        at = skip_space(data, at + 1)
    return -1, entry


@njit(cache=True, nogil=True, error_model="numpy")
def parse(data, starts, sizes, columns, names, overrides):  # noqa: ANN001, ANN201
    """Read all messages data[starts[i]:starts[i] + sizes[i]] into `columns`; returns the number of entries."""
    memory = pointer(data)
    out = Columns(
        pointer(columns.keys), pointer(columns.values), pointer(columns.numeric), pointer(columns.ends),
        pointer(columns.labels), pointer(columns.weights), pointer(columns.times_s),
        pointer(columns.id_starts), pointer(columns.id_ends), pointer(columns.slow),
    )  # fmt: skip
    seen = Names(
        pointer(names.starts), pointer(names.sizes), pointer(names.keys), pointer(names.kinds),
        pointer(names.count), pointer(names.slots), pointer(names.stamps),
    )  # fmt: skip
    given = Overrides(
        pointer(overrides.keys), pointer(overrides.kinds), overrides.count, overrides.label_min, overrides.label_max
    )
    entry = 0
    for i in range(len(starts)):
        end, after = _record(memory, starts[i], i, out, entry, seen, given)
        out.slow[i] = end != starts[i] + sizes[i]
        if not out.slow[i]:
            entry = after
        out.ends[i] = entry
    return entry
