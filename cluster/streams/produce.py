"""Sends a file, or one of river's data sets, to a topic: the work behind `python -m jobs.produce`.

JSON is one record a message, to the partition of its key or round robin; Arrow is one record batch a message, round
robin. A file's types are found by the rule of file_schema.py, so what is sent means what the file means.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa

from actors.ports import SourceError
from cluster.config import FeaturesConfig, KafkaConnection
from cluster.streams.file_blocks import BadRow, RowBlock
from cluster.streams.file_columns import to_message
from cluster.streams.file_rows import open_rows
from cluster.streams.file_schema import infer_schema
from cluster.streams.file_source import encode_arrow
from cluster.streams.kafka_sender import KafkaSender, ensure_topic
from cluster.streams.river_rows import RIVER_PREFIX, river_rows
from learning.keys import number_text

__all__ = ["ProducePlan", "Produced", "produce"]

SLICES_PER_S = 20
"""At a given rate, records leave in this many slices a second."""


@dataclass(frozen=True, slots=True)
class ProducePlan:
    """What is sent and how; `rate` is records/s (None: as fast as it goes), `partitions` None keeps the topic's own."""

    origin: str
    topic: str
    connection: KafkaConnection
    format: Literal["json", "arrow"] = "json"
    rate: float | None = None
    key: str | None = None
    partitions: int | None = None
    label: str = "y"
    time: str | None = None
    id: str | None = None
    ignore: tuple[str, ...] = ()
    limit: int | None = None
    records_per_message: int = 1024


@dataclass(frozen=True, slots=True)
class Produced:
    """What was sent; `skipped` rows were no records, `first_skipped` says why."""

    records: int
    messages: int
    bytes: int
    seconds: float
    skipped: int
    first_skipped: BadRow | None

    @property
    def records_per_s(self) -> float:
        """Records sent a second."""
        return self.records / self.seconds if self.seconds else 0.0


def produce(plan: ProducePlan, on_progress: Callable[[int], None] = lambda _: None) -> Produced:
    """Send everything and wait until all of it is confirmed. Raises SourceError; records sent before it stay sent."""
    if plan.key is not None and plan.format == "arrow":
        raise SourceError(
            "--key needs --format json: an Arrow message holds many records, and a message has one key"
        )
    blocks = _blocks(plan)
    first = next(blocks, None)  # a file that cannot be read must not leave a new topic behind
    partitions = ensure_topic(plan.connection, plan.topic, plan.partitions)
    if plan.partitions not in (None, partitions):
        msg = f"topic {plan.topic!r} exists with {partitions} partitions, not {plan.partitions}; leave out --partitions"
        raise SourceError(msg)
    sender = KafkaSender(plan.connection, plan.topic)
    try:
        run = _Run(plan, sender, partitions, on_progress)
        for block in [] if first is None else [first]:
            run.send(block)
        for block in blocks:
            run.send(block)
        sender.flush()
        return run.result()
    finally:
        sender.abandon()


def _blocks(plan: ProducePlan) -> Iterator[RowBlock]:
    """The origin's rows in the shape of messages, with ids, up to the limit."""
    left = plan.limit
    for block in _origin_blocks(plan):
        count = len(block.rows) if left is None else min(left, len(block.rows))
        columns = block.columns.slice(0, count)
        if "id" not in columns.schema.names:
            columns = columns.append_column("id", pa.array(block.rows[:count]).cast(pa.string()))
        yield RowBlock(block.rows[:count], columns, block.bad)
        if left is not None:
            left -= count
            if left == 0:
                return


def _origin_blocks(plan: ProducePlan) -> Iterator[RowBlock]:
    if plan.origin.startswith(RIVER_PREFIX):
        yield from river_rows(plan.origin, plan.ignore)
        return
    schema = infer_schema(
        Path(plan.origin),
        label=plan.label,
        features=FeaturesConfig(ignore=plan.ignore),
        time=plan.time,
        id_=plan.id,
        label_min=-math.inf,  # whoever learns from the topic has a range of labels; whoever fills it has none
        label_max=math.inf,
    )
    for block in open_rows(schema.path, schema.columns, schema.json_types()):
        yield to_message(block, schema)


