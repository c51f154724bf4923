"""MLflow: one run a job, its metrics over records, and model versions that load anywhere without pickles.

One background thread does it all, the import of mlflow (1-2 s) and a new database (2-5 s) included: training never
waits for MLflow and never ends with it. While the server is away, points wait in a bounded queue; when that is full
its older half is thinned, the newest are kept, and what was dropped is counted.

Not guaranteed: if the server's answer to the creation of a version is lost, the retry creates it a second time.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster.model_files import code_version, read_manifest, without_secrets
from cluster.scorer import REQUIREMENTS, copy_code

__all__ = ["Point", "PointQueue", "RegistryError", "RunLog", "tracking_uri_of"]

_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_PARAM_CHARACTERS_MAX = 6000
_NAME_CHARACTERS_MAX = 250
_BACKOFF_MAX_S = 30.0
_ATTEMPTS_MAX = 5
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    # We retry by ourselves; MLflow's own seven retries would hold one call for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_PERMANENT = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST"})


class RegistryError(Exception):
    """A model version was not recorded; the message says why. Training is not affected."""


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

    def put(self, *points: Point, oldest: bool = False) -> None:
        """Append points, or put back those that were taken and not sent."""
        with self._lock:
            self._points = [*points, *self._points] if oldest else [*self._points, *points]
            while len(self._points) > self._points_max:
                half = len(self._points) // 2
                kept = self._points[:half:2] + self._points[half:]
                self.dropped += len(self._points) - len(kept)
                self._points = kept

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


@dataclass
class _Request:
    folder: Path
    metrics: dict[str, float]
    tags: dict[str, str]
    version: Future[int] = field(default_factory=Future)
    attempts: int = 0


class RunLog:
    """One MLflow run. `start`, then `log` and `register` from any thread, then `finish`; none of them raises.

    `say` receives the sentences for the user: one when MLflow fails, one when it is back, one for what was lost.
    """

    def __init__(self, *, points_max: int = 2000, say: Callable[[str], None] | None = None) -> None:
        self._points = PointQueue(points_max)
        self._requests: deque[_Request] = deque()
        self._say = say or logging.getLogger("millrace.registry").warning
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._status = ""
        self._deadline_s = math.inf
        self._failing = False
        self._names: dict[str, str] = {}

    @property
    def dropped_points(self) -> int:
        """Points that will never be in MLflow, because the queue was full or MLflow refused them."""
        return self._points.dropped

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; None until the server has given one."""
        return self._run.run_id if self._thread else None

    def start(self, pipeline: dict[str, Any], run_name: str) -> None:
        """Open the run in the background; `pipeline` is the resolved one, as plain JSON values."""
        if not pipeline.get("mlflow", {}).get("enabled", True):
            return
        self._run = _Run(pipeline, run_name)
        self._interval_s = float(pipeline.get("mlflow", {}).get("interval_s", 2.0))
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, metrics: dict[str, float], records: int) -> None:
        """Note metrics as of `records`; returns at once. Metrics that are not finite are left out."""
        finite = {self._name(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
        if finite and self._thread:
            self._points.put(Point(records, time.time_ns() // 1_000_000, finite))

    def register(self, folder: str | Path, metrics: dict[str, float], tags: dict[str, str] | None = None) -> Future[int]:
        """Record a model folder as the newest version, alias `champion`; returns at once.

        The future gives the version's number, or raises RegistryError; the folder must stay until then.
        """
        request = _Request(Path(folder), metrics, tags or {})
        if self._thread is None or not self._thread.is_alive():
            request.version.set_exception(RegistryError(f"{folder} was not registered: no MLflow run is open"))
        else:
            self._requests.append(request)
            self._wake.set()
        return request.version
