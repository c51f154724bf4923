"""Recovery from an abrupt drift: records until the loss is back within 5 % of its level before, by reaction.

Seeded click-like records (12 categories of 300 values each, Zipf); after 40,000 of them every true weight changes its
sign, which is as hard to learn. The loop is the worker's: learn a batch on the tables, tell losses and series, let the
coordinator's watch vote and react, begin raises `lag_records` later. "Back" is where the mean loss over 2,000 records
comes within 5 % of its mean over the last 10,000 before the change. Beside it what the drift cost: the loss above that
level, summed over the 20,000 records behind the change.

    python -m benchmarks.recovery [--seeds 7]
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measure import machine
from cluster.local_store import LocalStore
from learning.batch import CATEGORY, Batch, BatchId
from learning.drift_adwin import Adwin
from learning.drift_events import WatchSettings
from learning.exchange import Moment
from learning.ftrl import Ftrl
from learning.observing import Observer, series_of
from learning.pace import pace_at
from learning.population import Population
from learning.reactions import Forget, RaiseRates, RaiseShare, Reaction
from learning.watching import Watching, WatchPlan

RECORDS, CHANGE, BATCH = 140_000, 40_000, 512
FEATURES, VALUES = 12, 300
LEVEL_RECORDS, MEAN_RECORDS, COST_RECORDS = 10_000, 2_000, 20_000

LEARNERS: dict[str, Any] = {"ftrl, alpha 0.1": Ftrl(), "population": Population()}
REACTIONS: dict[str, tuple[Reaction, ...]] = {
    "none": (),
    "raise_rates x3": (RaiseRates(factor=3.0),),
    "raise_rates x10": (RaiseRates(factor=10.0),),
    "raise_share 1 %": (RaiseShare(share=0.01),),
    "forget, keep 0.1": (Forget(keep=0.1),),
    "forget, keep 0.01": (Forget(keep=0.01),),
    "forget 0.1, raise_share 1 %": (Forget(keep=0.1), RaiseShare(share=0.01)),
}


def records(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys u64 (n, features), and labels f32 (n,) whose true weights change once."""
    random = np.random.default_rng(seed)
    popular = 1.0 / np.arange(1, VALUES + 1)
    popular /= popular.sum()
    values = random.choice(VALUES, size=(RECORDS, FEATURES), p=popular)
    keys = (values + VALUES * np.arange(FEATURES)).astype(np.uint64) + np.uint64(1)
    weights = random.normal(0.0, 0.8, size=(FEATURES, VALUES))
    weights -= (weights @ popular)[:, None]
    sign = np.where(np.arange(RECORDS) < CHANGE, 1.0, -1.0)
    logits = sign * weights.ravel()[(keys - np.uint64(1)).astype(np.int64)].sum(axis=1) - 1.0
    labels = random.random(RECORDS) < 1.0 / (1.0 + np.exp(-logits))
    return keys, labels.astype(np.float32)


def batches(seed: int) -> list[Batch]:
    """The records in batches."""
    keys, labels = records(seed)
    found = []
    for first in range(0, RECORDS, BATCH):
        part = slice(first, min(first + BATCH, RECORDS))
        n = part.stop - first
        found.append(
            Batch(
                BatchId(0, first, part.stop), keys[part].ravel(), np.ones(n * FEATURES, np.float32),
                np.full(n * FEATURES, CATEGORY, np.uint8), np.arange(n + 1, dtype=np.int64) * FEATURES,
                labels[part], np.ones(n, np.float32), np.full(n, np.nan), np.full(n, np.nan),
                np.arange(first, part.stop),
            )
        )  # fmt: skip
    return found


def losses_of(learner: Any, reactions: tuple[Reaction, ...], stream: list[Batch]) -> np.ndarray:
    """Each record's loss f64 (n,), as a job of one worker with these reactions has it."""
    tables = tuple(range(len(learner.specs())))
    plan = WatchPlan(Adwin(), series_of(()), WatchSettings(), 4 * BATCH, drift=reactions, tables=tables)
    store, observer, watching = LocalStore(learner), Observer(learner), Watching(plan, {}, 1)
    found, snapshot = [], 0
    for batch in stream:
        paced = replace(batch, pace=pace_at(watching.raises.get(0, ()), watching.heard[0]))
        store.pull(paced)
        pulled = store.wait()
        fresh = observer.fresh(pulled.tables, paced)
        watched = observer.watched(batch, fresh, learner.learn(pulled.tables, paced))
        store.push(pulled)
        watching.see(0, [watched])
        found.append(watched.losses)
        if watching.has_changes:
            snapshot += 1
            changes = tuple((snapshot, *change) for change in watching.take_changes()[0])
            store.advance(Moment(1, snapshot, 0, changes))
    return np.concatenate(found)


def recovery(losses: np.ndarray) -> tuple[int, float]:
    """Records until the loss was back, and what the drift cost."""
    level = losses[CHANGE - LEVEL_RECORDS : CHANGE].mean()
    sums = np.concatenate(([0.0], np.cumsum(losses[CHANGE:])))
    means = (sums[MEAN_RECORDS:] - sums[:-MEAN_RECORDS]) / MEAN_RECORDS
    back = np.flatnonzero(means <= 1.05 * level)
    cost = float((losses[CHANGE : CHANGE + COST_RECORDS] - level).sum())
    return int(back[0]) + MEAN_RECORDS if len(back) else RECORDS - CHANGE, cost


def main(seeds: Annotated[int, typer.Option(help="Streams of each.")] = 7) -> None:
    """Measure, and print a table."""
    print(f"{machine()}; {seeds} streams\n")
    print(
        "| learner | reaction | records until back (smallest to largest) | cost | log-loss before | behind |"
    )
    print("|---|---|--:|--:|--:|--:|")
    streams = [batches(seed) for seed in range(seeds)]
    for name, learner in LEARNERS.items():
        for reaction, reactions in REACTIONS.items():
            all_losses = [losses_of(learner, reactions, stream) for stream in streams]
            backs, costs = zip(*(recovery(losses) for losses in all_losses), strict=True)
            before, behind = (
                statistics.median(float(losses[part].mean()) for losses in all_losses)
                for part in (slice(CHANGE - LEVEL_RECORDS, CHANGE), slice(CHANGE, None))
            )
            print(
                f"| {name} | {reaction} | {statistics.median(backs):,.0f} ({min(backs):,} to {max(backs):,}) "
                f"| {statistics.median(costs):,.0f} | {before:.4f} | {behind:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
