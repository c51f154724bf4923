"""Streams for benchmarks/scale.py: the same records as JSON and as Arrow, with few or with many distinct keys.

A record of `clicks` has 13 numbers and 8 categories whose values are drawn by Zipf's law, exponent 1.1, from 200,000
each, so that a batch meets old values and new ones all the time; `numbers` has the 13 numbers alone.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
from kafka import KafkaProducer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["ARROW_ROWS", "CATEGORIES", "NUMBERS", "PARTITIONS", "TOPICS", "fill"]

PARTITIONS, NUMBERS, CATEGORIES, ARROW_ROWS = 8, 13, 8, 512
TOPICS = ("clicks_arrow", "clicks_json", "numbers_arrow")
_VALUES, _EXPONENT = 200_000, 1.1


def _columns(count: int, *, categories: bool) -> dict[str, NDArray[np.generic] | list[str]]:
    """Features and labels from a seed: numbers f64, categories as text, labels 0 or 1."""
    rng = np.random.default_rng(7)
    numbers = rng.normal(size=(count, NUMBERS)).round(6) * np.arange(1, NUMBERS + 1)
    columns: dict[str, NDArray[np.generic] | list[str]] = {f"n{i}": numbers[:, i] for i in range(NUMBERS)}
    logit = numbers[:, 0] + 0.3 * numbers[:, 1] - 0.8
    shares = np.arange(1, _VALUES + 1) ** -_EXPONENT
    ends = np.cumsum(shares / shares.sum())
    for i in range(CATEGORIES if categories else 0):
        values = np.searchsorted(ends, rng.random(count))
        logit += 0.5 * np.sin(values + i)
        columns[f"c{i}"] = [f"v{value}" for value in values.tolist()]
    columns["label"] = (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return columns


def _json_messages(count: int) -> Iterator[bytes]:
    """One record a message."""
    columns = _columns(count, categories=True)
    names = [name for name in columns if name != "label"]
    values = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values()]
    for i, (*features, label) in enumerate(zip(*values, strict=True)):
        yield orjson.dumps({"id": i, "features": dict(zip(names, features, strict=True)), "label": label})


def _arrow_messages(count: int, *, categories: bool) -> Iterator[bytes]:
    """ARROW_ROWS records a message, with their ids."""
    columns = {"id": np.arange(count)} | _columns(count, categories=categories)
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    for batch in table.to_batches(ARROW_ROWS):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield sink.getvalue()


def fill(servers: str, counts: dict[str, int]) -> dict[str, float]:
    """Send so many records to each topic, in turn over its partitions; returns the bytes a record of each."""
    producer = KafkaProducer(
        bootstrap_servers=servers, linger_ms=50, batch_size=2**20, max_request_size=2**23
    )
    sizes: dict[str, float] = {}
    for topic, count in counts.items():
        messages = (
            _json_messages(count)
            if topic.endswith("json")
            else _arrow_messages(count, categories=topic.startswith("clicks"))
        )
        sent = 0
        for turn, message in enumerate(messages):
            producer.send(topic, message, partition=turn % PARTITIONS)
            sent += len(message)
        sizes[topic] = sent / count
    producer.flush(300)
    producer.close()
    return sizes
