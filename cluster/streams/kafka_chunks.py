"""Kafka's record batches split as a whole: kafka-python without an object and a dozen varints a message in Python.

kafka-python builds a record and a ConsumerRecord for each message, 9 us of pure Python; small messages cannot be
read faster than that. Here a subclass of its PartitionRecords, handed to the fetcher, yields one `Chunk` a record
batch, found by one pass of a compiled kernel. Everything else stays kafka-python's: sessions, leaders, checksums,
decompression, aborted transactions, positions. It rests on private names of kafka-python 3.0 (`_fetcher`,
`PartitionRecords._unpack_records`, `DefaultRecordBatch._buffer`), so tests compare it with plain polling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from kafka import errors
from kafka.consumer.fetcher import Fetcher
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kafka import KafkaConsumer
    from numpy.typing import NDArray

__all__ = ["Chunk", "read_in_chunks"]

_RECORD_BYTES_MIN = 7
"""The smallest record is seven one-byte fields; a batch that claims more records than would fit is corrupt."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages of one record batch: arrays (n,); `next_offset` is where the partition goes on behind them."""

    offsets: NDArray[np.int64]
    produced_s: NDArray[np.float64]
    values: list[bytes]
    next_offset: int

    @property
    def offset(self) -> int:
        """Last offset; kafka-python skips what lies wholly before the offset that was asked for."""
        return self.next_offset - 1

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return sum(map(len, self.values))

    def part(self, start: int, stop: int) -> Chunk:
        """Messages start:stop; its next offset lies behind its last message, or behind the whole batch."""
        whole = stop >= len(self.values)
        next_offset = self.next_offset if whole else int(self.offsets[stop - 1]) + 1
        return Chunk(
            self.offsets[start:stop], self.produced_s[start:stop], self.values[start:stop], next_offset
        )


def read_in_chunks(consumer: KafkaConsumer) -> KafkaConsumer:
    """Make `consumer.poll` return lists of Chunk; `max_records` then counts messages of each partition."""
    consumer._fetcher.PartitionRecords = _ChunkedRecords  # noqa: SLF001 - see the module's docstring
    return consumer


class _ChunkedRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's reader of one fetched partition, yielding a Chunk where it yielded a message."""

    def take(self, n: int | None = None) -> list[Chunk]:
        """Chunks until they hold at least `n` messages."""
        self._maybe_raise_next_inline_exception()
        chunks: list[Chunk] = []
        messages = 0
        try:
            for chunk in self.record_iterator:
                chunks.append(
                    chunk if chunk.offsets[0] >= self.fetch_offset else _from(chunk, self.fetch_offset)
                )
                messages += len(chunk.values)
                if n is not None and messages >= n:
                    break
        except errors.KafkaError as error:
            if not chunks:
                raise
            self._next_inline_exception = error  # thrown by the next call, behind what could be read
        return chunks

    def _unpack_records(
        self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[Chunk]:
        batch = None
        while (following := records.next_batch()) is not None:
            batch = following
            if self.check_crcs and not batch.validate_crc():
                msg = f"the record batch at {tp.topic}[{tp.partition}]@{batch.base_offset} does not match its checksum"
                raise errors.CorruptRecordError(msg)
            chunk = _legacy_chunk(batch) if batch.magic < 2 else self._chunk_of(batch)
            self.next_fetch_offset = batch.next_offset
            if chunk is not None and len(chunk.values):
                self.records_read += len(chunk.values)
                self.bytes_read += batch.size_in_bytes
                yield chunk
        # A batch keeps its last offset when compaction has removed its last record, hence not last record + 1.
        self.drain()

    def _chunk_of(self, batch: Any) -> Chunk | None:
        self.leader_epoch = batch.leader_epoch
        if batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
                return None
            if self._is_batch_aborted(batch):
                return None
        return None if batch.is_control_batch else _split(batch)


def _from(chunk: Chunk, first_offset: int) -> Chunk:
    """Messages from `first_offset` on: a fetch from the middle of a record batch brings all of it."""
    return chunk.part(int(np.searchsorted(chunk.offsets, first_offset)), len(chunk.values))


def _split(batch: Any) -> Chunk:
    """All messages of one batch of message format 2."""
    batch._maybe_uncompress()  # noqa: SLF001 - see the module's docstring
    data = np.frombuffer(batch._buffer, np.uint8)  # noqa: SLF001
    count = batch.records_count
    if not 0 <= count <= len(data) // _RECORD_BYTES_MIN:
        msg = f"the record batch at offset {batch.base_offset} claims {count} records in {len(data)} bytes"
        raise errors.CorruptRecordError(msg)
    fields = np.empty((4, count), np.int64)
    if not _split_records(data, batch._pos, fields):  # noqa: SLF001
        msg = f"the record batch at offset {batch.base_offset} ends within a record"
        raise errors.CorruptRecordError(msg)
    offset_deltas, time_deltas_ms, starts, stops = fields
    append_time = batch.timestamp_type == batch.LOG_APPEND_TIME
    times_ms = np.full(count, batch.max_timestamp) if append_time else batch.first_timestamp + time_deltas_ms
    view = bytes(batch._buffer)  # noqa: SLF001 - slices of bytes are bytes; of a memoryview they need a second copy
    values = [view[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    return Chunk(batch.base_offset + offset_deltas, _seconds(times_ms), values, batch.next_offset)


def _seconds(times_ms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unix seconds; NaN where the message has no time (-1)."""
    return np.where(times_ms < 0, np.nan, times_ms / 1000.0)


def _legacy_chunk(batch: Any) -> Chunk:
    """Messages of formats 0 and 1 (Kafka before 0.11, long out of use), one by one."""
    records = list(batch)
    offsets = np.array([record.offset for record in records], np.int64)
    times_ms = np.array(
        [-1 if record.timestamp is None else record.timestamp for record in records], np.int64
    )
    return Chunk(
        offsets, _seconds(times_ms), [bytes(record.value or b"") for record in records], batch.next_offset
    )


@njit(inline="always")
def _varint(data, at):  # noqa: ANN001, ANN202
    """Zigzag varint at data[at:] -> (value, position behind it); past the end it reads as 0 and moves on."""
    raw, shift = np.uint64(0), np.uint64(0)
    while at < len(data):
        byte = np.uint64(data[at])
        at += 1
        raw |= (byte & np.uint64(127)) << shift
        if byte < 128 or shift > 56:
            break
        shift += np.uint64(7)
    return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), at


@njit(cache=True, nogil=True)
def _split_records(data, at, fields):  # noqa: ANN001, ANN202
    """Fill `fields` (4, n) i64: offset delta, time delta (ms), value start, value stop; False if a record is torn.

    A record is: length, attributes, time delta, offset delta, key, value, headers; all numbers zigzag varints.
    """
    for i in range(fields.shape[1]):
        size, at = _varint(data, at)
        end = at + size
        if size < 6 or end > len(data):
            return False
        fields[1, i], at = _varint(data, at + 1)
        fields[0, i], at = _varint(data, at)
        key_size, at = _varint(data, at)
        value_size, at = _varint(data, at + max(key_size, 0))
        fields[2, i] = at
        fields[3, i] = at + max(value_size, 0)
        if fields[3, i] > end or at > end:
            return False
        at = end
    return True
