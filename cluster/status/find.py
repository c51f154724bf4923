"""Finds the status that somebody asks for (a run's folder, URL or name, a pipeline, or none), and judges its age."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from cluster.config import load_pipeline
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of
from cluster.status.document import STATUS_FILE, StatusDocument, read_status

if TYPE_CHECKING:
    from cluster.snapshots.places import Place

__all__ = ["StatusError", "Verdict", "find_run", "judged", "status_of"]

_LATE_INTERVALS = 10
_LATE_S = 15.0
_STUCK_S = 15.0
_RUNS_MAX = 10_000


class StatusError(Exception):
    """There is no such status, or it cannot be read; the message says what to do."""


class Verdict(NamedTuple):
    """What a reader makes of a status: `kind`, the age of the file, and a sentence where the kind does not say all."""

    kind: Literal["running", "ended", "failed", "stuck", "silent", "dead"]
    age_s: float
    sentence: str = ""

    @property
    def well(self) -> bool:
        """True for a job that runs, or has ended in order."""
        return self.kind in {"running", "ended"}


def find_run(named: str | None, base: str) -> Place:
    """The folder of the run that is meant: `named` is its folder, URL or name, a pipeline's file or name, or None.

    A pipeline, or None, means the run in `base` that was written last. Raises StatusError.
    """
    try:
        return _found(named, base)
    except SnapshotError as error:
        raise StatusError(str(error)) from error


def status_of(run: Place) -> StatusDocument:
    """The run's status. Raises StatusError if there is none, or none that can be read."""
    try:
        found = read_status(run)
    except SnapshotError as error:
        raise StatusError(str(error)) from error
    if found is None:
        raise StatusError(
            f"{run.url} has no {STATUS_FILE}: no job has begun there, or one of an older version of this code"
        )
    return found


def judged(status: StatusDocument, now_s: float | None = None) -> Verdict:
    """Whether the job lives, by the age of what it wrote. Clocks of two machines may differ by some seconds."""
    now_s = time.time() if now_s is None else now_s
    age_s = max(0.0, now_s - status.written_s)
    job, again = status.job, f"start it again with --run {status.job.run}"
    if status.state == "failed":
        return Verdict("failed", age_s, status.reason or "it has failed")
    if status.ended:
        return Verdict("ended", age_s, status.reason or "")
    here = job.host == socket.gethostname()
    if here and age_s > _LATE_INTERVALS / 2 * status.interval_s and not _lives(job.pid):
        return Verdict("dead", age_s, f"the job is dead: its process {job.pid} is gone; {again}")
    if age_s > max(_LATE_INTERVALS * status.interval_s, _LATE_S):
        return Verdict(
            "silent",
            age_s,
            f"the job has not written for {age_s:.0f} s: it is dead, or {job.host} or the run's place cannot be "
            f"reached; look at process {job.pid} there, or {again}",
        )
    behind_s = status.written_s - (status.seen_s or job.started_s)
    if status.state in {"learning", "ending"} and behind_s > _STUCK_S:
        return Verdict(
            "stuck",
            age_s,
            f"its driver lives, but the figures are {behind_s:.0f} s old: its actors do not answer, or the last "
            "snapshot is being registered",
        )
    return Verdict("running", age_s)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _found(named: str | None, base: str) -> Place:
    if named is None:
        return _newest(base, None)
    if named.endswith((".yaml", ".yml")):
        pipeline = load_pipeline(named)
        base = pipeline.snapshots.path
        return place_of(base).child(pipeline.run) if pipeline.run else _newest(base, pipeline.name)
    if "://" in named or Path(named).is_dir():
        return place_of(named)
    named_run = place_of(base).child(named)
    return named_run if STATUS_FILE in named_run.sizes() else _newest(base, named)


def _newest(base: str, pipeline: str | None) -> Place:
    """Of the runs in `base` the one that was written last, of one pipeline if it is named."""
    place = place_of(base)
    runs: list[tuple[float, str]] = []
    for name in place.folders()[:_RUNS_MAX]:
        try:
            status = read_status(place.child(name))
        except SnapshotError:
            continue  # one that cannot be read hides none of the others
        if status is not None and pipeline in {None, status.job.pipeline}:
            runs.append((status.written_s, name))
    if not runs:
        what = "run with a status" if pipeline is None else f"run or pipeline {pipeline!r} with a status"
        raise StatusError(
            f"expected a {what} in {place.url}, but there is none; name the run's folder or URL, or the folder of the "
            "runs with --path"
        )
    return place.child(max(runs)[1])
