"""What a shard can be asked beside learning, and its answers: nothing changes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from learning.texts import TextColumn

__all__ = ["Found", "Listed", "Lookup", "Question", "Similar", "Top"]


class Lookup(NamedTuple):
    """Which of these keys (u64) of a table have a row, and what is in it."""

    table: str
    keys: NDArray[np.uint64]


class Top(NamedTuple):
    """The `n` best items for the user with this row; None: for one who is not known."""

    user_row: NDArray[np.float32] | None
    n: int


class Similar(NamedTuple):
    """The `n` items most like the one with this row."""

    item_row: NDArray[np.float32]
    n: int


Question = Lookup | Top | Similar


class Found(NamedTuple):
    """The answer to a Lookup: `present` bool (n,), rows f32 (n, width), zeros where there is none."""

    present: NDArray[np.bool_]
    rows: NDArray[np.float32]


class Listed(NamedTuple):
    """The answer to Top and Similar: items' keys u64 and scores f64, best first, and names, empty where unknown."""

    keys: NDArray[np.uint64]
    scores: NDArray[np.float64]
    names: TextColumn
