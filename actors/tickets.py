"""Tickets: the open pulls of a shard's workers, and what becomes of the walks that were learnt on their rows.

A ticket remembers which rows a pull was given and as what. The walk that comes back is merged into the table, and
carried into the worker's next ticket, which was given out before the walk came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learning.exchange import split_carried

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actors.holding import Holding
    from learning.exchange import Pull
    from learning.learner import Learner

__all__ = ["Ticket", "carry_walk", "merge_walk", "read_rows"]

_NONE = np.empty(0, np.int64)


@dataclass(slots=True)
class Ticket:
    """A worker's open pull: of each table the rows it was given, with their row numbers (-1: absent)."""

    pull: Pull
    at: list[NDArray[np.int64]]
    base: list[NDArray[np.float32]]
    ticks: list[int]


def read_rows(
    held: Holding, t: int, rows: NDArray[np.int64], keys: NDArray[np.uint64], out: NDArray[np.float32]
) -> None:
    """Present rows of table t into `out`; a key without one gets what its row would be born as."""
    if held.keeps_all[t]:
        np.take(held.tables[t].rows, rows, axis=0, out=out, mode="clip")
        return
    present = rows >= 0
    out[present] = held.tables[t].rows[rows[present]]
    births = np.zeros((int(np.count_nonzero(~present)), held.specs[t].width), np.float32)
    if (birth := held.specs[t].birth) is not None:
        birth.fill(keys[~present], births)
    out[~present] = births


def merge_walk(
    learner: Learner, held: Holding, t: int, ticket: Ticket, end: NDArray[np.float32], coupling: float
) -> int:
    """Take a walk into table t; returns how many rows had moved. Keys without a row were learnt in vain."""
    table, at, base = held.tables[t], ticket.at[t], ticket.base[t]
    if not held.keeps_all[t] and (absent := at < 0).any():
        at, base, end = at[~absent], base[~absent], end[~absent]
    return learner.merge(t, table.rows, at, base, end, held.bias_row(t), coupling)


def carry_walk(
    learner: Learner,
    held: Holding,
    t: int,
    ticket: Ticket,
    following: Ticket,
    end: NDArray[np.float32],
    coupling: float,
) -> None:
    """Take a walk into the base of the worker's next pull, as the worker takes it into the rows it pulled."""
    places = split_carried(following.pull)[t]
    to = np.arange(len(places))
    if not held.keeps_all[t]:
        both = (ticket.at[t][places] >= 0) & (following.at[t][: len(places)] >= 0)
        places, to = places[both], to[both]
    rows = following.base[t]
    bias = np.flatnonzero(following.at[t] == held.bias_row(t)) if held.specs[t].bias else _NONE
    place = int(bias[0]) if len(bias) else -1
    learner.merge(t, rows, to, ticket.base[t][places], end[places], place, coupling)
