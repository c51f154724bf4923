"""Tokens of JSON text, compiled: white space, plain strings, literals.

All functions read bytes (a pointer or an array of u8) in which every message is followed by a zero byte, which is part
of no token: none reads past it. They refuse by returning an end of -1; what they refuse may still be valid JSON (an
escaped quote, say).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "FALSE",
    "NULL",
    "QUOTE",
    "TRUE",
    "literal",
    "pointer",
    "same",
    "skip_space",
    "string_end",
    "utf8_end",
    "word",
]

QUOTE, TRUE, FALSE, NULL = 34, 116, 102, 110
"""First bytes of a string, of `true`, of `false` and of `null`."""

_BACKSLASH = 92


@intrinsic
def pointer(typing_context: Any, array: Any) -> Any:
    """The memory of a contiguous array, as a pointer of its dtype, for compiled code; keep the array alive.

    numba counts references whenever an array is passed on, which costs several times what reading a token does.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@njit(cache=True, nogil=True, error_model="numpy")
def skip_space(data, at):  # noqa: ANN001, ANN201 - numba infers types; annotations would only repeat the docstring
    """The place of the first byte from `at` on that is not white space."""
    while data[at] <= 32 and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def utf8_end(data, at):  # noqa: ANN001, ANN201
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
def string_end(data, at):  # noqa: ANN001, ANN201
    """The place of the quote that ends the string whose first byte is at `at`; -1 if it is not plain."""
    while data[at] != QUOTE:
        if data[at] < 32 or data[at] == _BACKSLASH:
            return -1
        if data[at] < 128:
            at += 1
            continue
        at = utf8_end(data, at)
        if at < 0:
            return -1
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def literal(data, at):  # noqa: ANN001, ANN201
    """`true`, `false` or `null` at `at`, as (end, first byte); end is -1 for anything else."""
    a, b, c, d = data[at], data[at + 1], data[at + 2], data[at + 3]
    if a == 116 and b == 114 and c == 117 and d == 101:
        return at + 4, a
    if a == 110 and b == 117 and c == 108 and d == 108:
        return at + 4, a
    if a == 102 and b == 97 and c == 108 and d == 115 and data[at + 4] == 101:
        return at + 5, a
    return -1, a


@njit(cache=True, nogil=True, error_model="numpy")
def same(data, a, b, size):  # noqa: ANN001, ANN201
    """Whether data[a:a + size] and data[b:b + size] are equal."""
    for i in range(size):  # noqa: SIM110 - numba knows no generators here
        if data[a + i] != data[b + i]:
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def word(data, at, size):  # noqa: ANN001, ANN201
    """The at most 8 bytes data[at:at + size] as a little-endian u64: equal for equal texts only (no zero bytes)."""
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return value
