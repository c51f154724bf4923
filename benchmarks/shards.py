"""The parameter state at scale: cost of a look-up, of a row and of growth, and of a pull and push over shards on Ray.

Tables, one core: look-ups of present keys in a table of `--rows` rows, beside a Python dict and a numpy array that is
indexed by hash modulo its size (as fixed tables elsewhere are; two keys may share a slot there), in the same run; bytes
a row, all told; and the longest stops while a table grows from empty by `--keys` births at a time.

Cycles: one worker, two shards of `--rows` rows each, `--keys` distinct random keys a batch; a cycle pulls a batch's
rows, changes them and pushes them back. The ways, each with and without a second pull in flight where it can have one:

    two calls, object store    pull and push are calls of their own, arrays above 100 KB go through the object store
    two calls, inline          the same with arrays inside the calls (max_direct_call_object_size raised)
    one call, object store     the push travels with the next pull, and names its rows by the pull instead of by keys
    one call, inline           the product's way

    python -m benchmarks.shards [--rows 10000000] [--keys 100000] [--cycles 40] [--only tables|cycles]
"""

from __future__ import annotations

import logging
import tempfile
import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from actors.shard import ParameterShard
from benchmarks.measure import machine, on_one_core
from cluster.local_store import DirectShards
from cluster.loopback import stay_on_loopback
from cluster.store import ShardedStore
from learning.batch import Batch, BatchId
from learning.ftrl import Ftrl
from learning.grouping import shard_of_segment
from learning.keys import segment_of
from learning.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from learning.exchange import Moment, Pull, Push

SHARDS, ENTRIES, REPEATS = 2, 20, 7
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FTRL = Ftrl()


def keys_of(numbers: np.ndarray) -> np.ndarray:
    """Distinct keys that look like hashes, for distinct numbers."""
    mixed = numbers.astype(np.uint64) * GOLDEN
    return (mixed ^ (mixed >> np.uint64(29))) * GOLDEN


class FullShard(ParameterShard):
    """A shard that already holds the keys it owns of numbers 0 to `rows` times the number of shards."""

    def __init__(self, shard: int, learner: Ftrl, shards: int, rows: int) -> None:
        super().__init__(shard, learner)
        owner = shard_of_segment(shards)
        for first in range(0, rows * shards, 1_000_000):
            keys = keys_of(np.arange(first, min(first + 1_000_000, rows * shards)))
            own = keys[owner[segment_of(keys)] == shard]
            self._tables[0].open(own, None, 0, float("nan"), self._tables[0].tick + 1)

    def ready(self) -> int:
        """Rows held."""
        return int(self.status()["tables"]["weights"]["rows"])


def batches(count: int, keys: int, numbers: int) -> list[Batch]:
    """Batches of `keys` distinct random keys among `numbers`, 20 entries a record."""
    rng, made = np.random.default_rng(7), []
    records = keys // ENTRIES
    nothing, ones = np.full(records, np.nan), np.ones(records, np.float32)
    for number in range(count):
        drawn = np.unique(rng.integers(0, numbers, int(keys * 1.02) + 100))
        drawn_keys = keys_of(rng.permutation(drawn)[: records * ENTRIES])
        kinds = np.zeros(len(drawn_keys), np.uint8)
        offsets = np.arange(records + 1, dtype=np.int64) * ENTRIES
        batch_id = BatchId(0, number * records, (number + 1) * records)
        made.append(
            Batch(
                batch_id, drawn_keys, np.ones(len(drawn_keys), np.float32), kinds, offsets, ones * 0, ones,
                nothing, nothing, np.arange(records),
            )
        )  # fmt: skip
    return made


