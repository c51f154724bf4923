"""An embedded Kafka-protocol broker for development and tests: `Broker` in threads, `BrokerProcess` as a child.

Production means Apache Kafka, Redpanda or a managed cluster, through `bootstrap_servers`.
"""

from __future__ import annotations

from cluster.broker.errors import (
    AddressError,
    BrokerError,
    BrokerStartError,
    DataDirError,
    DataDirLockedError,
    LogDamagedError,
    TopicError,
)
from cluster.broker.limits import Limits, LogConfig
from cluster.broker.process import BrokerProcess
from cluster.broker.server import Broker

__all__ = [
    "AddressError",
    "Broker",
    "BrokerError",
    "BrokerProcess",
    "BrokerStartError",
    "DataDirError",
    "DataDirLockedError",
    "Limits",
    "LogConfig",
    "LogDamagedError",
    "TopicError",
]
