"""What several workers cost in quality: progressive log-loss of rules that merge walks, beside sequential learning.

One process and fixed interleavings, so every figure is exactly repeatable. Batch m of the stream belongs to worker
m modulo W; pushes are applied in the order of the batches. An order says how many pushes a pull has seen:

    round        all W workers pull, all learn, all push
    turns        a worker pulls when it has pushed, as over ShardedStore: W - 1 other pushes come in between
    pipelined    a worker pulls one push earlier, before its own last one: W pushes come in between

Streams: seeded Zipf keys (20 categories and the bias), and a file through the product's own decoder and encoder.
"Staleness alone" learns all earlier rounds exactly, and only the batches of one round do not see each other: what a
rule loses beyond it, it loses by merging.

    python -m benchmarks.merge [--data ../shared/data/criteo_dac80k.csv.gz] [--alpha 0.1] [--order turns]
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.measure import machine
from benchmarks.merge_rules import RULES, Push
from cluster.config import build_pipeline
from cluster.streams.open import open_source
from learning.batch import Batch, BatchId
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from learning.grouping import KeyGrouper
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.merge_rules import Rule
    from learning.grouping import GroupedKeys

    Losses = tuple[float, float]

SIZES, WORKERS = (256, 1024, 4096), (2, 4, 8)
ORDERS = {"round": None, "turns": 0, "pipelined": 1}
COLUMNS, VALUES = 20, 5000
RECORD_COLUMNS = ("labels", "weights", "event_times_s", "produced_s", "positions")
CRITEO = Path("../shared/data/criteo_dac80k.csv.gz")


class Stream:
    """A whole stream in memory, cut into batches; keys are resolved to rows once."""

    def __init__(self, whole: Batch) -> None:
        self.whole = whole
        table = Table(1)
        self.bias = int(table.locate(np.array([BIAS_KEY], np.uint64))[0])
        self.index = table.locate(whole.keys)
        self.rows = len(table)
        self._table = table
        self._cuts: dict[int, list[tuple[Batch, GroupedKeys, NDArray[np.int64]]]] = {}

    def cut(self, size: int) -> list[tuple[Batch, GroupedKeys, NDArray[np.int64]]]:
        """Batches of `size` records, their distinct keys, and the rows of those."""
        if size not in self._cuts:
            grouper, made = KeyGrouper(1), []
            for first in range(0, len(self.whole), size):
                batch = _part(self.whole, first, min(first + size, len(self.whole)))
                grouped = grouper.group(batch.keys)
                made.append((batch, grouped, self._table.find(grouped.keys)))
            self._cuts[size] = made
        return self._cuts[size]

    def fresh(self) -> NDArray[np.float32]:
        """Rows of a model that has seen nothing."""
        return np.zeros((self.rows, Ftrl.width), np.float32)

    def losses(self, predictions: NDArray[Any]) -> Losses:
        """Log-loss of the whole stream and of its second half."""
        y = self.whole.labels
        with np.errstate(all="ignore"):
            loss = -np.log(np.maximum(np.where(y > 0, predictions, 1 - predictions), 1e-15))
        loss = np.where(np.isfinite(loss), loss, 35.0)
        return float(loss.mean()), float(loss[len(loss) // 2 :].mean())


def _part(batch: Batch, first: int, last: int) -> Batch:
    """Records first to last of a batch."""
    entries, records = slice(batch.offsets[first], batch.offsets[last]), slice(first, last)
    return replace(
        batch,
        batch_id=BatchId(0, first, last),
        keys=batch.keys[entries],
        values=batch.values[entries],
        kinds=batch.kinds[entries],
        offsets=batch.offsets[first : last + 1] - batch.offsets[first],
        **{name: getattr(batch, name)[records] for name in RECORD_COLUMNS},
    )


def zipf_stream(count: int, seed: int = 1) -> Stream:
    """`count` records of 20 Zipf categories, from a seed."""
    rng = np.random.default_rng(seed)
    ids = (rng.zipf(1.3, size=(count, COLUMNS)) % VALUES).astype(np.uint64)
    effect = rng.normal(size=(COLUMNS, VALUES))[np.arange(COLUMNS), ids].sum(axis=1) - 1.5
    labels = (rng.random(count) < 1 / (1 + np.exp(-effect))).astype(np.float32)
    names = np.arange(COLUMNS, dtype=np.uint64) + np.uint64(1)
    keys = ((ids * np.uint64(64) + names) * np.uint64(0x9E3779B97F4A7C15)).ravel()
    ones, nothing = np.ones(len(keys), np.float32), np.full(count, np.nan)
    offsets = np.arange(count + 1, dtype=np.int64) * COLUMNS
    return Stream(
        Batch(
            BatchId(0, 0, count), keys, ones, np.zeros(len(keys), np.uint8), offsets, labels,
            np.ones(count, np.float32), nothing, nothing, np.arange(count),
        )
    )  # fmt: skip


def file_stream(path: Path) -> Stream:
    """A file as a job would learn it: decoded, and encoded with the default encoder in one pass."""
    values = {
        "name": "merge",
        "source": {"kind": "file", "path": str(path)},
        "cluster": {"workers": 1, "shards": 1},
    }
    source = open_source(build_pipeline(values, [], origin="benchmark"), {0: (0, None)})
    encoder, parts = NumericEncoder(), []
    while not source.exhausted:
        decoded = source.poll(60.0)
        if decoded is not None:
            parts.append(encoder.encode(decoded.batch))
    source.close()
    return Stream(Batch.concat(BatchId(0, 0, sum(len(part) for part in parts)), parts))


def sequential(stream: Stream, ftrl: Ftrl) -> Losses:
    """What one process makes of the stream."""
    return stream.losses(ftrl.learn([TableRows(stream.fresh(), stream.index, stream.bias)], stream.whole))


def staleness_alone(stream: Stream, ftrl: Ftrl, workers: int, size: int) -> Losses:
    """Losses of the `round` order if every earlier round had been learnt sequentially."""
    cut, rows, out = stream.cut(size), stream.fresh(), []
    for first in range(0, len(cut), workers):
        of_round = cut[first : first + workers]
        for batch, grouped, at in of_round:
            out.append(ftrl.learn([TableRows(rows[at], grouped.index, grouped.bias)], batch))
        for batch, grouped, at in of_round:
            end = rows[at]
            ftrl.learn([TableRows(end, grouped.index, grouped.bias)], batch)
            rows[at] = end
    return stream.losses(np.concatenate(out))


def simulate(stream: Stream, ftrl: Ftrl, rule: Rule, workers: int, size: int, order: str) -> Losses:
    """Losses of `workers` workers on batches of `size` records, with pushes merged by `rule`."""
    cut, rows, out = stream.cut(size), stream.fresh(), []
    done = np.zeros(stream.rows, np.int64)  # pushes of each row
    holds = np.zeros(stream.rows, np.int64)
    opened: list[Any] = []
    ahead = ORDERS[order]
    for m in range(len(cut)):
        pulls = (m // workers + 1) * workers if ahead is None else m + workers + ahead
        for batch, grouped, at in cut[len(opened) : pulls]:
            base = rows[at]
            end = base.copy()
            out.append(ftrl.learn([TableRows(end, grouped.index, grouped.bias)], batch))
            coupled = ftrl.coupling([base], [TableRows(end, grouped.index, grouped.bias)], batch)
            opened.append((base, end, coupled, done[at]))
            holds[at] += 1
        base, end, coupled, before = opened[m]
        at = cut[m][2]
        holders = np.minimum(holds[at] + done[at] - before, workers)
        rule(rows, Push(at, base, end, workers, holders, coupled), stream.bias, ftrl)
        holds[at] -= 1
        done[at] += 1
        opened[m] = None  # what is done need not be kept
    return stream.losses(np.concatenate(out))


def product(rows: NDArray[np.float32], push: Push, bias: int, ftrl: Ftrl) -> None:
    """The rule that the shards apply."""
    ftrl.merge(0, rows, push.at, push.base, push.end, bias, push.coupling)


def table(stream: Stream, ftrl: Ftrl, order: str, title: str) -> None:
    """Print one Markdown table: how far above sequential learning each rule ends, in percent."""
    reference, started_s = sequential(stream, ftrl), time.perf_counter()
    cells = [(w, size) for w in ((1, *WORKERS) if order == "pipelined" else WORKERS) for size in SIZES]
    whole = f"{reference[0]:.4f} / {reference[1]:.4f}"
    print(
        f"\n{title}, {len(stream.whole):,} records, alpha {ftrl.alpha}, order {order}; sequential {whole}\n"
    )
    print("| % above sequential | " + " | ".join(f"{w} x {size}" for w, size in cells) + " |")
    print("|---|" + "--:|" * len(cells))
    if order == "round":
        found = [staleness_alone(stream, ftrl, w, size) for w, size in cells]
        _row("*staleness alone*", found, reference)
    for name, rule in ({f"product, kappa {ftrl.kappa:g}": product} | RULES).items():
        if order != "pipelined":
            alone = simulate(stream, ftrl, rule, 1, SIZES[1], order)
            assert alone == reference, f"{name}: one worker got {alone}, sequential is {reference}"
        _row(name, [simulate(stream, ftrl, rule, w, size, order) for w, size in cells], reference)
    print(f"\n{time.perf_counter() - started_s:.0f} s", flush=True)


def _row(name: str, found: list[Losses], reference: Losses) -> None:
    cells = (
        " / ".join(f"{100 * (got / best - 1):.2f}" for got, best in zip(losses, reference, strict=True))
        for losses in found
    )
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main(
    data: Annotated[Path, typer.Option(help="File of a real stream, label y.")] = CRITEO,
    records: Annotated[int, typer.Option(help="Records of the Zipf stream.")] = 200_000,
    alpha: Annotated[list[float] | None, typer.Option(help="Learning rates; 0.1 and 0.05.")] = None,
    order: Annotated[list[str] | None, typer.Option(help="round, turns, pipelined; all.")] = None,
) -> None:
    """Print all tables for RESULTS.md, each cell as whole stream / second half."""
    streams = {"Zipf": zipf_stream(records)}
    if data.exists():
        streams[data.name.partition(".")[0]] = file_stream(data)
    else:
        print(
            f"{data} is not there, so only the Zipf stream is measured; name a CSV file with a label y by --data."
        )
    print(f"{machine()}; one run, nothing in it is random")
    for rate in alpha or (0.1, 0.05):
        for name, stream in streams.items():
            for kind in order or ORDERS:
                table(stream, Ftrl(alpha=rate), kind, name)


if __name__ == "__main__":
    typer.run(main)
