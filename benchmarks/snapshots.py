"""What snapshots cost a job that learns, by the size of its tables: pauses, bytes, throughput, and coming back.

A run is given a whole snapshot of so many rows, whose keys are those of the stream, and continued on Ray: 1 worker, 2
shards, FTRL, Arrow records of 10 categories with Zipf popularity. Three ways, in turns: no snapshot but the last one;
a difference every `interval` records; a whole one every `interval` records. A pause is how long the worker stands
still: from the moment it has nothing in hand any more until it goes on. Then a shard is killed (kill -9), and the time
is taken until records are learnt again.

    python -m benchmarks.snapshots [--millions 1,10,30] [--repeats 5]
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from kafka import KafkaProducer
from numba import njit
from rich.console import Console

from benchmarks.measure import machine, median_of
from cluster.broker.process import BrokerProcess
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobResult, run_job
from cluster.loopback import stay_on_loopback
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.job_arrays import arrays_of_job
from cluster.snapshots.manifest import SnapshotManifest
from cluster.snapshots.part_files import write_arrays, write_part
from cluster.snapshots.store import SnapshotStore
from cluster.warm import warm_up
from learning.ftrl import Ftrl
from learning.grouping import shard_of_segment
from learning.job_state import JobState
from learning.keys import BIAS_KEY, name_key, segment_of, xxh64
from learning.metrics import Prequential
from learning.table_state import TableState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

FEATURES, ROWS, SHARDS, RECORDS, INTERVAL = 10, 4096, 2, 600_000, 60_000
INTERVAL_S = 30.0
"""What a pipeline has that says nothing else; here snapshots come every third of a second, to have many."""
WAYS: dict[str, list[str]] = {
    "none": ["snapshots.interval_records=0"],
    "differences": [f"snapshots.interval_records={INTERVAL}", "snapshots.deltas_max=1000"],
    "whole": [f"snapshots.interval_records={INTERVAL}", "snapshots.deltas_max=0"],
}


@njit
def _keys_of(first, keys, seed):  # noqa: ANN001, ANN202 - numba infers types
    """Keys of the categories "first", "first + 1" and so on, of the feature whose name's key is `seed`."""
    text = np.empty(20, np.uint8)
    for i in range(len(keys)):
        number, size = first + i, 0
        while number or not size:
            text[19 - size], number, size = 48 + number % 10, number // 10, size + 1
        keys[i] = xxh64(text[20 - size :].copy(), 0, size, seed)


class _Rows:
    """A shard's part of the snapshot that a run begins with (a FrozenPart)."""

    def __init__(self, rows: int, shard: int) -> None:
        self._rows, self._shard = rows, shard

    def tables(self) -> list[str]:
        """FTRL has one."""
        return ["weights"]

    def chunks(self, _table: str) -> Iterator[TableState]:
        """All categories of all features, and the bias."""
        yield self._own(np.array([BIAS_KEY], np.uint64))
        of_feature, step = self._rows // FEATURES, 1_000_000
        for feature in range(FEATURES):
            for first in range(0, of_feature, step):
                keys = np.empty(min(step, of_feature - first), np.uint64)
                _keys_of(first, keys, name_key(f"c{feature}"))
                yield self._own(keys)

    def removed(self, _table: str) -> NDArray[np.uint64]:
        """Nothing went."""
        return np.empty(0, np.uint64)

    def side(self, _table: str) -> dict[str, NDArray[Any]]:
        """Nothing beside the rows."""
        return {}

    def _own(self, keys: NDArray[np.uint64]) -> TableState:
        keys = keys[shard_of_segment(SHARDS)[segment_of(keys)] == self._shard]
        rows = np.random.default_rng(1).normal(0.0, 1.0, (len(keys), 2)).astype(np.float32)
        return TableState(keys, np.abs(rows))


