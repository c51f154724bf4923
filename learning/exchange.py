"""The words between a worker's store and the shards: one message a shard and batch, as few and large arrays as can be.

A message brings the push of an earlier batch and the pull of a later one, either of which may be None. The arrays of
all tables are joined, in the order of the learner's `specs()`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch, BatchId
    from learning.texts import TextColumn

__all__ = ["Moment", "Named", "Pull", "Push", "Rows", "Wait", "split_carried", "split_rows", "stream_time_s"]


class Moment(NamedTuple):
    """When a message was made, which every message to a shard carries.

    `generation` counts how often the job went back to a snapshot: what is left of an earlier one is refused. `snapshot`
    is the last snapshot that the sender stood still for: a shard that sees it first begins to copy, as the difference
    to snapshot `since` (0: whole), and what comes with it or later is not in that snapshot. `changes` happen to rows,
    each right behind a snapshot: its number, that of a table, and what is kept of that table's memory
    (learning/learner.py `forget`). Those of snapshots that may not be written are told again, for a shard that had
    nothing to do in between.
    """

    generation: int = 1
    snapshot: int = 0
    since: int = 0
    changes: tuple[tuple[int, int, float], ...] = ()


class Named(NamedTuple):
    """The texts that keys of a pull were made of: `places` i32, in the pull's keys."""

    places: NDArray[np.int32]
    texts: TextColumn


class Push(NamedTuple):
    """What a worker made of the rows of an earlier pull of this shard: f32 rows in the pull's order, end to end.

    `names`: those that the shard's answer to the pull asked for; None where it asked for none.
    """

    batch_id: BatchId
    rows: NDArray[np.float32]
    coupling: float
    names: Named | None = None


class Pull(NamedTuple):
    """The distinct keys of a batch that this shard owns.

    Attributes:
        batch_id: names the pull; a pull of the same batch again only reads its rows again.
        records: records of the batch, all of them, whatever their keys: what staleness and expiry are counted in.
        time_s: the stream's time in the batch (`stream_time_s`); NaN where it has none.
        sizes: of each table how many keys; empty: it is only asked whether the pull may come in.
        keys: u64; of each table `sizes[t]` keys.
        carried: i32; of each table, the first `carries[t]` keys are those of the worker's pull before this one that
            it has not pushed yet: their places in that pull. Its walk over them will be carried forward.
        sights: u8, how often each key stands in the batch (255 and more: 255); None where no table asks.

    """

    batch_id: BatchId
    records: int
    time_s: float
    sizes: tuple[int, ...]
    carries: tuple[int, ...]
    keys: NDArray[np.uint64]
    carried: NDArray[np.int32]
    sights: NDArray[np.uint8] | None


class Rows(NamedTuple):
    """A shard's answer to a pull.

    `flat` f32: the present rows of the pulled keys, in their order, end to end. `absent` i32: for each table the places
    of keys that have no row (not admitted, or no room): they are learnt in vain. None where all have one. `nameless`
    i32: the places, in the pull's keys, of those that have a row in a named table and no name; None where there are
    none. The push brings their names.
    """

    flat: NDArray[np.float32]
    absent: tuple[NDArray[np.int32], ...] | None
    nameless: NDArray[np.int32] | None = None


class Wait(NamedTuple):
    """The answer to a pull that has to wait; `pushed`: records pushed so far, by which progress can be told."""

    pushed: int


def split_rows(
    flat: NDArray[np.float32], sizes: Sequence[int], widths: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Views f32 (sizes[t], widths[t]) of each table's rows in `flat`."""
    ends = np.cumsum([0, *(size * width for size, width in zip(sizes, widths, strict=True))]).tolist()
    return [
        flat[start:end].reshape(size, width)
        for start, end, size, width in zip(ends, ends[1:], sizes, widths, strict=False)
    ]


def split_carried(pull: Pull) -> list[NDArray[np.int32]]:
    """Of each table the places, in the worker's pull before, of the pull's first keys."""
    ends = np.cumsum([0, *pull.carries]).tolist()
    return [pull.carried[start:end] for start, end in itertools.pairwise(ends)]


def stream_time_s(batch: Batch) -> float:
    """The middle event time of a batch, else its middle time of production, in unix seconds; NaN where it has neither.

    The middle and not the newest: one record with an absurd time must not age all others.
    """
    for times_s in (batch.event_times_s, batch.produced_s):
        known = times_s[np.isfinite(times_s)]
        if len(known):
            return float(np.partition(known, len(known) // 2)[len(known) // 2])
    return float("nan")
