"""The calls to MLflow for one run: parameters, metrics, tags, versions; imports mlflow when first used."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.models.mlflow_versions import (
    CHAMPION,
    Registration,
    RegistryError,
    model_name,
    register_version,
    unless_it_exists,
)
from cluster.models.model_files import ModelFilesError, code_version
from cluster.models.points import Point, metric_name
from cluster.models.redaction import without_secrets
from cluster.models.run_page import EXPERIMENT_TAGS, NOTE_TAG, run_tags, stream_of
from cluster.snapshots.errors import SnapshotDamagedError
from cluster.snapshots.remote_place import place_of

__all__ = ["MlflowRun", "Registration", "RegistryError", "permanent", "sentence", "tracking_uri_of"]

_PARAMS_PER_CALL = 100
_PARAM_CHARACTERS_MAX = 6000
_TAG_CHARACTERS_MAX = 5000
_MEMORY = "mlflow.json"
_MEMORY_BYTES_MAX = 10_000
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    # We retry by ourselves; MLflow's own seven retries would hold one call for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_PERMANENT = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED"})


class MlflowRun:
    """The calls to MLflow, all made by one thread; a step that succeeded is not repeated when a later one fails.

    `home`, the run's folder or URL, remembers the run's id in MLflow: a run that is continued goes on there as well.
    """

    def __init__(self, pipeline: dict[str, Any], run_name: str, home: str | None = None) -> None:
        self.run_id: str | None = None
        self._pipeline = without_secrets(pipeline)
        self._run_name = run_name
        self._home = place_of(home) if home else None
        self._uri = tracking_uri_of(pipeline)
        self._client: Any = None
        self._experiment_id = ""
        self._known: dict[str, str] = {}
        self._described = False
        self._crowned = self._crowned_from = 0

    def open(self) -> None:
        """Import mlflow, create database, experiment and run or find them, and record the pipeline: each once."""
        self._client = self._client or _connect(self._uri)
        from mlflow.entities import DatasetInput, Param

        if self.run_id is None and not self._continue():
            self._experiment_id = self._find_experiment()
            tags = run_tags(self._pipeline, self._run_name, code_version())
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=self._run_name)
            self._remember(run.info.run_id)
            self.run_id = run.info.run_id
            self._client.log_inputs(self.run_id, [DatasetInput(stream_of(self._pipeline))])
        if not self._described:
            # MLflow never changes a parameter: what a continued run began with stays; pipeline.yaml is the newest.
            flat = _flat(self._pipeline)
            params = [Param(name, value) for name, value in flat if name not in self._known]
            for start in range(0, len(params), _PARAMS_PER_CALL):
                self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_PER_CALL])
            self._client.log_text(
                self.run_id, yaml.safe_dump(self._pipeline, sort_keys=False), "pipeline.yaml"
            )
            self._described = True

    def _continue(self) -> bool:
        """Go on with the run that is remembered, if MLflow still has it."""
        from mlflow.exceptions import MlflowException

        if (run_id := self._remembered()) is None:
            return False
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        if run.info.lifecycle_stage != "active":
            return False
        self._client.update_run(run_id, status="RUNNING")
        self._experiment_id, self._known = run.info.experiment_id, run.data.params
        self.run_id = run_id
        return True

    def _remembered(self) -> str | None:
        """The id that the run has in this MLflow; None if it has none yet, or none that can be read."""
        if self._home is None or _MEMORY not in self._home.sizes():
            return None
        try:
            noted = json.loads(self._home.read_bytes(_MEMORY, _MEMORY_BYTES_MAX))
            run_id, uri = noted["run_id"], noted["tracking_uri"]
        except (ValueError, KeyError, TypeError, RecursionError, SnapshotDamagedError):
            return None
        fits = isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) and uri == without_secrets(self._uri)
        return run_id if fits else None

    def _remember(self, run_id: str) -> None:
        if self._home is not None:
            noted = {"run_id": run_id, "tracking_uri": without_secrets(self._uri)}
            self._home.write_whole(_MEMORY, (json.dumps(noted) + "\n").encode())

    def log(self, points: list[Point]) -> None:
        """Send points; the step of a metric is its number of records."""
        from mlflow.entities import Metric

        metrics = [
            Metric(metric_name(name), value, point.time_ms, point.records)
            for point in points
            for name, value in point.metrics.items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics)

    def register(self, request: Registration) -> int:
        """Upload a model with the code that scores it, create its version and move the alias `champion` if it may."""
        assert self.run_id is not None, "open comes before register"
        return register_version(
            self._client, self._experiment_id, self.run_id, self._pipeline, request,
            lambda version: self.crown(version, request.decided),
        )  # fmt: skip

    def crown_only_from(self, decided: int) -> None:
        """What was decided before must not move the alias `champion` any more; from the thread that decides."""
        self._crowned_from = decided

    def crown(self, version: int | None, decided: int) -> None:
        """Move the alias `champion` to a version that is there, unless that was decided otherwise since."""
        if version is not None and decided >= max(self._crowned, self._crowned_from):
            self._client.set_registered_model_alias(model_name(self._pipeline), CHAMPION, str(version))
            self._crowned = decided

    def tag(self, tags: dict[str, str]) -> None:
        """Set tags of the run."""
        for name, value in tags.items():
            self._client.set_tag(self.run_id, metric_name(name), value[:_TAG_CHARACTERS_MAX])

    def attach(self, files: Mapping[str, bytes], note: str, tags: dict[str, str]) -> None:
        """Put files (by path) into the run, in place of those of before; describe it, unless somebody else has."""
        with tempfile.TemporaryDirectory(prefix="millrace-") as scratch:
            for name, content in files.items():
                path = Path(scratch, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(self.run_id, scratch)
        present = self._client.get_run(self.run_id).data.tags.get(NOTE_TAG, "")
        if not present or present.startswith(note.split("\n", 1)[0]):
            tags = {**tags, NOTE_TAG: note}
        self.tag(tags)

    def close(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, status)

    def _find_experiment(self) -> str:
        name = self._pipeline.get("mlflow", {}).get("experiment", "millrace")
        found = self._client.get_experiment_by_name(name)
        if found is None:
            path = _sqlite_path(self._uri)
            artifacts = (path.parent / "artifacts").as_uri() if path else None
            unless_it_exists(self._client.create_experiment, name, artifacts, EXPERIMENT_TAGS)
            found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)


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


def permanent(error: Exception) -> bool:
    """True if the same call would fail again."""
    return isinstance(error, ModelFilesError) or getattr(error, "error_code", "") in _PERMANENT


def sentence(error: Exception) -> str:
    """The error in one line, without secrets."""
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
            yield metric_name(prefix + name), text[:_PARAM_CHARACTERS_MAX]
