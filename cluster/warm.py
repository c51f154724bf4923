"""Compiles (or loads from the cache) every kernel once, before several processes would do it side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.config import FeaturesConfig
from cluster.decode.decoder import Decoder
from cluster.decode.messages import Messages
from cluster.decode.naming import NamingDecoder
from cluster.local_store import DirectShards, LocalStore
from cluster.recommend import Recommender
from cluster.store import ShardedStore
from cluster.streams.file_source import encode_arrow
from learning.batch import BatchId
from learning.bounded import BoundedTable
from learning.drift import DriftWatch, WatchSettings
from learning.encoding import NumericEncoder, merge_stats
from learning.ensemble import Ensemble
from learning.feature_stats import FeatureStats
from learning.observing import Observer, series_of
from learning.slices import Slices, kind_of_slices
from learning.table import Table
from learning.worker_state import WorkerState

if TYPE_CHECKING:
    from collections.abc import Collection

    from learning.drift_verdicts import Detector
    from learning.learner import Learner
    from learning.policy import TablePolicy

__all__ = ["warm_up"]

_RECORD = b'{"id":"a","ts":1.5,"features":{%s"x":0.5,"c":"text"},"label":1}'


def warm_up(
    learner: Learner, policies: Collection[TablePolicy] = (), detector: Detector | None = None
) -> None:
    """Take records the whole way to `learner`; most of a minute on a new machine, later a second or two.

    Tables are made to grow, and to do what `policies` say. One record comes as JSON and one by Arrow, whose first
    conversion to numpy imports pandas: half a second that would else pass in the stream.
    """
    roles = b"".join(b'"%s":"1",' % role.encode() for role in learner.roles)
    values = [_RECORD % roles, _arrow(learner.roles)]
    messages = Messages(0, np.arange(2, dtype=np.int64), values, np.zeros(2), 2)
    kind: Any = type(learner.metrics())
    state = WorkerState(NumericEncoder(), FeatureStats(), Slices(kind_of_slices(kind)))
    plain = Decoder(
        "warm-up",
        FeaturesConfig(),
        roles=learner.roles,
        kept_roles=tuple(learner.named.values()),
        want_features=True,
        slice_feature="x",
    )
    decoder = NamingDecoder(plain, 2)
    read = decoder.decode(messages).batch
    batch = state.prepare(read)
    merge_stats([state.encoder.state()])
    mixer = learner.mixer() if isinstance(learner, Ensemble) else None
    if isinstance(learner, Ensemble) and learner.outside:
        batch = replace(batch, given=np.full((len(batch), len(learner.outside)), 0.5))
    shards = DirectShards(1, learner)
    for store in (LocalStore(learner), ShardedStore(0, shards, learner), ShardedStore(1, shards, learner)):
        store.pull(batch)
        pulled = store.wait()
        store.pull(replace(batch, batch_id=BatchId(0, 2, 4)))  # ahead of the push, so that it is carried
        fresh = Observer(learner).fresh(pulled.tables, batch)
        predictions = learner.learn(pulled.tables, batch)
        if mixer is not None:
            mixer.mix(predictions, batch)
            predictions = mixer.learn(predictions, batch).predictions
        learner.judge(learner.metrics(), predictions, batch)
        state.judge(predictions, batch)
        store.push(pulled)
        store.push(store.wait())
        store.flush()
    _, losses, series = Observer(learner).watched(read, fresh, predictions)
    watch = DriftWatch(detector, series_of(()), WatchSettings(block_records=1))
    for _ in range(64):
        watch.update(0, losses, series)
    _grow_table()
    for policy in policies:
        _apply(policy)
    if learner.named:
        recommender = Recommender(shards, learner)
        recommender.recommend("1", 1, exclude_seen=False)  # a learner may not remember what was seen
        recommender.similar("1", 1)


def _grow_table() -> None:
    """From one part of the index to many, and one of those again."""
    table = Table(2, rows_initial=2, rows_split=64)
    for first in range(0, 4096, 64):
        table.locate(np.arange(first, first + 64, dtype=np.uint64))
    table.find(np.arange(2, dtype=np.uint64))


def _apply(policy: TablePolicy) -> None:
    """Keys that come often, rarely and no more, so that some are admitted, some are too old, and some too many."""
    few = replace(
        policy,
        waiting_max=64,
        expire_after_records=min(policy.expire_after_records, 64),
        expire_after_s=min(policy.expire_after_s, 64.0),
        rows_max=min(policy.rows_max, 64),
    )
    table = BoundedTable(2, few)
    sights = np.ones(64, np.uint8)
    for tick in range(8):
        for keys in (np.arange(64, dtype=np.uint64), np.arange(64, dtype=np.uint64) + np.uint64(64 * tick)):
            table.open(keys, sights, 64, 64.0 * tick, table.tick + 1)
    table.snapshot()


def _arrow(roles: tuple[str, ...]) -> bytes:
    """The record as an Arrow message."""
    texts = {role: ["1"] for role in roles} | {"c": ["text"], "id": ["a"]}
    return encode_arrow(pa.RecordBatch.from_pydict({**texts, "x": [0.5], "ts": [1.5], "label": [1.0]}))