class TwoCalls:
    """A transport whose pushes and pulls are calls of their own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def exchange(self, shard: int, worker: int, moment: Moment, push: Push | None, pull: Pull | None) -> Any:
        """The push, waited for as its acknowledgement would be, then the pull."""
        if push is not None:
            self._inner.gather([self._inner.exchange(shard, worker, moment, push, None)])
        return self._inner.exchange(shard, worker, moment, None, pull)

    def gather(self, references: list[Any]) -> Any:
        """The answers."""
        return self._inner.gather(references)


def cycles_ms(transport: Any, stream: list[Batch], *, ahead: bool) -> list[float]:
    """Milliseconds of each cycle over the batches, without the first ones."""
    store, times = ShardedStore(0, transport, FTRL), []
    store.pull(stream[0])
    for number in range(len(stream)):
        started_s = time.perf_counter()
        pulled = store.wait()
        following = stream[number + 1] if number + 1 < len(stream) else None
        if ahead and following is not None:
            store.pull(following)
        pulled.tables[0].rows[:] += np.float32(0.01)
        store.push(pulled)
        if not ahead and following is not None:
            store.pull(following)
        times.append((time.perf_counter() - started_s) * 1e3)
    store.flush()
    return times[3:-1]


def over_ray(stream: list[Batch], rows: int, *, inline: bool) -> dict[tuple[str, bool], list[float]]:
    """Cycles of one and two calls on a local Ray whose limit for inline arrays is raised or not."""
    import ray

    from cluster.ray_session import local_ray_options
    from cluster.remote import RayShards

    measured: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        options = local_ray_options(4, folder)
        if not inline:
            options["_system_config"] = {}
        ray.init(namespace="millrace", logging_level=logging.ERROR, **options)
        shard_class: Any = ray.remote(num_cpus=1, max_restarts=0)(FullShard)
        shards: list[Any] = [shard_class.remote(shard, FTRL, SHARDS, rows) for shard in range(SHARDS)]
        held = ray.get([shard.ready.remote() for shard in shards], timeout=600)
        assert sum(held) == rows * SHARDS, f"the shards hold {held}"
        transport = RayShards(shards, 60.0)
        for ahead in (False, True):
            measured["one call", ahead] = cycles_ms(transport, stream, ahead=ahead)
        measured["two calls", False] = cycles_ms(TwoCalls(transport), stream, ahead=False)
        for shard in shards:
            ray.kill(shard)
        ray.shutdown()
    return measured


def print_cycles(rows: int, keys: int, cycles: int) -> None:
    """The table of cycles."""
    stream = batches(cycles + 4, keys, rows * SHARDS)
    print(f"\n**A pull and a push of {keys:,} distinct keys, 1 worker, {SHARDS} shards of {rows:,} rows**\n")
    print("| way | in flight | ms a cycle, median (10 % to 90 %) |\n|---|--:|--:|")
    for inline in (False, True):
        for (calls, ahead), times in over_ray(stream, rows, inline=inline).items():
            way = f"{calls}, {'inline' if inline else 'object store'}"
            _row(way, ahead, times)
    direct = DirectShards(SHARDS, FTRL)
    direct.shards = [FullShard(shard, FTRL, SHARDS, rows) for shard in range(SHARDS)]
    _row("called directly in one process, one core", False, cycles_ms(direct, stream, ahead=False))


def _row(way: str, ahead: bool, times: list[float]) -> None:
    low, middle, high = np.quantile(times, [0.1, 0.5, 0.9])
    print(f"| {way} | {2 if ahead else 1} | {middle:.1f} ({low:.1f} to {high:.1f}) |", flush=True)


def lookups(rows: int, keys: int) -> dict[str, float]:
    """Look-ups per second of present keys, contestants in turn; the dict maps int to row number."""
    every = keys_of(np.arange(rows))
    table = Table(FTRL.width)
    for first in range(0, rows, 1_000_000):
        table.locate(every[first : first + 1_000_000])
    plain = {key: row for row, key in enumerate(every.tolist())}
    size = 1 << int(np.ceil(np.log2(rows * 1.5)))
    weights, mask = np.zeros((size, 2), np.float32), np.uint64(size - 1)
    rng = np.random.default_rng(3)
    rates: dict[str, list[float]] = {}
    for repeat in range(REPEATS + 1):
        drawn = every[rng.integers(0, rows, keys)]
        as_ints = drawn.tolist()
        contestants: dict[str, tuple[Callable[[Any], Any], Any]] = {
            "table: rows of keys": (lambda wanted: table.rows[table.locate(wanted)], drawn),
            "numpy array by hash modulo size": (lambda wanted: weights[wanted & mask], drawn),
            "Python dict to row number": (lambda wanted: [plain[key] for key in wanted], as_ints),
        }
        for name, (function, wanted) in contestants.items():
            started_s = time.perf_counter()
            function(wanted)
            if repeat:
                rates.setdefault(name, []).append(keys / (time.perf_counter() - started_s))
    found = {name: float(np.median(values)) for name, values in rates.items()}
    return found | {"bytes a row": table.memory_bytes / rows}


def growth(rows: int, births: int) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Milliseconds of each locate of `births` new keys while a table grows to `rows`, and bytes a row on the way."""
    table, times, sizes = Table(FTRL.width), [], []
    for first in range(0, rows, births):
        fresh = keys_of(np.arange(first, first + births))
        started_s = time.perf_counter()
        table.locate(fresh)
        times.append((time.perf_counter() - started_s) * 1e3)
        if len(table) >= 1_000_000:
            sizes.append((len(table), table.memory_bytes / len(table)))
    return np.array(times), sizes


def print_tables(rows: int, keys: int) -> None:
    """Look-ups, memory and growth of a table."""
    found = on_one_core(lookups, rows, keys)
    memory = found.pop("bytes a row")
    base = found["Python dict to row number"]
    print(f"\n**Look-ups of {keys:,} present keys among {rows:,}, one core, median of {REPEATS}**\n")
    print("| way | million a second | against the dict |\n|---|--:|--:|")
    for name, rate in found.items():
        print(f"| {name} | {rate / 1e6:.1f} | {rate / base:.1f} |")
    times, sizes = on_one_core(growth, int(rows * 1.2), keys // 2)
    of_rows = [size for _, size in sizes]
    half = times[len(times) // 2 :]
    print(
        f"\nA row of FTRL, key included: {memory:.1f} bytes at {rows:,} rows; from 1 M rows on between ",
        end="",
    )
    print(
        f"{min(of_rows):.1f} and {max(of_rows):.1f}. Locating {keys // 2:,} new keys while growing to ",
        end="",
    )
    print(
        f"{int(rows * 1.2):,} rows: median {np.median(half):.1f} ms, p99 {np.quantile(half, 0.99):.1f} ms, ",
        end="",
    )
    print(f"longest {half.max():.1f} ms (second half of the way).")


def main(
    rows: Annotated[int, typer.Option(help="Rows of a table, and of each shard.")] = 10_000_000,
    keys: Annotated[int, typer.Option(help="Distinct keys of a batch.")] = 100_000,
    cycles: Annotated[int, typer.Option(min=10)] = 40,
    only: Annotated[str, typer.Option(help="tables or cycles; else both.")] = "",
) -> None:
    """Measure and print tables for RESULTS.md."""
    stay_on_loopback()
    print(machine())
    if only != "cycles":
        print_tables(rows, keys)
    if only != "tables":
        print_cycles(rows, keys, cycles)


if __name__ == "__main__":
    typer.run(main)
