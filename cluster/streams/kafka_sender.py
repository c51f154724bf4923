"""Sends messages to one topic with a bound on what is under way, and turns delivery errors into sentences.

kafka-python's producer has no bound on its memory, and a failed delivery is only seen by who asks its future. So the
futures are kept here, asked in the order of sending, and waited for once too many bytes are under way.

An outage of less than DELIVERY_TIMEOUT_S is waited out, within the same bound: nothing is lost, and the producer's
sequence numbers keep a message that is sent again from being stored twice. A longer one is a DeliveryOutageError.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from kafka import errors

from actors.ports import SourceError, StreamUnavailableError
from cluster.streams.kafka_client import DELIVERY_TIMEOUT_S, close_producer, connect_admin, connect_producer
from cluster.streams.kafka_errors import explain_kafka_error

if TYPE_CHECKING:
    from cluster.config import KafkaConnection

__all__ = ["DeliveryError", "DeliveryOutageError", "KafkaSender", "ensure_topic"]

MIB = 2**20
MESSAGE_OVERHEAD_BYTES = 750
"""What one message under way costs beside its key and value, as measured: its future and kafka-python's own entry."""


class DeliveryError(SourceError):
    """Messages could not be delivered; the text says how many, where to and why."""


class DeliveryOutageError(DeliveryError, StreamUnavailableError):
    """Messages could not be delivered because the broker does not answer now."""


def ensure_topic(connection: KafkaConnection, topic: str, partitions: int | None = None) -> int:
    """Create `topic` unless it exists; returns its number of partitions. Raises SourceError."""
    admin = connect_admin(connection)
    try:
        (found,) = admin.describe_topics([topic])
        if found["error_code"] == 0:
            return len(found["partitions"])
        if found["error_code"] != errors.UnknownTopicOrPartitionError.errno:
            raise explain_kafka_error(errors.for_code(found["error_code"])(), connection, topic)
        options = {"num_partitions": partitions or 1, "replication_factor": -1}
        admin.create_topics({topic: options}, wait_for_metadata=True)
        return partitions or 1
    except errors.TopicAlreadyExistsError:  # somebody was quicker
        (found,) = admin.describe_topics([topic])
        return len(found["partitions"])
    except (errors.KafkaError, ValueError) as error:
        raise explain_kafka_error(error, connection, topic) from error
    finally:
        admin.close()


class KafkaSender:
    """A producer for one topic. Not thread-safe.

    Parameters
    ----------
    connection, topic:
        where to; the topic must exist.
    under_way_bytes_max:
        `send` waits for the oldest messages once this much is not yet confirmed.
    timeout_s:
        how long `send` waits for confirmations before it gives up.

    """

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        *,
        under_way_bytes_max: int = 32 * MIB,
        message_bytes_max: int = 8 * MIB,
        timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._bytes_max = under_way_bytes_max
        self._message_bytes_max = message_bytes_max
        self._timeout_s = timeout_s
        self._under_way: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._closed = False
        self.sent = 0
        self.failed = 0
        self._first_failure: BaseException | None = None
        self._producer = connect_producer(connection, message_bytes_max=message_bytes_max)

    def send(self, value: bytes, key: bytes | None = None, partition: int | None = None) -> None:
        """Hand over one message. Raises DeliveryError if it, or an earlier one, cannot be delivered."""
        try:
            future = self._producer.send(self._topic, value, key=key, partition=partition)
        except (errors.KafkaError, ValueError, AssertionError) as error:
            self._note_failure(error)
            raise self._error() from error
        size = len(value) + len(key or b"") + MESSAGE_OVERHEAD_BYTES
        self._under_way.append((future, size))
        self._bytes += size
        self.sent += 1
        if self._bytes > self._bytes_max:
            self._settle(self._bytes_max // 2, self._timeout_s)

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when everything sent is confirmed. Raises DeliveryError if anything is not, after `timeout_s`."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        if self._under_way:
            try:
                self._producer.flush(timeout_s)
            except errors.KafkaError as error:
                self._give_up(error)
                raise self._error() from error
        self._settle(0, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush and release the connections; may be called twice. Raises DeliveryError as `flush` does."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush(timeout_s)
        finally:
            close_producer(self._producer, 1.0)

    def abandon(self, timeout_s: float = 1.0) -> None:
        """Release the connections; what is not confirmed yet may be lost. Does nothing after `close`."""
        if not self._closed:
            self._closed = True
            close_producer(self._producer, timeout_s)

    def _settle(self, bytes_left: int, timeout_s: float) -> None:
        """Wait for the oldest messages until only `bytes_left` are under way."""
        deadline_s = time.monotonic() + timeout_s
        while self._under_way and self._bytes > bytes_left:
            future, size = self._under_way.popleft()
            self._bytes -= size
            if not future.succeeded():
                self._wait_for(future, max(0.0, deadline_s - time.monotonic()))
        if self.failed:
            raise self._error()

    def _wait_for(self, future: Any, timeout_s: float) -> None:
        try:
            future.get(timeout=timeout_s)
        except errors.KafkaError as error:
            self._note_failure(error)

    def _give_up(self, error: BaseException) -> None:
        """Count everything that is not confirmed as failed."""
        for future, _ in self._under_way:
            if not future.succeeded():
                self._note_failure(error)
        self._under_way.clear()
        self._bytes = 0

    def _note_failure(self, error: BaseException) -> None:
        self.failed += 1
        self._first_failure = self._first_failure or error

    def _error(self) -> DeliveryError:
        error = self._first_failure
        assert error is not None
        servers = self._connection.bootstrap_servers
        kind: type[DeliveryError] = DeliveryError
        if isinstance(error, errors.MessageSizeTooLargeError):
            reason = (
                f"a message is larger than {self._message_bytes_max} bytes; send fewer records in one message, "
                "or let the topic and the producer take larger ones"
            )
        elif isinstance(error, errors.KafkaTimeoutError):
            kind = DeliveryOutageError
            reason = "the broker did not confirm in time; check that it runs and that the topic exists"
        else:
            explained = explain_kafka_error(error, self._connection, self._topic)
            kind = DeliveryOutageError if isinstance(explained, StreamUnavailableError) else DeliveryError
            reason = str(explained)
        return kind(
            f"{self.failed} of {self.sent} messages to topic {self._topic!r} at {servers} were not delivered: {reason}"
        )
