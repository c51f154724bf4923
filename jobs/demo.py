"""The demo: `python -m jobs.demo` (what `make demo` runs)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.broker.errors import BrokerError
from cluster.config import PipelineError
from cluster.demo import next_commands, run_demo
from cluster.ending import ending
from cluster.job import JobError
from cluster.summary import show_result

PIPELINE = Path(__file__).parent / "pipelines" / "shuttle.yaml"


def main(rate: Annotated[int, typer.Option(help="Records produced per second.")] = 5000) -> None:
    """Learn a real stream on a local Ray from a local broker, and record the run in MLflow."""
    console = Console()
    console.print("[bold]Millrace[/] learns continuously from Kafka. This stream is river's Shuttle:")
    console.print("49,097 sensor readings of a space shuttle, 7 % of them anomalies.")
    console.print("Each is predicted first, and then learnt.\n")
    with ending(PipelineError, JobError, BrokerError):
        result = run_demo(PIPELINE, console, rate=rate)
    show_result(result, console)
    console.print("\n[bold]Next[/]")
    for sentence, command in next_commands(result):
        console.print(f"  [dim]{sentence}:[/]\n  {command}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
