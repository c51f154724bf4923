"""One job from a pipeline to its result: find the partitions, start the actors, supervise, record in MLflow."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from actors.ports import SourceError, StoreError
from actors.worker import BarrierTimeoutError
from cluster.assembly import WorkerSpec, wanted_records
from cluster.figures import Figures, metric_points
from cluster.loopback import stay_on_loopback
from cluster.models.registry import RunLog
from cluster.progress import ProgressLine
from cluster.streams.file_source import schema_of
from cluster.streams.open import describe_source
from cluster.supervise import ClusterPort, Supervisor
from cluster.warm import warm_up
from learning.coordination import assign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from actors.coordinator import Status
    from cluster.config import Pipeline

__all__ = ["JobError", "JobResult", "run_job"]

_REGISTER_TIMEOUT_S = 120.0
_MLFLOW_OPEN_TIMEOUT_S = 15.0


class JobError(Exception):
    """The job could not start or has failed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a finished job leaves: `seconds` are those of learning, without start-up and registration."""

    name: str
    figures: Figures
    seconds: float
    run_folder: Path
    snapshot: Path
    run_id: str | None
    model: str | None
    version: int | None


def run_job(
    pipeline: Pipeline,
    console: Console,
    *,
    local: bool = False,
    on_ready: Callable[[], None] = lambda: None,
    watch: Callable[[], None] = lambda: None,
) -> JobResult:
    """Run a pipeline to its end.

    Args:
        pipeline: what to learn.
        console: where progress goes.
        local: one worker over a `LocalStore` in this process instead of actors on Ray.
        on_ready: called once all actors stand and before the first record is read.
        watch: called again and again while the job runs; what it raises ends the job.

    Raises:
        JobError: for everything that the user can mend, and for deaths of actors.

    """
    name = f"{pipeline.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        pipeline = resolved(pipeline)
        specs = _worker_specs(pipeline, Path(pipeline.snapshots.path) / name, local=local)
        log = RunLog(say=lambda sentence: console.print(f"[yellow]{escape(sentence)}[/]", highlight=False))
        if pipeline.mlflow.enabled:
            log.start(pipeline.model_dump(mode="json"), name)
        status = "FAILED"
        try:
            with console.status("compiling kernels (half a minute, the first time only)"):
                warm_up(pipeline.learner.build(), pipeline.policies().values())
            with _started(pipeline, specs, console, local=local) as cluster:
                with console.status("opening the MLflow run"):
                    log.wait_opened(_MLFLOW_OPEN_TIMEOUT_S)
                on_ready()
                result = _supervise(cluster, pipeline, specs, log, console, name, watch)
            status = "FINISHED"
        finally:
            if pipeline.mlflow.enabled:
                log.finish(status)
    except (SourceError, StoreError, BarrierTimeoutError) as error:
        raise JobError(str(error)) from error
    return result


def _worker_specs(pipeline: Pipeline, run_folder: Path, *, local: bool) -> list[WorkerSpec]:
    """What each worker is built from: its share of the partitions, and where they begin and end."""
    partitions = describe_source(pipeline, **wanted_records(pipeline.learner.build()))
    shares = assign(list(partitions), 1 if local else pipeline.cluster.workers)
    run_folder.mkdir(parents=True, exist_ok=True)
    return [
        WorkerSpec(
            worker=worker,
            pipeline=pipeline,
            run_folder=str(run_folder.resolve()),
            bounds={partition: partitions[partition] for partition in share},
        )
        for worker, share in enumerate(shares)
    ]


@contextmanager
def _started(
    pipeline: Pipeline, specs: list[WorkerSpec], console: Console, *, local: bool
) -> Iterator[ClusterPort]:
    with ExitStack() as stack:
        with console.status("starting" if local else "starting actors on Ray"):
            cluster = stack.enter_context(_cluster(pipeline, specs, local=local))
        yield cluster


def resolved(pipeline: Pipeline) -> Pipeline:
    """The pipeline as it will run and be recorded: a file's feature kinds are inferred and written down."""
    source = pipeline.source
    if source.kind != "file":
        return pipeline
    schema = schema_of(source, pipeline.features, **wanted_records(pipeline.learner.build()))
    features = schema.as_config(pipeline.features.numeric)
    return pipeline.model_copy(
        update={"features": features.model_copy(update={"ignore": pipeline.features.ignore})}
    )


def _cluster(
    pipeline: Pipeline, specs: list[WorkerSpec], *, local: bool
) -> AbstractContextManager[ClusterPort]:
    if local:
        from cluster.local import LocalCluster

        return LocalCluster(pipeline, specs[0])
    if not (pipeline.cluster.address or os.environ.get("RAY_ADDRESS")):
        stay_on_loopback()
    from cluster.launch import RayCluster

    return RayCluster(pipeline, specs)


def _records_total(pipeline: Pipeline, specs: list[WorkerSpec]) -> int | None:
    """How many records there will be, where that is known: offsets of a bounded topic, or `records_max`."""
    if pipeline.records_max is not None or pipeline.source.kind == "file":
        return pipeline.records_max
    spans = [bounds for spec in specs for bounds in spec.bounds.values()]
    return sum(end - start for start, end in spans if end is not None) or None


def _supervise(
    cluster: ClusterPort,
    pipeline: Pipeline,
    specs: list[WorkerSpec],
    log: RunLog,
    console: Console,
    name: str,
    watch: Callable[[], None],
) -> JobResult:
    started_s = time.monotonic()
    shown = logged = None
    run_folder = Path(specs[0].run_folder)

    with ProgressLine(console, pipeline.name, _records_total(pipeline, specs)) as progress:

        def on_status(status: Status) -> None:
            nonlocal shown, logged
            watch()
            now_s = time.monotonic() - started_s
            progress.update(Figures.between(shown, status, now_s))
            shown = (status, now_s)
            if logged is None or now_s - logged[1] >= pipeline.mlflow.interval_s:
                log.log(
                    metric_points(Figures.between(logged, status, now_s), cluster.shard_status()),
                    status.records,
                )
                logged = (status, now_s)

        status, snapshot = Supervisor(cluster, pipeline, run_folder, on_status).run()
    seconds = time.monotonic() - started_s
    figures = Figures.between(None, status, seconds)
    log.log(metric_points(Figures.between(logged, status, seconds), cluster.shard_status()), status.records)
    version = _register(pipeline, log, snapshot, figures, console)
    model = pipeline.mlflow.model or pipeline.name
    return JobResult(
        name, figures, seconds, run_folder, snapshot, log.run_id, model if version else None, version
    )


def _register(
    pipeline: Pipeline, log: RunLog, snapshot: Path, figures: Figures, console: Console
) -> int | None:
    if not pipeline.mlflow.enabled:
        return None
    with console.status("registering the model in MLflow"):
        try:
            return log.register(snapshot, figures.since_start).result(_REGISTER_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever MLflow's server or disk gave: the model is on disk
            console.print(
                f"[yellow]the model was not registered ({escape(str(error))}); it is in {escape(str(snapshot))}[/]",
                highlight=False,
            )
            return None
