"""The calls to MLflow: run, parameters, metrics, and model versions without pickles; imports mlflow when first used."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.models.model_files import ModelFilesError, code_version, read_manifest
from cluster.models.points import Point, metric_name
from cluster.models.redaction import without_secrets
from cluster.models.scorer import copy_code, requirements

__all__ = ["MlflowRun", "Registration", "RegistryError", "permanent", "sentence", "tracking_uri_of"]

_PARAMS_PER_CALL = 100
_PARAM_CHARACTERS_MAX = 6000
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


@dataclass(eq=False)
class Registration:
    """A model folder that waits for its version."""

    folder: Path
    metrics: dict[str, float]
    tags: dict[str, str]
    version: Future[int] = field(default_factory=Future)
    attempts: int = 0


class MlflowRun:
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
            Metric(metric_name(name), value, point.time_ms, point.records)
            for point in points
            for name, value in point.metrics.items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics)

    def register(self, request: Registration) -> int:
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
                f"{scratch}/model", loader_module="cluster.models.scorer",
                data_path=str(folder), mlflow_model=described,
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


def _version_tags(manifest: dict[str, Any], request: Registration) -> dict[str, str]:
    return {
        "offsets": json.dumps(manifest["offsets"]),
        "records": str(manifest["records"]),
        "code_version": manifest["code_version"],
        **{
            metric_name(name): f"{value:.6g}"
            for name, value in request.metrics.items()
            if math.isfinite(value)
        },
        **request.tags,
    }


def _description(pipeline: dict[str, Any], manifest: dict[str, Any], metrics: dict[str, float]) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if math.isfinite(value))
    learnt = f"State of pipeline {pipeline['name']} after {manifest['records']:,} records"
    return f"{learnt}, with {scores or 'no metrics yet'}; learnt by millrace {manifest['code_version']}."
