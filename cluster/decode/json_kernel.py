"""JSON records to columns, compiled: many messages in one buffer, record after record, without strings or dicts.

It takes a plain, strictly valid subset of what json_records.py takes: no nested values, no repeated names, no
escapes but in features, numbers that json_numbers.py rounds with certainty. A record outside of it, good or
bad, only gets the status slow and is left to the judge; nothing is refused here, so nothing is refused by mistake.

Buffer: u8, the messages one after another, a zero byte after each and 16 more at the end. No scanner passes a zero
byte (it is no part of any token), so none needs to compare its place with the end of the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from cluster.decode.json_features import Names, Overrides, has_roles, read_features
from cluster.decode.json_numbers import iso_time, number
from cluster.decode.json_tokens import NULL, QUOTE, TRUE, literal, pointer, skip_space, string_end, word
from cluster.decode.record_rules import FLOAT32_ABOVE_0, FLOAT32_BOUND

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Columns", "parse"]

_FEATURES, _LABEL, _WEIGHT, _ID, _TIME, _UNKNOWN = 1, 2, 4, 8, 16, 32
_COMMA, _COLON, _OPEN, _CLOSE, _MINUS, _ZERO, _NINE = 44, 58, 123, 125, 45, 48, 57
_WORDS = tuple(
    np.uint64(int.from_bytes(name, "little")) for name in (b"features", b"label", b"weight", b"id", b"ts")
)


class Columns(NamedTuple):
    """What `parse` fills: entries one after another, and one element a record for the rest."""

    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    kinds: NDArray[np.uint8]
    features: NDArray[np.uint64]  # empty if not wanted
    ends: NDArray[
        np.int64
    ]  # end of the record's entries; equal to the end before it where the record is slow
    labels: NDArray[np.float64]
    weights: NDArray[np.float64]
    times_s: NDArray[np.float64]
    id_starts: NDArray[np.int64]  # place of the id's text in the buffer
    id_ends: NDArray[np.int64]  # equal to its start where there is none
    text_starts: NDArray[np.int64]  # (records, texts): places of the texts that are noted (Rules.texts)
    text_ends: NDArray[np.int64]  # 0 where a text is missing
    slow: NDArray[np.uint8]
    scratch: NDArray[np.uint8]  # room for the longest message
    unescaped: NDArray[np.uint8]  # the noted texts that had escapes; places behind the buffer's end
    filled: NDArray[np.int64]  # where the next one comes, and the buffer's end


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
    if end < 0 or field & (_LABEL | _WEIGHT):
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
            first = entry
            at, entry = read_features(data, at + 1, i, out, first, names, overrides)
            at = at if has_roles(out, first, entry, overrides) else -1
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
        pointer(columns.keys), pointer(columns.values), pointer(columns.kinds), pointer(columns.features),
        pointer(columns.ends), pointer(columns.labels), pointer(columns.weights), pointer(columns.times_s),
        pointer(columns.id_starts), pointer(columns.id_ends), pointer(columns.text_starts),
        pointer(columns.text_ends), pointer(columns.slow), pointer(columns.scratch), pointer(columns.unescaped),
        pointer(columns.filled),
    )  # fmt: skip
    seen = Names(
        pointer(names.starts), pointer(names.sizes), pointer(names.keys), pointer(names.hows),
        pointer(names.filled), pointer(names.slots), pointer(names.stamps),
    )  # fmt: skip
    given = Overrides(
        pointer(overrides.keys),
        pointer(overrides.hows),
        overrides.size,
        overrides.roles,
        overrides.texts,
        overrides.slice_key,
        overrides.wants_features,
        overrides.label_min,
        overrides.label_max,
    )
    entry = 0
    for i in range(len(starts)):
        end, after = _record(memory, starts[i], i, out, entry, seen, given)
        out.slow[i] = end != starts[i] + sizes[i]
        if not out.slow[i]:
            entry = after
        out.ends[i] = entry
    return entry
