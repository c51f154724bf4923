"""Train a pipeline: `python -m jobs.train PIPELINE [--run NAME] [--set a.b=c]...`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cluster.config import PipelineError, load_pipeline
from cluster.ending import ending
from cluster.job import JobError, run_job
from cluster.submitted import as_submitted
from cluster.summary import saying_how_to_go_on, show_result


def main(
    pipeline: Annotated[Path, typer.Argument(help="Pipeline file (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: --set cluster.workers=4. May be repeated."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="Name of the run; one that exists is continued from its last snapshot."),
    ] = None,
    *,
    local: Annotated[bool, typer.Option("--local", help="One process, without Ray.")] = False,
) -> None:
    """Learn continuously from the pipeline's stream on Ray, and record the run and its model in MLflow.

    Ctrl-C (or SIGTERM) finishes what is in hand and takes the last snapshot; a second one ends at once.
    """
    console = Console()
    named = [] if run is None else [f"run={orjson.dumps(run).decode()}"]
    with ending(PipelineError, JobError), saying_how_to_go_on(console):
        loaded = as_submitted(load_pipeline(pipeline, [*(overrides or []), *named]), os.environ)
        show_result(run_job(loaded, console, local=local), console)


if __name__ == "__main__":
    typer.run(main)
