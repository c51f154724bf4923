"""Rows of a torch learner's tables in a test's hand, and records for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from learning.batch import CATEGORY, Batch
from learning.deep import Deep
from learning.deep_layout import layout_of
from learning.learner import TableRows
from learning.table import Table
from tests.streams import stream

SMALL = Deep(embedding=4, hidden=(8,), step_records=16)


class Rows:
    """The tables of one process, and a learner that learns from them."""

    def __init__(self, learner: Deep) -> None:
        self.learner = learner
        self.tables = [Table(spec.width, birth=spec.birth) for spec in learner.specs()]

    def learn(self, batch: Batch) -> np.ndarray:
        """Predictions; the tables have learnt."""
        at = [table.locate(keys) for table, keys in zip(self.tables, self.learner.keys(batch), strict=True)]
        rows = [TableRows(table.rows, index) for table, index in zip(self.tables, at, strict=True)]
        return self.learner.learn(rows, batch)

    def predict(self, batch: Batch) -> np.ndarray:
        """Predictions; nothing changes."""
        at = [table.find(keys) for table, keys in zip(self.tables, self.learner.keys(batch), strict=True)]
        rows = [TableRows(table.rows.copy(), index) for table, index in zip(self.tables, at, strict=True)]
        return self.learner.predict(rows, batch)

    def parameters(self) -> dict[str, np.ndarray]:
        """The dense parameters by name, as copies."""
        return layout_of(self.learner).unpack(self.blocks())

    def moments(self) -> np.ndarray:
        """Steps and moments of all blocks, in the layout's order."""
        return np.delete(self.blocks(), np.s_[1:257], axis=1)

    def blocks(self) -> np.ndarray:
        """A copy of the dense rows, in the layout's order."""
        at = self.tables[1].locate(layout_of(self.learner).keys)
        return self.tables[1].rows[at].copy()

    def state(self) -> list[bytes]:
        """All keys and rows."""
        return [part.tobytes() for table in self.tables for part in table.snapshot()]


def encoded(records: int, *, seed: int = 0, columns: int = 7) -> Batch:
    """A stream as the encoder leaves it: all entries categories, numbers of size one."""
    batch = stream(records, seed=seed, columns=columns)
    values = np.where(batch.values == 1.0, np.float32(1.0), (batch.values - 3.0) / 2.0).astype(np.float32)
    return replace(batch, values=values, kinds=np.full(len(values), CATEGORY, np.uint8))


def log_loss(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean log-loss."""
    p = np.clip(predictions, 1e-7, 1 - 1e-7)
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())
