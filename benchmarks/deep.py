"""Quality of the torch learner beside the others, and of their mixture, on a shared stream, nothing tuned for it.

All predict each record before they learn it, in the file's order, from the same encoded batches of 4,096; `deep` takes
steps of 128 records, the others one a record. Mixtures are of two columns, by fixed share over log-loss (eta 1, share
5e-4, the defaults of learning/experts.py). One run each. Skips, with a sentence, a stream that is not there.

    python -m benchmarks.deep [--data ../shared/data] [--only criteo_dac80k]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.measure import machine
from benchmarks.quality import batches_of, score
from cluster.local_store import LocalStore
from learning.deep import Deep
from learning.encoding import NumericEncoder
from learning.experts import Experts
from learning.ftrl import Ftrl
from learning.population import Population

if TYPE_CHECKING:
    from learning.batch import Batch

STREAMS = ("criteo_dac80k",)
LEARNERS: dict[str, Any] = {
    "`deep`, mlp": Deep(model="mlp"),
    "`deep`, deepfm (default)": Deep(),
    "`ftrl`": Ftrl(),
    "`population`": Population(),
}
MIXTURES = (("`ftrl`", "`deep`, deepfm (default)"), ("`population`", "`deep`, deepfm (default)"))


def run(learner: Any, batches: list[Batch]) -> tuple[np.ndarray, float]:
    """Predictions, and seconds without reading and encoding."""
    store, found = LocalStore(learner), []
    started_s = time.perf_counter()
    for batch in batches:
        store.pull(batch)
        pulled = store.wait()
        found.append(learner.learn(pulled.tables, batch))
        store.push(pulled)
    return np.concatenate(found), time.perf_counter() - started_s


def show(name: str, title: str, predictions: np.ndarray, labels: np.ndarray, rate: str) -> None:
    """One row."""
    whole, half = score(title, predictions, labels), len(labels) // 2
    later = score(title, predictions[half:], labels[half:]).log_loss
    print(f"| {name} | {title} | {whole.log_loss:.4f} | {later:.4f} | {whole.auc:.4f} | {rate} |", flush=True)


def print_stream(path: Path) -> None:
    """One row for each learner and mixture."""
    encoder, name = NumericEncoder(exact=True), path.name.partition(".")[0]
    batches = [encoder.encode(batch) for batch in batches_of(path)]
    labels = np.concatenate([batch.labels for batch in batches])
    found: dict[str, np.ndarray] = {}
    for title, learner in LEARNERS.items():
        run(learner, [batches[0]])  # compiles, imports
        found[title], seconds = run(learner, batches)
        show(name, title, found[title], labels, f"{len(labels) / seconds:,.0f}")
    for pair in MIXTURES:
        columns = np.stack([found[title] for title in pair], 1)
        show(name, f"mixture of {' and '.join(pair)}", Experts(2).learn(columns, labels), labels, "")


def main(
    data: Annotated[Path, typer.Option(help="Folder of the streams.")] = Path("../shared/data"),
    only: Annotated[str, typer.Option(help="Comma-separated names of streams; else all.")] = "",
) -> None:
    """Measure and print a table for RESULTS.md."""
    print(
        f"{machine()}\n\n| stream | learner | log-loss | second half | AUC | records/s |\n|---|---|--:|--:|--:|--:|"
    )
    for name in only.split(",") if only else STREAMS:
        path = data / f"{name}.csv.gz"
        if path.is_file():
            print_stream(path)
        else:
            print(f"{name} skipped: {path} is not there")


if __name__ == "__main__":
    typer.run(main)
