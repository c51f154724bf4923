"""Errors of the embedded broker, all sentences and all picklable.

BrokerError
  DataDirError            the data directory cannot be used
    DataDirLockedError    another broker holds it
  AddressError            host and port cannot be listened on
  TopicError              a topic cannot be created or found (Python API)
  LogDamagedError         acknowledged records on disk are damaged
  BrokerStartError        a broker process did not come up
  ProtocolError           bytes that are no Kafka request; the connection is closed
  RequestError            a request that is answered with a Kafka error code
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Error codes of the Kafka protocol that this broker answers with."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    COORDINATOR_NOT_AVAILABLE = 15
    INVALID_TOPIC_EXCEPTION = 17
    INVALID_REQUIRED_ACKS = 21
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    KAFKA_STORAGE_ERROR = 56
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    MEMBER_ID_REQUIRED = 79
    GROUP_MAX_SIZE_REACHED = 81
    INVALID_RECORD = 87


class BrokerError(Exception):
    """Base of every error of the embedded broker."""


class DataDirError(BrokerError):
    """The data directory cannot be created, read or written."""


class DataDirLockedError(DataDirError):
    """Another broker uses the data directory."""


class AddressError(BrokerError):
    """The broker cannot listen on the host and port asked for."""


class TopicError(BrokerError):
    """A topic cannot be created, read back from disk or found."""


class LogDamagedError(BrokerError):
    """A partition log is damaged before its tail, so cutting it would lose acknowledged records."""


class BrokerStartError(BrokerError):
    """A broker process ended, or did not answer in time, while it was started."""


class ProtocolError(BrokerError):
    """A peer sent bytes that are not a Kafka request."""


class RequestError(BrokerError):
    """A request that cannot be carried out; the client gets `code` and, where the protocol has room, `message`."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"
