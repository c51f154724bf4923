"""One job from a pipeline to its result: find or make the run, begin where it stands, supervise, record in MLflow."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from actors.ports import SourceError, StoreError
from actors.worker import BarrierTimeoutError
from cluster.assembly import wanted_records
from cluster.auto_rollback import AutoRollback
from cluster.figures import Figures, metric_points
from cluster.loopback import stay_on_loopback
from cluster.mailbox import Mailbox
from cluster.models.registry import RunLog
from cluster.progress import ProgressLine
from cluster.promote import Promoter
from cluster.rollbacks import Rollbacks
from cluster.runs import Run, run_of
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.store import SnapshotStore
from cluster.snapshots.writing import SnapshotWriter
from cluster.starts import OtherRunError, Start, Starter, UnusableRunError
from cluster.streams.file_source import schema_of
from cluster.supervise import GaveUpError, Supervisor
from cluster.versions import VersionBook
from cluster.warm import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from actors.coordinator import Status
    from cluster.cluster_port import ClusterPort
    from cluster.config import Pipeline

__all__ = ["JobError", "JobResult", "resolved", "run_job"]

_MLFLOW_OPEN_TIMEOUT_S = 15.0
_NOTHING: Callable[[], None] = lambda: None  # noqa: E731


class JobError(Exception):
    """The job could not start or has failed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a finished job leaves: `seconds` are those of learning, without start-up and registration.

    `snapshot` is the folder (or URL) of its last one, `run_folder` where on this machine its dead letters are.
    `finished`: the input's end was reached; else the run can go on.
    """

    name: str
    figures: Figures
    seconds: float
    run_folder: Path
    snapshot: str
    run_id: str | None
    model: str | None
    version: int | None
    recoveries: int
    finished: bool


def run_job(
    pipeline: Pipeline,
    console: Console,
    *,
    local: bool = False,
    on_ready: Callable[[], None] = _NOTHING,
    watch: Callable[[], None] = _NOTHING,
) -> JobResult:
    """Run a pipeline to its end, from where its run stands.

    Args:
        pipeline: what to learn.
        console: where progress goes.
        local: one worker over a `LocalStore` in this process instead of actors on Ray.
        on_ready: called once all actors stand and before the first record is read.
        watch: called again and again while the job runs; what it raises ends the job.

    Raises:
        JobError: for everything that the user can mend, and for deaths from which there is no coming back. A note on
            it, as on a KeyboardInterrupt, says how to go on.

    """

    def say(sentence: str) -> None:
        console.print(f"[yellow]{escape(sentence)}[/]", highlight=False, soft_wrap=True)

    expected = (
        SourceError, StoreError, BarrierTimeoutError, SnapshotError, OtherRunError, UnusableRunError, GaveUpError,
    )  # fmt: skip
    run: Run | None = None
    try:
        pipeline = resolved(pipeline)
        named = run_of(pipeline)
        store = SnapshotStore(named.url, say)
        with store.exclusive():
            run = named
            starter = Starter(pipeline, store, run.url, run.folder, say, local=local)
            starter.look()  # before anything is started: what is wrong with the stream is said at once
            return _Job(pipeline, run, store, starter).run(console, say, on_ready, watch, local=local)
    except (*expected, JobError, KeyboardInterrupt) as error:
        told = JobError(str(error)) if isinstance(error, expected) else error
        if run is not None:
            run.unmake()
            told.add_note(run.advice)
        if told is error:
            raise
        raise told from error


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


def _cluster(pipeline: Pipeline, *, local: bool) -> AbstractContextManager[ClusterPort]:
    if local:
        from cluster.local import LocalCluster

        return LocalCluster(pipeline)
    if not (pipeline.cluster.address or os.environ.get("RAY_ADDRESS")):
        stay_on_loopback()
    from cluster.launch import RayCluster

    return RayCluster(pipeline)


@dataclass(slots=True)
class _Job:
    """A job whose run is found; `run` does the rest."""

    pipeline: Pipeline
    named: Run
    store: SnapshotStore
    starter: Starter

    def run(
        self,
        console: Console,
        say: Callable[[str], None],
        on_ready: Callable[[], None],
        watch: Callable[[], None],
        *,
        local: bool,
    ) -> JobResult:
        """Open MLflow, start the cluster, supervise; MLflow is closed whatever happens."""
        pipeline = self.pipeline
        log = RunLog(say=say)
        if pipeline.mlflow.enabled:
            log.start(pipeline.model_dump(mode="json"), self.named.name, self.named.url)
        status = "FAILED"
        try:
            with console.status("compiling kernels (half a minute, the first time only)"):
                warm_up(pipeline.learner.build(), pipeline.policies().values())
            with _cluster(pipeline, local=local) as cluster:
                with console.status("opening the MLflow run"):
                    log.wait_opened(_MLFLOW_OPEN_TIMEOUT_S)
                book = VersionBook(self.named.url)
                promoter = Promoter(self.store, log, self.named, book, pipeline, say)
                mailbox = Mailbox(self.named.url, say)
                automatic = AutoRollback(pipeline, self.store, book, mailbox, say)
                rollbacks = Rollbacks(self.store, mailbox, book, log, say, automatic)
                result = self._supervise(cluster, log, rollbacks, promoter, console, say, (on_ready, watch))
            status = "FINISHED"
        finally:
            if pipeline.mlflow.enabled:
                log.finish(status)
        return result

    def _supervise(
        self,
        cluster: ClusterPort,
        log: RunLog,
        rollbacks: Rollbacks,
        promoter: Promoter,
        console: Console,
        say: Callable[[str], None],
        hooks: tuple[Callable[[], None], Callable[[], None]],
    ) -> JobResult:
        pipeline, (on_ready, watch) = self.pipeline, hooks
        started_s = time.monotonic()
        first: tuple[Status, float] | None = None
        shown = logged = first
        shards: list[dict[str, Any]] = []

        with ProgressLine(console, pipeline.name, None) as progress:

            def on_begun(start: Start) -> None:
                nonlocal started_s, first, shown, logged
                progress.total(start.records_total(pipeline))
                if first is None:
                    on_ready()
                    started_s = time.monotonic()
                    first = (cluster.coordinator.status(), 0.0)
                else:  # windows begin anew: the counters may have gone back
                    shown = logged = (cluster.coordinator.status(), time.monotonic() - started_s)
                    first = min(first, shown, key=lambda at: at[0].records)

            def on_status(status: Status) -> None:
                nonlocal shown, logged
                watch()
                promoter.promote_when_due(writer.newest)
                rollbacks.look(writer.newest)
                now_s = time.monotonic() - started_s
                progress.update(Figures.between(shown or first, status, now_s))
                shown = (status, now_s)
                if logged is None or now_s - logged[1] >= pipeline.mlflow.interval_s:
                    figures = Figures.between(logged or first, status, now_s)
                    shards[:] = cluster.shard_status()
                    log.log(metric_points(figures, shards), status.records)
                    logged = (status, now_s)

            writer = SnapshotWriter(cluster, self.store, pipeline, say, rollbacks.needed)
            supervisor = Supervisor(cluster, pipeline, self.starter, writer, on_status, say, rollbacks)
            status, manifest = supervisor.run(on_begun)
        seconds = time.monotonic() - started_s
        figures = Figures.between(first, status, seconds)
        with suppress(StoreError):  # all is on disk: a shard that dies now is not needed any more
            shards[:] = cluster.shard_status()
        log.log(metric_points(Figures.between(logged or first, status, seconds), shards), status.records)
        with console.status("registering the model in MLflow"):
            version = promoter.promote_and_wait(manifest)
        return JobResult(
            self.named.name, figures, seconds, self.named.folder, self.store.folder(manifest.number), log.run_id,
            promoter.model if version else None, version, supervisor.recoveries,
            bool(manifest.note.get("finished")),
        )  # fmt: skip
