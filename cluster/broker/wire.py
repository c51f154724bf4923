"""The parts of the protocol that are read and written by hand, because records go through them: Produce and Fetch.

Everything else uses the message classes that kafka-python generates from Apache Kafka's schemas.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cluster.broker.errors import ProtocolError
from cluster.broker.segment import FileSlice

Part = bytes | FileSlice  # an answer is a list of parts: bytes as they are, file slices sent by sendfile

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_REQUEST: Final = struct.Struct(">hhi")
_FETCH_PARTITION: Final = struct.Struct(">ihq")
_INT64: Final = struct.Struct(">q")


class Reader:
    """Reads the fields of a message in order. Every method raises ProtocolError when the message is too short."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    def take(self, size_bytes: int) -> memoryview:
        """The next bytes, without a copy."""
        end = self._position + size_bytes
        if size_bytes < 0 or end > len(self._data):
            raise ProtocolError(
                f"Expected {size_bytes} more bytes, {len(self._data) - self._position} are left."
            )
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def int16(self) -> int:
        """A big-endian 16-bit number."""
        return int(_INT16.unpack(self.take(2))[0])

    def int32(self) -> int:
        """A big-endian 32-bit number."""
        return int(_INT32.unpack(self.take(4))[0])

    def count(self) -> int:
        """The length of an array; null counts as empty. Each item has at least four bytes."""
        count = self.int32()
        if count * 4 > len(self._data) - self._position:
            raise ProtocolError(f"Expected an array that fits in the request, got {count} items.")
        return max(count, 0)

    def uvarint(self) -> int:
        """An unsigned number of up to 32 bits, seven bits a byte."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ProtocolError("Expected a number of up to five bytes, got a longer one.")

    def string(self) -> str | None:
        """A string with a 16-bit length, or None."""
        size_bytes = self.int16()
        if size_bytes == -1:
            return None
        try:
            return str(self.take(size_bytes), "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"Expected UTF-8 text: {error}.") from error

    def rest(self) -> memoryview:
        """All bytes that are left."""
        return self.take(len(self._data) - self._position)


@dataclass(frozen=True)
class RequestHead:
    """What stands before the body of a request."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str


def read_head(reader: Reader, *, flexible: bool) -> RequestHead:
    """Read the request header; a flexible one ends with tagged fields, which are skipped."""
    api_key, api_version, correlation_id = _REQUEST.unpack(reader.take(_REQUEST.size))
    client_id = reader.string() or ""
    if flexible:
        for _ in range(reader.uvarint()):
            reader.uvarint()
            reader.take(reader.uvarint())
    return RequestHead(api_key, api_version, correlation_id, client_id)


@dataclass(frozen=True)
class ProducedBatch:
    """Records for one partition as they came: a view into the request, or None."""

    topic: str
    partition: int
    records: memoryview | None


@dataclass(frozen=True)
class ProduceBody:
    """A Produce request, versions 0 to 8."""

    transactional_id: str | None
    acks: int
    batches: list[ProducedBatch]


def read_produce(reader: Reader, api_version: int) -> ProduceBody:
    """Read a Produce request; records stay where they are."""
    transactional_id = reader.string() if api_version >= 3 else None
    acks = reader.int16()
    reader.int32()  # the timeout for other replicas, of which there are none
    batches = []
    for _ in range(reader.count()):
        topic = reader.string() or ""
        for _ in range(reader.count()):
            partition = reader.int32()
            size_bytes = reader.int32()
            records = None if size_bytes == -1 else reader.take(size_bytes)
            batches.append(ProducedBatch(topic, partition, records))
    return ProduceBody(transactional_id, acks, batches)


@dataclass(frozen=True)
class FetchedPartition:
    """The answer for one partition of a Fetch."""

    partition: int
    error_code: int
    end_offset: int
    start_offset: int
    records: FileSlice | None


def fetch_response(
    correlation_id: int, api_version: int, topics: list[tuple[str, list[FetchedPartition]]]
) -> list[Part]:
    """A framed Fetch response, versions 4 to 11, with records as file slices."""
    parts: list[Part] = []
    buffer = bytearray(_INT32.pack(correlation_id) + _INT32.pack(0))
    if api_version >= 7:
        buffer += struct.pack(">hi", 0, 0)  # no error; session 0: every fetch names all its partitions
    buffer += _INT32.pack(len(topics))
    for topic, partitions in topics:
        name = topic.encode()
        buffer += _INT16.pack(len(name)) + name + _INT32.pack(len(partitions))
        for fetched in partitions:
            buffer += _fetched_head(fetched, api_version)
            if fetched.records is not None:
                parts += [bytes(buffer), fetched.records]
                buffer.clear()
    parts.append(bytes(buffer))
    return framed(parts)


def _fetched_head(fetched: FetchedPartition, api_version: int) -> bytes:
    end = fetched.end_offset
    head = _FETCH_PARTITION.pack(fetched.partition, fetched.error_code, end) + _INT64.pack(end)
    if api_version >= 5:
        head += _INT64.pack(fetched.start_offset)
    head += _INT32.pack(0)  # aborted transactions: none
    if api_version >= 11:
        head += _INT32.pack(-1)  # preferred read replica: none
    return head + _INT32.pack(fetched.records.size_bytes if fetched.records is not None else 0)


def framed(parts: list[Part]) -> list[Part]:
    """Put the length of all parts before them."""
    size_bytes = sum(len(part) if isinstance(part, bytes) else part.size_bytes for part in parts)
    return [_INT32.pack(size_bytes), *parts]
