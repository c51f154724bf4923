"""What flows from a source's client to its decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Messages"]


@dataclass(frozen=True, slots=True)
class Messages:
    """Consecutive messages of one partition: `values[i]` was produced at `produced_s[i]` (unix s) at `offsets[i]`."""

    partition: int
    offsets: NDArray[np.int64]
    values: list[bytes]
    produced_s: NDArray[np.float64]
    next_offset: int
