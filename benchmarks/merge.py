"""What several workers cost in quality: progressive log-loss of rules that merge walks, beside sequential learning.

One process and fixed interleavings, so every figure is exactly repeatable. Batch m of the stream belongs to worker
m modulo W; pushes are applied in the order of the batches. An order says how many pushes a pull has not seen:

    round    all W workers pull, all learn, all push
    turns    a worker pulls when it has learnt, and its push goes with that pull (cluster.pulls_in_flight_max 1): the
             W - 1 pushes of the others come between a pull and its push
    ahead    a worker pulls its next batch before it learns this one, and the push of the one before goes with that
             pull (pulls_in_flight_max 2): 2 W - 1 pushes come in between, one of them its own, which is carried into
             the pulled rows by the same rule

    warmed   as `ahead`, but a pull waits while it could be staler than a share of all records pushed so far
             (staleness_share_max; 0.1 is the default): workers begin in turns

tests/actors/test_merge_simulation.py proves for the shards' own rule that this is what ShardedStore computes. With
one worker all is sequential learning, to the bit; the benchmark asserts it.

Streams: seeded Zipf keys (20 categories and the bias), and a file through the product's own decoder and encoder.
"Staleness alone" learns what was pushed exactly, and only what was not is missing, the own walk excepted: what a rule
loses beyond it, it loses by merging. `--ray` runs whole jobs on the Zipf stream instead.

    python -m benchmarks.merge [--data ../shared/data/criteo_dac80k.csv.gz] [--alpha 0.1] [--order ahead]
    python -m benchmarks.merge --ray
"""

from __future__ import annotations

import io
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from kafka import KafkaProducer

from benchmarks.measure import machine
from benchmarks.merge_rules import ORDERS, RULES, Simulation, moves
from cluster.broker.process import BrokerProcess
from cluster.config import build_pipeline
from cluster.loopback import stay_on_loopback
from cluster.snapshots.store import SnapshotStore
from cluster.snapshots.writing import SnapshotWriter
from cluster.starts import Start, Starter
from cluster.streams.open import open_source
from cluster.supervise import Supervisor
from cluster.warm import warm_up
from learning.batch import Batch, BatchId
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from learning.grouping import KeyGrouper
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.staleness import StalenessHistogram
from learning.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from benchmarks.merge_rules import Push, Rule
    from learning.grouping import GroupedKeys

    Losses = tuple[float, float]

SIZES, WORKERS = (256, 1024, 4096), (2, 4, 8)
COLUMNS, VALUES = 20, 5000
PARTITIONS, RAY_SIZE, RAY_REPEATS = 4, 1024, 3
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


