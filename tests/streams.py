"""Seeded streams for tests: batches with Zipf-distributed keys and labels that depend on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from learning.batch import CATEGORY, NUMBER, Batch, BatchId

COLUMNS = 7


def stream(records: int, *, seed: int = 0, columns: int = COLUMNS, partition: int = 0) -> Batch:
    """One batch of `records`: `columns` features each, the first two numeric, the others Zipf categories."""
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.3, size=(records, columns)).astype(np.uint64) % np.uint64(5000)
    ids[:, :2] = 0
    columns_at = np.arange(columns, dtype=np.uint64)
    keys = (ids * np.uint64(64) + columns_at + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = np.ones((records, columns), np.float32)
    values[:, :2] = rng.normal(3.0, 2.0, size=(records, 2))
    logit = (values[:, 0] - 3.0) * 0.7 + np.where(ids[:, 2] % 2 == 0, 1.0, -1.0) - 0.5
    labels = (rng.random(records) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    kinds = np.full((records, columns), CATEGORY, np.uint8)
    kinds[:, :2] = NUMBER
    return Batch(
        batch_id=BatchId(partition, 0, records),
        keys=keys.ravel(),
        values=values.ravel(),
        kinds=kinds.ravel(),
        offsets=np.arange(records + 1, dtype=np.int64) * columns,
        labels=labels,
        weights=np.ones(records, np.float32),
        event_times_s=np.full(records, np.nan),
        produced_s=np.full(records, np.nan),
        positions=np.arange(records, dtype=np.int64),
    )


def cut(batch: Batch, size: int) -> list[Batch]:
    """The same records in batches of at most `size`, with the batch ids of their places."""
    return [_part(batch, first, min(first + size, len(batch))) for first in range(0, len(batch), size)]


def _part(batch: Batch, first: int, last: int) -> Batch:
    entries = slice(batch.offsets[first], batch.offsets[last])
    records = slice(first, last)
    return replace(
        batch,
        batch_id=BatchId(batch.batch_id.partition, first, last),
        keys=batch.keys[entries],
        values=batch.values[entries],
        kinds=batch.kinds[entries],
        offsets=batch.offsets[first : last + 1] - batch.offsets[first],
        labels=batch.labels[records],
        weights=batch.weights[records],
        event_times_s=batch.event_times_s[records],
        produced_s=batch.produced_s[records],
        positions=batch.positions[records],
        role_texts=batch.role_texts
        and {role: texts.take(np.arange(first, last)) for role, texts in batch.role_texts.items()},
        features=None if batch.features is None else batch.features[entries],
        slices=None if batch.slices is None else batch.slices.take(np.arange(first, last)),
    )
