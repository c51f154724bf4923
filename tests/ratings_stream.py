"""Seeded streams of ratings for tests: users and items of Zipf popularity, and tastes that a factor model can find."""

from __future__ import annotations

import numpy as np

from learning.batch import ROLE_FIRST, Batch, BatchId
from learning.keys import name_key, value_key
from learning.texts import TextColumn

USERS, ITEMS, TASTES = 120, 200, 3


def ratings(
    records: int, *, seed: int = 0, partition: int = 0, users: int = USERS, first_user: int = 0
) -> Batch:
    """One batch of `records` ratings from 1 to 5 by users number `first_user` to `first_user + users`."""
    rng = np.random.default_rng(seed)
    tastes = np.random.default_rng(99)
    of_users, of_items = tastes.normal(size=(1000, TASTES)), tastes.normal(size=(ITEMS, TASTES))
    who = first_user + rng.integers(0, users, records)
    what = rng.zipf(1.3, records) % ITEMS
    liking = 3.2 + 0.5 * np.einsum("ij,ij->i", of_users[who], of_items[what]) + rng.normal(0.0, 0.4, records)
    keys = np.empty((records, 2), np.uint64)
    for column, (name, ids) in enumerate((("user", who), ("item", what))):
        named = name_key(name)
        known = {number: value_key(named, str(number)) for number in set(ids.tolist())}
        keys[:, column] = [known[number] for number in ids.tolist()]
    return Batch(
        batch_id=BatchId(partition, 0, records),
        keys=keys.ravel(),
        values=np.ones(2 * records, np.float32),
        kinds=np.tile(np.array([ROLE_FIRST, ROLE_FIRST + 1], np.uint8), records),
        offsets=np.arange(records + 1, dtype=np.int64) * 2,
        labels=np.clip(np.round(liking * 2) / 2, 1.0, 5.0).astype(np.float32),
        weights=np.ones(records, np.float32),
        event_times_s=np.full(records, np.nan),
        produced_s=np.full(records, np.nan),
        positions=np.arange(records, dtype=np.int64),
        role_texts={1: TextColumn.from_list([str(number) for number in what.tolist()])},
    )
