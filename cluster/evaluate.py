"""Progressive validation of a file: a pipeline made for it, run to its end, without MLflow and without leftovers."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config import build_pipeline
from cluster.config_errors import read_yaml
from cluster.config_learners import DEFAULT_LEARNER
from cluster.job import JobResult, run_job

if TYPE_CHECKING:
    from rich.console import Console

    from cluster.config import Pipeline

__all__ = ["Evaluation", "evaluate"]

LABELS = {"factors": "rating"}
"""What the label's column is usually called, by learner; elsewhere `y`."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is asked for: a file, its columns, and how to run. No `workers` and no `shards`: one process.

    `label` None: the column that the learner's records usually have. `roles` are columns by the name of the learner's
    field: {"user": "customer"}.
    """

    file: Path
    label: str | None = None
    learner: str | None = None
    roles: dict[str, str] = field(default_factory=dict)
    time: str | None = None
    ignore: tuple[str, ...] = ()
    pipeline: Path | None = None
    overrides: tuple[str, ...] = ()
    workers: int | None = None
    shards: int | None = None


def evaluate(asked: Evaluation, console: Console) -> dict[str, float]:
    """Metrics of the file's stream by name, with `records`, `dead_letters` and `seconds`.

    Raises:
        PipelineError: the pipeline file or an override is wrong.
        JobError: the file cannot be read or learnt.

    """
    with tempfile.TemporaryDirectory(prefix="millrace-evaluate-") as folder:
        local = asked.workers is None and asked.shards is None
        result = run_job(_pipeline(asked, folder), console, local=local)
        return _metrics(result)


def _pipeline(asked: Evaluation, folder: str) -> Pipeline:
    """The given pipeline (or the defaults) with this file as its source."""
    values: dict[str, Any] = read_yaml(asked.pipeline) if asked.pipeline else {}
    values["name"] = (
        re.sub(r"[^A-Za-z0-9._-]", "-", asked.file.name.partition(".")[0]).lstrip("._-")[:100] or "file"
    )
    learner = _learner(asked, _section(values, "learner"))
    label = asked.label or LABELS.get(learner.get("kind", ""), "y")
    values["source"] = {"kind": "file", "path": str(asked.file), "label": label, "time": asked.time}
    features = _section(values, "features")
    features["ignore"] = sorted({*(features.get("ignore") or ()), *asked.ignore})
    values["snapshots"] = {"path": folder}
    values["mlflow"] = {"enabled": False}
    _section(values, "cluster").update({"workers": asked.workers or 1, "shards": asked.shards or 1})
    return build_pipeline(values, list(asked.overrides), origin=str(asked.pipeline or "evaluate"))


def _learner(asked: Evaluation, section: dict[str, Any]) -> dict[str, Any]:
    """The learner section with what was asked for; settings of another kind of learner are left out."""
    if asked.learner is not None and section.get("kind", DEFAULT_LEARNER) != asked.learner:
        section.clear()
    if asked.learner is not None:
        section["kind"] = asked.learner
    section.update(asked.roles)
    return section


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of the pipeline file to be changed; what is none is left for the check of the whole."""
    if values.get(name) is None:
        values[name] = {}
    return values[name] if isinstance(values[name], dict) else {}


def _metrics(result: JobResult) -> dict[str, float]:
    status = result.figures.status
    return {
        **result.figures.since_start,
        "records": status.metrics.records,
        "dead_letters": status.dead,
        "seconds": round(result.seconds, 3),
    }
