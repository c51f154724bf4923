"""Points of metrics on their way to MLflow, in a queue that forgets the old before the new."""

from __future__ import annotations

import re
import threading
from typing import NamedTuple

__all__ = ["METRICS_PER_CALL", "Point", "PointQueue", "metric_name"]

METRICS_PER_CALL = 1000  # MLflow's own limit
_NAME_CHARACTERS_MAX = 250


class Point(NamedTuple):
    """Metrics as of `records` learnt records, at `time_ms` (unix milliseconds)."""

    records: int
    time_ms: int
    metrics: dict[str, float]


class PointQueue:
    """Points on their way, at most `points_max`; a full one drops every second point of its older half."""

    def __init__(self, points_max: int) -> None:
        self._points_max = max(4, points_max)
        self._points: list[Point] = []
        self._lock = threading.Lock()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._points)

    def put(self, point: Point) -> None:
        """Append the newest point."""
        with self._lock:
            self._points.append(point)
            self._thin()

    def put_back(self, points: list[Point]) -> None:
        """Return points that were taken and could not be sent; they are the oldest again."""
        with self._lock:
            self._points = points + self._points
            self._thin()

    def take(self, metrics_max: int) -> list[Point]:
        """Remove and return the oldest points, as many as hold `metrics_max` metrics together (at least one)."""
        with self._lock:
            count, metrics = 0, 0
            for point in self._points:
                metrics += len(point.metrics)
                if count and metrics > metrics_max:
                    break
                count += 1
            taken, self._points = self._points[:count], self._points[count:]
            return taken

    def _thin(self) -> None:
        while len(self._points) > self._points_max:
            half = len(self._points) // 2
            kept = self._points[:half:2] + self._points[half:]
            self.dropped += len(self._points) - len(kept)
            self._points = kept


def metric_name(name: str) -> str:
    """`name` with characters that MLflow refuses replaced by _; names like prequential/log_loss stay."""
    clean = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    # MLflow wants a name that is also a normalised relative path.
    parts = [part for part in clean.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:_NAME_CHARACTERS_MAX].rstrip("/") or "_"
