"""Train a pipeline: `python -m jobs.train PIPELINE [--set a.b=c]...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.config import PipelineError, load_pipeline
from cluster.job import JobError, run_job, show_result


def main(
    pipeline: Annotated[Path, typer.Argument(help="Pipeline file (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: --set cluster.workers=4. May be repeated."),
    ] = None,
    *,
    local: Annotated[bool, typer.Option("--local", help="One process, without Ray.")] = False,
) -> None:
    """Learn continuously from the pipeline's stream on Ray, and record the run and its model in MLflow."""
    console = Console()
    try:
        result = run_job(load_pipeline(pipeline, overrides), console, local=local)
    except (PipelineError, JobError) as error:
        Console(stderr=True).print(f"[bold red]error[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    show_result(result, console)


if __name__ == "__main__":
    typer.run(main)