class _Run:
    """One sending: counts, pace, and the partition whose turn it is."""

    def __init__(
        self, plan: ProducePlan, sender: KafkaSender, partitions: int, on_progress: Callable[[int], None]
    ) -> None:
        self._plan = plan
        self._sender = sender
        self._partitions = partitions
        self._on_progress = on_progress
        self._started_s = time.monotonic()
        self._records = self._messages = self._bytes = self._skipped = 0
        self._first_skipped: BadRow | None = None
        rows = plan.records_per_message if plan.format == "arrow" else 1000
        if plan.rate is not None:
            rows = max(1, min(rows, int(plan.rate / SLICES_PER_S)))
        self._slice_rows = rows

    def send(self, block: RowBlock) -> None:
        """Send a block's rows in slices, each when it is due."""
        self._skipped += len(block.bad)
        if block.bad and self._first_skipped is None:
            self._first_skipped = block.bad[0]
        for start in range(0, block.columns.num_rows, self._slice_rows):
            columns = block.columns.slice(start, self._slice_rows)
            self._wait_until_due()
            if self._plan.format == "arrow":
                self._send_message(encode_arrow(columns), None)
            else:
                keys = _keys(columns, self._plan.key)
                for value, key in zip(encode_json(columns), keys, strict=True):
                    self._send_message(value, key)
            self._records += columns.num_rows
            self._on_progress(self._records)

    def result(self) -> Produced:
        """The counts so far, and the time since the start."""
        seconds = time.monotonic() - self._started_s
        return Produced(
            self._records, self._messages, self._bytes, seconds, self._skipped, self._first_skipped
        )

    def _send_message(self, value: bytes, key: bytes | None) -> None:
        partition = self._messages % self._partitions if key is None else None
        self._sender.send(value, key, partition)
        self._messages += 1
        self._bytes += len(value)

    def _wait_until_due(self) -> None:
        if self._plan.rate is not None:
            due_s = self._started_s + self._records / self._plan.rate
            time.sleep(max(0.0, due_s - time.monotonic()))


def encode_json(columns: pa.RecordBatch) -> list[bytes]:
    """One JSON message for each row; a missing feature is left out."""
    own = {"id", "ts", "label", "weight"}
    names = [name for name in columns.schema.names if name not in own]
    columns_of_features = [columns.column(name).to_pylist() for name in names]
    features: Iterable[tuple[Any, ...]] = (
        zip(*columns_of_features, strict=True) if names else [()] * columns.num_rows
    )
    fields = [name for name in ("id", "ts", "label", "weight") if name in columns.schema.names]
    rows = zip(*[_plain_values(columns.column(name)) for name in fields], strict=True)
    messages = []
    for row, values in zip(rows, features, strict=True):
        message: dict[str, Any] = {name: v for name, v in zip(fields, row, strict=True) if v is not None}
        message["features"] = {name: v for name, v in zip(names, values, strict=True) if v is not None}
        messages.append(orjson.dumps(message))
    return messages


def _plain_values(column: pa.Array) -> list[Any]:
    """Values for JSON; times as unix seconds."""
    if pa.types.is_timestamp(column.type):
        seconds = (
            column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).to_numpy(zero_copy_only=False)
            / 1e6
        )
        return [None if np.isnan(second) else second for second in seconds.tolist()]
    values: list[Any] = column.to_pylist()
    return values


def _keys(columns: pa.RecordBatch, key: str | None) -> list[bytes | None]:
    if key is None:
        return [None] * columns.num_rows
    names = columns.schema.names
    if key not in names:
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names[:20])}"
        raise SourceError(f"--key names the column {key!r}, which the records do not have; {hint}")
    column = columns.column(key)
    if not pa.types.is_floating(column.type):
        texts = column.cast(pa.string()).to_pylist()
    else:  # so are a CSV's whole numbers, and user 12345678901 is not to be Arrow's 1.2345678901e+10
        texts = [
            None if x is None else number_text(x) if math.isfinite(x) else str(x) for x in column.to_pylist()
        ]
    return [b"" if text is None else text.encode() for text in texts]