def write_base(run: Path, pipeline: Pipeline, rows: int) -> int:
    """A run whose first snapshot has `rows` rows and stands at the stream's start; returns its bytes."""
    store = SnapshotStore(str(run), print)
    generation = store.next_generation()
    folder = store.folder(1)
    parts = []
    for shard in range(SHARDS):
        prefix = f"shard{shard}_g{generation}"
        parts.append(PartFiles.of(prefix, write_part(folder, prefix, _Rows(rows, shard))))
    nothing = {"encoder.keys": np.empty(0, np.uint64), "encoder.stats": np.empty((0, 3))}
    state = JobState(1, {0: 0}, 0, 0, Prequential.zero(), workers={0: nothing})
    job = PartFiles.of(f"job_g{generation}", write_arrays(folder, f"job_g{generation}", arrays_of_job(state)))
    store.commit(
        SnapshotManifest(
            1, generation, None, SHARDS, pipeline.model_dump(mode="json"), {0: 0}, {0: RECORDS // ROWS}, 0, 0, {},
            {}, tuple(parts), job, "benchmark", time.time(),
        )
    )  # fmt: skip
    return sum(entry.size_bytes for part in parts for entry in part.files)


def fill(servers: str, topic: str, rows: int) -> None:
    """RECORDS records as Arrow messages; of each feature some categories are popular, and all may come."""
    rng = np.random.default_rng(2)
    producer = KafkaProducer(bootstrap_servers=servers, max_request_size=2**23)
    for _ in range(RECORDS // ROWS):
        names = {
            f"c{f}": pa.array((rows // FEATURES * rng.random(ROWS) ** 4).astype(np.int64).astype(str))
            for f in range(FEATURES)
        }
        batch = pa.RecordBatch.from_pydict({**names, "label": pa.array(rng.integers(0, 2, ROWS))})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        producer.send(topic, sink.getvalue(), partition=0)
    producer.flush(120)
    producer.close()


class Said(io.StringIO):
    """What a job says, with the time at which it did."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, str]] = []

    def write(self, text: str) -> int:
        """Note it."""
        self.lines.append((time.monotonic(), text))
        return len(text)

    def when(self, words: str) -> float:
        """When the first line with these words was said."""
        return next(at for at, line in self.lines if words in line)


class Bench:
    """One size of tables."""

    def __init__(self, servers: str, folder: Path, rows: int) -> None:
        self._servers, self._folder, self._rows = servers, folder, rows
        self._topic = f"rows{rows}"
        fill(servers, self._topic, rows)
        self._runs = self._base_bytes = 0
        self._base = folder / f"base-{rows}"

    def job(
        self, overrides: list[str], watch: Callable[[], None] = lambda: None
    ) -> tuple[JobResult, Said, int]:
        """Continue a fresh run of so many rows to the stream's end; also the bytes of its first snapshot."""
        self._runs += 1
        values: dict[str, Any] = {
            "name": "bench", "run": f"rows{self._rows}-{self._runs}",
            "source": {
                "kind": "kafka", "topic": self._topic, "until": "end", "bootstrap_servers": self._servers,
            },
            "cluster": {"workers": 1, "shards": SHARDS},
            "snapshots": {"path": str(self._folder), "interval_s": 0, "keep": 1000},
            "mlflow": {"enabled": False},
        }  # fmt: skip
        pipeline = build_pipeline(values, overrides, origin="benchmark")
        run = self._folder / values["run"]
        if not self._base_bytes:
            self._base_bytes = write_base(self._base, pipeline, self._rows)
        shutil.copytree(self._base, run, copy_function=os.link)  # nothing that is finished is written again
        (run / "generation.json").unlink()
        said = Said()
        return run_job(pipeline, Console(file=said, width=300), watch=watch), said, self._base_bytes

    def way(self, overrides: list[str]) -> dict[str, float]:
        """Rate, pauses, and the bytes of what was written between the first and the last snapshot."""
        result, _, base = self.job(overrides)
        store = SnapshotStore(str(result.run_folder), print)
        sizes = [
            sum(e.size_bytes for part in store.manifest(n).parts for e in part.files)
            for n in store.numbers()[1:]
        ]
        pauses = result.figures.status.pauses
        shutil.rmtree(result.run_folder)
        return {
            "seconds": result.seconds, "p50": pauses.quantile_s(0.5), "p99": pauses.quantile_s(0.99),
            "snapshots": float(pauses.counts.sum()), "bytes": float(np.median(sizes)), "base": float(base),
        }  # fmt: skip

    def kill(self) -> dict[str, float]:
        """Seconds from kill -9 of a shard until it is noticed, until all have begun again, and of loading alone."""
        killed: list[float] = []
        seen = 0

        def watch() -> None:
            nonlocal seen
            seen += 1
            if seen == 4 and not killed:
                killed.append(time.monotonic())
                os.kill(_shard_process(), 9)

        result, said, _ = self.job(WAYS["differences"], watch)
        noticed, again = said.when("going back"), said.when("learning again")
        shutil.rmtree(result.run_folder)
        return {"noticed": noticed - killed[0], "again": again - killed[0]}


def _shard_process() -> int:
    """A process of a shard: this benchmark's is the only Ray that has one."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and b"ray::ShardActor" in (folder / "cmdline").read_bytes():
            return int(folder.name)
    raise RuntimeError("expected a process of a shard, but there is none")


def main(
    millions: Annotated[str, typer.Option(help="Sizes of the tables, in millions of rows.")] = "1,10,30",
    repeats: Annotated[int, typer.Option(min=5)] = 5,
) -> None:
    """Measure and print tables for RESULTS.md."""
    stay_on_loopback()
    import ray

    from cluster.ray_session import local_ray_options

    warm_up(Ftrl())
    print(f"{machine()}; {RECORDS:,} records, snapshots every {INTERVAL:,}; median of {repeats} jobs\n")
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        sizes = [round(float(m) * 1e6) for m in millions.split(",")]
        topics = {f"rows{rows}": 1 for rows in sizes}
        with BrokerProcess(Path(folder) / "broker", topics=topics) as broker:
            ray.init(
                namespace="millrace",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **local_ray_options(8, folder),
            )
            for rows in sizes:
                report(Bench(broker.bootstrap_servers, Path(folder) / "runs", rows), rows, repeats)
            ray.shutdown()


def report(bench: Bench, rows: int, repeats: int) -> None:
    """The table of one size."""
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, overrides in WAYS.items():
            measured[way].append(bench.way(overrides))
    print(
        f"{rows:,} rows\n\n| snapshots | pause p50 / p99, ms | MB each | s lost by each | share at one in 30 s |"
    )
    print("|---|--:|--:|--:|--:|")
    for way in ("differences", "whole"):
        of = measured[way]
        p50, p99, size = (median_of([m[name] for m in of]) for name in ("p50", "p99", "bytes"))
        lost = median_of(
            [
                (m["seconds"] - none["seconds"]) / m["snapshots"]
                for m, none in zip(of, measured["none"], strict=True)
            ]
        )
        pauses = f"{1000 * p50:.1f} / {1000 * p99:.1f}"
        print(f"| {way} | {pauses} | {size / 1e6:,.1f} | {lost:.2f} | {lost / INTERVAL_S:.1%} |")
    kills = [bench.kill() for _ in range(repeats)]
    noticed, again = (median_of([k[name] for k in kills]) for name in ("noticed", "again"))
    print(
        f"\nkill -9 of a shard: noticed after {noticed:.2f} s, learning again after {again:.1f} s\n",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
