"""Streams of losses for benchmarks.drift: seeded ones whose changes are known, and our learner on shared streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from learning.batch import CATEGORY, NUMBER, Batch, BatchId
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY, name_key, value_key
from learning.learner import TableRows
from learning.losses import log_loss
from learning.table import Table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CHANGES", "SHARED", "Known", "of_the_learner", "stationary", "with_changes"]

BATCH = 512


@dataclass(frozen=True, slots=True)
class Known:
    """Losses f64 (n,) of a model that does not learn, where its loss begins to rise, and where that state ends."""

    losses: np.ndarray
    rises: tuple[int, ...]
    ends: tuple[int, ...]


def _losses(rng: np.random.Generator, rate: float, worse: np.ndarray) -> np.ndarray:
    """Log-losses of calibrated predictions around a base rate; with probability `worse` they are another record's."""
    p = 1 / (1 + np.exp(-rng.normal(np.log(rate / (1 - rate)) - 0.3, 1.0, len(worse))))
    p = np.clip(p, 1e-6, 1 - 1e-6)
    # Another record's probability: the base rate stays, what the model knew is gone.
    true = np.where(rng.random(len(worse)) < worse, rng.permutation(p), p)
    return log_loss(p, (rng.random(len(worse)) < true).astype(np.float32))


def stationary(seed: int, rate: float, records: int = 100_000) -> np.ndarray:
    """Nothing changes."""
    return _losses(np.random.default_rng(seed), rate, np.zeros(records))


def _shape(kind: str) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]:
    if kind == "gradual":
        return np.clip((np.arange(50_000) - 20_000) / 10_000, 0, 1), (20_000,), (50_000,)
    if kind == "recurring":
        level = (np.arange(80_000) // 10_000 % 2).astype(np.float64)
        return level, tuple(range(10_000, 80_000, 20_000)), tuple(range(20_000, 90_000, 20_000))
    size = {"abrupt": 1.0, "abrupt, half": 0.5}[kind]
    return size * (np.arange(40_000) >= 20_000), (20_000,), (40_000,)


CHANGES = ("abrupt", "abrupt, half", "gradual", "recurring")
"""At once after 20,000 records (for all records, or for half of them); within 10,000; for every second 10,000."""


def with_changes(kind: str, seed: int, rate: float = 0.2) -> Known:
    """A stream of one of CHANGES."""
    worse, rises, ends = _shape(kind)
    return Known(_losses(np.random.default_rng(seed), rate, worse), rises, ends)


SHARED = {
    "syn_interchangingrbf": ((), ("f0", "f1")),
    "elec2": ((), ("date", "day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")),
    "noaa_weather": ((), tuple(f"feat_{i}" for i in range(1, 9))),
    "flights_pnw2014": (("carrier", "origin", "dest"), ("distance",)),
}
"""Of each shared stream, the columns that are categories, and those that are numbers."""


def of_the_learner(
    file: Path, categories: tuple[str, ...], numbers: tuple[str, ...], seed: int | None
) -> np.ndarray:
    """Progressive log-losses f64 (n,) of FTRL as jobs.evaluate has it; of several classes, one against the rest each.

    With a seed the rows are shuffled, after which nothing changes.
    """
    frame = pd.read_csv(file)
    if seed is not None:
        frame = frame.sample(frac=1.0, random_state=seed)
    labels = frame["y"].to_numpy()
    classes = np.unique(labels)
    batches = [*_batches(frame, categories, numbers)]
    if len(classes) == 2:
        return np.concatenate(_learn(batches, labels == classes[1])[1])
    chances = np.stack([np.concatenate(_learn(batches, labels == k)[0]) for k in classes], axis=1)
    own = chances[np.arange(len(labels)), np.searchsorted(classes, labels)]
    return np.asarray(-np.log(np.clip(own / chances.sum(axis=1), 1e-15, None)))


def _batches(frame: pd.DataFrame, categories: tuple[str, ...], numbers: tuple[str, ...]) -> list[Batch]:
    """Encoded batches in stream order, without labels."""
    columns = [
        np.array([value_key(name_key(name), str(v)) for v in frame[name]], np.uint64) for name in categories
    ]
    columns += [np.full(len(frame), name_key(name), np.uint64) for name in numbers]
    keys = np.stack(columns, axis=1)
    values = np.ones(keys.shape, np.float32)
    for i, name in enumerate(numbers, len(categories)):
        values[:, i] = frame[name].to_numpy(np.float32)
    kinds = np.r_[np.full(len(categories), CATEGORY), np.full(len(numbers), NUMBER)].astype(np.uint8)
    encoder, made = NumericEncoder(), []
    for first in range(0, len(frame), BATCH):
        n = min(BATCH, len(frame) - first)
        part, unknown = slice(first, first + n), np.full(n, np.nan)
        made.append(
            encoder.encode(
                Batch(
                    BatchId(0, first, first + n), keys[part].ravel(), values[part].ravel(), np.tile(kinds, n),
                    np.arange(n + 1, dtype=np.int64) * len(kinds), np.zeros(n, np.float32), np.ones(n, np.float32),
                    unknown, unknown, np.arange(first, first + n),
                )
            )
        )  # fmt: skip
    return made


def _learn(batches: list[Batch], labels: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Predictions and losses of each batch, made before it was learnt."""
    table, ftrl, predicted, losses = Table(2), Ftrl(), [], []
    y = labels.astype(np.float32)
    bias = int(table.locate(np.array([BIAS_KEY], np.uint64))[0])
    for batch in batches:
        batch.labels[:] = y[batch.batch_id.first_offset : batch.batch_id.next_offset]
        index = table.locate(batch.keys)
        p = ftrl.learn([TableRows(table.rows, index, bias)], batch)
        predicted.append(p)
        losses.append(log_loss(p, batch.labels))
    return predicted, losses
