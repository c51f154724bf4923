"""Errors of kafka-python as sentences: which server or topic, what is wrong, what to do.

An outage (nobody answers, or whoever answers cannot serve now) is a StreamUnavailableError: the same may succeed later.
What would fail again (no topic, an expired offset, a refused login) is a plain SourceError.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kafka import errors

from actors.ports import SourceError, StreamUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.config import KafkaConnection

__all__ = ["CONNECT_TIMEOUT_S", "expired_offset", "explain_kafka_error", "kafka_errors"]

CONNECT_TIMEOUT_S = 10.0

_NO_ANSWER = (
    errors.KafkaTimeoutError,
    errors.KafkaConnectionError,
    errors.NodeNotReadyError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)
_NOT_NOW = (errors.RetriableError, errors.BrokerNotAvailableError)
"""A broker's own word for "not now": no leader, too few replicas, still loading. Missing topics are told before."""


@contextmanager
def kafka_errors(connection: KafkaConnection, topic: str | None = None) -> Iterator[None]:
    """Turns kafka-python's errors inside the block into SourceError sentences."""
    try:
        yield
    except errors.KafkaError as error:
        raise explain_kafka_error(error, connection, topic) from error


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
        return SourceError(
            f"Kafka at {servers} does not allow access to {topic or 'the cluster'}; ask for read rights"
        )
    if isinstance(error, _NO_ANSWER):
        return StreamUnavailableError(
            f"no Kafka broker answered at {servers} within {timeout_s:g} s; start one with "
            "`python -m jobs.broker`, or give the address of yours as source.bootstrap_servers"
        )
    if isinstance(error, _NOT_NOW):
        return StreamUnavailableError(
            f"Kafka at {servers} cannot serve {f'topic {topic!r}' if topic else 'requests'} now ({_plain(error)}); "
            "try again, and if it stays so, look at the brokers' own logs"
        )
    return SourceError(
        f"Kafka at {servers} failed{f' for topic {topic!r}' if topic else ''}: {_plain(error)}"
    )


def _plain(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
