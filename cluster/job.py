"""One job from a pipeline to its result: find or make the run, begin where it stands, supervise, record in MLflow."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape

from actors.ports import SourceError, StoreError
from actors.worker import BarrierTimeoutError
from cluster.assembly import wanted_records
from cluster.auto_rollback import AutoRollback
from cluster.mailbox import Mailbox
from cluster.models.registry import RunLog
from cluster.open_cluster import open_cluster
from cluster.progress import ProgressLine
from cluster.promote import Promoter
from cluster.resizing import Resizing
from cluster.rollbacks import Rollbacks
from cluster.runs import Run, run_of
from cluster.same_run import OtherRunError
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of
from cluster.snapshots.store import SnapshotStore
from cluster.snapshots.writing import SnapshotWriter
from cluster.starts import Starter, UnusableRunError
from cluster.status.publisher import StatusPublisher, pace_s
from cluster.status.watch import JobWatch, telling_how_it_ends
from cluster.streams.file_source import schema_of
from cluster.supervise import GaveUpError, Supervisor
from cluster.versions import VersionBook
from cluster.warm import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from actors.status import Status
    from cluster.cluster_port import ClusterPort
    from cluster.config import Pipeline
    from cluster.figures import Figures
    from cluster.starts import Start

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
            return _Job(starter.pipeline, run, store, starter).run(console, say, on_ready, watch, local=local)
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
    schema = schema_of(source, pipeline.features, **wanted_records(pipeline))
    features = schema.as_config(pipeline.features.numeric)
    return pipeline.model_copy(
        update={"features": features.model_copy(update={"ignore": pipeline.features.ignore})}
    )


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
        """Open MLflow, start the cluster, supervise; MLflow and the status are closed whatever happens."""
        pipeline, run = self.pipeline, self.named
        log = RunLog(say=say)
        if pipeline.mlflow.enabled:
            log.start(pipeline.model_dump(mode="json"), run.name, run.url)
        pace = pace_s(run.url)
        with StatusPublisher(place_of(run.url), pace, say) as publisher:
            view = JobWatch(pipeline, run, log, publisher, pace, local=local)
            status = "FAILED"
            try:
                with telling_how_it_ends(view, publisher):
                    result = self._prepared(console, log, view, on_ready, watch, local=local)
                    view.ended("finished" if result.finished else "stopped")
                status = "FINISHED"
            finally:
                if pipeline.mlflow.enabled:
                    log.finish(status)
        return result

    def _prepared(
        self,
        console: Console,
        log: RunLog,
        view: JobWatch,
        on_ready: Callable[[], None],
        watch: Callable[[], None],
        *,
        local: bool,
    ) -> JobResult:
        """Have kernels, actors and MLflow ready, and supervise."""
        pipeline = self.pipeline

        def say(sentence: str) -> None:
            console.print(f"[yellow]{escape(sentence)}[/]", highlight=False, soft_wrap=True)
            view.said(sentence)

        view.starting()
        with console.status("compiling kernels (most of a minute, the first time only)"):
            warm_up(pipeline.learner.build(), pipeline.policies().values(), pipeline.drift.detector.build())
        with open_cluster(pipeline, self.named.name, local=local) as cluster:
            with console.status("opening the MLflow run"):
                log.wait_opened(_MLFLOW_OPEN_TIMEOUT_S)
            book = VersionBook(self.named.url)
            promoter = Promoter(self.store, log, self.named, book, pipeline, say)
            mailbox = Mailbox(self.named.url, say)
            automatic = AutoRollback(pipeline, self.store, book, mailbox, say)
            rollbacks = Rollbacks(self.store, mailbox, book, log, say, automatic)
            view.reach(cluster.shard_status)
            asked = (rollbacks, Resizing(cluster, self.starter, mailbox, say))
            return self._supervise(cluster, log, asked, promoter, console, say, view, (on_ready, watch))

    def _supervise(
        self,
        cluster: ClusterPort,
        log: RunLog,
        asked: tuple[Rollbacks, Resizing],
        promoter: Promoter,
        console: Console,
        say: Callable[[str], None],
        view: JobWatch,
        hooks: tuple[Callable[[], None], Callable[[], None]],
    ) -> JobResult:
        pipeline, (on_ready, watch), rollbacks = self.pipeline, hooks, asked[0]
        writer = SnapshotWriter(cluster, self.store, pipeline, say, rollbacks.needed)
        begun = False

        def on_begun(start: Start) -> None:
            nonlocal begun
            if not begun:
                on_ready()
            begun = True
            view.begun(start, cluster.coordinator.status())

        def on_status(status: Status) -> None:
            watch()
            promoter.promote_when_due(writer.newest)
            rollbacks.look(writer.newest)
            view.see(status, writer.newest, writer.seconds)

        with ProgressLine(console, pipeline.name, None) as view.progress:
            supervisor = Supervisor(cluster, pipeline, self.starter, writer, on_status, say, *asked)
            status, manifest = supervisor.run(on_begun, view.going_back)
        figures = view.totals(status)
        counters = None
        with suppress(StoreError):  # all is on disk: a shard that dies now is not needed any more
            counters = cluster.shard_status()
        view.log_last(status, counters)
        with console.status("registering the model in MLflow"):
            version = promoter.promote_and_wait(manifest)
        return JobResult(
            self.named.name, figures, figures.seconds, self.named.folder, self.store.folder(manifest.number),
            log.run_id, promoter.model if version else None, version, supervisor.recoveries,
            bool(manifest.note.get("finished")),
        )  # fmt: skip
