"""Strings with backslash escapes (RFC 8259, section 7), compiled: to the UTF-8 that they stand for.

Many writers escape all that is not ASCII, so these are ordinary texts in most languages. Refused, with an end of -1,
are half surrogate pairs and all that is no JSON.
"""

from __future__ import annotations

from numba import njit

from cluster.decode.json_tokens import QUOTE, utf8_end

__all__ = ["unescape"]

_BACKSLASH, _U = 92, 117
_HIGH_SURROGATES, _LOW_SURROGATES, _SURROGATES_END = 0xD800, 0xDC00, 0xE000


@njit(cache=True, nogil=True, error_model="numpy")
def _hex4(data, at):  # noqa: ANN001, ANN202 - numba infers types
    """The number that four hexadecimal digits say, or -1."""
    value = 0
    for i in range(at, at + 4):
        digit, letter = data[i] - 48, (data[i] | 32) - 97
        if 0 <= digit <= 9:
            value = value * 16 + digit
        elif 0 <= letter <= 5:
            value = value * 16 + letter + 10
        else:
            return -1
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def _short(letter):  # noqa: ANN001, ANN202
    """The character that a backslash and this letter stand for, or -1."""
    if letter in (QUOTE, _BACKSLASH, 47):
        return letter
    if letter == 110:  # n
        return 10
    if letter == 116:  # t
        return 9
    if letter == 114:  # r
        return 13
    if letter == 98:  # b
        return 8
    return 12 if letter == 102 else -1  # f


@njit(cache=True, nogil=True, error_model="numpy")
def _escape(data, at):  # noqa: ANN001, ANN202
    """The escape whose backslash is before `at`, as (end, code point)."""
    if data[at] != _U:
        code = _short(data[at])
        return at + 1 if code >= 0 else -1, code
    code = _hex4(data, at + 1)
    if code < _HIGH_SURROGATES or code >= _SURROGATES_END:
        return at + 5 if code >= 0 else -1, code
    if code >= _LOW_SURROGATES or data[at + 5] != _BACKSLASH or data[at + 6] != _U:
        return -1, 0
    low = _hex4(data, at + 7)
    if low < _LOW_SURROGATES or low >= _SURROGATES_END:
        return -1, 0
    return at + 11, 0x10000 + ((code - _HIGH_SURROGATES) << 10) + low - _LOW_SURROGATES


@njit(cache=True, nogil=True, error_model="numpy")
def _encode(code, out, size):  # noqa: ANN001, ANN202
    """Write a code point as UTF-8 to out[size:]; returns the size after it."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | code >> 6
    elif code < 0x10000:
        out[size] = 0xE0 | code >> 12
    else:
        out[size] = 0xF0 | code >> 18
    more = 1 if code < 0x800 else 2 if code < 0x10000 else 3
    for i in range(more):
        out[size + 1 + i] = 0x80 | (code >> (6 * (more - 1 - i)) & 0x3F)
    return size + 1 + more


@njit(cache=True, nogil=True, error_model="numpy")
def unescape(data, at, out):  # noqa: ANN001, ANN201
    """Write the string whose first byte is at `at` to `out` (never longer): (place of its closing quote, size)."""
    size = 0
    while data[at] != QUOTE:
        end = at + 1
        if data[at] == _BACKSLASH:
            end, code = _escape(data, at + 1)
            size = _encode(code, out, size) if end >= 0 else size
        elif data[at] < 32:
            return -1, 0
        else:
            if data[at] >= 128:
                end = utf8_end(data, at)
            for i in range(at, end):
                out[size] = data[i]
                size += 1
        if end < 0:
            return -1, 0
        at = end
    return at, size
