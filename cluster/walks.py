"""A worker's walk over the rows of one batch: joined from the shards' answers, and carried into the batch after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from learning.exchange import Rows, split_rows
from learning.learner import TableRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.grouping import GroupedKeys
    from learning.learner import Learner

__all__ = ["Walk", "begin_walk", "carry_forward"]


@dataclass(slots=True)
class Walk:
    """A batch that is being learnt, or was the last: of each table from which rows, to which; and how coupled.

    `absent` by table: which of its keys have no row; None where all have one. `nameless` by shard: the places, in what
    was pulled from it, of keys whose names it wants.
    """

    batch: Batch
    grouped: list[GroupedKeys]
    tables: tuple[TableRows, ...]
    absent: list[NDArray[np.bool_]] | None
    nameless: list[NDArray[np.int32] | None]
    bases: list[NDArray[np.float32]] = field(default_factory=list)
    coupling: float = 1.0


def begin_walk(batch: Batch, grouped: list[GroupedKeys], answers: list[Rows], widths: list[int]) -> Walk:
    """The shards' answers as rows of the batch: of each table, the shards' stretches one behind the other."""
    sizes = [
        [int(of.bounds[shard + 1] - of.bounds[shard]) for of in grouped] for shard in range(len(answers))
    ]
    parts = [split_rows(answer.flat, size, widths) for answer, size in zip(answers, sizes, strict=True)]
    tables = []
    for t, of in enumerate(grouped):
        rows = np.empty((len(of.keys), widths[t]), np.float32)
        np.concatenate([part[t] for part in parts], out=rows)
        tables.append(TableRows(rows, of.index, of.bias))
    nameless = [answer.nameless for answer in answers]
    return Walk(batch, grouped, tuple(tables), _absent(grouped, answers), nameless)


def _absent(grouped: list[GroupedKeys], answers: list[Rows]) -> list[NDArray[np.bool_]] | None:
    if all(answer.absent is None for answer in answers):
        return None
    absent = []
    for t, of in enumerate(grouped):
        missing = np.zeros(len(of.keys), np.bool_)
        for shard, answer in enumerate(answers):
            if answer.absent is not None:
                missing[of.bounds[shard] + answer.absent[t]] = True
        absent.append(missing)
    return absent


def carry_forward(learner: Learner, learnt: Walk, walk: Walk) -> None:
    """Take the walk over the batch before into the rows of this one, by the rule that the shards apply."""
    for t, of in enumerate(walk.grouped):
        before = learnt.grouped[t]
        to = _stretches(of.bounds[:-1], of.carries)
        places = of.carried + np.repeat(before.bounds[:-1], of.carries)
        if learnt.absent is not None and walk.absent is not None:
            both = ~(learnt.absent[t][places] | walk.absent[t][to])
            places, to = places[both], to[both]
        end = learnt.tables[t].rows[places]
        learner.merge(t, walk.tables[t].rows, to, learnt.bases[t][places], end, of.bias, learnt.coupling)


def _stretches(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers starts[i], starts[i] + 1, ... of each of the stretches, one stretch after the other."""
    return np.repeat(starts - np.concatenate(([0], np.cumsum(counts)[:-1])), counts) + np.arange(counts.sum())
