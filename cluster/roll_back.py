"""What `python -m jobs.rollback` does: leaves a request for the run's job; where there is no job, does it itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.mailbox import Answer, Mailbox
from cluster.models.registry import RunLog
from cluster.requests import RollbackRequest
from cluster.rollbacks import Rollbacks
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.store import SnapshotStore
from cluster.versions import VersionBook, snapshot_meant

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.snapshots.going_back import Mode

__all__ = ["OpenedRun", "opened_run", "roll_back"]

_POLL_S = 0.2
_MLFLOW_TIMEOUT_S = 30.0


class OpenedRun(NamedTuple):
    """A run that is there, and what it consists of."""

    name: str
    url: str
    store: SnapshotStore
    book: VersionBook


def opened_run(place: str, say: Callable[[str], None]) -> OpenedRun:
    """The run in a folder, or at an fsspec URL. Raises SnapshotError if there is none."""
    url = place.rstrip("/") if "://" in place else str(Path(place).resolve())
    store = SnapshotStore(url, say)
    if not store.numbers():
        raise SnapshotError(
            f"{place} holds no finished snapshot; give the folder of a run, such as runs/clicks-20260101-120000"
        )
    return OpenedRun(url.rpartition("/")[2], url, store, VersionBook(url))


def roll_back(place: str, to: str, mode: Mode, say: Callable[[str], None], *, timeout_s: float) -> str:
    """Have a run go back; returns what was done.

    Raises:
        SnapshotError: it was not, with the reason; or nobody answered within `timeout_s`, and the request stays.

    """
    run = opened_run(place, say)
    mailbox = Mailbox(run.url, say)
    request = RollbackRequest.new(snapshot_meant(to, run.book, run.store), mode)
    mailbox.ask(request)
    until_s = time.monotonic() + timeout_s
    while (answer := mailbox.take_answer(request)) is None:
        if time.monotonic() > until_s:
            raise SnapshotError(
                f"no job of run {run.name} answered within {timeout_s:g} s; the request stays: the job does it when it "
                "can, and if none runs, the next one does before it learns"
            )
        if not _done_here(run, mailbox):
            time.sleep(_POLL_S)
    return _checked(answer)


def _checked(answer: Answer) -> str:
    if not answer.done:
        raise SnapshotError(answer.sentence)
    return answer.sentence


def _done_here(run: OpenedRun, mailbox: Mailbox) -> bool:
    """Carry out what waits if no job holds the run, which a URL does not tell."""
    if "://" in run.url:
        return False
    try:
        with run.store.exclusive():
            log = _log_of(run)
            try:
                Rollbacks(run.store, mailbox, run.book, log, lambda _: None).carry_out()
            finally:
                log.finish(timeout_s=_MLFLOW_TIMEOUT_S)
            return True
    except SnapshotError as error:
        if isinstance(error.__cause__, BlockingIOError):  # a job that learns has it
            return False
        raise


def _log_of(run: OpenedRun) -> RunLog:
    """The run in MLflow, where it was recorded there."""
    log, newest = RunLog(), run.store.newest()
    if newest is not None and (Path(run.url) / "mlflow.json").is_file():
        log.start(newest.pipeline, run.name, run.url)
    return log
