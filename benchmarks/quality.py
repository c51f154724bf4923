"""Quality of the default learner on every shared binary stream, nothing tuned, beside Vowpal Wabbit and river.

All predict each record before they learn it, in the file's order, from the same columns (decoded by our own source:
numbers, and categories as one feature for each value), one run each:

    ours                          jobs.evaluate FILE with its defaults, whatever they are (--learner: another one)
    VW --ftrl, default            rate 0.005, numbers as they come
    VW --ftrl, best in hindsight  of five rates (0.02 to 8), each with numbers as they come, as running z-scores, and
                                  with each value as a category: fifteen ways
    river                         StandardScaler over the numbers | LogisticRegression, defaults

VW has 2^24 weights. Skips, with a sentence, streams that are not there.

    python -m benchmarks.quality [--data ../shared/data] [--only elec2,noaa_weather] [--learner ftrl]
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console

from benchmarks.measure import machine
from cluster.config import FeaturesConfig, FileSourceConfig
from cluster.config_learners import DEFAULT_LEARNER
from cluster.evaluate import Evaluation, evaluate
from cluster.streams.file_source import FileSource
from learning.batch import NUMBER, Batch
from learning.encoding import NumericEncoder
from learning.metrics import Prequential

if TYPE_CHECKING:
    from collections.abc import Callable

STREAMS = (
    "criteo_dac80k.csv.gz",
    "elec2.csv.gz",
    "noaa_weather.csv.gz",
    "flights_pnw2014.csv.gz",
    "creditcard_casecontrol.csv.gz",
    "creditcard_time_amount.csv.gz",
    "obd_random_men.csv.gz",
    "obd_bts_men.csv.gz",
    "obd_random_women.csv.gz",
    "obd_bts_women.csv.gz",
    "fraud_handbook_sim.parquet",
    "kdd99_10pct.csv.gz",
)
NEVER = ("ts", "label_ts", "w", "part", "scenario", "label", "batch", "conc_ppm")
"""Columns that no model may see."""
RATES = (0.02, 0.1, 0.5, 2.0, 8.0)
VW_DEFAULT_RATE = 0.005


class Score(NamedTuple):
    """What one contestant's predictions were worth."""

    title: str
    log_loss: float
    auc: float
    accuracy: float


def batches_of(path: Path) -> list[Batch]:
    """The whole file, decoded but not encoded."""
    features = FeaturesConfig(ignore=NEVER)
    source = FileSource(FileSourceConfig(path=str(path)), features, 4096, {0: (0, None)}, 1)
    found = []
    while not source.exhausted:
        if (decoded := source.poll(1.0)) is not None:
            found.append(decoded.batch)
    source.close()
    return found


def score(title: str, predictions: np.ndarray, labels: np.ndarray) -> Score:
    """Metrics as the product computes them."""
    metrics = Prequential.zero()
    metrics.update(predictions.astype(np.float64), labels)
    of = metrics.summary()
    return Score(title, of["log_loss"], of["auc"], of["accuracy"])


def ours(path: Path, learner: str | None) -> Score:
    """The product's own way, from the file to the metrics."""
    found = evaluate(Evaluation(path, learner=learner, ignore=NEVER), Console(file=io.StringIO()))
    return Score(f"ours, `{learner or DEFAULT_LEARNER}`", found["log_loss"], found["auc"], found["accuracy"])


def write_vw(path: Path, batches: list[Batch]) -> None:
    """The records as VW's text."""
    with path.open("w") as file:
        for batch in batches:
            keys, values = (batch.keys % np.uint64(2**31)).tolist(), batch.values.tolist()
            bounds, labels = batch.offsets.tolist(), batch.labels.tolist()
            for i, label in enumerate(labels):
                entries = range(bounds[i], bounds[i + 1])
                features = " ".join(f"{keys[j]}:{values[j]:g}" for j in entries)
                file.write(f"{1 if label > 0.5 else -1} |f {features}\n")


