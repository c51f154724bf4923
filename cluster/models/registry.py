"""MLflow: one run a job, its metrics over records, and model versions that load anywhere without pickles.

One background thread does it all, the import of mlflow (1-2 s) and a new database (2-5 s) included: training never
waits for MLflow and never ends with it. While the server is away, points wait in a bounded queue; when that is full
its older half is thinned, the newest are kept, and what was dropped is counted.

Not guaranteed: if the server's answer to the creation of a version is lost, the retry creates it a second time.
"""

from __future__ import annotations

import itertools
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from cluster.models.mlflow_run import MlflowRun, Registration, RegistryError, permanent, sentence
from cluster.models.notes import Note, Notes
from cluster.models.points import METRICS_PER_CALL, Point, PointQueue

__all__ = ["RunLog"]

_BACKOFF_MAX_S = 30.0
_ATTEMPTS_MAX = 5


class RunLog:
    """One MLflow run: `start`, then `log` and `register` from any thread, then `finish`. None of them raises.

    `say` receives the sentences for the user: when MLflow fails, when it is back, and what was lost.
    """

    def __init__(self, *, points_max: int = 2000, say: Callable[[str], None] | None = None) -> None:
        self._points = PointQueue(points_max)
        self._requests: deque[Registration] = deque()
        self._notes = Notes()
        self._decisions = itertools.count(1)
        self._settling = threading.Lock()
        self._say = say or logging.getLogger("millrace.registry").warning
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._run: MlflowRun | None = None
        self._status = ""
        self._deadline_s = math.inf
        self._failing = False
        self._tried = threading.Event()
        self._finished = False
        self._complete = True  # until start() says that there is something to record

    @property
    def dropped_points(self) -> int:
        """Points that will never be in MLflow: the queue was full, MLflow refused them, or the job ended first."""
        return self._points.dropped

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; None until the server has given one."""
        return self._run.run_id if self._run else None

    def start(self, pipeline: dict[str, Any], run_name: str, home: str | Path | None = None) -> None:
        """Open the run in the background; `pipeline` is the resolved one as plain JSON values.

        `home`, the run's folder or URL, remembers the run in MLflow: it is continued if the run is.
        """
        settings = pipeline.get("mlflow") or {}
        if settings.get("enabled", True):
            self._run = MlflowRun(pipeline, run_name, None if home is None else str(home))
            self._thread = threading.Thread(
                target=self._work,
                args=(self._run, float(settings.get("interval_s", 2.0))),
                name="mlflow",
                daemon=True,
            )
            self._complete = False
            self._thread.start()

    def wait_opened(self, timeout_s: float) -> None:
        """Wait until the run is open, or the first try has failed, or `timeout_s` is over.

        Importing MLflow and making its database hold the interpreter's lock for stretches of a second, in which
        the caller can neither take a snapshot nor show progress: better before the stream starts than in it.
        """
        if self._thread is not None:
            self._tried.wait(timeout_s)

    def log(self, metrics: dict[str, float], records: int) -> None:
        """Note metrics as of `records` and return at once; metrics that are not finite are left out."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if finite and self._thread:
            self._points.put(Point(records, time.time_ns() // 1_000_000, finite))

    def tag(self, tags: dict[str, str]) -> None:
        """Set tags of the run; returns at once."""
        self._notes.put(Note(lambda run: run.tag(tags)))
        self._wake.set()

    def attach(self, files: Callable[[], dict[str, bytes]], note: str, tags: dict[str, str]) -> None:
        """Put files (by path), a description and tags into the run, in place of those that still wait; returns at once.

        `files` is called in MLflow's thread, so what is costly to make holds up nobody.
        """
        self._notes.put(Note(lambda run: run.attach(files(), note, tags), "attached"))

    def decide(self) -> int:
        """The place in time of a decision who is the champion: of two, the later one holds, whenever they are sent."""
        return next(self._decisions)

    def crown(self, version: Callable[[], int | None]) -> None:
        """Have a version be the alias `champion`, and none that was decided on before; returns at once.

        `version` is asked for its number once all that was registered before has its own; None: nobody is crowned.
        """
        decided = self.decide()
        if self._run is not None:
            self._run.crown_only_from(decided)
        self._notes.put(Note(lambda run: run.crown(version(), decided)))
        self._wake.set()

    def register(
        self,
        folder: str | Path,
        metrics: dict[str, float],
        tags: dict[str, str] | None = None,
        decided: int | None = None,
    ) -> Future[int]:
        """Record a model folder as a version, alias `champion` unless a decision after `decided` says so of another.

        Returns at once. The future gives the version's number or raises RegistryError; the folder must stay until then.
        """
        request = Registration(
            Path(folder), metrics, tags or {}, self.decide() if decided is None else decided
        )
        with self._settling:
            if self._thread and not self._finished:
                self._requests.append(request)
                self._wake.set()
            else:
                request.version.set_exception(
                    RegistryError(f"{folder} was not registered: no MLflow run is open")
                )
        return request.version

    def finish(self, status: str = "FINISHED", timeout_s: float = 30.0) -> bool:
        """Send what waits and end the run (FINISHED, FAILED or KILLED); False if not all of it arrived in time."""
        if self._thread is None or self._finished:
            return self._complete
        self._deadline_s = time.monotonic() + timeout_s
        self._status = status
        self._wake.set()
        self._thread.join(timeout_s)
        unsent, unregistered = self._abandon()
        if not self._complete:
            self._say(
                f"MLflow did not take everything within {timeout_s:g} s: {unsent} point(s) and {unregistered} model "
                "version(s) are not recorded, and the run may still show as running; the model's files are intact"
            )
        return self._complete

    def _work(self, run: MlflowRun, interval_s: float) -> None:
        pause_s = 0.0
        while not self._status:
            self._wake.wait(pause_s)
            self._wake.clear()
            pause_s = interval_s if self._attempt(run) else min(_BACKOFF_MAX_S, max(1.0, 2 * pause_s))
        while not self._attempt(run, closing=self._status) and time.monotonic() < self._deadline_s:
            time.sleep(0.5)

    def _attempt(self, run: MlflowRun, closing: str = "") -> bool:
        """Do all that is due; False, said once an outage, if MLflow did not take it."""
        try:
            run.open()
            self._tried.set()
            self._send_points(run)
            self._send_models(run)
            self._notes.send(run, self._say)
            if closing:
                run.close(closing)
                self._complete = True
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises must not reach training
            if not self._failing:
                self._say(
                    f"MLflow does not take metrics now; training goes on and they wait. {sentence(error)}"
                )
            self._failing = True
            self._tried.set()
            return False
        if self._failing:
            self._say(f"MLflow takes metrics again; {self.dropped_points} point(s) were dropped meanwhile")
        self._failing = False
        return True

    def _send_points(self, run: MlflowRun) -> None:
        while points := self._points.take(METRICS_PER_CALL):
            try:
                run.log(points)
            except Exception as error:
                if not permanent(error):
                    self._points.put_back(points)
                    raise
                self._points.dropped += len(points)
                self._say(f"MLflow refuses {len(points)} point(s), which are dropped. {sentence(error)}")

    def _send_models(self, run: MlflowRun) -> None:
        while self._requests:
            request = self._requests[0]
            request.attempts += 1
            try:
                version = run.register(request)
            except Exception as error:
                if not permanent(error) and request.attempts < _ATTEMPTS_MAX:
                    raise
                self._say(f"model {request.folder} was not registered. {sentence(error)}")
                self._settle(
                    request, RegistryError(f"{request.folder} was not registered: {sentence(error)}")
                )
            else:
                self._settle(request, version)

    def _settle(self, request: Registration, outcome: int | RegistryError) -> None:
        """Answer a request once: the sender and `finish` may both want to."""
        with self._settling:
            if request in self._requests:
                self._requests.remove(request)
                if isinstance(outcome, int):
                    request.version.set_result(outcome)
                else:
                    request.version.set_exception(outcome)

    def _abandon(self) -> tuple[int, int]:
        """Give up what was not sent; returns how many points and model versions that were."""
        with self._settling:
            self._finished = True
            left = list(self._requests)
        for request in left:
            self._settle(request, RegistryError(f"{request.folder} was not registered before the job ended"))
        points = self._points.take(sys.maxsize)
        self._points.dropped += len(points)
        return len(points), len(left)
