"""Record batches split as a whole: transactions, gaps and damage, compared with kafka-python message by message."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from kafka import TopicPartition, errors
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record._crc32c import crc as crc32c
from kafka.record.default_records import DefaultRecordBatchBuilder

from cluster.streams.kafka_buffer import PartitionBuffer
from cluster.streams.kafka_chunks import Chunk, _ChunkedRecords

ABORT, COMMIT = struct.pack(">hh", 0, 0), struct.pack(">hh", 0, 1)


def batch(base_offset: int, values: list[bytes], *, producer: int = -1, marker: bytes | None = None) -> bytes:
    """One record batch; with a producer it is transactional, with a marker it ends that producer's transaction."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=producer >= 0,
        producer_id=producer,
        producer_epoch=0 if producer >= 0 else -1,
        base_sequence=0 if producer >= 0 else -1,
        batch_size=1 << 20,
    )
    for i, value in enumerate([b"\0" * 6] if marker else values):
        builder.append(i, 1_700_000_000_000 + i, marker, value, [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base_offset)
    if marker is not None:
        struct.pack_into(">h", data, 21, struct.unpack_from(">h", data, 21)[0] | 0x20)
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    return bytes(data)


class Aborted:
    def __init__(self, producer_id: int, first_offset: int) -> None:
        self.producer_id = producer_id
        self.first_offset = first_offset


def read(reader: Any, data: bytes, fetch_offset: int = 0, aborted: list[Aborted] | None = None) -> Any:
    return reader(
        fetch_offset,
        TopicPartition("t", 0),
        MemoryRecords(data),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=aborted,
    )


def flat(chunks: list[Chunk]) -> list[tuple[int, bytes]]:
    return [pair for chunk in chunks for pair in zip(chunk.offsets.tolist(), chunk.values, strict=True)]


@pytest.mark.parametrize("fetch_offset", range(12))
def test_aborted_transactions_and_markers_are_left_out(fetch_offset):
    """Two producers' transactions are interleaved, one is aborted: the same messages and position as kafka-python."""
    data = b"".join(
        [
            batch(0, [b"a", b"b"], producer=1),
            batch(2, [b"x", b"y"], producer=2),
            batch(4, [b"c"], producer=1),
            batch(5, [], producer=2, marker=ABORT),
            batch(6, [], producer=1, marker=COMMIT),
            batch(7, [b"z", b"z"], producer=2),
            batch(9, [], producer=2, marker=COMMIT),
            batch(10, [b"plain"]),
            batch(11, [], producer=2, marker=ABORT),
        ]
    )
    plain = read(Fetcher.PartitionRecords, data, fetch_offset, [Aborted(2, 2)])
    chunked = read(_ChunkedRecords, data, fetch_offset, [Aborted(2, 2)])
    assert flat(chunked.take()) == [(each.offset, each.value) for each in plain.take()]
    assert chunked.next_fetch_offset == plain.next_fetch_offset == 12


def test_a_damaged_batch_behind_good_ones_gives_the_good_ones_first():
    """A byte on the disk has flipped: what lies before it is read, then an error names the place."""
    data = bytearray(batch(0, [b"a"]) + batch(1, [b"b"]))
    data[-1] ^= 1
    reader = read(_ChunkedRecords, bytes(data))
    assert flat(reader.take()) == [(0, b"a")]
    with pytest.raises(errors.CorruptRecordError, match=r"t\[0\]@1 does not match its checksum"):
        reader.take()


@pytest.mark.parametrize("count", [3, 1_000_000, -5])
def test_a_batch_that_claims_more_records_than_it_has(count):
    """A valid checksum over a wrong number of records: an error, and no reading beyond the end."""
    data = bytearray(batch(0, [b"a", b"b"]))
    struct.pack_into(">i", data, 57, count)
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    with pytest.raises(errors.CorruptRecordError):
        read(_ChunkedRecords, bytes(data)).take()


def chunk(offsets: list[int], next_offset: int) -> Chunk:
    return Chunk(np.array(offsets), np.zeros(len(offsets)), [b"{}"] * len(offsets), next_offset)


def test_gaps_in_offsets_belong_to_the_batch_before_them():
    """Compaction has removed messages: batches still cover all offsets, each from where the last one ended."""
    buffer = PartitionBuffer(0, 0, None, 3)
    buffer.add([chunk([0, 5, 6], 10), chunk([12, 13, 14, 15], 20)])
    first, second = buffer.cut(), buffer.cut()
    assert (first.offsets.tolist(), first.next_offset) == ([0, 5, 6], 10)
    assert (second.offsets.tolist(), second.next_offset) == ([12, 13, 14], 15)


@pytest.mark.parametrize("sizes", [[20], [1] * 20, [7, 7, 6], [2, 11, 7]])
def test_cuts_do_not_depend_on_how_messages_were_fetched(sizes):
    """The same twenty messages come in one fetch or in twenty."""
    buffer = PartitionBuffer(0, 0, 20, 6)
    start = 0
    for size in sizes:
        buffer.add([chunk(list(range(start, start + size)), start + size)])
        start += size
    cuts = []
    while not buffer.done:
        cuts.append(buffer.cut().next_offset)
    assert cuts == [6, 12, 18, 20]


def test_messages_behind_the_end_are_dropped():
    """A bounded partition is fetched beyond its end, which lies within a record batch."""
    buffer = PartitionBuffer(0, 0, 3, 10)
    buffer.add([chunk([0, 1, 2, 3, 4], 5), chunk([5, 6], 7)])
    assert buffer.fetched
    assert buffer.cut().offsets.tolist() == [0, 1, 2]
    assert buffer.done


def test_a_batch_of_huge_messages_is_cut_by_bytes(monkeypatch):
    """Batches of a thousand records, messages of a megabyte each: a batch ends at its bound in bytes."""
    monkeypatch.setattr("cluster.streams.kafka_buffer.BATCH_BYTES_MAX", 100)
    buffer = PartitionBuffer(0, 0, None, 1000)
    values = [b"x" * 40] * 10
    buffer.add([Chunk(np.arange(10), np.zeros(10), values, 10)])
    assert buffer.holds_batch
    assert [len(buffer.cut().values) for _ in range(4)] == [3, 3, 3, 1]
