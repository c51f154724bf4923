"""How a watch over drift is set up, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from learning.drift_blocks import Shift
from learning.drift_partition import SIDE_BLOCKS_MIN
from learning.drift_verdicts import expect_between

__all__ = ["DriftEvent", "WatchSettings"]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a watch reads its detectors."""

    block_records: int = 32
    history_blocks: int = 128
    """Blocks a partition, in which levels before and after are looked for."""
    window_records: int = 4096
    """How long a vote counts, in records for each partition."""
    quorum: float = 0.5
    warning_quorum: float = 0.25
    moved_errors: float = 4.0
    """Another series has moved if its levels are so many standard errors apart."""
    loss_max: float = 35.0
    """Losses are taken as at most this, and NaN as this: more than any log-loss; choose another for other losses."""

    def __post_init__(self) -> None:
        expect_between("block_records", self.block_records, 1, 2**20)
        expect_between("history_blocks", self.history_blocks, 2 * SIDE_BLOCKS_MIN, 2**16)
        expect_between("window_records", self.window_records, 1, 2**40)
        expect_between("quorum", self.quorum, 1e-9, 1.0)
        expect_between("warning_quorum", self.warning_quorum, 1e-9, 1.0)
        expect_between("moved_errors", self.moved_errors, 0.0, 1e9)
        expect_between("loss_max", self.loss_max, 1e-9, 1e100)


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """What the partitions agreed on.

    Attributes:
        kind: see the module's docstring.
        number: of its kind, from 1; a joined event has the number of its drift or improvement.
        records: of the job, when it was decided.
        partitions: those that voted.
        rose: whether the loss did; else it fell.
        age_records: about how many records of the slowest of them lie behind the change.
        before: mean loss before the change, in the mean over the partitions; NaN if the history is too short.
        after: the same after it.
        moved: the other series that moved, the furthest first.

    """

    kind: Literal["drift", "improvement", "warning", "joined"]
    number: int
    records: int
    partitions: tuple[int, ...]
    rose: bool
    age_records: int
    before: float
    after: float
    moved: tuple[Shift, ...]
