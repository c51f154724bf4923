"""Committed offsets of consumer groups: one JSON line a commit, appended to a file, rewritten when it has grown."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Final, NamedTuple

from cluster.broker.data_dir import replace_file
from cluster.broker.errors import DataDirError, ErrorCode, RequestError
from cluster.broker.limits import MIB

logger = logging.getLogger("millrace.broker")

_REWRITE_BYTES: Final = 4 * MIB
METADATA_BYTES_MAX: Final = 4096


class Committed(NamedTuple):
    """A committed offset; `leader_epoch` and `metadata` are the client's own."""

    offset: int
    leader_epoch: int
    metadata: str


class OffsetStore:
    """Committed offsets by group, topic and partition. Thread-safe; a commit returns once the system has the line.

    Raises:
        DataDirError: the file is damaged before its last line.
    """

    def __init__(self, path: Path, offsets_max: int, *, fsync: bool = False) -> None:
        self._path = path
        self._offsets_max = offsets_max
        self._fsync = fsync
        self._lock = threading.Lock()
        self._offsets: dict[str, dict[tuple[str, int], Committed]] = {}
        self._load()
        self._rewrite()

    def commit(self, group: str, offsets: dict[tuple[str, int], Committed]) -> None:
        """Store offsets of a group, all in one write.

        Raises:
            RequestError: INVALID_REQUEST beyond the number of offsets kept; KAFKA_STORAGE_ERROR if unwritable.
        """
        with self._lock:
            self._check_room(group, offsets)
            lines = [_line(group, topic, partition, value) for (topic, partition), value in offsets.items()]
            self._append("".join(lines).encode())
            self._offsets.setdefault(group, {}).update(offsets)
            if self._file_bytes > max(_REWRITE_BYTES, 4 * self._live_bytes):
                self._rewrite_again()

    def fetch(self, group: str) -> dict[tuple[str, int], Committed]:
        """All committed offsets of a group, a copy."""
        with self._lock:
            return dict(self._offsets.get(group, {}))

    def groups(self) -> list[str]:
        """Groups that have committed."""
        with self._lock:
            return sorted(self._offsets)

    def forget(self, group: str) -> bool:
        """Remove a group's offsets; whether it had any."""
        with self._lock:
            if group not in self._offsets:
                return False
            self._append(_line(group, None, None, None).encode())
            del self._offsets[group]
            return True

    def forget_topic(self, topic: str) -> None:
        """Remove every group's offsets of a deleted topic, so that a new one of the same name starts afresh."""
        with self._lock:
            for group, offsets in self._offsets.items():
                gone = [key for key in offsets if key[0] == topic]
                if gone:
                    self._append("".join(_line(group, name, index, None) for name, index in gone).encode())
                for key in gone:
                    del offsets[key]

    def close(self) -> None:
        """Close the file; the broker has stopped."""
        with self._lock:
            os.close(self._fd)

    def _check_room(self, group: str, offsets: dict[tuple[str, int], Committed]) -> None:
        kept = self._offsets.get(group, {})
        new = sum(key not in kept for key in offsets)
        if sum(map(len, self._offsets.values())) + new > self._offsets_max:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"{self._offsets_max} committed offsets are kept at most; delete unused groups.",
            )

    def _append(self, data: bytes) -> None:
        try:
            written = os.pwrite(self._fd, data, self._file_bytes)
            if written != len(data):
                raise OSError(f"wrote {written} of {len(data)} bytes")
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self._file_bytes)
            raise RequestError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"could not write {self._path}: {error}."
            ) from error
        self._file_bytes += len(data)

    def _load(self) -> None:
        data = self._path.read_bytes() if self._path.exists() else b""
        lines = data.split(b"\n")
        if lines[-1]:
            logger.warning("Dropped a torn last line of %s.", self._path)
        for number, line in enumerate(lines[:-1], start=1):
            try:
                self._apply(*json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataDirError(
                    f"Expected a committed offset in line {number} of {self._path}, got {line[:80]!r}. Remove the line."
                ) from error

    def _apply(self, group: str, topic: str | None, partition: int, value: list[object] | None) -> None:
        if topic is None:
            self._offsets.pop(group, None)
        elif value is None:
            self._offsets.get(group, {}).pop((topic, partition), None)
        else:
            offset, leader_epoch, metadata = value
            committed = Committed(int(str(offset)), int(str(leader_epoch)), str(metadata))
            self._offsets.setdefault(group, {})[(topic, partition)] = committed

    def _rewrite(self) -> None:
        lines = [
            _line(group, topic, partition, value)
            for group, offsets in self._offsets.items()
            for (topic, partition), value in offsets.items()
        ]
        data = "".join(lines).encode()
        replace_file(self._path, data, fsync=self._fsync)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._file_bytes = self._live_bytes = len(data)

    def _rewrite_again(self) -> None:
        old = self._fd
        try:
            self._rewrite()
        except OSError as error:
            logger.warning("Could not rewrite %s (%s); the commit itself is stored.", self._path, error)
        else:
            os.close(old)


def _line(group: str, topic: str | None, partition: int | None, value: Committed | None) -> str:
    return json.dumps([group, topic, partition, value]) + "\n"
