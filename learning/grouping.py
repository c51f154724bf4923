"""Distinct keys of a batch, grouped by the shard that owns them: what a pull asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from learning.keys import BIAS_KEY, SEGMENTS, segment_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GroupedKeys", "KeyGrouper", "shard_of_segment", "split_by_shard"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SIGHTS_MAX = 255
_STAMP, _PLACE = 32, 2**32 - 1


def shard_of_segment(shards: int) -> NDArray[np.int64]:
    """The shard of each segment, i64 (SEGMENTS,): contiguous ranges of nearly equal length."""
    return np.arange(SEGMENTS, dtype=np.int64) * shards // SEGMENTS


def split_by_shard(
    keys: NDArray[np.uint64], rows: NDArray[Any], shards: int
) -> list[tuple[NDArray[np.uint64], NDArray[Any]]]:
    """A table's keys u64 (n,) and rows (n, width), whoever held them, as each of `shards` shards is to hold them."""
    owner = shard_of_segment(shards)[segment_of(keys)]
    return [(keys[owner == shard], rows[owner == shard]) for shard in range(shards)]


@dataclass(frozen=True, slots=True)
class GroupedKeys:
    """`keys[bounds[s]:bounds[s + 1]]` are shard s's distinct keys; entry j of the batch uses row `index[j]`.

    Attributes:
        keys: u64 (unique,), the bias key among them if the table has a bias.
        bounds: i64 (shards + 1,).
        index: i64 (nnz,), positions in `keys`.
        bias: position of the bias key, or -1.
        carries: i64 (shards,); the first so many keys of each shard were also in the grouping before this one.
        carried: i32; their places in that shard's stretch of it, shard after shard.
        sights: u8 (unique,), how often each key occurs (the bias: once), at most 255.

    """

    keys: NDArray[np.uint64]
    bounds: NDArray[np.int64]
    index: NDArray[np.int64]
    bias: int
    carries: NDArray[np.int64]
    carried: NDArray[np.int32]
    sights: NDArray[np.uint8]

    def carried_of(self, shard: int) -> NDArray[np.int32]:
        """The places, in the grouping before, of the keys of `shard` that were in it."""
        start = int(self.carries[:shard].sum())
        return self.carried[start : start + int(self.carries[shard])]


