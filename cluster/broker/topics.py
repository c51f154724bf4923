"""Topics on disk: data_dir/topics/NAME/{topic.json, 0/, 1/, ...}; created and deleted as a whole."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from cluster.broker.data_dir import replace_file
from cluster.broker.errors import ErrorCode, RequestError, TopicError
from cluster.broker.limits import Limits, LogConfig
from cluster.broker.partition_log import PartitionLog

logger = logging.getLogger("millrace.broker")

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SETTINGS_FILE: Final = "topic.json"


class Topic:
    """A topic's settings and its partition logs, indexed by partition."""

    def __init__(self, directory: Path, config: LogConfig, partitions: list[PartitionLog]) -> None:
        self.directory = directory
        self.config = config
        self.partitions = partitions


class TopicStore:
    """All topics of a data directory. Thread-safe.

    Args:
        data_dir: topics/ and removed/ are made in it.
        limits: bounds on numbers of topics, partitions and producers.
        fsync: whether appends wait for the disk.

    Raises:
        TopicError: a topic's settings cannot be read.
        LogDamagedError: a partition log is damaged before its tail.
    """

    def __init__(self, data_dir: Path, limits: Limits, *, fsync: bool = False) -> None:
        self._root = data_dir / "topics"
        self._removed = data_dir / "removed"
        self._limits = limits
        self._fsync = fsync
        self._lock = threading.RLock()
        # What is in removed/ was deleted, or never finished, before the last broker ended.
        shutil.rmtree(self._removed, ignore_errors=True)
        self._root.mkdir(parents=True, exist_ok=True)
        self._removed.mkdir(exist_ok=True)
        self._topics = {path.name: self._open(path) for path in sorted(self._root.iterdir())}

    def names(self) -> list[str]:
        """Names of all topics, sorted."""
        with self._lock:
            return sorted(self._topics)

    def get(self, name: str) -> Topic | None:
        """The topic, or None."""
        return self._topics.get(name)

    def partition(self, name: str, index: int) -> PartitionLog:
        """A partition's log.

        Raises:
            RequestError: UNKNOWN_TOPIC_OR_PARTITION.
        """
        topic = self._topics.get(name)
        if topic is None or not 0 <= index < len(topic.partitions):
            raise RequestError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no partition {name}[{index}]."
            )
        return topic.partitions[index]

    def check_new(self, name: str, partitions: int) -> None:
        """Check that a topic of that name and size can be created.

        Raises:
            RequestError: it cannot; the message says why.
        """
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise RequestError(
                ErrorCode.INVALID_TOPIC_EXCEPTION,
                f"a topic name has 1 to 249 letters, digits, dots, dashes and underscores, got {name[:300]!r}.",
            )
        if name in self._topics:
            raise RequestError(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name!r} exists already.")
        self._check_partitions(partitions)
        if len(self._topics) >= self._limits.topics_max:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"the broker holds {self._limits.topics_max} topics at most; delete one.",
            )

    def create(self, name: str, partitions: int, config: LogConfig) -> Topic:
        """Create a topic; after a crash it is there as a whole or not at all.

        Raises:
            RequestError: invalid name or size, or it exists.
        """
        with self._lock:
            self.check_new(name, partitions)
            draft = self._removed / f"new-{uuid.uuid4().hex}"
            draft.mkdir()
            settings = {"partitions": partitions, **asdict(config)}
            replace_file(draft / _SETTINGS_FILE, json.dumps(settings).encode(), fsync=self._fsync)
            draft.rename(self._root / name)
            topic = self._topics[name] = self._open(self._root / name)
            return topic

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions.

        Raises:
            RequestError: no such topic, or not more than it has.
        """
        with self._lock:
            topic = self._topics.get(name)
            if topic is None:
                raise RequestError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}.")
            self._check_partitions(partitions)
            if partitions <= len(topic.partitions):
                raise RequestError(
                    ErrorCode.INVALID_PARTITIONS,
                    f"topic {name!r} has {len(topic.partitions)} partitions already; a topic can only grow.",
                )
            settings = {"partitions": partitions, **asdict(topic.config)}
            replace_file(topic.directory / _SETTINGS_FILE, json.dumps(settings).encode(), fsync=self._fsync)
            for index in range(len(topic.partitions), partitions):
                topic.partitions.append(self._open_log(topic.directory, index, topic.config))

    def delete(self, name: str) -> None:
        """Delete a topic with its records.

        Raises:
            RequestError: UNKNOWN_TOPIC_OR_PARTITION.
        """
        with self._lock:
            topic = self._topics.pop(name, None)
            if topic is None:
                raise RequestError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}.")
            for log in topic.partitions:
                log.close()
            grave = self._removed / f"old-{uuid.uuid4().hex}"
            topic.directory.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    def retain(self, now_ms: int) -> None:
        """Apply every topic's retention."""
        for name, index, log in self._logs():
            deleted = log.retain(now_ms)
            if deleted:
                logger.info("Retention deleted %d files of %s[%d].", deleted, name, index)

    def close(self) -> None:
        """Close all logs."""
        for _, _, log in self._logs():
            log.close()

    def _logs(self) -> Iterator[tuple[str, int, PartitionLog]]:
        with self._lock:
            topics = list(self._topics.items())
        for name, topic in topics:
            for index, log in enumerate(list(topic.partitions)):
                yield name, index, log

    def _open(self, directory: Path) -> Topic:
        path = directory / _SETTINGS_FILE
        try:
            settings = json.loads(path.read_text())
            partitions = int(settings.pop("partitions"))
            config = LogConfig(**settings)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TopicError(
                f"Expected the settings of topic {directory.name!r} in {path}, got {error!r}. Restore the file, or "
                "remove the topic's directory."
            ) from error
        logs = [self._open_log(directory, index, config) for index in range(partitions)]
        return Topic(directory, config, logs)

    def _open_log(self, directory: Path, index: int, config: LogConfig) -> PartitionLog:
        return PartitionLog(
            directory / str(index),
            config,
            fsync=self._fsync,
            producers_max=self._limits.producers_per_partition_max,
        )

    def _check_partitions(self, partitions: int) -> None:
        most = self._limits.partitions_per_topic_max
        if not 1 <= partitions <= most:
            raise RequestError(
                ErrorCode.INVALID_PARTITIONS, f"a topic has 1 to {most} partitions, got {partitions}."
            )
