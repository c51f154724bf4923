"""One measured job of benchmarks/scale.py: the real one, on Ray, from the first poll to the last snapshot."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks.scale_processes import Process, Usage, family, usage
from cluster.config import build_pipeline
from cluster.job import run_job
from cluster.snapshots.remote_place import place_of
from cluster.status.document import read_status

if TYPE_CHECKING:
    from cluster.config import Pipeline

__all__ = ["Case", "Cost", "measured", "pipeline_of", "read_costs"]


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured. `turns`: workers begin in turns, as by default; `snapshot_records`: whole ones in between."""

    topic: str = "clicks_arrow"
    shards: int = 2
    workers: int = 2
    learner: str = "population"
    batch_records: int = 4096
    turns: bool = False
    snapshot_records: int = 0
    watched: bool = True


@dataclass(frozen=True, slots=True)
class Cost:
    """What a case has cost: CPU and memory by role, and counters of its shards at the end."""

    case: Case
    records: int
    seconds: float
    used: Usage
    moved_rows: int = 0
    waits: int = 0
    log_loss: float = 0.0
    staleness: dict[str, Any] = field(default_factory=dict)

    def per_million(self, role: str) -> float:
        """Seconds of CPU a million records, of all processes of the role together."""
        return self.used.cpu_s.get(role, 0.0) * 1e6 / self.records


def pipeline_of(case: Case, servers: str, folder: str) -> Pipeline:
    """The case as a pipeline that reads its topic to the end; everything else is the default."""
    values: dict[str, Any] = {
        "name": "scale",
        "source": {
            "kind": "kafka",
            "topic": case.topic,
            "until": "end",
            "bootstrap_servers": servers,
            # A reader polls ahead before the job begins; what it has decoded by then escapes the measurement.
            "buffered_batches_max": 1,
        },
        "learner": {"kind": case.learner},
        "cluster": {"workers": case.workers, "shards": case.shards, "actor_start_timeout_s": 600.0},
        "batch_records": case.batch_records,
        "snapshots": {
            "path": folder,
            "interval_s": 0,
            "interval_records": case.snapshot_records,
            "deltas_max": 0,
        },
        "mlflow": {"enabled": False},
    }
    overrides = [] if case.turns else ["cluster.staleness_share_max=null"]
    if not case.watched:
        overrides += ["drift.enabled=false", "statistics.enabled=false"]
    return build_pipeline(values, overrides, origin="benchmark")


def measured(case: Case, servers: str, records: int) -> Cost:
    """Run it. CPU is counted from when all actors stand and before the first record, to behind the last snapshot."""
    moments: list[dict[int, Process]] = []

    def look() -> None:
        moments[1:] = [family()]

    with tempfile.TemporaryDirectory(prefix="millrace-scale-") as folder:
        pipeline = pipeline_of(case, servers, folder)
        result = run_job(
            pipeline,
            Console(file=io.StringIO()),
            on_ready=lambda: moments.append(family()),
            watch=look,
        )
        before, after = moments
        document = read_status(place_of(str(Path(result.run_folder))))
    metrics = result.figures.status.metrics
    assert metrics.records == records, f"expected {records:,} records, but {metrics.records:,} were learnt"
    shards = document.shards if document is not None else []
    return Cost(
        case, records, result.seconds, usage(before, after),
        moved_rows=sum(shard.moved_rows or 0 for shard in shards),
        waits=sum(shard.waits or 0 for shard in shards),
        log_loss=float(metrics.summary()["log_loss"]),
        staleness=dict(document.staleness) if document is not None else {},
    )  # fmt: skip


def read_costs(raw: Path | None) -> list[Cost]:
    """Jobs that were measured before, a line of JSON each; none where there is no such file."""
    if raw is None or not raw.exists():
        return []
    found = []
    for line in raw.read_text().splitlines():
        values = json.loads(line)
        found.append(Cost(**(values | {"case": Case(**values["case"]), "used": Usage(**values["used"])})))
    return found
