"""FTRL examples per second on one core: our kernel on the collisionless table against Vowpal Wabbit --ftrl.

Both learn the same seeded examples: 39 features (13 numbers, 26 Zipf categories), 1.65 million different features.
VW reads its own binary cache (no text parsing in the measured run); we read the same examples from arrays in
batches of 4096. Each run is a fresh process pinned to one core; contestants take turns. The time of VW includes the
start of its process-wide state and the opening of the cache, which is below 1 % of the run.

    python -m benchmarks.kernel [--examples 400000] [--repeats 5]
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measure import machine, median_of, on_one_core, spread
from learning.batch import Batch, BatchId
from learning.ftrl import Ftrl
from learning.grouping import KeyGrouper
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.table import Table

NUMBERS, CATEGORIES, BATCH = 13, 26, 4096
FEATURES = NUMBERS + CATEGORIES
FTRL = Ftrl(alpha=0.1, beta=1.0)


def examples(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Feature numbers u32 (count, 39), values f32 (count, 39) and labels f32 (count,), from a seed."""
    rng = np.random.default_rng(42)
    ids = np.empty((count, FEATURES), np.uint32)
    ids[:, :NUMBERS] = np.arange(NUMBERS)
    zipf = rng.zipf(1.15, size=(count, CATEGORIES)) % 100_000
    ids[:, NUMBERS:] = 100 + zipf * CATEGORIES + np.arange(CATEGORIES)
    values = np.ones((count, FEATURES), np.float32)
    values[:, :NUMBERS] = rng.normal(size=(count, NUMBERS)).round(3)
    effect = (
        np.sin(ids[:, NUMBERS:].astype(np.float64)).sum(axis=1) * 0.4 + values[:, :3].sum(axis=1) * 0.3 - 1.0
    )
    return ids, values, (rng.random(count) < 1 / (1 + np.exp(-effect))).astype(np.float32)


def write_vw(path: Path, count: int) -> None:
    """The examples as VW text, from which VW makes its cache once."""
    ids, values, labels = examples(count)
    with path.open("w") as file:
        for row, value, label in zip(ids.tolist(), values.tolist(), labels.tolist(), strict=True):
            features = " ".join(f"{i}:{v:g}" if v != 1.0 else str(i) for i, v in zip(row, value, strict=True))
            file.write(f"{1 if label else -1} |f {features}\n")


def run_vw(path: str, count: int) -> tuple[float, float]:
    """Examples per second and progressive log-loss of VW over its cache (made by the first call)."""
    from vowpalwabbit import Workspace

    started_s = time.perf_counter()
    workspace = Workspace(
        f"-d {path} --cache_file {path}.cache --ftrl --ftrl_alpha {FTRL.alpha} --ftrl_beta {FTRL.beta} "
        "--loss_function logistic -b 24 --quiet"
    )
    seconds = time.perf_counter() - started_s
    loss = workspace.get_sum_loss() / workspace.get_weighted_examples()
    workspace.finish()
    return count / seconds, loss


def batches(count: int) -> list[Batch]:
    """The examples as batches; keys are the mixed feature numbers."""
    ids, values, labels = examples(count)
    keys = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    made = []
    for first in range(0, count, BATCH):
        part = slice(first, min(first + BATCH, count))
        n = part.stop - first
        nothing = np.full(n, np.nan)
        made.append(
            Batch(
                BatchId(0, first, part.stop),
                keys[part].ravel(),
                values[part].ravel(),
                np.zeros(n * FEATURES, np.uint8),
                np.arange(n + 1, dtype=np.int64) * FEATURES,
                labels[part],
                np.ones(n, np.float32),
                nothing,
                nothing,
                np.arange(first, part.stop),
            )
        )
    return made


def run_ours(count: int, way: str) -> tuple[float, float]:
    """Examples per second and progressive log-loss: `direct` on the table's rows, `pulled` as over shards."""
    stream = batches(count)
    for warm in (True, False):
        table, losses = Table(FTRL.width), []
        bias = int(table.locate(np.array([BIAS_KEY], np.uint64))[0])
        grouper = KeyGrouper(1)
        started_s = time.perf_counter()
        for batch in stream[:2] if warm else stream:
            p = _direct(table, bias, batch) if way == "direct" else _pulled(table, grouper, batch)
            y = batch.labels
            losses.append(-np.sum(np.log(np.where(y > 0, p, 1 - p))))
        seconds = time.perf_counter() - started_s
    return count / seconds, float(sum(losses)) / count


def _direct(table: Table, bias: int, batch: Batch) -> Any:
    index = table.locate(batch.keys)
    return FTRL.learn([TableRows(table.rows, index, bias)], batch)


def _pulled(table: Table, grouper: KeyGrouper, batch: Batch) -> Any:
    """Distinct keys, their rows out, learn, rows back: a shard's way without the wire."""
    grouped = grouper.group(batch.keys)
    at = table.locate(grouped.keys)
    rows = table.rows[at]
    predictions = FTRL.learn([TableRows(rows, grouped.index, grouped.bias)], batch)
    table.rows[at] = rows
    return predictions


def main(
    examples: Annotated[int, typer.Option()] = 400_000, repeats: Annotated[int, typer.Option(min=5)] = 5
) -> None:
    """Measure and print a table for RESULTS.md."""
    rates: dict[str, list[float]] = {"vw": [], "direct": [], "pulled": []}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.vw"
        write_vw(path, examples)
        on_one_core(run_vw, str(path), examples)  # makes the cache
        os.truncate(path, 0)  # the cache alone is read from here on
        for _ in range(repeats):
            for name, measured in rates.items():
                call = (run_vw, str(path), examples) if name == "vw" else (run_ours, examples, name)
                rate, losses[name] = on_one_core(*call)
                measured.append(rate)
    print(
        f"{machine()}; {examples:,} examples, {FEATURES} features, one core, median of {repeats} (min to max)\n"
    )
    print("| FTRL | examples/s | against VW | progressive log-loss |\n|---|--:|--:|--:|")
    names = {
        "vw": "Vowpal Wabbit --ftrl, cache",
        "direct": "ours, rows in place (LocalStore)",
        "pulled": "ours, pull and push",
    }
    for name, title in names.items():
        ratio = median_of(rates[name]) / median_of(rates["vw"])
        print(f"| {title} | {spread(rates[name])} | {ratio:.2f} | {losses[name]:.5f} |")


if __name__ == "__main__":
    typer.run(main)
