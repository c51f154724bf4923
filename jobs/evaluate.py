"""Progressive validation of any file: `python -m jobs.evaluate FILE [--label y] [--json]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cluster.config import PipelineError
from cluster.ending import ending
from cluster.evaluate import Evaluation, evaluate
from cluster.job import JobError
from cluster.summary import show_metrics

NAMES = typer.Option(help="Comma-separated column names.")


def main(
    file: Annotated[Path, typer.Argument(help="CSV, CSV.gz, Parquet or JSON-lines file, in stream order.")],
    label: Annotated[
        str | None, typer.Option(help="Column of the label; else y, for ratings `rating`.")
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(
            help="population (binary labels; the default), ftrl, or factors (ratings of items by users)."
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user, for factors; else `user`.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item, for factors; else `item`.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of the event time (never a feature).")] = None,
    ignore: Annotated[str, NAMES] = "",
    pipeline: Annotated[
        Path | None, typer.Option(help="Pipeline file for everything but the source.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set learner.l1=1")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Workers on Ray.")] = None,
    shards: Annotated[int | None, typer.Option(help="Shards on Ray.")] = None,
    *,
    local: Annotated[bool, typer.Option("--local", help="One process without Ray (the default).")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Predict each record, then learn it, from the first row to the last; print what the predictions were worth."""
    console = Console(stderr=as_json)
    with ending(PipelineError, JobError):
        if local and (workers or shards):
            raise JobError("--local means one process; leave it out to use --workers and --shards")
        ignored = tuple(name.strip() for name in ignore.split(",") if name.strip())
        roles = {name: column for name, column in (("user", user), ("item", item)) if column is not None}
        asked = Evaluation(
            file, label, learner, roles, time, ignored, pipeline, tuple(overrides or ()), workers, shards
        )
        metrics = evaluate(asked, console)
    if as_json:
        typer.echo(orjson.dumps(metrics, option=orjson.OPT_INDENT_2).decode())
    else:
        show_metrics(f"{file.name}: predicted, then learnt", metrics, console)


if __name__ == "__main__":
    typer.run(main)
