"""When a key gets a row and when it loses it: what a pipeline may say about each of its learner's tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["TablePolicy"]

_ADMIT_AFTER_MAX = 255
"""Sights are counted in bytes."""
_WAITING_MAX = 2**31


@dataclass(frozen=True, slots=True)
class TablePolicy:
    """Admission, expiry and ceiling of one table; the default keeps every key for ever."""

    admit_after: int = 1
    """A key gets its row in the batch in which it is seen for the n-th time; until then it is learnt in vain."""
    admission: Literal["bloom", "exact"] = "bloom"
    """How sights are counted: a counting Bloom filter of fixed size (may admit early), or a count for each key."""
    waiting_max: int = 1_000_000
    """Keys that may wait, in all shards together: sizes the filter, whose segments forget their counts when they are
    full; an exact counter that is full forgets all its counts. Both count how often."""
    expire_after_records: int = 0
    """A row that no batch has wanted for so many records of the stream goes; 0: never."""
    expire_after_s: float = 0.0
    """The same in seconds of the stream's own time (event time, else time of production); 0: never."""
    rows_max: int = 0
    """No more rows than this, in all shards together; the coldest go. 0: no ceiling."""

    def __post_init__(self) -> None:
        if self.admit_after < 1 or self.waiting_max < 1:
            raise ValueError("admit_after and waiting_max should be 1 or more")
        if self.admission not in ("bloom", "exact"):
            raise ValueError(f"admission should be bloom or exact, but is {self.admission!r}")
        if self.admit_after > _ADMIT_AFTER_MAX or self.waiting_max > _WAITING_MAX:
            raise ValueError(
                f"admit_after is at most {_ADMIT_AFTER_MAX}, waiting_max at most {_WAITING_MAX:,}"
            )
        if not math.isfinite(self.expire_after_s):
            raise ValueError(f"expire_after_s should be a number of seconds, but is {self.expire_after_s}")
        if min(self.expire_after_records, self.expire_after_s, self.rows_max) < 0:
            raise ValueError("expire_after_records, expire_after_s and rows_max should be 0 (off) or more")

    @property
    def keeps_all(self) -> bool:
        """True if keys are neither held back nor dropped."""
        return self.admit_after == 1 and not self.tracks_use

    @property
    def tracks_use(self) -> bool:
        """True if the table must know when each row was last wanted."""
        return bool(self.expire_after_records or self.expire_after_s or self.rows_max)

    def of_shard(self, shards: int) -> TablePolicy:
        """The policy of one of `shards` shards: its part of the ceiling, and of the keys that wait for exact counts.

        A filter has a part for each segment of the key space, of the same size however many shards there are, so that
        they admit what one would; a shard touches only its own segments' parts.
        """
        waiting_max = self.waiting_max if self.admission == "bloom" else max(1, self.waiting_max // shards)
        return TablePolicy(
            self.admit_after, self.admission, waiting_max, self.expire_after_records,
            self.expire_after_s, -(-self.rows_max // shards),
        )  # fmt: skip
