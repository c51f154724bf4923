"""The 61-byte header of a Kafka record batch (message format 2), and the checks before a batch is stored.

The checksum covers what follows it, so base offset and leader epoch can be rewritten without touching it.
"""

from __future__ import annotations

import logging
import struct
from typing import Final, NamedTuple

from crc32c import crc32c
from kafka.errors import KafkaError
from kafka.record.default_records import DefaultRecordBatch

from cluster.broker.errors import ErrorCode, RequestError

logger = logging.getLogger("millrace.broker")

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES: Final = HEADER.size
PREFIX: Final = struct.Struct(">qii")  # base offset, batch length, leader epoch: what the broker rewrites
PREFIX_BYTES: Final = PREFIX.size
LENGTH_END_BYTES: Final = 12  # the length field counts what follows itself
CRC_FROM_BYTES: Final = 21
MAGIC: Final = 2
LEADER_EPOCH: Final = 0

_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_CODEC_MASK: Final = 0x07
_CODEC_LAST: Final = 4  # zstd


class BatchHeader(NamedTuple):
    """Fields of a record batch header, in the order of the wire."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole batch, header included."""
        return self.length + LENGTH_END_BYTES

    @property
    def next_offset(self) -> int:
        """Offset after the last record of the batch."""
        return self.base_offset + self.last_offset_delta + 1


def parse_header(data: bytes | memoryview, position: int = 0) -> BatchHeader:
    """Read the header at `position`; at least HEADER_BYTES bytes must follow it."""
    return BatchHeader._make(HEADER.unpack_from(data, position))


def crc_matches(batch: bytes | memoryview, header: BatchHeader) -> bool:
    """Whether the stored CRC-32C is that of the batch's bytes."""
    return bool(crc32c(memoryview(batch)[CRC_FROM_BYTES:]) == header.crc)


def is_sound(header: BatchHeader) -> bool:
    """Whether a header read back from disk can be one that was stored."""
    return (
        header.magic == MAGIC
        and header.size_bytes >= HEADER_BYTES
        and header.records >= 1
        and header.last_offset_delta == header.records - 1
    )


def check_batch(batch: memoryview, message_bytes_max: int) -> BatchHeader:
    """Check a batch that a producer sent: exactly one, sound, with the right checksum.

    The records inside are not decoded: a producer that writes nonsense under a right checksum gets it stored.

    Raises:
        RequestError: with the Kafka error code that tells the producer what is wrong.
    """
    _check_format(batch)
    header = parse_header(batch)
    if header.size_bytes != len(batch):
        raise RequestError(
            ErrorCode.INVALID_RECORD,
            f"expected exactly one record batch a partition, the batch says {header.size_bytes} bytes of {len(batch)}.",
        )
    if len(batch) > message_bytes_max:
        raise RequestError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the batch has {len(batch)} bytes, the topic takes {message_bytes_max}; "
            "lower the producer's batch and message size or raise max.message.bytes.",
        )
    if not crc_matches(batch, header):
        raise RequestError(
            ErrorCode.CORRUPT_MESSAGE, "the checksum (CRC-32C) of the batch does not match; send it again."
        )
    _check_fields(header)
    return header


def _check_format(batch: memoryview) -> None:
    if len(batch) > LENGTH_END_BYTES + 4 and batch[16] != MAGIC:
        raise RequestError(
            ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            f"expected message format 2 (Kafka 0.11 and later), got {batch[16]}; use a newer client.",
        )
    if len(batch) < HEADER_BYTES:
        raise RequestError(
            ErrorCode.CORRUPT_MESSAGE, f"a record batch has at least {HEADER_BYTES} bytes, got {len(batch)}."
        )


def _check_fields(header: BatchHeader) -> None:
    if not is_sound(header):
        raise RequestError(
            ErrorCode.INVALID_RECORD,
            f"the batch counts {header.records} records but its last offset delta is {header.last_offset_delta}.",
        )
    if header.attributes & _CODEC_MASK > _CODEC_LAST:
        raise RequestError(
            ErrorCode.INVALID_RECORD, f"unknown compression codec {header.attributes & _CODEC_MASK}."
        )
    if header.attributes & _CONTROL:
        raise RequestError(ErrorCode.INVALID_RECORD, "a producer may not send control batches.")
    if header.attributes & _TRANSACTIONAL:
        raise RequestError(ErrorCode.INVALID_TXN_STATE, "the development broker has no transactions.")


def record_at_time(data: bytes, timestamp_ms: int, start_offset: int) -> tuple[int, int] | None:
    """Offset and time (ms) of the batch's first record at both or later, or None.

    Where the batch cannot be decoded, its codec missing perhaps, that is its first record: too early, never too late.
    """
    header = parse_header(data)
    if header.max_timestamp_ms < timestamp_ms:
        return None
    try:
        for record in DefaultRecordBatch(data):
            if record.timestamp >= timestamp_ms and record.offset >= start_offset:
                return record.offset, record.timestamp
    except (KafkaError, ValueError, RuntimeError) as error:
        logger.warning(
            "Cannot decode the batch at offset %d: %s. Answered with its start.", header.base_offset, error
        )
        return max(start_offset, header.base_offset), header.first_timestamp_ms
    return None
