"""The entries of a batch as a torch model takes them: in gradient steps, each with its own short list of rows.

A batch of n records is cut into steps of `step_records`. For each step the distinct rows are listed in the order of
first sight, and every entry tells its place in its step's list. So a step gathers its rows once, and computes the same
numbers wherever the rows lie: in a shard's answer, or in a table of a million.

Entries of a model with two towers are split into two sides; all others have one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import Batch

__all__ = ["Side", "Steps", "kept_entries", "steps_of"]


class Side(NamedTuple):
    """Entries of one side: places i64 (e,) in their steps' lists, values f32 (e,), offsets i64 (n + 1,) by record.

    `starts` i64 (n,): where each record's entries begin, counted from the first one of its step.
    """

    places: NDArray[np.int64]
    values: NDArray[np.float32]
    offsets: NDArray[np.int64]
    starts: NDArray[np.int64]


class Steps(NamedTuple):
    """A batch in steps: records bounds[s]:bounds[s + 1] are step s, with the rows rows[lists[s]:lists[s + 1]]."""

    bounds: NDArray[np.int64]
    rows: NDArray[np.int64]
    lists: NDArray[np.int64]
    sides: list[Side]


@njit(cache=True, nogil=True, error_model="numpy")
def _distinct(index, entry_bounds, rows, out, places, lists):  # noqa: ANN001, ANN202
    """Fill `out` with each step's distinct rows, one step behind the other; returns how many there are."""
    stamp, place = np.zeros(rows, np.int32), np.empty(rows, np.int32)
    used = 0
    for s in range(len(entry_bounds) - 1):
        lists[s] = used
        for j in range(entry_bounds[s], entry_bounds[s + 1]):
            row = index[j]
            if stamp[row] != s + 1:
                stamp[row] = s + 1
                place[row] = used - lists[s]
                out[used] = row
                used += 1
            places[j] = place[row]
    lists[len(entry_bounds) - 1] = used
    return used


def kept_entries(batch: Batch, excluded: int) -> NDArray[np.bool_] | None:
    """Which entries are inputs: all (None), or those that are not of the kind `excluded`."""
    return None if excluded < 0 else batch.kinds != excluded


def steps_of(
    index: NDArray[np.int64],
    rows: int,
    batch: Batch,
    size: int,
    kept: NDArray[np.bool_] | None,
    second_side: int = -1,
) -> tuple[Steps, NDArray[np.int64] | None]:
    """A batch's entries in steps of `size` records, and which rows of a large table they are about.

    Args:
        index: row of each kept entry; -1: none, and the entry is left out.
        rows: how many rows there are.
        batch: its records.
        size: records to a step.
        kept: which of the batch's entries `index` is about; None: all.
        second_side: entries of this kind are the second side; -1: there is one side.

    Returns:
        The steps, and None or, where the batch has few of a table's rows, i64: the numbers of those; the steps then
        count among them.

    """
    values, kinds, offsets = _taken(batch, kept)
    if (absent := index < 0).any():
        there = ~absent
        offsets = np.concatenate(([0], np.cumsum(there)))[offsets]
        index, values, kinds = index[there], values[there], kinds[there]
    chosen = None
    if rows > 4 * len(index) + 4096:
        chosen, index = np.unique(index, return_inverse=True)
        rows = len(chosen)
    bounds = np.append(np.arange(0, len(batch), size, dtype=np.int64), np.int64(len(batch)))
    listed, places = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
    lists = np.zeros(len(bounds), np.int64)
    index = np.require(index, np.int64, ["C", "W"])
    used = _distinct(index, offsets[bounds], max(rows, 1), listed, places, lists)
    masks = [None] if second_side < 0 else [kinds != second_side, kinds == second_side]
    sides = [_side(places, values, offsets, bounds, mask) for mask in masks]
    return Steps(bounds, listed[:used], lists, sides), chosen


def _taken(
    batch: Batch, kept: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]:
    if kept is None:
        return batch.values, batch.kinds, batch.offsets
    offsets = np.concatenate(([0], np.cumsum(kept)))[batch.offsets]
    return batch.values[kept], batch.kinds[kept], offsets


def _side(
    places: NDArray[np.int64],
    values: NDArray[np.float32],
    offsets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    mask: NDArray[np.bool_] | None,
) -> Side:
    if mask is not None:
        offsets = np.concatenate(([0], np.cumsum(mask)))[offsets]
        places, values = places[mask], values[mask]
    starts = offsets[:-1] - np.repeat(offsets[bounds[:-1]], np.diff(bounds))
    return Side(places, np.require(values, np.float32, ["C", "W"]), offsets, starts)
