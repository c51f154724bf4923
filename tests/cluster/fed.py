"""A live topic that is fed slowly while a test does something to the job that learns it, and then all at once."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

from kafka import KafkaProducer

from cluster.broker import Broker
from tests.cluster.topics import arrow_message

ROWS = 50
"""Records of a message."""
_SLOWLY, _HELD_BACK_S = 0.9, 0.5
"""Of the last tenth comes a message now and then until there is hurry, so that the stream does not end before that."""


class Feed:
    """Sends `rows` in turn to the partitions of a topic, as Arrow messages; a context manager, begun by `start`."""

    def __init__(
        self, broker: Broker, topic: str, rows: list[dict[str, Any]], partitions: int, *, per_s: int = 3000
    ) -> None:
        self._broker, self._topic, self._partitions = broker, topic, partitions
        self._messages = [arrow_message(rows[at : at + ROWS]) for at in range(0, len(rows), ROWS)]
        self._pause_s = ROWS / per_s
        self._hurry, self._close = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.sent = 0
        broker.create_topic(topic, partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.set()
        self._hurry.set()
        if self._thread.ident is not None:
            self._thread.join(60)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def hurry(self) -> None:
        """Send the rest at once."""
        self._hurry.set()

    def _send(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._broker.bootstrap_servers, linger_ms=0)
        begun_s = time.monotonic()
        for n, message in enumerate(self._messages):
            if self._close.is_set():
                break
            producer.send(self._topic, message, partition=n % self._partitions)
            self.sent += ROWS
            held_back = n > _SLOWLY * len(self._messages)
            self._hurry.wait(
                _HELD_BACK_S if held_back else max(begun_s + n * self._pause_s - time.monotonic(), 0.0)
            )
        producer.flush(60)
        producer.close()
