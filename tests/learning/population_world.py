"""The population as a scalar transcription over dictionaries, and streams through its tables; the oracle of tests."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from learning.learner import Learner, TableRows
from learning.table import Table

if TYPE_CHECKING:
    from learning.batch import Batch
    from learning.population import Population

BIAS = -1
AVERAGES = (1.0, 0.2, 0.03, 0.003)


def sigmoid(logit: float) -> float:
    """Of the clipped logit."""
    return 1 / (1 + math.exp(-max(-35.0, min(35.0, logit))))


def clip(x: float) -> float:
    """As a stacker sees a logit."""
    return max(-8.0, min(8.0, x))


class Oracle:
    """learning/population.py and learning/mixing.py as their docstrings say it, in Python's floats."""

    def __init__(self, learner: Population) -> None:
        self.of = learner
        self.alphas = (*learner.rates, *learner.restless)
        columns, stackers = len(self.alphas), len(learner.stackers)
        self.z: defaultdict[tuple[int, int], float] = defaultdict(float)
        self.n: defaultdict[int, float] = defaultdict(float)
        self.m: defaultdict[int, float] = defaultdict(float)
        experts = columns + (1 + stackers if stackers else 0)
        self.v = [1 / experts] * experts
        self.counts = [0.0, 0.0]
        self.averages = [0.5] * 4
        self.stack_z = [[0.0] * (columns + 6) for _ in range(stackers)]
        self.stack_n = [[0.0] * (columns + 6) for _ in range(stackers)]

    def squares(self, key: int, k: int) -> float:
        """What column k divides by."""
        return self.n[key] if k < len(self.of.rates) else self.m[key]

    def weight(self, key: int, k: int) -> float:
        """w of a column at a key; the bias takes no L1."""
        z, l1 = self.z[key, k], 0.0 if key == BIAS else self.of.l1
        if abs(z) <= l1:
            return 0.0
        rate = (self.of.beta + math.sqrt(self.squares(key, k))) / self.alphas[k] + self.of.l2
        return -(z - math.copysign(l1, z)) / rate

    def inputs(self, logits: list[float], p: list[float]) -> list[float]:
        """What a stacker looks at."""
        v, base = self.v, p[-1]
        mixed = sum(a * b for a, b in zip(v, p, strict=False)) / sum(v[: len(p)])
        center = clip(math.log(mixed / (1 - mixed)))
        behind = [*self.averages[1:], base]
        steps = [4 * (a - b) for a, b in zip(self.averages, behind, strict=True)]
        return [center, *(clip(logit) - center for logit in logits), 1.0, *steps]

    def stack_weights(self, s: int) -> list[float]:
        """Less where they started."""
        alpha = self.of.stackers[s]
        return [
            -z * alpha / (1 + math.sqrt(n)) for z, n in zip(self.stack_z[s], self.stack_n[s], strict=True)
        ]

    def learn(self, x: dict[int, float], y: float, omega: float) -> float:
        """Predict, then update everything with the weights of that prediction."""
        x = {BIAS: 1.0, **x}
        columns = range(len(self.alphas))
        w = {(key, k): self.weight(key, k) for key in x for k in columns}
        logits = [sum(w[key, k] * value for key, value in x.items()) for k in columns]
        p = [sigmoid(logit) for logit in logits]
        seen: list[float] = []
        if self.of.stackers:
            p.append((self.counts[1] + 0.5) / (sum(self.counts) + 1))
            seen = self.inputs(logits, p)
            for s in range(len(self.of.stackers)):
                ws = self.stack_weights(s)
                p.append(sigmoid(seen[0] + sum(a * b for a, b in zip(ws, seen, strict=True))))
        predicted = sum(v * q for v, q in zip(self.v, p, strict=True)) / sum(self.v)
        own = sum(self.v[k] * p[k] for k in columns) / sum(self.v[k] for k in columns)
        self._learn_columns(x, w, p, own, y, omega)
        self._learn_stackers(seen, p, y, omega)
        self._share(p, y, omega)
        return predicted

    def _learn_columns(self, x, w, p, own, y, omega) -> None:
        for key, value in x.items():
            square = (omega * (own - y) * value) ** 2
            n, m = self.n[key], self.m[key]
            after = {True: n + square, False: self.of.keep * m + square}
            for k, alpha in enumerate(self.alphas):
                still = k < len(self.of.rates)
                sigma = (math.sqrt(after[still]) - math.sqrt(n if still else m)) / alpha
                self.z[key, k] += omega * (p[k] - y) * value - sigma * w[key, k]
            self.n[key], self.m[key] = after[True], after[False]

    def _learn_stackers(self, seen: list[float], p: list[float], y: float, omega: float) -> None:
        for s, alpha in enumerate(self.of.stackers):
            ws = self.stack_weights(s)
            for i, value in enumerate(seen):
                g = omega * (p[len(self.alphas) + 1 + s] - y) * value
                n = self.stack_n[s][i]
                self.stack_z[s][i] += g - (math.sqrt(n + g * g) - math.sqrt(n)) / alpha * ws[i]
                self.stack_n[s][i] = n + g * g
        self.counts[0] += omega * (1 - y)
        self.counts[1] += omega * y
        self.averages = [a + r * (y - a) for a, r in zip(self.averages, AVERAGES, strict=True)]

    def _share(self, p: list[float], y: float, omega: float) -> None:
        losses = [-omega * (y * math.log(q) + (1 - y) * math.log(1 - q)) for q in p]
        likely = [v * math.exp(min(losses) - loss) for v, loss in zip(self.v, losses, strict=True)]
        share = self.of.share
        self.v = [(1 - share) * each / sum(likely) + share / len(p) for each in likely]


def tables_of(learner: Learner) -> tuple[list[Table], list[int]]:
    """Empty tables, and the row of each one's bias."""
    tables = [Table(spec.width, rows_initial=4) for spec in learner.specs()]
    return tables, [int(table.locate(np.array([0], np.uint64))[0]) for table in tables]


def rows_of(
    learner: Learner, tables: list[Table], bias: list[int], batch: Batch, *, born: bool = True
) -> list[TableRows]:
    """A batch's share of the tables."""
    index = [
        (table.locate if born else table.find)(keys)
        for table, keys in zip(tables, learner.keys(batch), strict=True)
    ]
    return [TableRows(table.rows, at, b) for table, at, b in zip(tables, index, bias, strict=True)]


def learn_all(learner: Learner, batches: list[Batch]) -> tuple[np.ndarray, list[Table], list[int]]:
    """Predictions over all batches, and the tables at the end with their biases' rows."""
    tables, bias = tables_of(learner)
    out = [learner.learn(rows_of(learner, tables, bias, batch), batch) for batch in batches]
    return np.concatenate(out), tables, bias


def features_of(batch: Batch, i: int) -> dict[int, float]:
    """A record's entries by key."""
    entries = range(batch.offsets[i], batch.offsets[i + 1])
    return {int(batch.keys[j]): float(batch.values[j]) for j in entries}


def log_loss(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of each record."""
    losses: np.ndarray = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return losses
