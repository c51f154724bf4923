"""Idempotent producers: what was the last sequence number of each, and which ids are given out.

A producer numbers its records per partition. The broker stores a batch only if its first number follows the last
one stored; a batch that it already has is answered with the offset it got then. The table is rebuilt from the batch
headers at start, so it needs no file of its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from cluster.broker.batch import BatchHeader
from cluster.broker.data_dir import read_number, replace_file
from cluster.broker.errors import ErrorCode, RequestError

BATCHES_REMEMBERED: Final = 5  # what a producer may have in flight, as in Apache Kafka
SEQUENCES: Final = 2**31  # sequence numbers wrap round to 0
ID_BLOCK: Final = 1_000


class _Stored(NamedTuple):
    first_sequence: int
    last_sequence: int
    base_offset: int


@dataclass
class _Producer:
    epoch: int
    batches: deque[_Stored] = field(default_factory=lambda: deque(maxlen=BATCHES_REMEMBERED))


class ProducerTable:
    """Sequence state of one partition's producers; the partition log locks it.

    Of more than `producers_max` producers the one that has been quiet longest is forgotten.
    """

    def __init__(self, producers_max: int) -> None:
        self._producers: OrderedDict[int, _Producer] = OrderedDict()
        self._producers_max = producers_max
        self._forgot = False

    def duplicate_of(self, header: BatchHeader, *, history_complete: bool) -> int | None:
        """The offset under which the batch is already stored, or None if it is the next one to store.

        A producer that is not known may begin anywhere only if its earlier batches may have been deleted, that is
        unless `history_complete`.

        Raises:
            RequestError: a gap, a forgotten duplicate or an old epoch.
        """
        if header.producer_id < 0:
            return None
        if header.base_sequence < 0:
            raise RequestError(
                ErrorCode.INVALID_RECORD, "a batch with a producer id needs a sequence number."
            )
        producer = self._producers.get(header.producer_id)
        if producer is None:
            if history_complete and not self._forgot:
                _expect_sequence(header, 0)
            return None
        if header.producer_epoch < producer.epoch:
            raise RequestError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {header.producer_id} has epoch {producer.epoch}, the batch has {header.producer_epoch}.",
            )
        if header.producer_epoch > producer.epoch:
            _expect_sequence(header, 0)
            return None
        return _find_duplicate(header, producer)

    def store(self, header: BatchHeader) -> None:
        """Remember a batch that has been appended; `header` has its final base offset."""
        if header.producer_id < 0:
            return
        producer = self._producers.get(header.producer_id)
        if producer is None or producer.epoch != header.producer_epoch:
            producer = self._producers[header.producer_id] = _Producer(header.producer_epoch)
        last = (header.base_sequence + header.last_offset_delta) % SEQUENCES
        producer.batches.append(_Stored(header.base_sequence, last, header.base_offset))
        self._producers.move_to_end(header.producer_id)
        if len(self._producers) > self._producers_max:
            self._producers.popitem(last=False)
            self._forgot = True


def _find_duplicate(header: BatchHeader, producer: _Producer) -> int | None:
    last = (header.base_sequence + header.last_offset_delta) % SEQUENCES
    for stored in producer.batches:
        if (stored.first_sequence, stored.last_sequence) == (header.base_sequence, last):
            return stored.base_offset
    expected = (producer.batches[-1].last_sequence + 1) % SEQUENCES
    behind = (expected - header.base_sequence) % SEQUENCES
    if 0 < behind < SEQUENCES // 2:
        raise RequestError(
            ErrorCode.DUPLICATE_SEQUENCE_NUMBER,
            f"producer {header.producer_id} already sent sequence {header.base_sequence}, {expected} is next.",
        )
    _expect_sequence(header, expected)
    return None


def _expect_sequence(header: BatchHeader, expected: int) -> None:
    if header.base_sequence != expected:
        raise RequestError(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"expected sequence {expected} of producer {header.producer_id}, got {header.base_sequence}.",
        )


class ProducerIds:
    """Gives out producer ids that no producer of this data directory has had; a file reserves them by the block."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self._path = path
        self._fsync = fsync
        self._lock = threading.Lock()
        self._next = self._reserved = read_number(path)

    def allocate(self) -> int:
        """A new producer id.

        Raises:
            OSError: the file cannot be written.
        """
        with self._lock:
            if self._next >= self._reserved:
                replace_file(self._path, f"{self._next + ID_BLOCK}\n".encode(), fsync=self._fsync)
                self._reserved = self._next + ID_BLOCK
            self._next += 1
            return self._next - 1
