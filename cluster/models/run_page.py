"""What a stranger sees of a run in MLflow: a description that says what it is and how to read it, charts, tables."""

from __future__ import annotations

import csv
import getpass
import hashlib
import io
import json
import math
import time
from typing import TYPE_CHECKING, Any

from cluster.models.charts import ChartPoint, Marked, calibration_of, calibration_png, overview_png

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.status import JobEvent
    from cluster.figures import Figures
    from cluster.status.document import StatusDocument

__all__ = ["EXPERIMENT_TAGS", "NOTE_TAG", "RunPage", "description", "run_tags", "stream_of", "table_csv"]

NOTE_TAG = "mlflow.note.content"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else its page is about prompts and traces
    NOTE_TAG: "Runs of Millrace: each learns continuously from a stream, and goes on where it stood when it is started "
    "again. Open a run for its description and charts (artifacts `charts/`), *Models* for its versions.",
}
POINTS_MAX = 600
MARKS_MAX = 200
_LEARNERS = {
    "ftrl": "logistic regression by FTRL-Proximal",
    "population": "a population of FTRL-Proximal models with different rates, mixed",
    "factors": "matrix factorisation of users and items",
}
_READING = """### How to read it
Each record is predicted first and learnt then, so every metric is what production would have seen. Charts are drawn
over records (x axis: *Step*).

| metrics | what they are |
|---|---|
| `prequential/*` | since the start of the run |
| `window/*` | since the point before; jumps here are changes of the stream |
| `stream/*`, `throughput/*`, `freshness/*` | records, lag, dead letters; rate; seconds from produced to learnt |
| `state/*`, `staleness/*` | rows and memory of the tables; what workers miss of each other |
| `snapshots/*`, `recovery/*`, `rollback/*`, `events/*` | how the job came through |

A model above `prior_log_loss` (or, for ratings, `deviation`) has learnt nothing. `calibration` of 1 is perfect.

Artifacts: `charts/overview.png`, `charts/calibration.png` (binary labels), `tables/*.csv` (partitions, workers, shards,
and what else the job counts by name), `pipeline.yaml`.
"""


def run_tags(pipeline: Mapping[str, Any], run_name: str, code_version: str) -> dict[str, str]:
    """The tags that a run begins with."""
    source = pipeline.get("source") or {}
    return {
        "millrace.version": code_version,
        "millrace.pipeline": pipeline["name"],
        "millrace.run": run_name,
        "millrace.source": source.get("topic") or source.get("path") or "unknown source",
        "millrace.learner": str((pipeline.get("learner") or {}).get("kind", "ftrl")),
        "mlflow.source.name": f"pipeline {pipeline['name']}",
        "mlflow.user": _user(),
        NOTE_TAG: description(pipeline, run_name),
    }


def stream_of(pipeline: Mapping[str, Any]) -> Any:
    """The stream as one of MLflow's data sets; its digest is that of its name, since a stream has no end."""
    from mlflow.entities import Dataset

    source = pipeline.get("source") or {}
    kind = str(source.get("kind", "kafka"))
    name = str(source.get("topic") or source.get("path") or "unknown source")
    where = json.dumps({key: source[key] for key in ("topic", "bootstrap_servers", "path") if key in source})
    digest = hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:8]
    return Dataset(name.rpartition("/")[2][-500:], digest, kind, where)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return "unknown"


def description(pipeline: Mapping[str, Any], run_name: str, status: StatusDocument | None = None) -> str:
    """Markdown; its first line is the same for all descriptions of a run."""
    source, learner = pipeline.get("source") or {}, pipeline.get("learner") or {}
    kind = str(learner.get("kind", "ftrl"))
    where = (
        f"topic `{source['topic']}`" if source.get("topic") else f"`{source.get('path', 'unknown source')}`"
    )
    cluster = pipeline.get("cluster") or {}
    own = ", ".join(f"{k} {v}" for k, v in learner.items() if k != "kind" and not isinstance(v, dict | list))
    lines = [
        f"Pipeline **{pipeline['name']}**, run **{run_name}**: learns continuously from {where}.",
        "",
        f"- Learner: {_LEARNERS.get(kind, kind)} (`{kind}`{f'; {own}' if own else ''})",
    ]
    if status is None or status.job.place == "Ray":
        lines.append(
            f"- Actors: {cluster.get('workers', '?')} workers, {cluster.get('shards', '?')} shards on Ray"
        )
    else:
        lines.append("- Actors: one worker in one process, without Ray")
    if status is not None:
        lines += _result(status)
    go_on = f"`python -m jobs.train PIPELINE.yaml --run {run_name}`"
    lines += [
        f"- Look inside while it runs: `python -m jobs.status {run_name}`; continue it: {go_on}",
        "",
        _READING,
    ]
    return "\n".join(lines)


