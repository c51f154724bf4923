"""Look inside a job: `python -m jobs.status [RUN_OR_PIPELINE] [--json] [--once] [--scale workers=N]`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cluster.config import PipelineError
from cluster.ending import ending
from cluster.scaling import ask_scale, sizes_of
from cluster.snapshots.errors import SnapshotError
from cluster.status.find import StatusError, find_run
from cluster.status.follow import follow, show_json, show_once

NOT_WELL = 2
"""Exit code for a job that has failed, is dead, or does not write any more."""


def main(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN_OR_PIPELINE]",
            help="Name, folder or URL of a run; or a pipeline's file or name. The run that was written last, if none.",
        ),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the status document (docs/status.md) and end.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print it once instead of following the job.")] = False,
    path: Annotated[str, typer.Option(help="Folder or URL that holds the runs.")] = "runs",
    scale: Annotated[
        list[str] | None,
        typer.Option(
            "--scale",
            metavar="workers=N|shards=N",
            help="Have the job go on with so many workers or shards, and wait for that; may be given for both.",
        ),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for --scale.")] = 300.0,
) -> None:
    """Show a running job: stream, losses, partitions, workers, shards, snapshots, events; or how it ended.

    It reads RUN/status.json, which the job writes every second, so it needs no connection to Ray. With --json or --once
    the exit code is 2 if the job has failed, is dead, or does not write any more. With --scale it only prints what came
    of that: the job learns on while new actors start, and pauses for about a second.
    """
    console = Console()

    def say(sentence: str) -> None:
        console.print(escape(sentence), highlight=False, soft_wrap=True)

    with ending(StatusError, PipelineError, SnapshotError):
        place = find_run(run, path)
        if scale:
            say(ask_scale(place.url, **sizes_of(scale), say=say, timeout_s=timeout_s))
            return
        if as_json:
            well = show_json(place)
        elif once or not console.is_terminal:
            well = show_once(place, console)
        else:
            well = follow(place, console)
        raise SystemExit(0 if well else NOT_WELL)


if __name__ == "__main__":
    typer.run(main)
