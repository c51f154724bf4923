"""Topics for tests: the same seeded records as JSON and as Arrow, and readers of what comes out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from cluster.broker import Broker


def records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Click-like records: numbers, integers, texts (some not ASCII), booleans and missing values."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        price, visits = float(rng.normal(3, 2)), int(rng.zipf(1.5) % 100)
        city = ["Zürich", "Oslo", "Łódź", "Rome", None][int(rng.integers(5))]
        user = f"u{int(rng.zipf(1.3)) % 2000}"
        logit = 0.6 * (price - 3) + (1.0 if city == "Oslo" else -0.7)
        features = {"price": price, "visits": visits, "city": city, "user": user, "mobile": bool(visits % 2)}
        made.append(
            {"id": f"r{i}", "features": features, "label": int(rng.random() < 1 / (1 + np.exp(-logit)))}
        )
    return made


def produce(
    broker: Broker, topic: str, rows: list[dict[str, Any]], partitions: int, *, arrow_rows: int = 0
) -> None:
    """Send rows in turn to the partitions: JSON, or Arrow messages of `arrow_rows` rows."""
    broker.create_topic(topic, partitions)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=5)
    for partition in range(partitions):
        own = rows[partition::partitions]
        messages = [orjson.dumps(row) for row in own]
        if arrow_rows:
            messages = [arrow_message(own[i : i + arrow_rows]) for i in range(0, len(own), arrow_rows)]
        for message in messages:
            producer.send(topic, message, partition=partition)
    producer.flush(30)
    producer.close()


def arrow_message(rows: list[dict[str, Any]]) -> bytes:
    """One IPC stream of one record batch."""
    table = pa.Table.from_pylist(
        [{"id": row["id"], **row["features"], "label": row["label"]} for row in rows]
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
    return sink.getvalue()


def consume(broker: Broker, topic: str) -> list[dict[str, Any]]:
    """All JSON messages that a topic holds now."""
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=None, enable_auto_commit=False
    )
    try:
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends, got = consumer.end_offsets(partitions), []
        while any(consumer.position(p) < ends[p] for p in partitions):
            for messages in consumer.poll(timeout_ms=1000).values():
                got += [orjson.loads(message.value) for message in messages]
        return got
    finally:
        consumer.close()
