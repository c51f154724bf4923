"""Go back to an older version: `python -m jobs.rollback RUN_FOLDER --to VERSION [--replay]`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cluster.ending import ending
from cluster.roll_back import roll_back
from cluster.snapshots.errors import SnapshotError


def main(
    run_folder: Annotated[str, typer.Argument(help="Folder or URL of the run: runs/NAME.")],
    to: Annotated[
        str, typer.Option("--to", help="Version of the registered model (3), or a snapshot (snapshot:12).")
    ],
    *,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Go back in the stream too, and learn all since then once more."),
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the job.")] = 300.0,
) -> None:
    """Restore an older state, also in a job that learns at this moment.

    Without --replay the job goes on from its present place in the stream, with the older tables. The older version
    stays as it is; what is learnt from here on gets new numbers.
    """
    console = Console()

    def say(sentence: str) -> None:
        console.print(f"[yellow]{escape(sentence)}[/]", highlight=False, soft_wrap=True)

    with ending(SnapshotError):
        done = roll_back(run_folder, to, "replay" if replay else "keep", say, timeout_s=timeout_s)
        console.print(escape(done), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
