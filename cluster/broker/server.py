"""The embedded development broker: a small durable broker that speaks the Kafka protocol over TCP.

For development and tests. Production means Apache Kafka, Redpanda or a managed cluster: this broker is one process
without replication, transactions, compaction, access control or encryption.

Acknowledged means written to the operating system: kill -9 of the broker loses nothing, a power cut may lose the
last seconds. `fsync=True` puts each batch on the disk before it is acknowledged.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cluster.broker.connection import Connection, listen
from cluster.broker.data_dir import DataDirLock, cluster_id
from cluster.broker.errors import DataDirError, RequestError, TopicError
from cluster.broker.groups import Groups
from cluster.broker.limits import Limits, LogConfig
from cluster.broker.offset_store import OffsetStore
from cluster.broker.partition_log import PartitionLog
from cluster.broker.producers import ProducerIds
from cluster.broker.services import Services
from cluster.broker.topics import TopicStore

logger = logging.getLogger("millrace.broker")

_ANY_HOSTS: Final = ("0.0.0.0", "::", "")  # noqa: S104  names, not a binding
_EXPIRE_S: Final = 0.5
_STOP_S_MAX: Final = 5.0
_ACCEPT_PAUSE_S: Final = 0.1


class Broker:
    """A broker on `data_dir`, in threads of this process. Use it as a context manager, or start() and stop() it.

    Args:
        data_dir: created if missing; one broker at a time.
        host: address to listen on. Clients are told the same, or for 0.0.0.0 the address by which they came.
        port: 0 takes a free one, see `bootstrap_servers`.
        auto_create_partitions: a topic that is asked for and does not exist is created with so many partitions;
            0 (the default) answers UNKNOWN_TOPIC_OR_PARTITION instead.
        fsync: put each batch and commit on the disk before it is acknowledged.
        log_config: sizes and retention of topics that do not say otherwise.
        limits: bounds on what clients may ask.
        retention_check_s: seconds between two looks at retention.

    Raises (start):
        DataDirLockedError: another broker uses data_dir.
        DataDirError: data_dir cannot be used.
        LogDamagedError, TopicError: what is in data_dir cannot be trusted.
        AddressError: host and port cannot be listened on.
    """

    def __init__(
        self,
        data_dir: str | Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        auto_create_partitions: int = 0,
        fsync: bool = False,
        log_config: LogConfig | None = None,
        limits: Limits | None = None,
        retention_check_s: float = 5.0,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.host = host
        self.port = port
        self._auto_create_partitions = auto_create_partitions
        self._fsync = fsync
        self._log_config = log_config or LogConfig()
        self._limits = limits or Limits()
        self._retention_check_s = retention_check_s
        self._connections: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._services: Services | None = None
        self._data_lock = DataDirLock(self.data_dir)

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients; the port is known after start()."""
        host = "127.0.0.1" if self.host in _ANY_HOSTS else self.host
        return f"{host}:{self.port}"

    def start(self) -> Self:
        """Lock and read the data directory, listen, and serve; returns when clients can connect."""
        if self._services is not None:
            return self
        self._data_lock.take()
        try:
            services = self._open()
            self._listener = listen(self.host, self.port)
            self.port = self._listener.getsockname()[1]
        except BaseException:
            self._data_lock.release()
            raise
        self._services = services
        self._threads = [
            threading.Thread(target=self._accept, args=(services,), name="broker-accept", daemon=True),
            threading.Thread(target=self._keep_house, args=(services,), name="broker-house", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        logger.debug("Broker serves %s from %s.", self.bootstrap_servers, self.data_dir)
        return self

    def stop(self) -> None:
        """Disconnect all clients, end all threads (within seconds) and free the data directory. May be repeated."""
        services, self._services = self._services, None
        if services is None:
            return
        services.stopping.set()
        # Shutting the listener down wakes accept(); closing it alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        ends_s = time.monotonic() + _STOP_S_MAX
        for thread in [*self._threads, *(connection.thread for connection in connections)]:
            thread.join(max(0.0, ends_s - time.monotonic()))
        self._listener.close()
        services.topics.close()
        services.groups.offsets.close()
        self._data_lock.release()

    def create_topic(self, name: str, partitions: int = 1, config: LogConfig | None = None) -> None:
        """Create a topic.

        Raises:
            TopicError: it exists, or the name or number is not valid; or the broker is not started.
        """
        try:
            self._running().topics.create(name, partitions, config or self._log_config)
        except RequestError as error:
            raise TopicError(
                f"Cannot create topic {name!r} with {partitions} partitions: {error.message}"
            ) from error

    def partition(self, topic: str, index: int) -> PartitionLog:
        """A partition's log, to look into it without a client.

        Raises:
            TopicError: there is none; or the broker is not started.
        """
        try:
            return self._running().topics.partition(topic, index)
        except RequestError as error:
            raise TopicError(f"Cannot find {topic!r}[{index}]: {error.message}") from error

    def ensure_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic unless it exists with that number of partitions.

        Raises:
            TopicError: it exists with another number, or cannot be created.
        """
        topic = self._running().topics.get(name)
        if topic is None:
            self.create_topic(name, partitions)
        elif len(topic.partitions) != partitions:
            raise TopicError(
                f"Expected topic {name!r} with {partitions} partitions, in {self.data_dir} it has "
                f"{len(topic.partitions)}. Ask for that number, use another name, or delete the topic first."
            )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> Services:
        if self._services is None:
            raise TopicError("Expected a running broker; call start() first.")
        return self._services

    def _open(self) -> Services:
        try:
            stopping = threading.Event()
            offsets = OffsetStore(
                self.data_dir / "offsets.jsonl", self._limits.group_offsets_max, fsync=self._fsync
            )
            return Services(
                cluster_id=cluster_id(self.data_dir),
                limits=self._limits,
                log_config=self._log_config,
                auto_create_partitions=self._auto_create_partitions,
                topics=TopicStore(self.data_dir, self._limits, fsync=self._fsync),
                groups=Groups(offsets, self._limits, stopping),
                producer_ids=ProducerIds(self.data_dir / "producer-ids", fsync=self._fsync),
                stopping=stopping,
                advertise=self._advertise,
            )
        except OSError as error:
            raise DataDirError(f"Cannot read the data directory {self.data_dir}: {error}.") from error

    def _advertise(self, local_host: str) -> tuple[str, int]:
        return (local_host if self.host in _ANY_HOSTS else self.host), self.port

    def _accept(self, services: Services) -> None:
        while not services.stopping.is_set():
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if not services.stopping.wait(_ACCEPT_PAUSE_S):
                    logger.warning("Could not accept a connection: %s.", error)
                continue
            self._connections = {known for known in self._connections if known.thread.is_alive()}
            if len(self._connections) >= self._limits.connections_max:
                logger.warning(
                    "Refused %s: %d connections are open, the most allowed.", address, len(self._connections)
                )
                sock.close()
                continue
            self._serve(sock, services)

    def _serve(self, sock: socket.socket, services: Services) -> None:
        try:
            connection = Connection(sock, services)
            connection.thread.start()
        except (OSError, RuntimeError) as error:
            logger.warning("Could not serve a connection: %s.", error)
            sock.close()
            return
        self._connections.add(connection)

    def _keep_house(self, services: Services) -> None:
        """Remove silent group members and expired records, as long as the broker runs."""
        retention_due_s = time.monotonic()
        while not services.stopping.wait(_EXPIRE_S):
            try:
                services.groups.expire()
                if time.monotonic() >= retention_due_s:
                    services.topics.retain(int(time.time() * 1000))
                    retention_due_s = time.monotonic() + self._retention_check_s
            except OSError:
                logger.exception("Could not delete expired records. Tried again later.")