@dataclass(slots=True)
class _Scratch:
    """A hash table of the distinct keys of one grouping.

    A slot is the grouping's stamp, by which old entries are told from new without clearing, times 2^32, and the place
    of its key in `distinct`.
    """

    slots: NDArray[np.int64]
    distinct: NDArray[np.uint64]
    place: NDArray[np.int64]
    owner: NDArray[np.int64]
    bounds: NDArray[np.int64]
    shift: np.uint64
    stamp: int = 1  # above the zeros of a table that was never used

    @classmethod
    def of(cls, entries: int, shards: int) -> _Scratch:
        """Room for `entries` distinct keys at a load of at most one half."""
        bits = max(11, int(np.ceil(np.log2(2 * max(entries, 1)))))
        capacity = 1 << (bits - 1)
        return cls(
            np.zeros(1 << bits, np.int64), np.empty(capacity, np.uint64),
            np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.zeros(shards + 1, np.int64),
            np.uint64(64 - bits),
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _distinct(keys, slots, stamp, shift, shards, distinct, owner, sights, used, index):  # noqa: ANN001, ANN202
    """First-seen order of the distinct keys, behind distinct[:used]; returns how many there are."""
    mask = np.uint64(len(slots) - 1)
    for u in range(used):  # the bias
        slot = (distinct[u] * _GOLDEN) >> shift
        slots[slot] = (stamp << _STAMP) | u
        owner[u], sights[u] = shards[np.int64(distinct[u] >> np.uint64(54))], 1
    for j in range(len(keys)):
        key = keys[j]
        slot = (key * _GOLDEN) >> shift
        entry = slots[slot]
        while entry >> _STAMP == stamp and distinct[entry & _PLACE] != key:
            slot = (slot + np.uint64(1)) & mask
            entry = slots[slot]
        if entry >> _STAMP != stamp:
            entry = (stamp << _STAMP) | used
            slots[slot] = entry
            distinct[used] = key
            owner[used] = shards[np.int64(key >> np.uint64(54))]
            sights[used] = 0
            used += 1
        u = entry & _PLACE
        sights[u] = min(sights[u] + 1, _SIGHTS_MAX)
        index[j] = u
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def _remembered(distinct, used, owner, slots, stamp, shift, before, place, starts, carried, counts):  # noqa: ANN001, ANN202
    """carried[u]: place of key u within its shard's stretch of the grouping before, or -1; counts (shards, 2)."""
    mask = np.uint64(len(slots) - 1)
    for u in range(used):
        key = distinct[u]
        slot = (key * _GOLDEN) >> shift
        entry = slots[slot]
        while entry >> _STAMP == stamp and before[entry & _PLACE] != key:
            slot = (slot + np.uint64(1)) & mask
            entry = slots[slot]
        known = entry >> _STAMP == stamp
        carried[u] = place[entry & _PLACE] - starts[owner[u]] if known else -1
        counts[owner[u], 0 if known else 1] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _group(  # noqa: ANN202
    distinct, used, owner, sights, carried, at, place, grouped, grouped_sights, grouped_carried, index,  # noqa: ANN001
):  # fmt: skip
    """Stable counting sort of the distinct keys by owner, carried ones first; `at` (shards, 2) is where each begins.

    Rewrites `index` from first-seen to grouped places.
    """
    for u in range(used):
        kind = 0 if carried[u] >= 0 else 1
        place[u] = at[owner[u], kind]
        at[owner[u], kind] += 1
        grouped[place[u]], grouped_sights[place[u]] = distinct[u], sights[u]
        grouped_carried[place[u]] = carried[u]
    for j in range(len(index)):
        index[j] = place[index[j]]


class KeyGrouper:
    """Groups the keys of one table, batch after batch; keeps its scratch memory, so it belongs to one thread.

    `bias`: the bias key belongs to every batch. It also remembers the grouping before, to tell which keys were in it.
    """

    def __init__(self, shards: int, *, bias: bool = True) -> None:
        self._shards = shards
        self._bias = bias
        self._shard_of_segment = shard_of_segment(shards)
        self._now = _Scratch.of(1024, shards)
        self._before = _Scratch.of(1, shards)

    def group(self, keys: NDArray[np.uint64], *, carry: bool = False) -> GroupedKeys:
        """Distinct keys of u64 `keys` (nnz,), by shard; repeats share one row. `carry`: tell which are carried."""
        self._now, self._before = self._before, self._now
        if len(keys) + 1 > len(self._now.distinct):
            self._now = _Scratch.of(len(keys) + 1, self._shards)
        now = self._now
        now.stamp += 1
        now.distinct[0] = BIAS_KEY
        index = np.empty(len(keys), np.int64)
        sights = np.empty(len(keys) + 1, np.uint8)
        used = _distinct(
            keys, now.slots, now.stamp, now.shift, self._shard_of_segment,
            now.distinct, now.owner, sights, 1 if self._bias else 0, index,
        )  # fmt: skip
        carried, counts = self._carried(used, carry=carry)
        starts = np.zeros(2 * self._shards + 1, np.int64)
        np.cumsum(counts.ravel(), out=starts[1:])
        grouped, grouped_sights = np.empty(used, np.uint64), np.empty(used, np.uint8)
        grouped_carried = np.empty(used, np.int32)
        _group(
            now.distinct, used, now.owner, sights, carried, starts[:-1].reshape(-1, 2).copy(), now.place,
            grouped, grouped_sights, grouped_carried, index,
        )  # fmt: skip
        now.bounds = starts[::2].copy()
        return GroupedKeys(
            grouped, now.bounds, index, int(now.place[0]) if self._bias else -1, counts[:, 0],
            grouped_carried[grouped_carried >= 0], grouped_sights,
        )  # fmt: skip

    def _carried(self, used: int, *, carry: bool) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        now, before = self._now, self._before
        counts = np.zeros((self._shards, 2), np.int64)
        if carry:
            carried = np.empty(used, np.int32)
            _remembered(
                now.distinct, used, now.owner, before.slots, before.stamp, before.shift,
                before.distinct, before.place, before.bounds, carried, counts,
            )  # fmt: skip
        else:
            carried = np.full(used, -1, np.int32)
            counts[:, 1] = np.bincount(now.owner[:used], minlength=self._shards)
        return carried, counts
