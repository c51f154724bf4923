"""Rebuild a state: `python -m jobs.replay RUN_FOLDER --from VERSION --until OFFSETS|TIME [--run NAME]`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from actors.ports import SourceError
from cluster.config import PipelineError
from cluster.ending import ending
from cluster.replaying import replay_run
from cluster.same_run import OtherRunError
from cluster.snapshots.errors import SnapshotError
from cluster.summary import show_replayed


def main(
    run_folder: Annotated[str, typer.Argument(help="Folder or URL of the run: runs/NAME.")],
    start_at: Annotated[
        str, typer.Option("--from", help="Version of the registered model (3), or a snapshot (snapshot:12).")
    ],
    until: Annotated[
        str,
        typer.Option(
            help="Offsets (0=1200,1=1180), a snapshot (snapshot:15), or a time (ISO or unix seconds)."
        ),
    ],
    run: Annotated[str | None, typer.Option(help="Name of the new run, beside the old one.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: --set source.bootstrap_servers=host:9092"),
    ] = None,
) -> None:
    """Rebuild the state as of any moment in a new run, in one process; the run that is replayed stays as it is.

    Prints the place in the stream and a digest of the state: two replays of the same have the same.
    """
    console = Console()

    def say(sentence: str) -> None:
        console.print(f"[yellow]{escape(sentence)}[/]", highlight=False, soft_wrap=True)

    with ending(PipelineError, SnapshotError, SourceError, OtherRunError):
        show_replayed(
            replay_run(run_folder, start_at, until, say, name=run, overrides=overrides or ()), console
        )


if __name__ == "__main__":
    typer.run(main)
