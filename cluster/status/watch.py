"""JobWatch: what people and machines see of a running job, from the statuses that its driver gets.

It keeps the progress line, MLflow's points, the status document and, on Ray, the exported metrics up to date, each at
its own pace; all of it from the supervisor's thread, and none of it may block.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.figures import Figures, group_points, metric_points
from cluster.logs import log_context
from cluster.models.redaction import without_secrets
from cluster.models.run_page import RunPage
from cluster.snapshots.errors import SupersededError
from cluster.status.compose import figures_part, job_part, shards_part, snapshots_part
from cluster.status.document import StatusDocument
from cluster.status.history import EventLog, History, Window, events_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.status import Status
    from cluster.config import Pipeline
    from cluster.models.registry import RunLog
    from cluster.progress import ProgressLine
    from cluster.runs import Run
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.starts import Start
    from cluster.status.publisher import StatusPublisher
    from learning.learner import Metrics

__all__ = ["JobWatch", "telling_how_it_ends"]

log = logging.getLogger("millrace.job")

_TELL_INTERVAL_S = 10.0
_EVENT_TAGS_MAX = 50
"""Events that a job makes a tag of in MLflow, where tags stay for ever; the metric events/KIND has all of them."""
_SAID = ("drift", "warning", "improvement")
"""Kinds of events that are said in the terminal too."""
_ATTACH_INTERVAL_S = 60.0
"""Between two drawings of the charts in MLflow, each some tenths of a second of its thread; the last is at the end."""


@contextmanager
def telling_how_it_ends(view: JobWatch, publisher: StatusPublisher) -> Iterator[None]:
    """Have an error that ends the job stand in its status; a job that another one has superseded is silent."""
    try:
        yield
    except SupersededError:
        publisher.withdraw()
        raise
    except KeyboardInterrupt:
        view.ended("stopped", "ended at once, without a last snapshot")
        raise
    except BaseException as error:
        view.ended("failed", str(without_secrets(str(error))) or type(error).__name__)
        raise


class JobWatch:
    """Watches one job: `starting`, `reach`, then `begun` for each generation, `see` again and again, and `ended`."""

    def __init__(
        self,
        pipeline: Pipeline,
        run: Run,
        log: RunLog,
        publisher: StatusPublisher,
        pace_s: float,
        *,
        local: bool,
    ) -> None:
        self._pipeline = pipeline
        self._log = log
        self._publisher = publisher
        self._interval_s = pipeline.mlflow.interval_s
        log_context(run=run.name)
        self._job = job_part(pipeline, run, log.run_id, local=local)
        self._document = StatusDocument(
            state="starting", written_s=time.time(), interval_s=pace_s, job=self._job
        )
        self._history, self._events = History(), EventLog()
        self._told_before = events_before(run.url)
        self._started_s = time.monotonic()
        self._first: tuple[Status, float] | None = None
        self._shown: tuple[Status, float] | None = None
        self._logged: tuple[Status, float] | None = None
        self._window: Window | None = None
        self._tags = 0
        self._written: tuple[SnapshotManifest | None, float | None] = (None, None)
        self._counters: list[dict[str, Any]] = []
        self._page = RunPage(without_secrets(pipeline.model_dump(mode="json")), run.name)
        self._metrics: Metrics | None = None
        self._attach_s = self._told_s = self._groups_s = 0.0
        self.recoveries = 0
        self.progress: ProgressLine | None = None
        self._local = local
        self._shards: Callable[[], list[dict[str, Any]]] = list
        self._export: Callable[[StatusDocument], None] = lambda _: None

    @property
    def seconds(self) -> float:
        """Since the first record could be learnt."""
        return time.monotonic() - self._started_s

    @property
    def newest(self) -> StatusDocument:
        """The newest document."""
        return self._document

    def starting(self) -> None:
        """The job is being prepared."""
        self._publish(state="starting")

    def reach(self, shards: Callable[[], list[dict[str, Any]]]) -> None:
        """The actors can be asked now: `shards` gives the counters of each. On Ray, figures are exported too."""
        self._shards = shards
        if not self._local:
            from cluster.ray_metrics import RayMetrics

            self._export = RayMetrics()

    def said(self, sentence: str) -> None:
        """The job has said something to people."""
        log.info("%s", sentence)
        self._events.said(sentence)
        self._publish()

    def begun(self, start: Start, status: Status) -> None:
        """A generation begins, with `status`."""
        if self._first is None:
            self._started_s = time.monotonic()
            self._first = (status, 0.0)
            self._events.remember(status.events, self._told_before)
        else:  # windows begin anew: the counters may have gone back
            self._shown = self._logged = (status, self.seconds)
            self._first = min(self._first, (status, self.seconds), key=lambda at: at[0].records)
        self._window = Window(status, self.seconds)
        total = start.records_total(self._pipeline)
        if self.progress is not None:
            self.progress.total(total)
        self._publish(state="learning", records_total=total, records=status.records)

    def going_back(self) -> None:
        """A generation has failed; the job goes back to its last snapshot."""
        self.recoveries += 1
        self._publish(state="recovering")

    def see(self, status: Status, newest: SnapshotManifest | None, write_s: float) -> None:
        """The job stands so; `newest` is its last snapshot, which took `write_s` to write."""
        seconds, window = self.seconds, self._window
        assert window is not None, "begun comes before see"
        if self.progress is not None:
            self.progress.update(Figures.between(self._shown or self._first, status, seconds))
        self._shown = (status, seconds)
        self._events.records = status.records
        due = self._logged is None or seconds - self._logged[1] >= self._interval_s
        if due:
            self._counters = self._shards()
            self._log_points(status, seconds)
        figures, begins = window.move_to(status, seconds)
        self._history.add(figures)
        self._written = (newest, write_s) if newest is not None else self._written
        self._publish(
            state="ending" if status.phase in {"ending", "ended"} else "learning",
            snapshots=snapshots_part(status, *self._written),
            **figures_part(figures, begins),
            **shards_part(self._counters),
        )
        self._export(self._document)
        if due and seconds >= self._told_s:
            self._tell()
        if due and seconds >= self._attach_s:
            self._attach()

    def totals(self, status: Status) -> Figures:
        """All that this job has done, until now."""
        return Figures.between(self._first, status, self.seconds)

    def log_last(self, status: Status, counters: list[dict[str, Any]] | None) -> None:
        """Record the last moment in MLflow; `counters` of the shards, if they could still be asked."""
        self._counters = counters or self._counters
        self._log_points(status, self.seconds, last=True)

    def ended(self, state: str, reason: str | None = None) -> None:
        """The job has ended: `finished`, `stopped` or `failed`, with the reason."""
        self._publish(state=state, reason=reason)
        log.info("the job has ended: %s%s", state, f", {reason}" if reason else "")
        self._attach()
        self._export(self._document)

    def _log_points(self, status: Status, seconds: float, *, last: bool = False) -> None:
        figures = Figures.between(self._logged or self._first, status, seconds)
        points = metric_points(figures, self._counters)
        if seconds >= self._groups_s or last:
            # Each is a chart, and there may be hundreds: after minutes a point of them every minute will do.
            points |= group_points(status.groups)
            self._groups_s = seconds + min(seconds / 20, _ATTACH_INTERVAL_S)
        for event in self._events.take(status.events):
            self._log.log({f"events/{event.kind}": 1.0}, event.records)
            if event.kind != "joined" and self._tags < _EVENT_TAGS_MAX:
                self._tags += 1
                self._log.tag({f"millrace.{event.kind}.{event.records:012d}": event.sentence})
            self._page.mark(event)
            if self.progress is not None and event.kind in _SAID:
                self.progress.tell(f"{event.kind} at record {event.records:,}: {event.sentence}")
        if status.records or status.lag:  # a point of nothing would come before all charts
            self._log.log(points, status.records)
        self._logged, self._metrics = (status, seconds), status.metrics
        self._page.add(figures)

    def _tell(self) -> None:
        """A line for machines: what the progress line is for people."""
        status, self._told_s = self._document, self.seconds + _TELL_INTERVAL_S
        quality = {name: own.window for name, own in list(status.quality.items())[:2]}
        fields = {"records": status.records, "records_per_s": status.records_per_s, "lag": status.lag,
                  "dead": status.dead, "produced_to_learnt_p99_s": status.freshness.p99_s, **quality}  # fmt: skip
        log.info("progress", extra={"fields": fields})

    def _attach(self) -> None:
        """Bring the run's page in MLflow up to date."""
        status = self._document
        self._attach_s = self.seconds + _ATTACH_INTERVAL_S
        tags = {"millrace.state": status.state, "millrace.records": str(status.records)}
        self._log.attach(self._page.files(status, self._metrics), self._page.note(status), tags)

    def _publish(self, **changes: Any) -> None:
        job = self._job.model_copy(update={"mlflow_run": self._log.run_id})
        known = {name: getattr(self._document, name) for name in StatusDocument.model_fields}
        always = {
            "job": job, "recoveries": self.recoveries, "events": list(self._events.events),
            "history": list(self._history.points), "written_s": time.time(),
        }  # fmt: skip
        self._document = StatusDocument(**{**known, **always, **changes})
        self._publisher.publish(self._document)
