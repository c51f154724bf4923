"""What the population costs: microseconds a record beside one FTRL column, and whole evaluations of a file.

    kernel        the seeded examples of benchmarks/kernel.py (39 features, most rows cold), rows in place and pulled
    learn alone   the same, the look-ups not counted
    evaluate      jobs.evaluate over a file: reading, decoding, encoding, learning, metrics

Each run is a fresh process pinned to one core; contestants take turns.

    python -m benchmarks.population [--examples 200000] [--repeats 5] [--data ../shared/data]
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.kernel import batches
from benchmarks.measure import machine, median_of, on_one_core
from benchmarks.quality import NEVER
from cluster.evaluate import Evaluation, evaluate
from learning.ftrl import Ftrl
from learning.grouping import KeyGrouper
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.population import Population
from learning.table import Table

LEARNERS: dict[str, Any] = {
    "FTRL, one column": Ftrl(),
    "population": Population(),
    "population, columns only": Population(stackers=()),
}
FILES = ("criteo_dac80k", "flights_pnw2014", "elec2")


def run_kernel(count: int, name: str, way: str) -> tuple[float, float]:
    """Microseconds a record, look-ups included and learning alone."""
    learner, stream = LEARNERS[name], batches(count)
    for part in (stream[:2], stream):
        tables = [Table(spec.width) for spec in learner.specs()]
        bias = [int(table.locate(np.array([BIAS_KEY], np.uint64))[0]) for table in tables]
        groupers = [KeyGrouper(1) for _ in tables]
        learnt_s, started_s = 0.0, time.perf_counter()
        for batch in part:
            every = learner.keys(batch)
            if way == "in place":
                at = [table.locate(keys) for table, keys in zip(tables, every, strict=True)]
                rows = [TableRows(t.rows, i, b) for t, i, b in zip(tables, at, bias, strict=True)]
            else:
                grouped = [grouper.group(keys) for grouper, keys in zip(groupers, every, strict=True)]
                at = [table.locate(of.keys) for table, of in zip(tables, grouped, strict=True)]
                rows = [
                    TableRows(t.rows[i], of.index, of.bias)
                    for t, i, of in zip(tables, at, grouped, strict=True)
                ]
            before_s = time.perf_counter()
            learner.learn(rows, batch)
            learnt_s += time.perf_counter() - before_s
            if way != "in place":
                for table, places, own in zip(tables, at, rows, strict=True):
                    table.rows[places] = own.rows
        seconds = time.perf_counter() - started_s
    return 1e6 * seconds / count, 1e6 * learnt_s / count


def run_file(path: str, kind: str) -> float:
    """Microseconds a record of a whole evaluation (the second in its process)."""
    asked = Evaluation(Path(path), learner=kind, ignore=NEVER)
    found = [evaluate(asked, Console(file=io.StringIO())) for _ in range(2)][1]
    return 1e6 * found["seconds"] / found["records"]


def print_row(title: str, measured: dict[str, list[float]]) -> None:
    """Medians, ranges and ratios to the first contestant."""
    first = median_of(next(iter(measured.values())))
    for name, values in measured.items():
        middle = median_of(values)
        print(
            f"| {title} | {name} | {middle:.2f} ({min(values):.2f} to {max(values):.2f}) | {middle / first:.2f} |",
            flush=True,
        )


def main(
    examples: Annotated[int, typer.Option()] = 200_000,
    repeats: Annotated[int, typer.Option(min=5)] = 5,
    data: Annotated[Path, typer.Option(help="Folder of the streams.")] = Path("../shared/data"),
) -> None:
    """Measure and print a table for RESULTS.md."""
    print(f"{machine()}; median of {repeats} (min to max)\n")
    print("| what | learner | us a record | against one column |\n|---|---|--:|--:|")
    for way in ("in place", "pulled"):
        whole: dict[str, list[float]] = {name: [] for name in LEARNERS}
        alone: dict[str, list[float]] = {name: [] for name in LEARNERS}
        for _ in range(repeats):
            for name in LEARNERS:
                seen = on_one_core(run_kernel, examples, name, way)
                whole[name].append(seen[0])
                alone[name].append(seen[1])
        print_row(f"kernel, rows {way}", whole)
        print_row(f"learn alone, rows {way}", alone)
    for file in FILES:
        path = data / f"{file}.csv.gz"
        if not path.is_file():
            print(f"{file} skipped: {path} is not there")
            continue
        kinds: dict[str, list[float]] = {"ftrl": [], "population": []}
        for _ in range(repeats):
            for kind, values in kinds.items():
                values.append(on_one_core(run_file, str(path), kind))
        print_row(f"evaluate {file}", kinds)


if __name__ == "__main__":
    typer.run(main)
