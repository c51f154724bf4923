"""The best n of a table's rows for a user, or the most alike to a row: one pass, memory for n winners, no sort of all.

Every function takes rows f32 (r, width) whose columns from `first` on are factors, their keys u64 (r,) and `live`
bool (r,): which rows are items at all (a table may hold freed rows between them). Keys of equal score come in the
order of their numbers, so that the winners do not depend on how the items are spread over shards.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Ranked", "merge_top", "similar_rows", "top_rows"]

Ranked = tuple["NDArray[np.uint64]", "NDArray[np.float64]"]
"""Keys and scores, best first."""


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _worse(score, key, other_score, other_key):  # noqa: ANN001, ANN202
    return score < other_score or (score == other_score and key > other_key)


@njit(cache=True, nogil=True, error_model="numpy")
def _sink(scores, keys, size):  # noqa: ANN001, ANN202
    """Let the entry at the root of a heap (the worst on top) find its place."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _worse(scores[child + 1], keys[child + 1], scores[child], keys[child]):
            child += 1
        if not _worse(scores[child], keys[child], scores[at], keys[at]):
            return
        scores[at], scores[child] = scores[child], scores[at]
        keys[at], keys[child] = keys[child], keys[at]
        at = child


@njit(cache=True, nogil=True, error_model="numpy")
def _offer(scores, keys, size, score, key):  # noqa: ANN001, ANN202
    """Offer an entry to a heap of the best len(scores); returns how many it holds now."""
    if size == len(scores):
        if _worse(scores[0], keys[0], score, key):
            scores[0], keys[0] = score, key
            _sink(scores, keys, size)
        return size
    at = size
    scores[at], keys[at] = score, key
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(scores[at], keys[at], scores[parent], keys[parent]):
            break
        scores[at], scores[parent] = scores[parent], scores[at]
        keys[at], keys[parent] = keys[parent], keys[at]
        at = parent
    return size + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _scan_top(rows, keys, live, factors, first, bias, count, popularity, best_scores, best_keys):  # noqa: ANN001, ANN202
    size = 0
    for row in range(len(rows)):
        if live[row]:
            score = np.float64(rows[row, bias])
            for c in range(len(factors)):
                score += factors[c] * np.float64(rows[row, first + c])
            if popularity > 0.0:
                score += popularity * math.log(max(np.float64(rows[row, count]), 0.5))
            size = _offer(best_scores, best_keys, size, score, keys[row])
    return size


@njit(cache=True, nogil=True, error_model="numpy")
def _scan_similar(rows, keys, live, factors, first, count, count_min, best_scores, best_keys):  # noqa: ANN001, ANN202
    size = 0
    for row in range(len(rows)):
        if live[row] and rows[row, count] >= count_min:
            product = square = 0.0
            for c in range(len(factors)):
                q = np.float64(rows[row, first + c])
                product += factors[c] * q
                square += q * q
            if square > 0.0:
                size = _offer(best_scores, best_keys, size, product / math.sqrt(square), keys[row])
    return size


def top_rows(
    rows: NDArray[np.float32],
    keys: NDArray[np.uint64],
    live: NDArray[np.bool_],
    factors: NDArray[np.float64],
    n: int,
    *,
    first: int,
    bias: int,
    count: int,
    popularity: float = 0.0,
) -> Ranked:
    """The n best by rows[:, bias] + rows[:, first:] . factors + popularity ln(rows[:, count])."""
    scores, best = np.empty(max(n, 0)), np.empty(max(n, 0), np.uint64)
    if n <= 0:
        return best, scores
    size = _scan_top(rows, keys, live, factors, first, bias, count, popularity, scores, best)
    return _sorted(best[:size], scores[:size], n)


def similar_rows(
    rows: NDArray[np.float32],
    keys: NDArray[np.uint64],
    live: NDArray[np.bool_],
    factors: NDArray[np.float64],
    n: int,
    *,
    first: int,
    count: int,
    count_min: int,
) -> Ranked:
    """The n most alike to `factors` by cosine, of those with a count of at least `count_min`; zero rows are alike
    to nothing.
    """
    scores, best = np.empty(max(n, 0)), np.empty(max(n, 0), np.uint64)
    length = math.sqrt(float(factors @ factors))
    if n <= 0 or length == 0.0:
        return best[:0], scores[:0]
    size = _scan_similar(rows, keys, live, factors / length, first, count, count_min, scores, best)
    return _sorted(best[:size], scores[:size], n)


def merge_top(parts: Sequence[Ranked], n: int) -> Ranked:
    """The n best of several shards' winners."""
    if not parts:
        return np.empty(0, np.uint64), np.empty(0)
    return _sorted(np.concatenate([keys for keys, _ in parts]), np.concatenate([s for _, s in parts]), n)


def _sorted(keys: NDArray[np.uint64], scores: NDArray[np.float64], n: int) -> Ranked:
    order = np.lexsort((keys, -scores))[: max(n, 0)]
    return keys[order], scores[order]
