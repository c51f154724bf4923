"""Bounds of the broker and the settings of a topic's logs. Every name ends in its unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cluster.broker.errors import ErrorCode, RequestError

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True)
class Limits:
    """What one broker process accepts at most. Beyond a limit a client gets an error or is disconnected."""

    request_bytes_max: int = 100 * MIB  # a produce request
    control_request_bytes_max: int = 4 * MIB  # any other request
    fetch_bytes_max: int = 64 * MIB  # a fetch answer, whatever the client asks for
    fetch_wait_ms_max: int = 30_000
    connections_max: int = 512
    connection_idle_s_max: float = 600.0
    frame_s_max: float = 30.0  # from the first byte of a request to its last
    send_s_max: float = 60.0  # a client that takes no byte for so long is disconnected
    topics_max: int = 2_000
    partitions_per_topic_max: int = 1_024
    producers_per_partition_max: int = 1_000
    groups_max: int = 1_000
    group_members_max: int = 500
    group_offsets_max: int = 100_000
    session_timeout_ms_min: int = 100
    session_timeout_ms_max: int = 1_800_000
    rebalance_timeout_ms_max: int = 1_800_000
    rebalance_delay_s: float = 0.2  # members that start together join one generation


@dataclass(frozen=True)
class LogConfig:
    """Settings of a topic's partition logs; -1 means without limit."""

    message_bytes_max: int = 16 * MIB
    segment_bytes: int = 128 * MIB
    retention_bytes: int = -1  # per partition
    retention_ms: int = -1

    def __post_init__(self) -> None:
        for name in ("message_bytes_max", "segment_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be a positive number of bytes, got {getattr(self, name)}.")
        for name in ("retention_bytes", "retention_ms"):
            if getattr(self, name) < -1:
                raise ValueError(f"{name} must be -1 (no limit) or more, got {getattr(self, name)}.")


KAFKA_NAMES: Final[Mapping[str, str]] = {
    "max.message.bytes": "message_bytes_max",
    "segment.bytes": "segment_bytes",
    "retention.bytes": "retention_bytes",
    "retention.ms": "retention_ms",
}


def with_kafka_settings(config: LogConfig, settings: Mapping[str, str | None]) -> LogConfig:
    """Apply topic settings under Kafka's names.

    Raises:
        RequestError: INVALID_CONFIG for a setting that this broker does not carry out.
    """
    fields: dict[str, int] = {}
    for name, value in settings.items():
        if name == "cleanup.policy" and value in (None, "delete"):
            continue
        if name not in KAFKA_NAMES:
            known = ", ".join(sorted(KAFKA_NAMES))
            raise RequestError(
                ErrorCode.INVALID_CONFIG,
                f"the development broker does not carry out {name}={value}; it knows {known}.",
            )
        if value is not None:
            fields[KAFKA_NAMES[name]] = _integer(name, value)
    try:
        return replace(config, **fields)
    except ValueError as error:
        raise RequestError(ErrorCode.INVALID_CONFIG, str(error)) from error


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise RequestError(
            ErrorCode.INVALID_CONFIG, f"{name} must be a whole number, got {value!r}."
        ) from error
