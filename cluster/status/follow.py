"""Shows a run's status: once, as JSON, or live until the job has ended or somebody presses Ctrl-C."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.live import Live

from cluster.status.find import StatusError, judged, status_of
from cluster.status.view import view_of

if TYPE_CHECKING:
    from rich.console import Console

    from cluster.snapshots.places import Place

__all__ = ["follow", "show_json", "show_once"]

_REFRESH_S = 1.0


def show_json(run: Place) -> bool:
    """Print the document with what this reader makes of it (`verdict`); True if the job is well."""
    status = status_of(run)
    verdict = judged(status)
    print(json.dumps(status.model_dump(mode="json") | {"verdict": verdict._asdict()}, indent=1))  # noqa: T201
    return verdict.well


def show_once(run: Place, console: Console) -> bool:
    """Print the tables; True if the job is well."""
    status = status_of(run)
    verdict = judged(status)
    console.print(view_of(status, verdict, console.width))
    return verdict.well


def follow(run: Place, console: Console) -> bool:
    """Draw the tables anew every second, or as often as the job writes; True if the job was well at the end."""
    status = status_of(run)
    verdict = judged(status)
    # Ctrl-C is how one leaves.
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, transient=True) as live:
        while not status.ended and verdict.kind != "dead":
            live.update(view_of(status, verdict, console.width, console.height), refresh=True)
            time.sleep(max(_REFRESH_S, status.interval_s / 2))
            with suppress(StatusError):  # a place that cannot be reached now may be later; its age is shown
                status = status_of(run)
            verdict = judged(status)
    console.print(view_of(status, verdict, console.width))
    return verdict.well
