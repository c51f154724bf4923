"""The torch learner alone, without Ray and Kafka: records a second by size of step, on whatever device there is.

Carry learning/ and benchmarks/ to any machine with numpy, numba, torch and typer. Each record has 39 entries of Zipf
keys; rows come as from the shards. A batch is one gradient step. Ways:

    plain      what a tutorial writes: nn.EmbeddingBag and nn.Linear on the device, Adam over all of it, loss.item()
               each step; it keeps its parameters there, and has a fixed number of keys
    eager      the product: rows and dense parameters go to the device and come back with each batch
    compiled   the same with torch.compile
    bf16       the same with autocast to bfloat16

`transfer` is the share of a batch's time that the arrays' way there and back takes (measured alone, on a GPU only), and
`memory` the peak on the device (a GPU only).

    python -m benchmarks.gpu [--quick] [--sizes 256,4096,65536] [--models mlp,deepfm]
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from benchmarks.measure import machine, spread
from learning.batch import CATEGORY, ROLE_FIRST, Batch, BatchId
from learning.deep import Deep
from learning.deep_device import Device
from learning.learner import TableRows
from learning.table import Table

ENTRIES, KEYS, REPEATS = 39, 1_000_000, 5
SIZES = (256, 1024, 4096, 16_384, 65_536)
QUICK_SIZES = (256, 1024)
MODELS: dict[str, Deep] = {
    "mlp": Deep(model="mlp"),
    "deepfm": Deep(),
    "two_tower": Deep(model="two_tower"),
    "multi_task": Deep(model="multi_task", second_label="like"),
}
WAYS: dict[str, dict[str, Any]] = {"eager": {}, "compiled": {"compile": True}, "bf16": {"autocast": True}}


def batch_of(records: int, seed: int) -> Batch:
    """Records of Zipf keys; the first two entries are of the roles."""
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.2, size=(records, ENTRIES)).astype(np.uint64) % np.uint64(KEYS // ENTRIES)
    keys: np.ndarray = (
        ids * np.uint64(ENTRIES) + np.arange(ENTRIES, dtype=np.uint64) + np.uint64(1)
    ) * np.uint64(0x9E3779B97F4A7C15)
    kinds = np.full((records, ENTRIES), CATEGORY, np.uint8)
    kinds[:, 0], kinds[:, 1] = ROLE_FIRST, ROLE_FIRST + 1
    nothing = np.full(records, np.nan)
    return Batch(
        batch_id=BatchId(0, seed * records, (seed + 1) * records), keys=keys.ravel(),
        values=np.ones(records * ENTRIES, np.float32), kinds=kinds.ravel(),
        offsets=np.arange(records + 1, dtype=np.int64) * ENTRIES,
        labels=rng.integers(0, 2, records).astype(np.float32), weights=np.ones(records, np.float32),
        event_times_s=nothing, produced_s=nothing, positions=np.arange(records, dtype=np.int64),
    )  # fmt: skip


def pulled(tables: list[Table], learner: Deep, batch: Batch) -> list[TableRows]:
    """Rows of a batch as a worker has them: those of its distinct keys."""
    found = []
    for table, keys in zip(tables, learner.keys(batch), strict=True):
        distinct, index = np.unique(table.locate(keys), return_inverse=True)
        found.append(TableRows(table.rows[distinct], index))
    return found


def product(learner: Deep, batches: list[Batch]) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """Learning of a batch, and its transfers alone."""
    tables = [Table(spec.width, birth=spec.birth) for spec in learner.specs()]
    rows = [pulled(tables, learner, batch) for batch in batches]
    device = Device(learner)

    def learn(i: int) -> None:
        learner.learn(rows[i % len(rows)], batches[i % len(rows)])

    def transfer(i: int) -> None:
        embeddings, dense = rows[i % len(rows)]
        sent = [device.send(a) for a in (embeddings.rows, embeddings.index, dense.rows)]
        for tensor in (sent[0], sent[2]):
            tensor.cpu()

    return learn, transfer


class Plain(nn.Module):
    """The tutorial's model: one table, a bag and layers."""

    def __init__(self, of: Deep) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(KEYS, of.embedding, mode="sum")
        widths = [of.embedding, *of.hidden]
        layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, keys: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.layers(self.bag(keys, offsets)).squeeze(1)
        return logits


def plain(of: Deep, batches: list[Batch]) -> Callable[[int], None]:
    """One step as a tutorial writes it."""
    device = Device(of).torch
    model = Plain(of).to(device)
    optimiser, loss_of = torch.optim.Adam(model.parameters(), lr=of.dense_rate), nn.BCEWithLogitsLoss()
    numbers = [(batch.keys % np.uint64(KEYS)).astype(np.int64) for batch in batches]

    def learn(i: int) -> None:
        batch = batches[i % len(batches)]
        keys, labels = torch.tensor(numbers[i % len(batches)]), torch.tensor(batch.labels)
        logits = model(keys.to(device), torch.tensor(batch.offsets[:-1]).to(device))
        loss = loss_of(logits, labels.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return learn


def seconds_of(step: Callable[[int], None], steps: int) -> list[float]:
    """Seconds a step, measured REPEATS times over `steps` of them, after as many that are not counted."""
    found = []
    for repeat in range(REPEATS + 1):
        _wait()
        started_s = time.perf_counter()
        for i in range(steps):
            step(i)
        _wait()
        if repeat:
            found.append((time.perf_counter() - started_s) / steps)
    return found


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def show(model: str, way: str, size: int, seconds: list[float], transfer: list[float] | None) -> None:
    """One row."""
    rates = spread([size / s for s in seconds])
    share = f"{100 * min(transfer) / min(seconds):.0f} %" if transfer and torch.cuda.is_available() else "-"
    peak = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if torch.cuda.is_available() else "-"
    print(f"| {model} | {size:,} | {way} | {rates} | {share} | {peak} |", flush=True)


def device_name() -> str:
    """The GPU's name, or that there is none."""
    if not torch.cuda.is_available():
        return f"no GPU; torch {torch.__version__} on {torch.get_num_threads()} thread(s)"
    return f"{torch.cuda.get_device_name()}; torch {torch.__version__}"


def main(
    quick: Annotated[bool, typer.Option(help="Two sizes and few steps: to see that it runs.")] = False,
    sizes: Annotated[str, typer.Option(help="Records a step, comma-separated.")] = "",
    models: Annotated[str, typer.Option(help="Models, comma-separated.")] = ",".join(MODELS),
    ways: Annotated[str, typer.Option(help="Of plain, eager, compiled, bf16.")] = "plain,eager,compiled,bf16",
) -> None:
    """Measure and print a table for RESULTS.md."""
    torch.set_num_threads(1)
    print(f"{machine()}; {device_name()}\n")
    print("| model | records a step | way | records/s | transfer | memory |\n|---|--:|---|--:|--:|--:|")
    chosen = [int(size) for size in sizes.split(",") if size] or (QUICK_SIZES if quick else SIZES)
    for size in chosen:
        batches = [batch_of(size, seed) for seed in range(2 if quick else 8)]
        steps = 4 if quick else max(8, 200_000 // size)
        for model in models.split(","):
            of = replace(MODELS[model], step_records=size)
            for way in ways.split(","):
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                if way == "plain":
                    if model == "mlp":
                        show(model, way, size, seconds_of(plain(of, batches), steps), None)
                    continue
                learn, transfer = product(replace(of, **WAYS[way]), batches)
                show(model, way, size, seconds_of(learn, steps), seconds_of(transfer, steps))


if __name__ == "__main__":
    typer.run(main)
