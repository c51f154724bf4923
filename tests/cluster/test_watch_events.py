"""Events of a job: which become tags in MLflow, and what a driver makes of those that a snapshot gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.status import JobEvent, Status
from cluster.config import FileSourceConfig, Pipeline
from cluster.models.registry import RunLog
from cluster.runs import Run
from cluster.snapshots.remote_place import place_of
from cluster.status.publisher import StatusPublisher
from cluster.status.watch import JobWatch
from learning.metrics import DelayHistogram, Prequential

DRIFT = JobEvent(500, "drift", "the loss rose")
LATER = JobEvent(900, "drift", "the loss rose again")


class Tags(RunLog):
    """MLflow's tags that a job asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def tag(self, tags: dict[str, str]) -> None:
        """Note their names."""
        self.tags += tags


class _Start:
    def records_total(self, pipeline: Pipeline) -> None:
        """A stream without an end."""


def status_with(*events: JobEvent, records: int = 1000) -> Status:
    """A status of a job to which these have happened."""
    zero = DelayHistogram()
    return Status("learning", 1, records, 0, 0, 1, Prequential.zero(), zero, zero, [], events=[*events])


def watched(folder: Path, first: Status, *later: Status) -> tuple[JobWatch, list[str]]:
    """What a driver of the run in `folder` has told after these statuses, and its tags."""
    log = Tags()
    pipeline = Pipeline(name="clicks", source=FileSourceConfig(path="clicks.csv"))
    with StatusPublisher(place_of(str(folder)), 0.05, print) as publisher:
        view = JobWatch(pipeline, Run("r", folder, str(folder)), log, publisher, 0.05, local=True)
        start: Any = _Start()
        view.begun(start, first)
        for status in later:
            view.see(status, None, 0.0)
            view.log_last(status, [])
    return view, log.tags


def test_what_a_snapshot_gives_back_is_not_new(tmp_path: Path) -> None:
    """The second job of a run: the first one's drift has no second tag, and the time at which it was."""
    first, tags = watched(tmp_path, status_with(), status_with(DRIFT))
    assert tags == ["millrace.drift.000000000500"]
    then = [event for event in first.newest.events if event.kind == "drift"]
    second, tags = watched(tmp_path, status_with(DRIFT), status_with(DRIFT, LATER))
    assert tags == ["millrace.drift.000000000900"]
    known = [event for event in second.newest.events if event.kind == "drift"]
    assert known[:-1] == then
    assert known[-1].records == LATER.records
    (tmp_path / "status.json").write_bytes(b"torn")
    third, tags = watched(tmp_path, status_with(DRIFT, LATER), status_with(DRIFT, LATER))
    assert not tags
    assert not third.newest.events


def test_tags_have_an_end(tmp_path: Path) -> None:
    """A stream that drifts for ever, with partitions that join: fifty tags, of what was not told before."""
    events = [JobEvent(i, "joined" if i % 2 else "drift", "the loss rose") for i in range(200)]
    statuses = [status_with(*events[i : i + 20]) for i in range(0, 200, 20)]
    _, tags = watched(tmp_path, status_with(), *statuses)
    assert len(tags) == 50
    assert all("drift" in tag for tag in tags)