def zipf_columns(count: int, seed: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Categories u64 (count, 20) and labels, from a seed."""
    rng = np.random.default_rng(seed)
    ids = (rng.zipf(1.3, size=(count, COLUMNS)) % VALUES).astype(np.uint64)
    effect = rng.normal(size=(COLUMNS, VALUES))[np.arange(COLUMNS), ids].sum(axis=1) - 1.5
    return ids, (rng.random(count) < 1 / (1 + np.exp(-effect))).astype(np.float32)


def zipf_stream(count: int, seed: int = 1) -> Stream:
    """`count` records of 20 Zipf categories, from a seed."""
    ids, labels = zipf_columns(count, seed)
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


def staleness_alone(stream: Stream, ftrl: Ftrl, workers: int, size: int, order: str) -> Losses:
    """Losses if all pushed batches had been learnt sequentially, and a worker's own on top of them."""
    cut, rows, out = stream.cut(size), stream.fresh(), []

    def learn(rows: NDArray[np.float32], m: int) -> None:
        batch, grouped, at = cut[m]
        end = rows[at]
        ftrl.learn([TableRows(end, grouped.index, grouped.bias)], batch)
        rows[at] = end

    pushed, pulled = -1, {}
    for move, m in moves(order, len(cut), workers):
        batch, grouped, at = cut[m]
        if move == "pull":
            known = rows
            if pushed < m - workers:
                known = rows.copy()
                learn(known, m - workers)
            pulled[m] = known[at]
        elif move == "learn":
            out.append(ftrl.learn([TableRows(pulled.pop(m), grouped.index, grouped.bias)], batch))
        else:
            learn(rows, m)
            pushed = m
    return stream.losses(np.concatenate(out))


def simulate(stream: Stream, ftrl: Ftrl, rule: Rule, workers: int, size: int, order: str) -> Losses:
    """Losses of `workers` workers on batches of `size` records, with pushes merged by `rule`."""
    return stream.losses(Simulation(stream, ftrl, rule, workers, size).run(order))


def product(rows: NDArray[np.float32], push: Push, bias: int, ftrl: Ftrl) -> None:
    """The rule that the shards apply."""
    ftrl.merge(0, rows, push.at, push.base, push.end, bias, push.coupling)


def table(stream: Stream, ftrl: Ftrl, order: str, title: str) -> None:
    """Print one Markdown table: how far above sequential learning each rule ends, in percent."""
    reference, started_s = sequential(stream, ftrl), time.perf_counter()
    cells = [(w, size) for w in WORKERS for size in SIZES]
    whole = f"{reference[0]:.4f} / {reference[1]:.4f}"
    print(
        f"\n{title}, {len(stream.whole):,} records, alpha {ftrl.alpha}, order {order}; sequential {whole}\n"
    )
    print("| % above sequential | " + " | ".join(f"{w} x {size}" for w, size in cells) + " |")
    print("|---|" + "--:|" * len(cells))
    found = [staleness_alone(stream, ftrl, w, size, order) for w, size in cells]
    _row("*staleness alone*", found, reference)
    for name, rule in ({f"product, kappa {ftrl.kappa:g}": product} | RULES).items():
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


def zipf_messages(count: int) -> Iterator[bytes]:
    """The Zipf stream as Arrow messages of one batch each, its categories as text."""
    ids, labels = zipf_columns(count, 1)
    for first in range(0, count, RAY_SIZE):
        part = slice(first, first + RAY_SIZE)
        columns = {f"c{k}": pa.array(ids[part, k].astype(str)) for k in range(COLUMNS)}
        batch = pa.RecordBatch.from_pydict(columns | {"label": pa.array(labels[part])})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield sink.getvalue()


def job(
    servers: str, records: int, workers: int, share: float | None
) -> tuple[float, StalenessHistogram, int, float]:
    """One whole job on Ray: log-loss, staleness in records (of all pushes, and the largest), seconds."""
    from cluster.launch import RayCluster

    with tempfile.TemporaryDirectory() as folder:
        values = {
            "name": "merge",
            "source": {"kind": "kafka", "topic": "zipf", "until": "end", "bootstrap_servers": servers},
            "cluster": {"workers": workers, "shards": 2, "staleness_share_max": share},
            "batch_records": RAY_SIZE,
            "snapshots": {"interval_s": 0},
            "mlflow": {"enabled": False},
        }
        pipeline = build_pipeline(values, [], origin="benchmark")
        store, started_s = SnapshotStore(folder, print), 0.0
        starter = Starter(pipeline, store, folder, Path(folder), print, local=False)

        def begun(_: Start) -> None:
            nonlocal started_s
            started_s = time.perf_counter()

        with RayCluster(pipeline) as cluster:
            writer = SnapshotWriter(cluster, store, pipeline, print)
            status, _ = Supervisor(cluster, pipeline, starter, writer, lambda _: None, print).run(begun)
            seconds = time.perf_counter() - started_s
            writer.close()
            shard = cluster.shard_status()[0]
    assert status.metrics.records == records, f"{status.metrics.records} of {records} records were learnt"
    return (
        status.metrics.summary()["log_loss"],
        StalenessHistogram(shard["staleness"]),
        shard["staleness_max"],
        seconds,
    )


def on_ray(records: int) -> None:
    """Print, for 1, 2 and 4 workers that begin at once or in turns, how far whole jobs end above one process."""
    stay_on_loopback()
    import ray

    from cluster.ray_session import local_ray_options

    stream, ftrl = zipf_stream(records), Ftrl()
    reference = sequential(stream, ftrl)[0]
    warm_up(ftrl)
    print(f"{machine()}; {records:,} records, batches of {RAY_SIZE}, sequential {reference:.6f}\n")
    print("| workers | share of staleness | % above sequential | simulated | staleness p50 / p99 / max | s |")
    print("|--:|--:|--:|--:|--:|--:|")
    with (
        tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder,
        BrokerProcess(Path(folder) / "broker", topics={"zipf": PARTITIONS}) as broker,
    ):
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, max_request_size=2**23)
        for turn, message in enumerate(zipf_messages(records)):
            producer.send("zipf", message, partition=turn % PARTITIONS)
        producer.flush(120)
        producer.close()
        ray.init(namespace="millrace", logging_level=logging.ERROR, **local_ray_options(8, folder))
        for workers, share in [(w, share) for w in (1, 2, 4) for share in (None, 0.1)]:
            order = "ahead" if share is None else f"warmed {share}"
            expected = simulate(stream, ftrl, product, workers, RAY_SIZE, order)[0]
            for _ in range(RAY_REPEATS):
                loss, staleness, most, seconds = job(broker.bootstrap_servers, records, workers, share)
                print(
                    f"| {workers} | {share or 'none'} | {100 * (loss / reference - 1):.2f} "
                    f"| {order} {100 * (expected / reference - 1):.2f} | {staleness.quantile(0.5):.0f} / "
                    f"{staleness.quantile(0.99):.0f} / {most} | {seconds:.1f} |",
                    flush=True,
                )
        ray.shutdown()


def main(
    data: Annotated[Path, typer.Option(help="File of a real stream, label y.")] = CRITEO,
    records: Annotated[int, typer.Option(help="Records of the Zipf stream.")] = 200_000,
    alpha: Annotated[list[float] | None, typer.Option(help="Learning rates; 0.1 and 0.05.")] = None,
    order: Annotated[list[str] | None, typer.Option(help="round, turns, ahead; all.")] = None,
    *,
    ray: Annotated[bool, typer.Option("--ray", help="Whole jobs on Ray instead of the simulation.")] = False,
) -> None:
    """Print all tables for RESULTS.md, each cell as whole stream / second half."""
    if ray:
        on_ray(records)
        return
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
