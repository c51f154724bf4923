"""The log of one partition: segment files, a start offset, and the sequence state of its producers.

Acknowledged means written to the operating system: kill -9 of the broker loses nothing, a power cut may lose the
last seconds. With fsync=True each append is on the disk before it is acknowledged (and takes milliseconds).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.broker.batch import BatchHeader, check_batch, parse_header, record_at_time
from cluster.broker.data_dir import read_number, replace_file
from cluster.broker.errors import ErrorCode, RequestError
from cluster.broker.limits import LogConfig
from cluster.broker.producers import ProducerTable
from cluster.broker.segment import FileSlice, Segment, open_segments

logger = logging.getLogger("millrace.broker")

_START_FILE: Final = "start-offset"


@dataclass(frozen=True)
class Appended:
    """Where a batch is stored; `duplicate` if it already was."""

    base_offset: int
    start_offset: int
    duplicate: bool


class PartitionLog:
    """Records of one partition, offsets from `start_offset` to `end_offset` (exclusive), no gaps. Thread-safe.

    Args:
        directory: of this partition only; created if missing.
        config: sizes and retention.
        fsync: whether an append waits for the disk.
        producers_max: idempotent producers remembered.

    Raises:
        LogDamagedError: a file is damaged before its tail.
        OSError: the directory cannot be read or written.
    """

    def __init__(
        self, directory: Path, config: LogConfig, *, fsync: bool = False, producers_max: int = 1_000
    ) -> None:
        self.directory = directory
        self.config = config
        self._fsync = fsync
        self._lock = threading.Lock()
        self._watchers: set[threading.Event] = set()
        self._producers = ProducerTable(producers_max)
        self._closed = False
        directory.mkdir(parents=True, exist_ok=True)
        self._segments = open_segments(directory, self._producers.store) or [
            self._new_segment(read_number(directory / _START_FILE))
        ]
        self._start_offset = max(read_number(directory / _START_FILE), self._segments[0].base_offset)
        if self._start_offset > self.end_offset:
            self._begin_again()

    @property
    def start_offset(self) -> int:
        """Offset of the first record that can be read."""
        return self._start_offset

    @property
    def end_offset(self) -> int:
        """Offset that the next record gets."""
        return self._segments[-1].next_offset

    @property
    def size_bytes(self) -> int:
        """Bytes of all segment files."""
        with self._lock:
            return sum(segment.size_bytes for segment in self._segments)

    def append(self, batch: memoryview) -> Appended:
        """Check and store one record batch, or find that it is already stored.

        Raises:
            RequestError: the batch is refused; nothing has changed.
        """
        header = check_batch(batch, self.config.message_bytes_max)
        with self._lock:
            self._check_open()
            known = self._producers.duplicate_of(header, history_complete=self._start_offset == 0)
            if known is not None:
                return Appended(known, self._start_offset, duplicate=True)
            appended = self._store(header, batch)
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher.set()
        return appended

    def read(self, offset: int, bytes_max: int) -> FileSlice | None:
        """Whole batches from the one that holds `offset`, at least one even if longer than `bytes_max`.

        None at the end.

        Raises:
            RequestError: OFFSET_OUT_OF_RANGE below the start or beyond the end.
        """
        with self._lock:
            self._check_open()
            if not self._start_offset <= offset <= self.end_offset:
                raise RequestError(
                    ErrorCode.OFFSET_OUT_OF_RANGE,
                    f"{self.directory.name} holds offsets {self._start_offset} to {self.end_offset}, got {offset}.",
                )
            for segment in reversed(self._segments):
                if segment.base_offset <= offset < segment.next_offset:
                    return segment.slice(offset, bytes_max)
            return None

    def offset_at_time(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Offset and timestamp (ms) of the first readable record of `timestamp_ms` or later; None if there is none."""
        offset = self._batch_at_time(timestamp_ms)
        # One batch as a rule; more only where the one found was deleted in part.
        while offset is not None and (batches := self.read(offset, 1)) is not None:
            data = batches.read()
            found = record_at_time(data, timestamp_ms, self._start_offset)
            if found is not None:
                return found
            offset = parse_header(data).next_offset
        return None

    def _batch_at_time(self, timestamp_ms: int) -> int | None:
        with self._lock:
            self._check_open()
            for segment in self._segments:
                offset = segment.offset_at_time(timestamp_ms)
                if offset is not None:
                    return max(offset, self._start_offset)
            return None

    def delete_before(self, offset: int) -> int:
        """Make records below `offset` unreadable, for good, and remove files that hold only such; -1 means all.

        Raises:
            RequestError: OFFSET_OUT_OF_RANGE for an offset beyond the end.
        """
        with self._lock:
            self._check_open()
            target = self.end_offset if offset == -1 else offset
            if not 0 <= target <= self.end_offset:
                raise RequestError(
                    ErrorCode.OFFSET_OUT_OF_RANGE,
                    f"cannot delete below {offset}, the log ends at {self.end_offset}.",
                )
            if target > self._start_offset:
                replace_file(self.directory / _START_FILE, f"{target}\n".encode(), fsync=self._fsync)
                self._start_offset = target
            while len(self._segments) > 1 and self._segments[0].next_offset <= target:
                self._drop_first()
            return self._start_offset

    def retain(self, now_ms: int) -> int:
        """Delete the oldest files beyond retention by time or bytes; returns the number of files deleted."""
        with self._lock:
            if self._closed:
                return 0
            before = len(self._segments)
            self._roll_expired(now_ms)
            rolled = len(self._segments) - before
            while len(self._segments) > 1 and self._first_is_surplus(now_ms):
                self._drop_first()
            return before + rolled - len(self._segments)

    def watch(self, event: threading.Event) -> None:
        """Set `event` after each append, until `unwatch`."""
        with self._lock:
            self._watchers.add(event)

    def unwatch(self, event: threading.Event) -> None:
        """Stop setting `event`."""
        with self._lock:
            self._watchers.discard(event)

    def close(self) -> None:
        """Refuse further use. Files close once no fetch sends from them any more."""
        with self._lock:
            self._closed = True

    def _begin_again(self) -> None:
        """A power cut lost records that had been deleted anyway, and kept their deletion: go on at the start offset."""
        logger.warning("%s ends at %d, before its start offset.", self.directory, self.end_offset)
        segment = self._new_segment(self._start_offset)
        for lost in self._segments:
            lost.path.unlink()
        self._segments = [segment]

    def _store(self, header: BatchHeader, batch: memoryview) -> Appended:
        active = self._segments[-1]
        base_offset = active.next_offset
        try:
            if active.size_bytes and active.size_bytes + len(batch) > self.config.segment_bytes:
                active = self._roll()
            active.append(header, batch, base_offset, fsync=self._fsync)
        except OSError as error:
            logger.exception("Could not append to %s. The producer was told to try again.", active.path)
            raise RequestError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"could not write {active.path}: {error}."
            ) from error
        self._producers.store(header._replace(base_offset=base_offset))
        return Appended(base_offset, self._start_offset, duplicate=False)

    def _roll(self) -> Segment:
        segment = self._new_segment(self._segments[-1].next_offset)
        self._segments.append(segment)
        return segment

    def _new_segment(self, base_offset: int) -> Segment:
        return Segment(self.directory / f"{base_offset:020d}.log", base_offset)

    def _roll_expired(self, now_ms: int) -> None:
        """Close the active file if all of it has expired, so that it can be deleted too."""
        if self._segments[-1].size_bytes and self._is_expired(self._segments[-1], now_ms):
            self._roll()

    def _is_expired(self, segment: Segment, now_ms: int) -> bool:
        # Records without a timestamp (-1) have no age.
        oldest_ms = now_ms - self.config.retention_ms
        return self.config.retention_ms >= 0 and 0 <= segment.max_timestamp_ms < oldest_ms

    def _first_is_surplus(self, now_ms: int) -> bool:
        if self._is_expired(self._segments[0], now_ms):
            return True
        kept_bytes = sum(segment.size_bytes for segment in self._segments[1:])
        return 0 <= self.config.retention_bytes <= kept_bytes

    def _drop_first(self) -> None:
        self._segments[0].path.unlink(missing_ok=True)
        del self._segments[0]
        self._start_offset = max(self._start_offset, self._segments[0].base_offset)

    def _check_open(self) -> None:
        if self._closed:
            raise RequestError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"{self.directory} was deleted or is being closed."
            )
