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
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster.model_files import ModelFilesError, code_version, read_manifest, without_secrets
from cluster.scorer import copy_code, requirements

__all__ = ["Point", "PointQueue", "RegistryError", "RunLog", "tracking_uri_of"]

_METRICS_PER_CALL, _PARAMS_PER_CALL = 1000, 100
_PARAM_CHARACTERS_MAX, _NAME_CHARACTERS_MAX = 6000, 250
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
_PERMANENT = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED"})


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


@dataclass(eq=False)
class _Request:
    folder: Path
    metrics: dict[str, float]
    tags: dict[str, str]
    version: Future[int] = field(default_factory=Future)
    attempts: int = 0


class RunLog:
    """One MLflow run: `start`, then `log` and `register` from any thread, then `finish`. None of them raises.

    `say` receives the sentences for the user: when MLflow fails, when it is back, and what was lost.
    """

    def __init__(self, *, points_max: int = 2000, say: Callable[[str], None] | None = None) -> None:
        self._points = PointQueue(points_max)
        self._requests: deque[_Request] = deque()
        self._settling = threading.Lock()
        self._say = say or logging.getLogger("millrace.registry").warning
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._run: _Run | None = None
        self._status = ""
        self._deadline_s = math.inf
        self._failing = False
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

    def start(self, pipeline: dict[str, Any], run_name: str) -> None:
        """Open the run in the background; `pipeline` is the resolved one as plain JSON values."""
        settings = pipeline.get("mlflow") or {}
        if settings.get("enabled", True):
            self._run = _Run(pipeline, run_name)
            self._thread = threading.Thread(
                target=self._work,
                args=(self._run, float(settings.get("interval_s", 2.0))),
                name="mlflow",
                daemon=True,
            )
            self._complete = False
            self._thread.start()

    def log(self, metrics: dict[str, float], records: int) -> None:
        """Note metrics as of `records` and return at once; metrics that are not finite are left out."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if finite and self._thread:
            self._points.put(Point(records, time.time_ns() // 1_000_000, finite))

    def register(
        self, folder: str | Path, metrics: dict[str, float], tags: dict[str, str] | None = None
    ) -> Future[int]:
        """Record a model folder as the newest version, alias `champion`; returns at once.

        The future gives the version's number or raises RegistryError; the folder must stay until then.
        """
        request = _Request(Path(folder), metrics, tags or {})
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

    def _work(self, run: _Run, interval_s: float) -> None:
        pause_s = 0.0
        while not self._status:
            self._wake.wait(pause_s)
            self._wake.clear()
            pause_s = interval_s if self._attempt(run) else min(_BACKOFF_MAX_S, max(1.0, 2 * pause_s))
        while not self._attempt(run, closing=self._status) and time.monotonic() < self._deadline_s:
            time.sleep(0.5)

    def _attempt(self, run: _Run, closing: str = "") -> bool:
        """Do all that is due; False, said once an outage, if MLflow did not take it."""
        try:
            run.open()
            self._send_points(run)
            self._send_models(run)
            if closing:
                run.close(closing)
                self._complete = True
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises must not reach training
            if not self._failing:
                self._say(
                    f"MLflow does not take metrics now; training goes on and they wait. {_sentence(error)}"
                )
            self._failing = True
            return False
        if self._failing:
            self._say(f"MLflow takes metrics again; {self.dropped_points} point(s) were dropped meanwhile")
        self._failing = False
        return True

    def _send_points(self, run: _Run) -> None:
        while points := self._points.take(_METRICS_PER_CALL):
            try:
                run.log(points)
            except Exception as error:
                if not _permanent(error):
                    self._points.put_back(points)
                    raise
                self._points.dropped += len(points)
                self._say(f"MLflow refuses {len(points)} point(s), which are dropped. {_sentence(error)}")

    def _send_models(self, run: _Run) -> None:
        while self._requests:
            request = self._requests[0]
            request.attempts += 1
            try:
                version = run.register(request)
            except Exception as error:
                if not _permanent(error) and request.attempts < _ATTEMPTS_MAX:
                    raise
                self._say(f"model {request.folder} was not registered. {_sentence(error)}")
                self._settle(
                    request, RegistryError(f"{request.folder} was not registered: {_sentence(error)}")
                )
            else:
                self._settle(request, version)

    def _settle(self, request: _Request, outcome: int | RegistryError) -> None:
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


class _Run:
    """The calls to MLflow, all made by one thread; a step that succeeded is not repeated when a later one fails."""

    def __init__(self, pipeline: dict[str, Any], run_name: str) -> None:
        self.run_id: str | None = None
        self._pipeline = without_secrets(pipeline)
        self._run_name = run_name
        self._uri = tracking_uri_of(pipeline)
        self._client: Any = None
        self._experiment_id = ""
        self._described = False

    def open(self) -> None:
        """Import mlflow, create the database, experiment and run, and record the pipeline: each once."""
        self._client = self._client or _connect(self._uri)
        if self.run_id is None:
            self._experiment_id = self._find_experiment()
            run = self._client.create_run(self._experiment_id, tags=self._tags(), run_name=self._run_name)
            self.run_id = run.info.run_id
        if not self._described:
            from mlflow.entities import Param

            params = [Param(name, value) for name, value in _flat(self._pipeline)]
            for start in range(0, len(params), _PARAMS_PER_CALL):
                self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_PER_CALL])
            self._client.log_text(
                self.run_id, yaml.safe_dump(self._pipeline, sort_keys=False), "pipeline.yaml"
            )
            self._described = True

    def log(self, points: list[Point]) -> None:
        """Send points; the step of a metric is its number of records."""
        from mlflow.entities import Metric

        metrics = [
            Metric(_metric_name(name), value, point.time_ms, point.records)
            for point in points
            for name, value in point.metrics.items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics)

    def register(self, request: _Request) -> int:
        """Upload a model with the code that scores it, create its version and move the alias `champion`."""
        manifest = read_manifest(request.folder)
        name = self._pipeline.get("mlflow", {}).get("model") or self._pipeline["name"]
        model = self._upload(request.folder, name, manifest["records"])
        _unless_it_exists(self._client.create_registered_model, name)
        tags = _version_tags(manifest, request)
        # The artifact location and not models:/<id>: a local registry would look that id up in the global tracking URI.
        version = self._client.create_model_version(
            name, model.artifact_location, self.run_id, tags, model_id=model.model_id,
            description=_description(self._pipeline, manifest, request.metrics),
        )  # fmt: skip
        self._client.set_registered_model_alias(name, "champion", str(version.version))
        links = json.dumps([{"name": name, "version": str(version.version)}])
        self._client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": links})
        return int(version.version)

    def close(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, status)

    def _upload(self, folder: Path, name: str, records: int) -> Any:
        from mlflow import pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        logged = self._client.create_logged_model(self._experiment_id, name, self.run_id)
        described = Model(
            logged.artifact_location, self.run_id, model_uuid=logged.model_id, model_id=logged.model_id
        )
        with tempfile.TemporaryDirectory(prefix="millrace-") as scratch:
            # A loader module, its sources and plain arrays: nothing in the artifact is a pickle.
            pyfunc.save_model(
                f"{scratch}/model", loader_module="cluster.scorer", data_path=str(folder), mlflow_model=described,
                code_paths=[str(path) for path in copy_code(Path(scratch, "code"))], pip_requirements=requirements(),
            )  # fmt: skip
            self._client.log_model_artifacts(logged.model_id, f"{scratch}/model")
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=records)])
        return logged

    def _find_experiment(self) -> str:
        name = self._pipeline.get("mlflow", {}).get("experiment", "millrace")
        found = self._client.get_experiment_by_name(name)
        if found is None:
            path = _sqlite_path(self._uri)
            artifacts = (path.parent / "artifacts").as_uri() if path else None
            _unless_it_exists(self._client.create_experiment, name, artifacts)
            found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def _tags(self) -> dict[str, str]:
        source = self._pipeline.get("source", {})
        where = source.get("topic") or source.get("path") or "unknown source"
        name = self._pipeline["name"]
        return {
            "millrace.version": code_version(),
            "millrace.pipeline": name,
            "millrace.source": where,
            "mlflow.source.name": name,
            "mlflow.note.content": f"Online learning of pipeline {name} from {where}; metrics are drawn over records.",
        }


def tracking_uri_of(pipeline: dict[str, Any]) -> str:
    """The pipeline's tracking URI, else MLFLOW_TRACKING_URI, else ./mlruns/mlflow.db; SQLite paths made absolute."""
    configured = pipeline.get("mlflow", {}).get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    uri = str(configured or "sqlite:///mlruns/mlflow.db")
    path = _sqlite_path(uri)
    return f"sqlite:///{path}" if path else uri


