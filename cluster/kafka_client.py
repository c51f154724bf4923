"""The one place where settings of kafka-python are written, and where its errors become sentences.

Offsets live in our snapshots, so there are no groups, no commits and no `auto_offset_reset`; the consumer is always
given its partitions by `assign` and its offsets by `seek`. `${NAME}` in the options of a connection is read from the
environment here, when a client is built, so neither the recorded pipeline nor a log ever holds a secret.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from cluster.records import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.config import KafkaConnection

__all__ = ["connect_admin", "connect_consumer", "connect_producer", "explain_kafka_error", "expanded", "expired_offset", "has_broker", "kafka_errors"]

MIB = 2**20
CONNECT_TIMEOUT_S = 10.0
RECONNECT_BACKOFF_MS_MAX = 1000
MESSAGE_BYTES_OVERHEAD_MAX = 65536
"""What a message's key, headers and the batch around it may add to its value."""

_CONSUMER: dict[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "allow_auto_create_topics": False,
    "fetch_max_wait_ms": 100,
    "max_partition_fetch_bytes": 8 * MIB,
    "fetch_max_bytes": 64 * MIB,
    "receive_message_max_bytes": 200 * MIB,
    "max_poll_records": 10_000,
    "metrics_enabled": False,  # two sensors for each partition and fetch, which nobody reads
}
_PRODUCER: dict[str, Any] = {
    "linger_ms": 20,
    "batch_size": MIB,
    "max_request_size": 8 * MIB,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}
_OURS = frozenset({"bootstrap_servers", "transactional_id", "key_serializer", "value_serializer"}) | frozenset(
    {"group_id", "enable_auto_commit", "auto_offset_reset", "isolation_level", "key_deserializer", "value_deserializer"}
)
"""Options whose values the exactness of the stream rests on; a pipeline cannot change them."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KNOWN = {*KafkaConsumer.DEFAULT_CONFIG, *KafkaProducer.DEFAULT_CONFIG, *KafkaAdminClient.DEFAULT_CONFIG}


def expanded(text: str) -> str:
    """`text` with each `${NAME}` replaced from the environment; the value never appears in an error."""

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            msg = f"the pipeline's source refers to ${{{name}}}, but the environment has no such variable; set {name}"
            raise SourceError(msg)
        return os.environ[name]

    return _VARIABLE.sub(value_of, text)


def connect_consumer(connection: KafkaConnection, timeout_s: float = CONNECT_TIMEOUT_S) -> KafkaConsumer:
    """A consumer without partitions. Raises SourceError if no broker answers within `timeout_s`."""
    return _connect(KafkaConsumer, connection, _CONSUMER, timeout_s)


def connect_producer(
    connection: KafkaConnection, timeout_s: float = CONNECT_TIMEOUT_S, *, message_bytes_max: int = 8 * MIB
) -> KafkaProducer:
    """An idempotent producer (acks=all). Raises SourceError if no broker answers within `timeout_s`."""
    ours = {
        **_PRODUCER,
        "max_request_size": message_bytes_max + MESSAGE_BYTES_OVERHEAD_MAX,
        "max_block_ms": int(timeout_s * 1000),
        "delivery_timeout_ms": 60_000,
    }
    return _connect(KafkaProducer, connection, ours, timeout_s)


def connect_admin(connection: KafkaConnection, timeout_s: float = CONNECT_TIMEOUT_S) -> KafkaAdminClient:
    """An admin client (topics, end offsets). Raises SourceError if no broker answers within `timeout_s`."""
    return _connect(KafkaAdminClient, connection, {"request_timeout_ms": int(timeout_s * 1000)}, timeout_s)


def _connect(client_class: Any, connection: KafkaConnection, ours: dict[str, Any], timeout_s: float) -> Any:
    require_crc32c()
    _quieten_kafka_python()
    started: list[Any] = []

    def start_client(**settings: Any) -> Any:
        started.append(KafkaNetClient(**settings))
        return started[0]

    settings: dict[str, Any] = {
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MS_MAX,
        "bootstrap_timeout_ms": int(timeout_s * 1000),
        **ours,
        **_options(connection, client_class),
        "bootstrap_servers": [server.strip() for server in expanded(connection.bootstrap_servers).split(",")],
        "kafka_client": start_client,
    }
    try:
        return client_class(**settings)
    except (errors.KafkaError, OSError, ValueError, AssertionError, ImportError) as error:
        # The constructor starts a network thread before it connects, and leaves it running when it fails.
        for client in started:
            client.close()
        raise explain_kafka_error(error, connection, timeout_s=timeout_s) from error


def _options(connection: KafkaConnection, client_class: Any) -> dict[str, Any]:
    """The connection's options that this class of client knows, with the environment's values in them."""
    for name in connection.options:
        if name in _OURS:
            msg = f"source.options.{name} cannot be set: exactly-once reading rests on Millrace's own value; remove it"
            raise SourceError(msg)
        if name not in _KNOWN:
            close = difflib.get_close_matches(name, sorted(_KNOWN), n=1)
            hint = f"did you mean {close[0]}?" if close else "see kafka-python's documentation of KafkaConsumer"
            raise SourceError(f"source.options.{name} is no option of kafka-python; {hint}")
    known = client_class.DEFAULT_CONFIG
    options = {name: value for name, value in connection.options.items() if name in known}
    return {name: expanded(value) if isinstance(value, str) else value for name, value in options.items()}


def require_crc32c() -> None:
    """Refuse to start without the compiled checksum: in pure Python it is 20 times slower than everything else."""
    if importlib.util.find_spec("crc32c") is None:
        msg = (
            "kafka-python found no compiled CRC-32C, which makes reading 4 to 25 times slower; "
            "install it with: pip install 'kafka-python[crc32c]'"
        )
        raise SourceError(msg)


def _quieten_kafka_python() -> None:
    # It logs an error for each attempt of each connection; we say once, in a sentence, what is wrong and what to do.
    logger = logging.getLogger("kafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


@contextmanager
def kafka_errors(connection: KafkaConnection, topic: str | None = None) -> Iterator[None]:
    """Turns kafka-python's errors inside the block into SourceError sentences."""
    try:
        yield
    except errors.KafkaError as error:
        raise explain_kafka_error(error, connection, topic) from error


