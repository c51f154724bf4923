"""The one place where settings of kafka-python are written.

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
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from actors.ports import SourceError
from cluster.streams.kafka_errors import CONNECT_TIMEOUT_S, explain_kafka_error

if TYPE_CHECKING:
    from cluster.config import KafkaConnection

__all__ = [
    "DELIVERY_TIMEOUT_S",
    "BrokerWatch",
    "close_producer",
    "connect_admin",
    "connect_consumer",
    "connect_producer",
    "expanded",
    "has_broker",
]

log = logging.getLogger("millrace.stream")

MIB = 2**20
BROKER_AWAY_S = 2.0
RECONNECT_BACKOFF_MS_MAX = 1000
DELIVERY_TIMEOUT_S = 120.0
"""How long a message may be under way: through a broker's restart or a change of leaders, which take up to a minute."""
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
_OURS = frozenset(
    {"bootstrap_servers", "transactional_id", "key_serializer", "value_serializer"}
) | frozenset(
    {
        "group_id",
        "enable_auto_commit",
        "auto_offset_reset",
        "isolation_level",
        "key_deserializer",
        "value_deserializer",
    }
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
        # A send blocks where the topic's metadata are gone: for a moment while a broker comes back, so not less.
        "max_block_ms": int(DELIVERY_TIMEOUT_S * 1000),
        "delivery_timeout_ms": int(DELIVERY_TIMEOUT_S * 1000),
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
            hint = (
                f"did you mean {close[0]}?" if close else "see kafka-python's documentation of KafkaConsumer"
            )
            raise SourceError(f"source.options.{name} is no option of kafka-python; {hint}")
    known = client_class.DEFAULT_CONFIG
    options = {name: value for name, value in connection.options.items() if name in known}
    options = {name: expanded(value) if isinstance(value, str) else value for name, value in options.items()}
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"):
        # kafka-python takes a missing file for a broker that does not answer, and tries again.
        if options.get(name) and not Path(str(options[name])).is_file():
            raise SourceError(
                f"source.options.{name} names {options[name]}, which is no file here; mend the path"
            )
    return options


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


def has_broker(consumer: KafkaConsumer) -> bool:
    """True if a connection to any broker stands; kafka-python 3.0 tells it only by private names."""
    client = consumer._client  # noqa: SLF001
    return any(client.connected(broker.node_id) for broker in client.cluster.brokers())


def close_producer(producer: KafkaProducer, timeout_s: float) -> None:
    """Release a producer's connections and thread; what is not confirmed within `timeout_s` is given up."""
    try:
        producer.close(timeout=timeout_s)
    except errors.KafkaError:
        # Its close flushes first, and when that fails it leaves its thread running: stop it by the private way.
        producer._sender.force_close()  # noqa: SLF001
        producer._sender.join(timeout_s)  # noqa: SLF001
        producer._closed = True  # noqa: SLF001


class BrokerWatch:
    """Says once that the broker went away, and once that it is back; the client itself keeps trying."""

    def __init__(self, consumer: KafkaConsumer, servers: str) -> None:
        self._consumer = consumer
        self._servers = servers
        self._seen_s = time.monotonic()
        self._away = False

    def look(self, *, answered: bool) -> None:
        """Called after each poll; `answered` if it brought something."""
        now_s = time.monotonic()
        if answered or has_broker(self._consumer):
            self._seen_s = now_s
            if self._away:
                log.warning("Kafka at %s is back; reading goes on", self._servers)
                self._away = False
        elif not self._away and now_s - self._seen_s > BROKER_AWAY_S:
            log.warning(
                "Kafka at %s does not answer any more; trying again about every second", self._servers
            )
            self._away = True