def _result(status: StatusDocument) -> list[str]:
    told = {
        "learning": "is learning",
        "ending": "is writing its last snapshot",
        "stopped": "was stopped, and can go on",
        "finished": "has reached the end of its input",
        "failed": f"has failed: {status.reason}",
    }.get(status.state, status.state)
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(status.written_s))
    metrics = ", ".join(
        f"{name.replace('_', ' ')} {quality.since_start:.4f}"
        for name, quality in list(status.quality.items())[:3]
        if quality.since_start is not None
    )
    counted = f"{status.records:,} records ({status.dead:,} dead letters)"
    return [
        f"- As of {at} it {told}: {counted}, {metrics or 'no metrics yet'}",
        f"- Snapshots: `{status.job.run_url}`, the last one is number {status.snapshots.number}",
    ]


def table_csv(first: str, rows: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A table that MLflow shows as one: rows by name, columns in the order in which they first come."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([first, *names])
    for name, row in rows.items():
        writer.writerow([name, *("" if row.get(column) is None else row[column] for column in names)])
    return target.getvalue().encode()


class RunPage:
    """Gathers the past of a run for its charts, in at most 600 points, and hands them out to be drawn elsewhere."""

    def __init__(self, pipeline: Mapping[str, Any], run_name: str) -> None:
        self._pipeline, self._run_name = pipeline, run_name
        self._points: list[ChartPoint] = []
        self._marks: list[Marked] = []
        self._apart, self._skipped = 1, 0

    def add(self, figures: Figures) -> None:
        """Note a moment; when there are too many, every second one is forgotten."""
        self._skipped += 1
        if not figures.status.records or self._skipped < self._apart:
            return
        self._skipped = 0
        experts = figures.status.groups.get("experts", {})
        weights = {name: own["weight"] for name, own in experts.items() if "weight" in own}
        records = figures.status.records
        self._points = [point for point in self._points if point.records < records]  # a run may go back
        self._points.append(ChartPoint(records, figures.window, figures.since_start, figures.rate, weights))
        if len(self._points) > POINTS_MAX:
            del self._points[1::2]
            self._apart *= 2

    def mark(self, event: JobEvent) -> None:
        """Note an event."""
        self._marks = [*self._marks[1 - MARKS_MAX :], Marked(event.records, event.kind)]

    def note(self, status: StatusDocument) -> str:
        """The description as of now."""
        return description(self._pipeline, self._run_name, status)

    def files(self, status: StatusDocument, metrics: Any) -> Callable[[], dict[str, bytes]]:
        """A function that draws charts and tables of this moment; `metrics` are the run's, since its start."""
        points, marks = list(self._points), list(self._marks)
        histograms = getattr(metrics, "histograms", None)

        def draw() -> dict[str, bytes]:
            made = _tables(status)
            title = f"{self._run_name}: {status.records:,} records of {status.job.source}"
            if any(not math.isnan(next(iter(point.since_start.values()))) for point in points):
                made["charts/overview.png"] = overview_png(points, marks, title)
            if histograms is not None and (found := calibration_of(histograms)) is not None:
                made["charts/calibration.png"] = calibration_png(found, f"{title}, calibration")
            return made

        return draw


def _tables(status: StatusDocument) -> dict[str, bytes]:
    """Partitions, workers, shards, and each further group, by name."""
    tables: dict[str, dict[str, dict[str, Any]]] = {
        "partitions": {str(p.partition): p.model_dump(exclude={"partition"}) for p in status.partitions},
        "workers": {str(w.worker): w.model_dump(exclude={"worker", "partitions"}) for w in status.workers},
        "shards": {str(s.shard): s.model_dump(exclude={"shard"}) for s in status.shards},
    }
    for group, rows in status.groups.items():
        for row, own in rows.items():
            tables.setdefault(group, {}).setdefault(row, {}).update(own)
    return {
        f"tables/{name}.csv": table_csv(name.removesuffix("s"), rows) for name, rows in tables.items() if rows
    }