def _sqlite_path(uri: str) -> Path | None:
    scheme, found, path = uri.partition(":///")
    return Path(path).absolute() if found and scheme == "sqlite" else None


def _connect(uri: str) -> Any:
    """A client for `uri`, with `${NAME}` read from the environment, and MLflow's chatter (not its warnings) off."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for chatty in ("alembic", "mlflow"):
        if "MLFLOW_LOGGING_LEVEL" not in os.environ:
            logging.getLogger(chatty).setLevel(logging.WARNING)
    if path := _sqlite_path(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(re.sub(r"\$\{(\w+)\}", _variable, uri))


def _variable(reference: re.Match[str]) -> str:
    name = reference.group(1)
    if name not in os.environ:
        raise RegistryError(
            f"mlflow.tracking_uri refers to ${{{name}}}, which the environment lacks; set {name}"
        )
    return os.environ[name]


def _unless_it_exists(create: Callable[..., Any], *arguments: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        create(*arguments)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _permanent(error: Exception) -> bool:
    """True if the same call would fail again."""
    return isinstance(error, ModelFilesError) or getattr(error, "error_code", "") in _PERMANENT


def _sentence(error: Exception) -> str:
    # Secrets first: a URL that is cut before its @ would not look like one.
    text = without_secrets(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:400]}"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(a.b.c, text) for each value of nested mappings, cut to MLflow's limits; pipeline.yaml has them whole."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield _metric_name(prefix + name), text[:_PARAM_CHARACTERS_MAX]


def _metric_name(name: str) -> str:
    """`name` with characters that MLflow refuses replaced by _; names like prequential/log_loss stay."""
    clean = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    # MLflow wants a name that is also a normalised relative path.
    parts = [part for part in clean.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:_NAME_CHARACTERS_MAX].rstrip("/") or "_"


def _version_tags(manifest: dict[str, Any], request: _Request) -> dict[str, str]:
    return {
        "offsets": json.dumps(manifest["offsets"]),
        "records": str(manifest["records"]),
        "code_version": manifest["code_version"],
        **{
            _metric_name(name): f"{value:.6g}"
            for name, value in request.metrics.items()
            if math.isfinite(value)
        },
        **request.tags,
    }


def _description(pipeline: dict[str, Any], manifest: dict[str, Any], metrics: dict[str, float]) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if math.isfinite(value))
    learnt = f"State of pipeline {pipeline['name']} after {manifest['records']:,} records"
    return f"{learnt}, with {scores or 'no metrics yet'}; learnt by millrace {manifest['code_version']}."
