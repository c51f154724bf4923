"""Model versions in MLflow: a model folder with the code that scores it, without pickles, tagged with its origin."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.models.model_files import read_manifest
from cluster.models.model_layout import learner_of
from cluster.models.points import metric_name
from cluster.models.scorer import copy_code, requirements

__all__ = ["CHAMPION", "Registration", "RegistryError", "model_name", "register_version", "unless_it_exists"]

CHAMPION = "champion"
"""The alias of the version that is to be used: the newest, or the one that a rollback went back to."""


class RegistryError(Exception):
    """A model version was not recorded; the message says why. Training is not affected."""


@dataclass(eq=False)
class Registration:
    """A model folder that waits for its version; `decided`: when, among the decisions who is the champion."""

    folder: Path
    metrics: dict[str, float]
    tags: dict[str, str]
    decided: int
    version: Future[int] = field(default_factory=Future)
    attempts: int = 0


def model_name(pipeline: dict[str, Any]) -> str:
    """The registered model of a pipeline."""
    return str(pipeline.get("mlflow", {}).get("model") or pipeline["name"])


def register_version(
    client: Any,
    experiment_id: str,
    run_id: str,
    pipeline: dict[str, Any],
    request: Registration,
    crown: Callable[[int], None],
) -> int:
    """Upload a model with the code that scores it, create its version and `crown` it."""
    manifest = read_manifest(request.folder)
    name = model_name(pipeline)
    model = _upload(client, experiment_id, run_id, name, request.folder, manifest)
    unless_it_exists(client.create_registered_model, name, None, _model_description(pipeline, name))
    tags = _version_tags(manifest, request)
    # The artifact location and not models:/<id>: a local registry would look that id up in the global tracking URI.
    version = client.create_model_version(
        name, model.artifact_location, run_id, tags, model_id=model.model_id,
        description=_description(pipeline, manifest, request.metrics),
    )  # fmt: skip
    crown(int(version.version))
    links = json.dumps([{"name": name, "version": str(version.version)}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": links})
    return int(version.version)


def _upload(
    client: Any, experiment_id: str, run_id: str, name: str, folder: Path, manifest: dict[str, Any]
) -> Any:
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    logged = client.create_logged_model(experiment_id, name, run_id)
    described = Model(logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory(prefix="millrace-") as scratch:
        # A loader module, its sources and plain arrays: nothing in the artifact is a pickle.
        pyfunc.save_model(
            f"{scratch}/model", loader_module="cluster.models.scorer",
            data_path=str(folder), mlflow_model=described,
            code_paths=[str(path) for path in copy_code(Path(scratch, "code"))],
            pip_requirements=requirements(learner_of(manifest["pipeline"])),
        )  # fmt: skip
        client.log_model_artifacts(logged.model_id, f"{scratch}/model")
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=manifest["records"])])
    return logged


def unless_it_exists(create: Callable[..., Any], *arguments: Any) -> None:
    """Create something that may be there already."""
    from mlflow.exceptions import MlflowException

    try:
        create(*arguments)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_tags(manifest: dict[str, Any], request: Registration) -> dict[str, str]:
    """The most telling first: MLflow lists them in this order, one below the other."""
    return {
        "records": str(manifest["records"]),
        **{
            metric_name(name): f"{value:.6g}"
            for name, value in request.metrics.items()
            if math.isfinite(value)
        },
        **request.tags,
        "code_version": manifest["code_version"],
        "offsets": json.dumps(manifest["offsets"]),
    }


def _model_description(pipeline: dict[str, Any], name: str) -> str:
    return f"""Model of pipeline **{pipeline["name"]}**, which learns continuously.

Each version is its state at one moment.

The alias `{CHAMPION}` is the version to use: the newest, or the one that a rollback went back to.

```python
model = mlflow.pyfunc.load_model("models:/{name}@{CHAMPION}")
model.predict(frame)  # a pandas frame with the features as columns
```

Tags of a version: metrics of its run until then (each record predicted first, then learnt), records, the run with its
snapshot, and the offsets of the stream up to which it has learnt.
"""


def _description(pipeline: dict[str, Any], manifest: dict[str, Any], metrics: dict[str, float]) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if math.isfinite(value))
    learnt = f"State of pipeline {pipeline['name']} after {manifest['records']:,} records"
    return f"{learnt}, with {scores or 'no metrics yet'}; learnt by millrace {manifest['code_version']}."
