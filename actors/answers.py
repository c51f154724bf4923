"""What a shard answers to questions about its rows; nothing here changes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning.questions import Found, Listed, Lookup, Question, Top
from learning.recommending import ITEMS, ranker_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from actors.table_names import TableNames
    from learning.bounded import BoundedTable
    from learning.learner import Learner

__all__ = ["answer"]


def answer(
    question: Question, learner: Learner, tables: Sequence[BoundedTable], names: TableNames
) -> Found | Listed:
    """Answer one question from a shard's `tables`, in the order of the learner's specs.

    Raises:
        ValueError: the learner has no such table, or ranks nothing.

    """
    by_name = {spec.name: t for t, spec in enumerate(learner.specs())}
    if isinstance(question, Lookup):
        if question.table not in by_name:
            raise ValueError(f"expected one of the tables {', '.join(by_name)}, but came {question.table!r}")
        return _looked_up(question.keys, tables[by_name[question.table]])
    ranker = ranker_of(learner)
    items = tables[by_name[ITEMS]]
    keys, rows, live = items.view()
    n = min(question.n, len(items))
    if isinstance(question, Top):
        best, scores = ranker.top(question.user_row, rows, keys, live, n)
    else:
        best, scores = ranker.similar(question.item_row, rows, keys, live, n)
    return Listed(best, scores, names.of(by_name[ITEMS], items.find(best), best))


def _looked_up(keys: NDArray[np.uint64], table: BoundedTable) -> Found:
    at = table.find(keys.copy())  # what arrives from another process is read-only: numba would compile again
    rows = np.zeros((len(keys), table.rows.shape[1]), np.float32)
    rows[at >= 0] = table.rows[at[at >= 0]]
    return Found(at >= 0, rows)
