"""Keys: feature names and values to stable 64-bit integers, and keys to segments and shards.

A key is XXH64 (Y. Collet, xxHash specification 0.1.1), the same on every machine and in every Python run:

    name key    K(name)        = xxh64(utf8(name), seed=0)
    value key   K(name, value) = xxh64(utf8(value), seed=K(name))

A numeric feature is learnt under its name key, a categorical one under its value key. Numbers used as categories
take their canonical text (`number_text`), so JSON and Arrow agree. No key is reserved and none is reduced modulo a
table size: two features share a weight only if their 64-bit hashes are equal (for 10^8 features, about 3e-4
expected pairs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BIAS_KEY",
    "SEGMENTS",
    "derived_key",
    "name_key",
    "number_text",
    "segment_of",
    "value_key",
    "xxh64",
]

SEGMENTS = 1024
"""Virtual segments: keys map to segments for ever, segments to shards for as long as a layout lasts."""

_SEGMENT_SHIFT = np.uint64(54)

BIAS_KEY = np.uint64(0x7E53A269E0C2D5B1)
"""Key of the bias coordinate: a constant that no feature is given except by a 64-bit accident."""

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_B = np.uint64(8)


@njit(inline="always")
def _rotl(x, r):  # noqa: ANN001, ANN202 - numba infers types; annotations would only repeat the docstring
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@njit(inline="always")
def _word(data, at, size):  # noqa: ANN001, ANN202
    """Little-endian unsigned integer of `size` bytes; LLVM folds the loop into one load."""
    word = np.uint64(0)
    for i in range(size):
        word |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return word


@njit(inline="always")
def _round(acc, lane):  # noqa: ANN001, ANN202
    return _rotl(acc + lane * _P2, 31) * _P1


@njit(inline="always")
def _avalanche(h):  # noqa: ANN001, ANN202
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


@njit(cache=True)
def _stripes(data, start, size, seed):  # noqa: ANN001, ANN202
    """Consume all whole 32-byte stripes."""
    v1, v2, v3, v4 = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
    for at in range(start, start + size - 31, 32):
        v1 = _round(v1, _word(data, at, 8))
        v2 = _round(v2, _word(data, at + 8, 8))
        v3 = _round(v3, _word(data, at + 16, 8))
        v4 = _round(v4, _word(data, at + 24, 8))
    h = _rotl(v1, 1) + _rotl(v2, 7) + _rotl(v3, 12) + _rotl(v4, 18)
    for v in (v1, v2, v3, v4):
        h = (h ^ _round(np.uint64(0), v)) * _P1 + _P4
    return h


@njit(cache=True, nogil=True)
def xxh64(data, start, size, seed):  # noqa: ANN001, ANN201
    """XXH64 of data[start:start + size] (u8 array) with a u64 seed; returns u64. Callable from numba code."""
    h = _stripes(data, start, size, seed) if size >= 32 else seed + _P5
    h += np.uint64(size)
    at, end = start + (size & ~31), start + size
    while at + 8 <= end:
        h = _rotl(h ^ _round(np.uint64(0), _word(data, at, 8)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        h = _rotl(h ^ (_word(data, at, 4) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        h = _rotl(h ^ (np.uint64(data[at]) * _P5), 11) * _P1
        at += 1
    return _avalanche(h)


@njit(inline="always")
def derived_key(key, number):  # noqa: ANN001, ANN201
    """Key of a numbered child of `key` (a bin of a numeric feature); u64 and i64 in, u64 out."""
    return _avalanche((key ^ _P5) + np.uint64(number) * _P1)


def name_key(name: str) -> np.uint64:
    """Key of a feature's name: u64."""
    return value_key(np.uint64(0), name)


def value_key(name: np.uint64, value: str) -> np.uint64:
    """Key of a categorical value under the name key `name`: u64."""
    data = np.frombuffer(value.encode(), np.uint8)
    return np.uint64(xxh64(data, 0, len(data), np.uint64(name)))


def number_text(number: float) -> str:
    """Canonical text of a number used as a category: 3 and 3.0 are '3', 0.5 is '0.5'."""
    if number == int(number) and abs(number) < 2**53:
        return str(int(number))
    return repr(float(number))


def segment_of(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Segment (0 <= s < SEGMENTS) of each key."""
    return (keys >> _SEGMENT_SHIFT).astype(np.int64)
