"""Send a file to a topic: `python -m jobs.produce FILE|river:Shuttle TOPIC [--format arrow] [--rate 5000]`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from actors.ports import SourceError
from cluster.config import KafkaConnection
from cluster.ending import end_with_parent, ending
from cluster.logs import set_up_logs
from cluster.streams.produce import Produced, ProducePlan, produce


class Format(StrEnum):
    """One JSON object, or one Arrow record batch, a message."""

    json = "json"
    arrow = "arrow"


def main(
    origin: Annotated[str, typer.Argument(help="CSV, Parquet or JSON-lines file, or river:Shuttle.")],
    topic: Annotated[str, typer.Argument(help="Created if it is not there.")],
    bootstrap_servers: Annotated[str, typer.Option(help="Addresses of Kafka brokers.")] = "127.0.0.1:9092",
    format_: Annotated[Format, typer.Option("--format", help="A record, or many, a message.")] = Format.json,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Records a second; else as fast as it goes.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Column whose value is the message's key (JSON only).")
    ] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Partitions of a new topic.")] = None,
    label: Annotated[str, typer.Option(help="Column of the label.")] = "y",
    time: Annotated[str | None, typer.Option(help="Column of the event time; `ts` if there is one.")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Column of the record's id; else its row number.")
    ] = None,
    ignore: Annotated[str, typer.Option(help="Columns that are not sent, separated by commas.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.")] = None,
    records_per_message: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rows of an Arrow message.")
    ] = 1024,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Read a file, find its types, and send its rows to a Kafka topic."""
    set_up_logs()
    plan = ProducePlan(
        origin,
        topic,
        KafkaConnection(bootstrap_servers=bootstrap_servers),
        format="arrow" if format_ is Format.arrow else "json",
        rate=rate,
        key=key,
        partitions=partitions,
        label=label,
        time=time,
        id=id_,
        ignore=tuple(name.strip() for name in ignore.split(",") if name.strip()),
        limit=limit,
        records_per_message=records_per_message,
    )
    if until_stdin_closes:
        end_with_parent()
    description = TextColumn("{task.description}", markup=False)
    columns = SpinnerColumn(), description, MofNCompleteColumn(), TimeElapsedColumn()
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    with ending(SourceError, silent=until_stdin_closes), progress:
        task = progress.add_task(f"{origin} -> {topic}", total=limit)
        produced = produce(plan, lambda records: progress.update(task, completed=records))
    _print(produced, plan)


def _print(produced: Produced, plan: ProducePlan) -> None:
    print(
        f"sent {produced.records} records in {produced.messages} messages ({produced.bytes / 1e6:.1f} MB) to "
        f"{plan.topic} in {produced.seconds:.1f} s: {produced.records_per_s:,.0f} records/s"
    )
    if produced.first_skipped is not None:
        bad = produced.first_skipped
        print(f"left out {produced.skipped} bad rows; the first is row {bad.row}: {bad.reason}")


if __name__ == "__main__":
    typer.run(main)
