"""What is different in a job that was submitted (`ray job submit`): its folder is a copy that goes with it.

Ray unpacks the code into a temporary folder of one node and starts the driver there. A place that is meant relative to
the current folder would be lost with it, so it is refused; and a run without a name takes the pipeline's, so that the
job goes on where it stood when it is submitted again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config_errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.config import Pipeline

__all__ = ["as_submitted", "is_submitted"]

_MARK = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the driver of a submitted job, and for nothing else."""


def is_submitted(environment: Mapping[str, str]) -> bool:
    """Whether this process is the driver of a submitted job."""
    return _MARK in environment


def as_submitted(pipeline: Pipeline, environment: Mapping[str, str]) -> Pipeline:
    """The pipeline as it runs in this environment; unchanged where it was not submitted.

    Raises:
        PipelineError: what it leaves would be lost with the job's folder.

    """
    if not is_submitted(environment):
        return pipeline
    problems = [*_lost_snapshots(pipeline), *_lost_letters(pipeline), *_lost_runs(pipeline, environment)]
    if problems:
        raise PipelineError(
            "a submitted job runs in a copy of your folder that is removed with it, but "
            + "; and ".join(problems)
        )
    return pipeline.model_copy(update={"run": pipeline.run or pipeline.name})


def _lost_snapshots(pipeline: Pipeline) -> list[str]:
    place = pipeline.snapshots.path
    if "://" in place or Path(place).is_absolute():
        return []
    advice = "give the absolute path of a folder that all nodes share, or a URL such as s3://bucket/runs"
    return [f"snapshots.path is {place!r}; {advice}"]


def _lost_letters(pipeline: Pipeline) -> list[str]:
    """Dead letters lie beside the snapshots, unless these are behind a URL."""
    if "://" not in pipeline.snapshots.path or pipeline.source.kind != "kafka" or pipeline.dead_letters.topic:
        return []
    return ["bad records would go to files of that copy; give dead_letters.topic"]


def _lost_runs(pipeline: Pipeline, environment: Mapping[str, str]) -> list[str]:
    mlflow = pipeline.mlflow
    uri = mlflow.tracking_uri or environment.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    path = re.sub("^(sqlite:///|file://|file:)", "", uri)
    if not mlflow.enabled or path.startswith("${") or "://" in path:
        return []
    if Path(path).is_absolute():
        return []
    advice = "give a tracking server (https://mlflow.example.com), set MLFLOW_TRACKING_URI, or mlflow.enabled to false"
    return [f"mlflow.tracking_uri is {uri!r}; {advice}"]
