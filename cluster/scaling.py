"""What `jobs.status --scale` does: asks a run's job to go on with other numbers of workers and shards, and waits."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.mailbox import Mailbox
from cluster.requests import ACTORS_MAX, ScaleRequest
from cluster.snapshots import run_folder
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ask_scale", "sizes_of"]

_POLL_S = 0.2
_SIZE = re.compile(r"(workers|shards)=(\d{1,4})", re.ASCII)


def sizes_of(texts: Sequence[str]) -> dict[str, int]:
    """Numbers of actors as they are typed: ["workers=8", "shards=4"]. Raises SnapshotError."""
    sizes: dict[str, int] = {}
    for text in texts:
        found = _SIZE.fullmatch(text)
        if found is None or found[1] in sizes or not 1 <= int(found[2]) <= ACTORS_MAX:
            raise SnapshotError(
                f"expected workers=N or shards=N, once each, with N from 1 to {ACTORS_MAX}, but came {text!r}"
            )
        sizes[found[1]] = int(found[2])
    return sizes


def ask_scale(
    place: str,
    *,
    workers: int | None = None,
    shards: int | None = None,
    say: Callable[[str], None],
    timeout_s: float = 300.0,
) -> str:
    """Have the job of the run at `place` (a folder or an fsspec URL) go on with so many actors; returns what was done.

    None: as many as there are. The job learns on while new actors start and load; it pauses for the last step only.

    Raises:
        SnapshotError: it was not done, with the reason; after `timeout_s` without an answer nobody asks any more.

    """
    if workers is None and shards is None:
        raise SnapshotError(
            "expected a number of workers or of shards, but came neither; say workers=N or shards=N"
        )
    url = place.rstrip("/") if "://" in place else str(Path(place).resolve())
    _check_runs(place, url)
    mailbox = Mailbox(url, say)
    request = ScaleRequest.new(workers, shards)
    mailbox.ask(request)
    until_s = time.monotonic() + timeout_s
    try:
        while (answer := mailbox.take_answer(request)) is None:
            if time.monotonic() > until_s:
                raise SnapshotError(
                    f"no job of {place} answered within {timeout_s:g} s, and nobody asks any more; look whether one "
                    "runs, and what it says; else set cluster.workers and cluster.shards in its pipeline file"
                )
            time.sleep(_POLL_S)
    except BaseException:
        mailbox.withdraw(request)
        raise
    if not answer.done:
        raise SnapshotError(answer.sentence)
    return answer.sentence


def _check_runs(place: str, url: str) -> None:
    """Refuse a run that no job learns, as far as that can be known: a URL does not tell. Raises SnapshotError."""
    run = place_of(url)
    if run_folder.held(run):  # one that has only just been started is a job too
        return
    if run_folder.last_generation(run) is None:
        raise SnapshotError(
            f"{place} is no run; give the folder of a run, such as runs/clicks-20260101-120000"
        )
    if "://" in url:
        return
    raise SnapshotError(
        f"no job learns {place}; scaling is for a job that runs: set cluster.workers and cluster.shards "
        "in the pipeline file, or with --set, and start it"
    )