def has_broker(consumer: KafkaConsumer) -> bool:
    """True if a connection to any broker stands; kafka-python 3.0 tells it only by private names."""
    client = consumer._client  # noqa: SLF001
    return any(client.connected(broker.node_id) for broker in client.cluster.brokers())


def expired_offset(places: str) -> SourceError:
    """The sentence for offsets that the broker does not have (any more)."""
    return SourceError(
        f"Kafka no longer has the offset to go on from at {places}: retention has deleted it, or the topic was made "
        "anew; start from another snapshot, or without one and source.start=earliest, and records in between are lost"
    )


def explain_kafka_error(
    error: BaseException,
    connection: KafkaConnection,
    topic: str | None = None,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> SourceError:
    """A sentence for an error of kafka-python: which server or topic, what is wrong, what to do."""
    servers = connection.bootstrap_servers
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return SourceError(
            f"Kafka at {servers} has no topic {topic!r}; create it, or fill it with: "
            f"python -m jobs.produce FILE {topic or 'TOPIC'} --bootstrap-servers {servers}"
        )
    if isinstance(error, errors.SaslAuthenticationFailedError):
        return SourceError(
            f"Kafka at {servers} refused the login ({error}); check sasl_mechanism, sasl_plain_username and "
            "sasl_plain_password in source.options"
        )
    if isinstance(error, errors.AuthorizationError):
        return SourceError(f"Kafka at {servers} does not allow access to {topic or 'the cluster'}; ask for read rights")
    if isinstance(error, (errors.KafkaTimeoutError, errors.KafkaConnectionError, errors.NodeNotReadyError, OSError)):
        return SourceError(
            f"no Kafka broker answered at {servers} within {timeout_s:g} s; start one with "
            "`python -m jobs.broker`, or give the address of yours as source.bootstrap_servers"
        )
    return SourceError(f"Kafka at {servers} failed{f' for topic {topic!r}' if topic else ''}: {_plain(error)}")


def _plain(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
