"""Factors at scale: a million users and a hundred thousand items, born on demand, and recommendations among them.

Seeded ratings, 50 factors: every user rates, items are drawn by Zipf's law. One worker learns them through a
ShardedStore over two shards in this process; then random users are asked for their best 10 of all items, what they have
rated left out, as `jobs.recommend` does. The peer is what one writes with numpy: all scores by one product of matrices,
then a full argsort; its answers must be the same.

    python -m benchmarks.recommend [--users 1000000] [--items 100000] [--ratings 3000000] [--queries 300]
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.measure import machine
from cluster.local_store import DirectShards
from cluster.recommend import Recommender
from cluster.store import ShardedStore
from learning.batch import ROLE_FIRST, Batch, BatchId
from learning.factors import Factors
from learning.factors_kernels import FACTORS
from learning.keys import name_key, value_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARDS, BATCH, BEST = 2, 8192, 10
LEARNER = Factors(factors=50)


def keys_of(role: str, count: int) -> NDArray[np.uint64]:
    """Keys of the ids 0 to `count`."""
    name = name_key(role)
    return np.array([value_key(name, str(number)) for number in range(count)], np.uint64)


def batch_of(keys: NDArray[np.uint64], labels: NDArray[np.float32], first: int) -> Batch:
    """Ratings as a decoder would give them; keys u64 (n, 2): user and item."""
    n = len(labels)
    nothing, ones = np.full(n, np.nan), np.ones(n, np.float32)
    return Batch(
        BatchId(0, first, first + n), keys.ravel(), np.ones(2 * n, np.float32),
        np.tile(np.array([ROLE_FIRST, ROLE_FIRST + 1], np.uint8), n), np.arange(n + 1, dtype=np.int64) * 2,
        labels, ones, nothing, nothing, np.arange(first, first + n),
    )  # fmt: skip


def learnt(
    users: NDArray[np.uint64], items: NDArray[np.uint64], ratings: int
) -> tuple[DirectShards, float, dict[int, set[int]]]:
    """Shards that have learnt the ratings, records per second, and which items the first users have rated."""
    rng = np.random.default_rng(11)
    shards = DirectShards(SHARDS, LEARNER)
    store, seconds = ShardedStore(0, shards, LEARNER), 0.0
    rated: dict[int, set[int]] = {}
    order = rng.permutation(np.arange(ratings) % len(users))  # every user rates
    for first in range(0, ratings, BATCH):
        who = order[first : first + BATCH]
        what = rng.zipf(1.2, len(who)) % len(items)
        labels = np.clip(np.round(3.5 + rng.normal(0, 1.0, len(who))), 1, 5).astype(np.float32)
        batch = batch_of(np.stack([users[who], items[what]], axis=1), labels, first)
        started_s = time.perf_counter()
        store.pull(batch)
        pulled = store.wait()
        LEARNER.learn(pulled.tables, batch)
        store.push(pulled)
        seconds += time.perf_counter() - started_s
        for user, item in zip(who.tolist(), what.tolist(), strict=True):
            if user < 1000:
                rated.setdefault(user, set()).add(item)
    store.flush()
    return shards, ratings / seconds, rated


class FullSort:
    """All items' rows in one matrix; a query is a product, the known left out, and an argsort."""

    def __init__(self, shards: DirectShards, items: NDArray[np.uint64], users: NDArray[np.uint64]) -> None:
        tables = [shard.snapshot() for shard in shards.shards]
        keys = np.concatenate([table["items"].keys for table in tables])
        self._rows = np.concatenate([table["items"].rows for table in tables])
        number = {int(key): place for place, key in enumerate(items.tolist())}
        self._ids = np.array([number[key] for key in keys.tolist()])
        of_users: dict[int, NDArray[np.float32]] = {}
        for table in tables:
            of_users |= dict(zip(table["users"].keys.tolist(), table["users"].rows, strict=True))
        self._users = [of_users[int(key)] for key in users[:1000]]

    def best(self, user: int, known: set[int]) -> list[int]:
        """Items best first."""
        row = self._users[user].astype(np.float64)
        scores = self._rows[:, 0] + self._rows[:, FACTORS:].astype(np.float64) @ row[FACTORS:]
        ranked = self._ids[np.argsort(-scores, kind="stable")]
        return [int(item) for item in ranked[: BEST + len(known)] if int(item) not in known][:BEST]


def timed(function: Any, queries: list[int]) -> tuple[list[Any], NDArray[np.float64]]:
    """Answers, and milliseconds of each."""
    answers, times = [], []
    for user in queries:
        started_s = time.perf_counter()
        answers.append(function(user))
        times.append((time.perf_counter() - started_s) * 1e3)
    return answers, np.array(times)


def main(
    users: Annotated[int, typer.Option()] = 1_000_000,
    items: Annotated[int, typer.Option()] = 100_000,
    ratings: Annotated[int, typer.Option()] = 3_000_000,
    queries: Annotated[int, typer.Option(min=10)] = 300,
) -> None:
    """Measure and print a table for RESULTS.md."""
    of_users, of_items = keys_of("user", users), keys_of("item", items)
    number = {f"key:{int(key):016x}": place for place, key in enumerate(of_items.tolist())}
    shards, rate, rated = learnt(of_users, of_items, ratings)
    status = [shard.status()["tables"] for shard in shards.shards]
    print(f"{machine()}; {ratings:,} ratings, {LEARNER.factors} factors, {SHARDS} shards called directly\n")
    print(f"Learnt {rate:,.0f} ratings/s, from empty tables.\n")
    print("| table | rows | bytes a row, key and index included |\n|---|--:|--:|")
    for spec in LEARNER.specs():
        rows = sum(table[spec.name]["rows"] for table in status)
        bytes_ = sum(table[spec.name]["bytes"] for table in status)
        print(f"| {spec.name} (width {spec.width}) | {rows:,} | {bytes_ / rows:,.0f} |")
    recommender, full = Recommender(shards, LEARNER), FullSort(shards, of_items, of_users)
    asked = np.random.default_rng(5).integers(0, 1000, queries).tolist()
    ours, our_ms = timed(lambda user: recommender.recommend(str(user), BEST), asked)
    peers, peer_ms = timed(lambda user: full.best(user, rated.get(user, set())), asked)
    found = [[number[name] for name, _ in answer] for answer in ours]
    equal = sum(a == b for a, b in zip(found, peers, strict=True))
    print(f"\nThe best {BEST} of all items, {queries} users; {equal} of {queries} answers are the same.\n")
    print("| way | p50 ms | p99 ms |\n|---|--:|--:|")
    for name, times in (("ours, 2 shards", our_ms), ("numpy product and full argsort", peer_ms)):
        print(f"| {name} | {np.quantile(times, 0.5):.1f} | {np.quantile(times, 0.99):.1f} |")


if __name__ == "__main__":
    typer.run(main)
