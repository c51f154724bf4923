"""One file of a partition log: whole record batches, one after the other, and their index in memory.

The file is named after its first offset. Its index (first offset, position and highest timestamp so far of each
batch, 24 bytes) is rebuilt from the batch headers when the file is opened.
"""

from __future__ import annotations

import logging
import os
import weakref
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.broker.batch import (
    HEADER_BYTES,
    LEADER_EPOCH,
    PREFIX,
    PREFIX_BYTES,
    BatchHeader,
    crc_matches,
    is_sound,
    parse_header,
)
from cluster.broker.errors import LogDamagedError

logger = logging.getLogger("millrace.broker")


@dataclass(frozen=True)
class FileSlice:
    """Whole batches of a segment. Holds the segment, so its file stays open until the slice has been sent."""

    segment: Segment
    position: int
    size_bytes: int

    def read(self) -> bytes:
        """Read the bytes (the server sends them without reading, by sendfile)."""
        return os.pread(self.segment.fd, self.size_bytes, self.position)


class Segment:
    """A file of batches. Not locked: the partition log that owns it is.

    Attributes:
        base_offset: offset of the first record that was or will be in it.
        next_offset: offset after its last record.
        size_bytes: bytes of whole batches; what lies behind is never read.
        max_timestamp_ms: highest timestamp of its records, -1 while empty.
    """

    def __init__(self, path: Path, base_offset: int) -> None:
        self.path = path
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.size_bytes = 0
        self.max_timestamp_ms = -1
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # Closed with the last reference: a fetch may still be sending from a file that retention has removed.
        weakref.finalize(self, os.close, self.fd)
        self._offsets = array("q")
        self._positions = array("q")
        self._times = array("q")

    def append(self, header: BatchHeader, batch: memoryview, base_offset: int, *, fsync: bool) -> None:
        """Write a batch at the end under `base_offset`; after an OSError the file is as before."""
        prefix = PREFIX.pack(base_offset, header.length, LEADER_EPOCH)
        try:
            _write_all(self.fd, [memoryview(prefix), batch[PREFIX_BYTES:]], self.size_bytes)
            if fsync:
                os.fdatasync(self.fd)
        except OSError:
            os.ftruncate(self.fd, self.size_bytes)
            raise
        self._index(header._replace(base_offset=base_offset))

    def slice(self, offset: int, bytes_max: int) -> FileSlice:
        """Whole batches from the one that holds `offset`, at least one, then as many as fit in `bytes_max`.

        `offset` must lie within [base_offset, next_offset).
        """
        first = bisect_right(self._offsets, offset) - 1
        position = self._positions[first]
        end = bisect_right(self._positions, position + bytes_max) - 1
        if position + bytes_max >= self.size_bytes:
            stop = self.size_bytes
        else:
            stop = self._positions[end] if end > first else self._end_of(first)
        return FileSlice(self, position, stop - position)

    def offset_at_time(self, timestamp_ms: int) -> int | None:
        """First offset of the first batch with a record of `timestamp_ms` or later, or None."""
        # The running maximum first reaches the time at a batch that itself holds such a record.
        index = bisect_left(self._times, timestamp_ms)
        return None if index == len(self._times) else self._offsets[index]

    def recover(self, on_batch: Callable[[BatchHeader], None], *, is_last: bool) -> None:
        """Rebuild the index from the file, telling each header to `on_batch`; in the last file cut a torn tail.

        Checksums are verified in the last file only: kill -9 cannot harm the others.

        Raises:
            LogDamagedError: a batch is damaged and whole ones follow it.
        """
        file_bytes = os.fstat(self.fd).st_size
        while self.size_bytes < file_bytes:
            header = self._sound_header(file_bytes, check_crc=is_last)
            if header is None:
                break
            on_batch(header)
            self._index(header)
        if self.size_bytes < file_bytes:
            self._cut(file_bytes, is_last=is_last)

    def _sound_header(self, file_bytes: int, *, check_crc: bool) -> BatchHeader | None:
        """The header at the end of what is known, or None if no whole batch with the next offset is there."""
        data = os.pread(self.fd, HEADER_BYTES, self.size_bytes)
        if len(data) < HEADER_BYTES:
            return None
        header = parse_header(data)
        if not is_sound(header) or header.base_offset != self.next_offset:
            return None
        if self.size_bytes + header.size_bytes > file_bytes:
            return None
        if check_crc and not crc_matches(os.pread(self.fd, header.size_bytes, self.size_bytes), header):
            return None
        return header

    def _cut(self, file_bytes: int, *, is_last: bool) -> None:
        where = f"{self.path} at byte {self.size_bytes} (offset {self.next_offset})"
        if not is_last or self._sound_batch_follows(file_bytes):
            raise LogDamagedError(
                f"Expected a whole record batch in {where}, found a damaged one with more behind it. This is no torn "
                "tail, so nothing was cut. Restore the file, or cut it there yourself and lose what follows."
            )
        logger.warning("Cut off a torn tail of %d bytes in %s.", file_bytes - self.size_bytes, where)
        os.ftruncate(self.fd, self.size_bytes)

    def _sound_batch_follows(self, file_bytes: int) -> bool:
        """Whether a whole batch stands behind the damaged one, where the damaged one says that it ends."""
        data = os.pread(self.fd, HEADER_BYTES, self.size_bytes)
        if len(data) < HEADER_BYTES:
            return False
        position = self.size_bytes + max(0, parse_header(data).size_bytes)
        data = os.pread(self.fd, HEADER_BYTES, position)
        if len(data) < HEADER_BYTES:
            return False
        header = parse_header(data)
        if (
            not is_sound(header)
            or position + header.size_bytes > file_bytes
            or header.base_offset <= self.next_offset
        ):
            return False
        return crc_matches(os.pread(self.fd, header.size_bytes, position), header)

    def _index(self, header: BatchHeader) -> None:
        self.max_timestamp_ms = max(self.max_timestamp_ms, header.max_timestamp_ms)
        self._offsets.append(header.base_offset)
        self._positions.append(self.size_bytes)
        self._times.append(self.max_timestamp_ms)
        self.size_bytes += header.size_bytes
        self.next_offset = header.next_offset

    def _end_of(self, index: int) -> int:
        last = index + 1 == len(self._positions)
        return self.size_bytes if last else self._positions[index + 1]


def _write_all(fd: int, parts: list[memoryview], position: int) -> None:
    """Write the parts at `position`; the system may take fewer bytes than offered."""
    while parts:
        written = os.pwritev(fd, parts, position)
        position += written
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if parts and written:
            parts[0] = parts[0][written:]


def open_segments(directory: Path, on_batch: Callable[[BatchHeader], None]) -> list[Segment]:
    """All segments of a partition in order, their indexes rebuilt and a torn tail cut off; may be none.

    Raises:
        LogDamagedError: a file is missing, or damaged before its tail.
    """
    paths = sorted(directory.glob("*.log"))
    segments: list[Segment] = []
    for path in paths:
        segment = Segment(path, int(path.stem))
        if segments and segment.base_offset != segments[-1].next_offset:
            raise LogDamagedError(
                f"Expected {path} to begin at offset {segments[-1].next_offset}, where the file before it ends. "
                "A file is missing or cut short; restore it, or delete the topic."
            )
        segment.recover(on_batch, is_last=path == paths[-1])
        segments.append(segment)
    return segments
