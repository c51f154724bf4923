"""A live topic: records come in irregular portions, to partitions at random, while a job learns."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
from kafka import KafkaProducer

from cluster.broker import Broker


def send(
    broker: Broker,
    topic: str,
    rows: list[dict[str, Any]],
    partitions: int,
    *,
    seed: int = 0,
    pause_s: float = 0.0,
) -> None:
    """Send rows in portions of 1 to 40, each to one partition, and wait up to `pause_s` after each."""
    rng = np.random.default_rng(seed)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    try:
        at = 0
        while at < len(rows):
            size, partition = int(rng.integers(1, 41)), int(rng.integers(partitions))
            for row in rows[at : at + size]:
                producer.send(topic, orjson.dumps(row), partition=partition)
            producer.flush(30)
            at += size
            time.sleep(float(rng.random()) * pause_s)
    finally:
        producer.close()


@contextlib.contextmanager
def sending(*arguments: Any, **options: Any) -> Iterator[Callable[[], None]]:
    """Yields a function that begins to send in a thread, for `on_ready`; joins it at the end."""
    thread = threading.Thread(target=send, args=arguments, kwargs=options, daemon=True)
    yield thread.start
    thread.join(60)
