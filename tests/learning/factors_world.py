"""A store without shards for tests of the factor learner, and the learner's equations as plain Python."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from learning.batch import ROLE_FIRST, Batch, BatchId
from learning.factors import Factors
from learning.keys import BIAS_KEY, name_key, value_key
from learning.learner import TableRows
from learning.table import Table


def key(name: str, number: int) -> np.uint64:
    return value_key(name_key(name), str(number))


def ratings(users, items, labels, weights=None, *, partition: int = 0, first: int = 0) -> Batch:
    """A batch in which record i is labels[i] of the numbered user and item; items come first in each record's entries
    where the user's number is odd, because roles and not places say which is which.
    """
    n = len(labels)
    pairs = [(key("user", u), key("item", i)) for u, i in zip(users, items, strict=True)]
    swapped = [int(u) % 2 for u in users]
    return Batch(
        batch_id=BatchId(partition, first, first + n),
        keys=np.array([p[s ^ j] for p, s in zip(pairs, swapped, strict=True) for j in (0, 1)], np.uint64),
        values=np.ones(2 * n, np.float32),
        kinds=np.array([ROLE_FIRST + (s ^ j) for s in swapped for j in (0, 1)], np.uint8),
        offsets=np.arange(0, 2 * n + 1, 2, dtype=np.int64),
        labels=np.array(labels, np.float32),
        weights=np.ones(n, np.float32) if weights is None else np.array(weights, np.float32),
        event_times_s=np.full(n, np.nan),
        produced_s=np.full(n, np.nan),
        positions=np.arange(first, first + n),
    )


@dataclass
class Pulled:
    """What a worker holds of each table: rows, and where they lie in the store."""

    tables: list[TableRows]
    at: list[np.ndarray]
    base: list[np.ndarray]


@dataclass
class Store:
    """All of a learner's tables in one place."""

    learner: Factors
    tables: list[Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = [Table(spec.width) for spec in self.learner.specs()]

    def pull(self, batch: Batch) -> Pulled:
        """Copies of the batch's rows; new ones are born."""
        pulled = Pulled([], [], [])
        for spec, table, keys in zip(
            self.learner.specs(), self.tables, self.learner.keys(batch), strict=True
        ):
            wanted, index = np.unique(keys, return_inverse=True)
            if spec.bias:
                wanted = np.append(wanted, BIAS_KEY)
            before = len(table)
            at = table.locate(wanted)
            if spec.birth and len(table) > before:
                spec.birth.fill(table.keys[before:], table.rows[before:])
            rows = table.rows[at].copy()
            pulled.tables.append(
                TableRows(rows, index.astype(np.int64), len(wanted) - 1 if spec.bias else -1)
            )
            pulled.at.append(at)
            pulled.base.append(rows.copy())
        return pulled

    def find(self, batch: Batch) -> list[TableRows]:
        """The rows as they are, -1 where a key has none."""
        bias = np.array([BIAS_KEY])
        return [
            TableRows(table.rows, table.find(keys), int(table.find(bias)[0]) if spec.bias else -1)
            for spec, table, keys in zip(
                self.learner.specs(), self.tables, self.learner.keys(batch), strict=True
            )
        ]

    def push(self, pulled: Pulled) -> list[int]:
        """Merge what a worker learnt; how many rows of each table others had moved."""
        return [
            self.learner.merge(number, self.tables[number].rows, at, base, table.rows, table.bias, 1.0)
            for number, (at, base, table) in enumerate(
                zip(pulled.at, pulled.base, pulled.tables, strict=True)
            )
        ]

    def learn(self, batch: Batch) -> np.ndarray:
        """Pull, learn, push, as the only worker does."""
        pulled = self.pull(batch)
        predictions = self.learner.learn(pulled.tables, batch)
        self.push(pulled)
        return predictions

    def state(self) -> list[dict[int, tuple[float, ...]]]:
        """Each table's rows by key."""
        return [
            {int(k): tuple(row.tolist()) for k, row in zip(table.keys, table.rows, strict=True)}
            for table in self.tables
        ]


@dataclass
class Plain:
    """The equations of learning/factors.py on dictionaries and lists; rows are (b, a, c, factors), in doubles."""

    learner: Factors
    rows: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    seen: list[tuple[float, float]] = field(default_factory=list)

    def row(self, name: str, number: int) -> list[Any]:
        if (name, number) not in self.rows:
            spec = self.learner.specs()[0 if name == "user" else 1]
            born = np.zeros((1, spec.width))
            assert spec.birth is not None
            spec.birth.fill(np.array([key(name, number)]), born)
            self.rows[name, number] = [0.0, 0.0, 0.0, born[0, 4:].tolist()]
        return self.rows[name, number]

    def learn(self, user: int, item: int, rating: float, weight: float) -> float:
        """One rating; the prediction made before."""
        of, u, i = self.learner, self.row("user", user), self.row("item", item)
        score = u[0] + i[0] + sum(p * q for p, q in zip(u[3], i[3], strict=True))
        predicted = 0.0
        if self.seen:
            mean, deviation = self.scale()
            seen = [r for r, _ in self.seen]
            predicted = min(max(mean + deviation * score, min(seen)), max(seen))
        self.seen.append((rating, weight))
        mean, deviation = self.scale()
        if deviation > 0.0:
            h = weight / of.noise
            y = h * min(max((rating - mean) / deviation - score, -8.0), 8.0)
            self.step(u, i, y, h)
        return predicted

    def step(self, u: list[Any], i: list[Any], y: float, h: float) -> None:
        of = self.learner
        bu, bi = (1.0 / (1.0 / of.bias_variance + row[1]) for row in (u, i))
        vu, vi = (1.0 / (1.0 / of.factor_variance + row[2]) for row in (u, i))
        pp, qq = (sum(f * f for f in row[3]) for row in (u, i))
        variance = bu + bi + vu * qq + vi * pp
        g = y / (1.0 + h * variance)
        u[0], i[0] = u[0] + bu * g, i[0] + bi * g
        u[3], i[3] = (
            [p + vu * g * q for p, q in zip(u[3], i[3], strict=True)],
            [q + vi * g * p for p, q in zip(u[3], i[3], strict=True)],
        )
        u[1] = (1.0 - 1.0 / of.user_memory) * u[1] + h / (1.0 + h * (variance - bu))
        i[1] = (1.0 - 1.0 / of.item_memory) * i[1] + h / (1.0 + h * (variance - bi))
        u[2] += h * qq / math.sqrt(of.factors) / (1.0 + h * (variance - vu * qq))
        i[2] += h * pp / math.sqrt(of.factors) / (1.0 + h * (variance - vi * pp))

    def scale(self) -> tuple[float, float]:
        """Mean and deviation of all ratings seen, from scratch."""
        total = sum(w for _, w in self.seen)
        mean = sum(r * w for r, w in self.seen) / total
        return mean, math.sqrt(sum(w * (r - mean) ** 2 for r, w in self.seen) / total)


def toy(n: int, seed: int, users: int = 30, items: int = 40) -> tuple[np.ndarray, ...]:
    """Ratings 1 to 5 in halves: tastes of two dimensions, moods and fames."""
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(users, 2)), rng.normal(size=(items, 2))
    u, i = rng.integers(users, size=n), (items * rng.random(n) ** 2).astype(int)
    score = (
        3.5 + 0.4 * rng.normal(size=users)[u] + 0.4 * rng.normal(size=items)[i] + 0.5 * (p[u] * q[i]).sum(1)
    )
    rated = np.clip(np.round(2 * (score + 0.3 * rng.normal(size=n))) / 2, 1.0, 5.0)
    return u, i, rated, rng.choice([0.5, 1.0, 2.0], n)