def categorical(batch: Batch) -> Batch:
    """Each number as a feature of its exact value."""
    numeric = batch.kinds == NUMBER
    mixed = (batch.keys ^ batch.values.view(np.uint32).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    keys = np.where(numeric, mixed ^ (mixed >> np.uint64(32)), batch.keys)
    return batch.with_entries(
        keys, np.where(numeric, np.float32(1.0), batch.values), batch.kinds, batch.offsets
    )


def run_vw(path: Path, rate: float) -> np.ndarray:
    """Progressive probabilities of VW over its text (and the cache that its first run makes)."""
    from vowpalwabbit import Workspace

    out = path.with_suffix(".predictions")
    Workspace(
        f"-d {path} --cache_file {path}.cache --ftrl --ftrl_alpha {rate} --loss_function logistic --link logistic "
        f"-b 24 -p {out} --quiet"
    ).finish()
    return np.loadtxt(out, usecols=0)


def vw(batches: list[Batch], labels: np.ndarray, folder: Path) -> list[Score]:
    """VW at its default, and the best of fifteen ways in hindsight."""
    encoder = NumericEncoder(bins_per_sd=0.0)
    inputs = {
        "numbers as they come": batches,
        "z-scores": [encoder.encode(batch) for batch in batches],
        "categories": [categorical(batch) for batch in batches],
    }
    found = []
    for name, stream in inputs.items():
        path = folder / f"{name.replace(' ', '-')}.vw"
        write_vw(path, stream)
        if stream is batches:
            default = score("VW --ftrl, default", run_vw(path, VW_DEFAULT_RATE), labels)
        found += [
            score(f"VW --ftrl, best in hindsight ({rate:g}, {name})", run_vw(path, rate), labels)
            for rate in RATES
        ]
    return [default, min(found, key=lambda each: each.log_loss)]


def river(batches: list[Batch], labels: np.ndarray) -> Score:
    """river's usual pipeline; categories are ones, not scaled."""
    from river import linear_model, preprocessing

    scaler, model = preprocessing.StandardScaler(), linear_model.LogisticRegression()
    predictions = []
    for batch in batches:
        keys, values, numeric = batch.keys.tolist(), batch.values.tolist(), (batch.kinds == NUMBER).tolist()
        bounds, answers = batch.offsets.tolist(), batch.labels.tolist()
        for i, label in enumerate(answers):
            entries = range(bounds[i], bounds[i + 1])
            numbers = {keys[j]: values[j] for j in entries if numeric[j]}
            scaler.learn_one(numbers)
            x = scaler.transform_one(numbers) | {keys[j]: 1.0 for j in entries if not numeric[j]}
            predictions.append(model.predict_proba_one(x)[True])
            model.learn_one(x, label > 0.5)
    return score("river StandardScaler, LogisticRegression", np.array(predictions), labels)


def print_stream(path: Path, learner: str | None, folder: Path) -> None:
    """One row for each contestant."""
    batches = batches_of(path)
    labels = np.concatenate([batch.labels for batch in batches])
    base = score("base rate in hindsight", np.full(len(labels), labels.mean()), labels)
    contestants: list[Callable[[], list[Score]]] = [
        lambda: [base],
        lambda: [river(batches, labels)],
        lambda: vw(batches, labels, folder),
        lambda: [ours(path, learner)],
    ]
    name = path.name.partition(".")[0]
    for run in contestants:
        for each in run():
            figures = f"{each.log_loss:.4f} | {each.auc:.4f} | {each.accuracy:.4f}"
            print(f"| {name} | {len(labels):,} | {each.title} | {figures} |", flush=True)


def main(
    data: Annotated[Path, typer.Option(help="Folder of the streams.")] = Path("../shared/data"),
    only: Annotated[str, typer.Option(help="Comma-separated names of streams; else all.")] = "",
    learner: Annotated[str | None, typer.Option(help="Our learner, if not the default one.")] = None,
) -> None:
    """Measure and print a table for RESULTS.md."""
    print(
        f"{machine()}\n\n| stream | records | learner | log-loss | AUC | accuracy |\n|---|--:|---|--:|--:|--:|"
    )
    chosen = {name.strip() for name in only.split(",") if name.strip()}
    for file in STREAMS:
        if chosen and file.partition(".")[0] not in chosen:
            continue
        if not (data / file).is_file():
            print(f"{file} skipped: {data / file} is not there")
            continue
        with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
            print_stream(data / file, learner, Path(folder))


if __name__ == "__main__":
    typer.run(main)
