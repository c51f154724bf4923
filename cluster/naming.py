"""The names that a shard asked for, out of the batch whose keys they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning.exchange import Named
from learning.texts import TextColumn

if TYPE_CHECKING:
    from cluster.walks import Walk
    from learning.learner import Learner

__all__ = ["names_of"]


def names_of(learner: Learner, walk: Walk, shard: int) -> Named | None:
    """Texts of the keys that `shard` has no names for; None if it wants none, or the batch brought no texts."""
    wanted, texts = walk.nameless[shard], walk.batch.role_texts
    if wanted is None or texts is None:
        return None
    found, start = [], 0
    for spec, of in zip(learner.specs(), walk.grouped, strict=True):
        first, size = int(of.bounds[shard]), int(of.bounds[shard + 1] - of.bounds[shard])
        if (role := learner.named.get(spec.name)) is not None:
            record = np.empty(len(of.keys), np.int64)
            record[of.index] = np.arange(len(of.index))  # of a named table, entry i is of record i
            mine = wanted[(wanted >= start) & (wanted < start + size)]
            found.append(texts[role].take(record[first + mine - start]))
        start += size
    return Named(wanted, TextColumn.concat(found))
