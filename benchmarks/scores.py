"""Scores of `jobs.evaluate` with default settings on the shared streams, beside reference scores from elsewhere.

Skips, with a sentence, streams that are not there.

    python -m benchmarks.scores [--data ../shared/data]
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.evaluate import Evaluation, evaluate

STREAMS = {
    "criteo_dac80k": (
        "criteo_dac80k.csv.gz",
        (),
        "VW --ftrl, best of three rates in hindsight: 0.4507 / 0.7622",
    ),
    "elec2": ("elec2.csv.gz", (), "VW --ftrl, best of three rates in hindsight: 0.3843 / 0.9097"),
    "noaa_weather": ("noaa_weather.csv.gz", (), "VW --ftrl, best of three rates in hindsight: 0.4586"),
    "flights_pnw2014": (
        "flights_pnw2014.csv.gz",
        ("ts",),
        "VW --ftrl, best of three rates in hindsight: 0.4043",
    ),
}


def main(data: Annotated[Path, typer.Option(help="Folder of the streams.")] = Path("../shared/data")) -> None:
    """Evaluate each stream in one process and print a table for RESULTS.md."""
    print(
        "| stream | records | log-loss | AUC | average precision | of the base rate | reference (log-loss / AUC) |"
    )
    print("|---|--:|--:|--:|--:|--:|---|")
    for name, (file, ignore, reference) in STREAMS.items():
        if not (data / file).is_file():
            print(f"{name} skipped: {data / file} is not there")
            continue
        m = evaluate(Evaluation(data / file, ignore=ignore), Console(file=io.StringIO()))
        figures = " | ".join(
            f"{m[k]:.4f}" for k in ("log_loss", "auc", "average_precision", "prior_log_loss")
        )
        print(f"| {name} | {m['records']:,} | {figures} | {reference} |")


if __name__ == "__main__":
    typer.run(main)
