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
from learning.keys import xxh64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEATURES_MAX", "Columns", "Names", "Overrides", "parse"]

FEATURES_MAX = 8192
"""Features of one record that the kernel keeps apart; a record with more is slow."""

_SLOTS = 4 * FEATURES_MAX
_FEATURES, _LABEL, _WEIGHT, _ID, _TIME, _UNKNOWN = 1, 2, 4, 8, 16, 32
_QUOTE, _COMMA, _COLON, _OPEN, _CLOSE, _BACKSLASH, _MINUS = 34, 44, 58, 123, 125, 92, 45
_SEED = np.uint64(0)
_WHOLE_MAX = 2.0**53


class Columns(NamedTuple):
    """What `parse` fills: entries one after another, and one element a record for the rest."""

    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    numeric: NDArray[np.bool_]
    ends: NDArray[np.int64]  # end of the record's entries; equal to the end before it where the record is slow
    labels: NDArray[np.float64]
    weights: NDArray[np.float64]
    times_s: NDArray[np.float64]
    ids: NDArray[np.int64]  # (n, 2): start and end of the id's text in the buffer; equal where there is none
    slow: NDArray[np.bool_]


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
    label_min: float
    label_max: float


@njit(cache=True, nogil=True, error_model="numpy")
def _space(data, at):  # noqa: ANN001, ANN202 - numba infers types; annotations would only repeat the docstring
    """The place of the first byte from `at` on that is not white space."""
    while data[at] <= 32 and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def _utf8(data, at):  # noqa: ANN001, ANN202
    """The end of the character of two to four bytes at `at` (RFC 3629), or -1."""
    lead = data[at]
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    low, high = 0x80, 0xBF
    if lead < 0xC2 or lead > 0xF4:
        return -1
    if lead == 0xE0:
        low = 0xA0  # no overlong forms
    elif lead == 0xED:
        high = 0x9F  # no surrogates
    elif lead == 0xF0:
        low = 0x90
    elif lead == 0xF4:
        high = 0x8F  # nothing above U+10FFFF
    for i in range(at + 1, at + size):
        if data[i] < low or data[i] > high:
            return -1
        low, high = 0x80, 0xBF
    return at + size


@njit(cache=True, nogil=True, error_model="numpy")
def _string(data, at):  # noqa: ANN001, ANN202
    """The place of the quote that ends the string whose first byte is at `at`; -1 if it is not plain."""
    while data[at] != _QUOTE:
        if data[at] < 32 or data[at] == _BACKSLASH:
            return -1
        if data[at] < 128:
            at += 1
            continue
        at = _utf8(data, at)
        if at < 0:
            return -1
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def _literal(data, at):  # noqa: ANN001, ANN202
    """`true`, `false` or `null` at `at`, as (end, first byte); (-1, 0) for anything else."""
    a, b, c, d = data[at], data[at + 1], data[at + 2], data[at + 3]
    if a == 116 and b == 114 and c == 117 and d == 101:
        return at + 4, a
    if a == 110 and b == 117 and c == 108 and d == 108:
        return at + 4, a
    if a == 102 and b == 97 and c == 108 and d == 115 and data[at + 4] == 101:
        return at + 5, a
    return -1, a


@njit(cache=True, nogil=True, error_model="numpy")
def _same(data, a, b, size):  # noqa: ANN001, ANN202
    """Whether data[a:a + size] and data[b:b + size] are equal."""
    for i in range(size):
        if data[a + i] != data[b + i]:
            return False
    return True
