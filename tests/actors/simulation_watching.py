"""A simulated job that watches drift and keeps statistics and slices: its stream, and what an undisturbed job sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.drift_events import WatchSettings
from learning.drift_means import PageHinkley
from learning.feature_stats import FeatureStats
from learning.keys import name_key
from learning.metrics import Prequential
from learning.observing import Observer, series_of
from learning.pace import pace_at
from learning.reactions import RaiseRates
from learning.slice_values import SliceValues
from learning.slices import Slices, kind_of_slices
from learning.texts import TextColumn
from learning.watching import Watching, WatchPlan
from tests.streams import cut, stream

if TYPE_CHECKING:
    from learning.batch import Batch
    from learning.worker_state import Arrays

__all__ = ["PLAN", "Eye", "kept", "turning"]

NAMES = ("price", "visits", "city", "user")
PLAN = WatchPlan(
    PageHinkley(), series_of(()), WatchSettings(block_records=1, window_records=64), lag_records=12,
    drift=(RaiseRates(factor=4.0, records=40, half_life_records=15.0),), tables=(0,),
)  # fmt: skip


def turning(records: int, seed: int, partition: int, size: int = 5) -> list[Batch]:
    """A stream whose labels turn around in the middle; its batches tell features, names and what they are sliced by."""
    whole = stream(records, seed=seed, columns=len(NAMES), partition=partition)
    labels = (np.arange(records) >= records // 2).astype(np.float32)
    return [_told(batch) for batch in cut(replace(whole, labels=labels), size)]


def _told(batch: Batch) -> Batch:
    keys = [name_key(name) for name in NAMES]
    texts = TextColumn.from_list([f"v{position % 3}" for position in batch.positions])
    none = np.full(len(batch), np.nan, np.float32)
    return replace(
        batch,
        features=np.tile(np.array(keys, np.uint64), len(batch)),
        feature_names={int(key): name for key, name in zip(keys, NAMES, strict=True)},
        slices=SliceValues.of(name_key("land"), texts, np.ones(len(batch), np.bool_), none),
    )


def kept() -> dict[str, Any]:
    """What a worker keeps beside its encoder."""
    return {"statistics": FeatureStats(), "slices": Slices(kind_of_slices(Prequential), 2, window_records=20)}


class Eye:
    """What a coordinator that nothing befalls knows of one worker's losses, and the pace that it sets."""

    def __init__(self, plan: WatchPlan | None, learner: Any) -> None:
        self.watching = None if plan is None else Watching(plan, {}, 1)
        self._observer = None if plan is None else Observer(learner)

    def paced(self, batch: Batch) -> Batch:
        """The next batch, with its pace."""
        if self.watching is None:
            return batch
        raises = self.watching.raises.get(0, ())
        return replace(batch, pace=pace_at(raises, self.watching.heard[0])) if raises else batch

    def fresh(self, tables: Any, batch: Batch) -> Any:
        """As an observer says before the batch is learnt."""
        return None if self._observer is None else self._observer.fresh(tables, batch)

    def see(self, read: Batch, fresh: Any, predictions: Any) -> None:
        """Take in a batch."""
        if self.watching is not None and self._observer is not None:
            self.watching.see(0, [self._observer.watched(read, fresh, predictions)])

    def arrays(self) -> Arrays:
        """What is to be in a snapshot."""
        return {} if self.watching is None else self.watching.arrays()
