"""What the request handlers work with: one object per broker, and one per request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cluster.broker.groups import Groups
from cluster.broker.limits import Limits, LogConfig
from cluster.broker.producers import ProducerIds
from cluster.broker.topics import Topic, TopicStore
from cluster.broker.wire import RequestHead

NODE_ID: Final = 0


@dataclass(frozen=True)
class Services:
    """The broker's parts, shared by all connections.

    Attributes:
        advertise: from the local address of a connection to the (host, port) that clients are told.
        auto_create_partitions: partitions of a topic that is created by asking for it; 0 means never.
    """

    cluster_id: str
    limits: Limits
    log_config: LogConfig
    auto_create_partitions: int
    topics: TopicStore
    groups: Groups
    producer_ids: ProducerIds
    stopping: threading.Event
    advertise: Callable[[str], tuple[str, int]]

    def delete_topic(self, name: str) -> None:
        """Delete a topic and the offsets that groups have committed in it."""
        self.topics.delete(name)
        self.groups.offsets.forget_topic(name)

    def auto_create(self, name: str) -> Topic:
        """Create a topic because a client asked for it."""
        return self.topics.create(name, self.auto_create_partitions, self.log_config)


@dataclass(frozen=True)
class Request:
    """Where a request comes from, and its head."""

    head: RequestHead
    client_host: str
    local_host: str
