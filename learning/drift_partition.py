"""What a watch knows of one partition: its detector, its blocks, their recent history, and what it last signalled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.drift_blocks import BlockMeans, change_point, shifts
from learning.drift_verdicts import FALL, RISE, WARNING, Detector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["SIDE_BLOCKS_MIN", "Partition", "Signal"]

SIDE_BLOCKS_MIN = 3
"""A change is placed at least so many blocks from either end of the history."""
_LN2 = math.log(2.0)
_NEVER = -1


@dataclass(frozen=True, slots=True)
class Signal:
    """A detector's verdict, `at` so many records of the call after whose learning it fell; `blocks` of it are full."""

    verdict: int
    at: int
    blocks: int


@dataclass(slots=True)
class Partition:
    """One partition's part of a watch.

    Attributes:
        blocks: the open block of each series; series 0 is the loss.
        state: f64 (width,), the detector's.
        history: f64 (s, h), block means of each series since the last change, the newest last.
        levels: f64 (s, 3), at the last signal: each series' level before and after, standard errors between them.
        votes: i64 (3,), the job's records at the last warning, rise and fall that still count; -1: none.
        warned: the last verdict was a warning; only the first of a row of them is a signal.
        age_records: how many records of the partition lay after the change at the last signal.
        joined: i64 (2,), numbers of the last drift and the last improvement that the partition took part in.
        seen_at: the job's records when the partition last had any.

    """

    blocks: BlockMeans
    state: NDArray[np.float64]
    history: NDArray[np.float64]
    levels: NDArray[np.float64]
    votes: NDArray[np.int64]
    joined: NDArray[np.int64]
    warned: int = 0
    age_records: int = 0
    seen_at: int = 0

    @classmethod
    def new(cls, detector: Detector, block_records: int, series: int) -> Partition:
        """Nothing seen yet."""
        blocks = BlockMeans.empty(block_records, series)
        levels = np.full((series, 3), np.nan)
        return cls(
            blocks,
            detector.initial(),
            np.empty((series, 0)),
            levels,
            np.full(3, _NEVER),
            np.zeros(2, np.int64),
        )

    def look(
        self, detector: Detector, values: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], list[Signal]]:
        """Feed records f64 (s, n): the means f64 (s, m) of the blocks that became full, and what was signalled."""
        means, ends = self.blocks.add(values)
        fed, places = means[0], ends
        if detector.feeds == "sums":
            fed = means[0] * self.blocks.block_records
        elif detector.feeds == "errors":
            # A probability below one half for the label that came is a wrong answer.
            fed, places = (values[0] > _LN2).astype(np.float64), np.arange(1, values.shape[1] + 1)
        verdicts = detector.update(self.state, fed)
        warns = verdicts == WARNING
        first = warns & ~np.concatenate(([bool(self.warned)], warns[:-1]))[: len(warns)]
        if len(warns):
            self.warned = int(warns[-1])
        found = np.flatnonzero(first | (verdicts == RISE) | (verdicts == FALL))
        full = np.searchsorted(ends, places[found], side="right")
        return means, [
            Signal(int(verdicts[i]), int(places[i]), int(m)) for i, m in zip(found, full, strict=True)
        ]

    def remember(self, means: NDArray[np.float64], blocks_max: int) -> None:
        """Add block means f64 (s, m) to the history."""
        if means.shape[1]:
            self.history = np.concatenate((self.history, means), axis=1)[:, -blocks_max:]

    def note(self, verdict: int, names: tuple[str, ...], records: int) -> None:
        """Take down a signal: the vote, and how each series moved; a change begins the history anew behind it."""
        rise, fall = verdict == RISE, verdict == FALL
        self.votes[2 if fall else 1 if rise else 0] = records
        if rise or fall:
            self.votes[2 if rise else 1] = _NEVER
        self.levels[:] = np.nan
        border = change_point(self.history[0], SIDE_BLOCKS_MIN, -1 if fall else 1)
        self.age_records = (self.history.shape[1] - border) * self.blocks.block_records
        if border:
            for shift in shifts(names, self.history, border):
                self.levels[names.index(shift.name)] = shift.before, shift.after, shift.errors
        if rise or fall:
            self.history = self.history[:, border:].copy()

    def joined_in(self, verdict: int) -> int:
        """Number of the last drift (for RISE) or improvement (for FALL) that the partition took part in."""
        return int(self.joined[0 if verdict == RISE else 1])

    def spend(self, verdict: int, number: int) -> None:
        """The vote of RISE or FALL has brought about, or joined, the event of that number."""
        place = 0 if verdict == RISE else 1
        self.joined[place], self.votes[1 + place] = number, _NEVER

    def arrays(self, blocks_max: int) -> dict[str, NDArray[Any]]:
        """All of it, by name; histories shorter than `blocks_max` are padded with NaN."""
        history = np.full((len(self.history), blocks_max), np.nan)
        history[:, : self.history.shape[1]] = self.history
        counts = (
            self.blocks.filled, self.history.shape[1], self.warned, self.age_records, self.seen_at,
        )  # fmt: skip
        return {
            "sums": self.blocks.sums.copy(),
            "present": self.blocks.counts.copy(),
            "states": self.state.copy(),
            "history": history,
            "levels": self.levels.copy(),
            "votes": self.votes.copy(),
            "joined": self.joined.copy(),
            "counts": np.array(counts, np.int64),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], block_records: int) -> Partition:
        """What `arrays` gave, names and shapes already checked; raises ValueError for counts that cannot be."""
        filled, length, warned, age_records, seen_at = (int(n) for n in arrays["counts"])
        if not (0 <= filled < block_records and 0 <= length <= arrays["history"].shape[1]):
            raise ValueError(
                f"expected at most {block_records - 1} records in an open block and "
                f"{arrays['history'].shape[1]} blocks of history, got {filled} and {length}"
            )
        blocks = BlockMeans(block_records, arrays["sums"].copy(), arrays["present"].copy(), filled)
        return cls(
            blocks, arrays["states"].copy(), arrays["history"][:, :length].copy(), arrays["levels"].copy(),
            arrays["votes"].copy(), arrays["joined"].copy(), warned, age_records, seen_at,
        )  # fmt: skip
