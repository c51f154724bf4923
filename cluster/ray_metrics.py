"""Exports a job's figures through Ray, whose agents serve them to Prometheus: `ray_millrace_*` on the driver's node.

Everything is known to the driver, so it alone exports. A sample costs some 4 us; a series that is not set for 20 s is
forgotten by Ray, so one of a worker that is gone goes by itself, and all are set anew every 5 s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ray.util.metrics import Gauge

from cluster.status.exported import EXPORTED, samples

if TYPE_CHECKING:
    from cluster.status.document import StatusDocument

__all__ = ["RayMetrics"]

INTERVAL_S = 5.0
"""Half of Ray's own report interval (10 s by default)."""


class RayMetrics:
    """The gauges of one job; call it with each new status document."""

    def __init__(self) -> None:
        self._gauges = {
            metric.name: Gauge(metric.name, metric.description, ("run", "pipeline", *metric.tags))
            for metric in EXPORTED
        }
        self._next_s = 0.0

    def __call__(self, status: StatusDocument) -> None:
        """Set all that is known, if it is time, or if it is the last time."""
        now_s = time.monotonic()
        if now_s < self._next_s and not status.ended:
            return
        self._next_s = now_s + INTERVAL_S
        for sample in samples(status):
            self._gauges[sample.name].set(sample.value, sample.tags)
