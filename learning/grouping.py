"""Distinct keys of a batch, grouped by the shard that owns them: what a pull asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from learning.keys import BIAS_KEY, SEGMENTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GroupedKeys", "KeyGrouper", "shard_of_segment"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def shard_of_segment(shards: int) -> NDArray[np.int64]:
    """The shard of each segment, i64 (SEGMENTS,): contiguous ranges of nearly equal length."""
    return np.arange(SEGMENTS, dtype=np.int64) * shards // SEGMENTS


@dataclass(frozen=True, slots=True)
class GroupedKeys:
    """`keys[bounds[s]:bounds[s + 1]]` are shard s's distinct keys; entry j of the batch uses row `index[j]`.

    Attributes:
        keys: u64 (unique,), the bias key among them.
        bounds: i64 (shards + 1,).
        index: i64 (nnz,), positions in `keys`.
        bias: position of the bias key.

    """

    keys: NDArray[np.uint64]
    bounds: NDArray[np.int64]
    index: NDArray[np.int64]
    bias: int


@njit(cache=True, nogil=True, error_model="numpy")
def _distinct(keys, slots, stamps, stamp, shift, shards, distinct, owner, counts, index):  # noqa: ANN001, ANN202
    """First-seen order of the distinct keys behind distinct[0] (the bias); returns how many there are."""
    mask = np.uint64(len(slots) - 1)
    used = 1
    owner[0] = shards[np.int64(distinct[0] >> np.uint64(54))]
    counts[owner[0]] += 1
    bias_slot = (distinct[0] * _GOLDEN) >> shift
    stamps[bias_slot], slots[bias_slot] = stamp, 0
    for j in range(len(keys)):
        key = keys[j]
        slot = (key * _GOLDEN) >> shift
        while stamps[slot] == stamp and distinct[slots[slot]] != key:
            slot = (slot + np.uint64(1)) & mask
        if stamps[slot] != stamp:
            stamps[slot], slots[slot] = stamp, used
            distinct[used] = key
            owner[used] = shards[np.int64(key >> np.uint64(54))]
            counts[owner[used]] += 1
            used += 1
        index[j] = slots[slot]
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def _group(distinct, used, owner, bounds, place, grouped, index):  # noqa: ANN001, ANN202
    """Stable counting sort of the distinct keys by owner; rewrites `index` from first-seen to grouped places."""
    at = bounds.copy()
    for u in range(used):
        place[u] = at[owner[u]]
        at[owner[u]] += 1
        grouped[place[u]] = distinct[u]
    for j in range(len(index)):
        index[j] = place[index[j]]


class KeyGrouper:
    """Groups the keys of one batch after another; keeps its scratch memory, so it belongs to one thread."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._distinct = np.empty(0, np.uint64)
        self._shard_of_segment = shard_of_segment(shards)
        self._stamp = 0
        self._reserve(1024)

    def group(self, keys: NDArray[np.uint64]) -> GroupedKeys:
        """Distinct keys of u64 `keys` (nnz,) and the bias, by shard; repeats share one row."""
        self._reserve(len(keys) + 1)
        self._stamp += 1
        self._distinct[0] = BIAS_KEY
        counts, index = np.zeros(self._shards, np.int64), np.empty(len(keys), np.int64)
        used = _distinct(
            keys, self._slots, self._stamps, self._stamp, self._shift, self._shard_of_segment,
            self._distinct, self._owner, counts, index,
        )  # fmt: skip
        bounds = np.zeros(self._shards + 1, np.int64)
        np.cumsum(counts, out=bounds[1:])
        grouped = np.empty(used, np.uint64)
        _group(self._distinct, used, self._owner, bounds, self._place, grouped, index)
        return GroupedKeys(grouped, bounds, index, int(self._place[0]))

    def _reserve(self, entries: int) -> None:
        """Scratch for `entries` distinct keys at a load of at most one half."""
        if entries <= len(self._distinct):
            return
        bits = max(11, int(np.ceil(np.log2(2 * entries))))
        self._shift = np.uint64(64 - bits)
        self._slots = np.empty(1 << bits, np.int64)
        self._stamps = np.zeros(1 << bits, np.int64)
        capacity = 1 << (bits - 1)
        self._distinct = np.empty(capacity, np.uint64)
        self._owner = np.empty(capacity, np.int64)
        self._place = np.empty(capacity, np.int64)
