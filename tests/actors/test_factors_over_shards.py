"""Matrix factorisation over shards: one worker equals one process to the bit, several stay near it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.factors import Factors
from tests.direct import ListSource, Rig, coordinator_for, rows_by_key
from tests.ratings_stream import ratings
from tests.streams import cut

if TYPE_CHECKING:
    from actors.ports import ParameterStore
    from learning.batch import Batch

LEARNER = Factors(factors=6)
CHOICES = Factors(factors=6, feedback="implicit", negatives=3)


def run(learner: Factors, store: ParameterStore, batches: list[Batch], in_flight: int = 2) -> np.ndarray:
    """One worker over the batches; its predictions."""
    coordinator = coordinator_for(learner)
    rig = Rig(learner, store, ListSource(batches), coordinator, in_flight=in_flight)
    rig.build().run()
    return np.concatenate(rig.predicted.predictions)


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [7, 256, 4096])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_one_worker_over_any_shards_equals_one_process_to_the_bit(
    shards: int, size: int, in_flight: int
) -> None:
    """Every prediction and every row of users, items, scale and seen pairs, for any cut of the stream."""
    local, direct = LocalStore(LEARNER), DirectShards(shards, LEARNER)
    expected = run(LEARNER, local, [ratings(2000)])
    found = run(LEARNER, ShardedStore(0, direct, LEARNER), cut(ratings(2000), size), in_flight)
    assert np.array_equal(found, expected)
    for spec in LEARNER.specs():
        assert rows_by_key(direct.shards, spec.name) == rows_by_key([local], spec.name), spec.name


@pytest.mark.parametrize("shards", [1, 3])
def test_choices_over_any_shards_equal_one_process_with_the_same_batches(shards: int) -> None:
    """Implicit feedback draws its negatives from the batch, so the cut matters, but where rows lie does not."""
    local, direct = LocalStore(CHOICES), DirectShards(shards, CHOICES)
    expected = run(CHOICES, local, cut(ratings(1500), 100))
    found = run(CHOICES, ShardedStore(0, direct, CHOICES), cut(ratings(1500), 100))
    assert np.array_equal(found, expected)
    for spec in CHOICES.specs():
        assert rows_by_key(direct.shards, spec.name) == rows_by_key([local], spec.name), spec.name


def test_four_workers_with_users_of_their_own_stay_near_one_process() -> None:
    """Records keyed by user, items shared: four workers side by side from a cold start; RMSE within 1 percent."""
    parts = [ratings(6000, seed=w, partition=w, users=100, first_user=100 * w) for w in range(4)]
    alone, together = LEARNER.metrics(), LEARNER.metrics()
    streams = [cut(part, 64) for part in parts]
    local = LocalStore(LEARNER)
    for turn in zip(*streams, strict=True):
        for batch in turn:
            local.pull(batch)
            LEARNER.judge(alone, LEARNER.learn(local.wait().tables, batch), batch)
    direct = DirectShards(2, LEARNER)
    stores = [ShardedStore(worker, direct, LEARNER) for worker in range(4)]
    for turn in zip(*streams, strict=True):
        for store, batch in zip(stores, turn, strict=True):
            store.pull(batch)
        for store, batch in zip(stores, turn, strict=True):
            pulled = store.wait()
            LEARNER.judge(together, LEARNER.learn(pulled.tables, batch), batch)
            store.push(pulled)
        for store in stores:
            store.flush()
    assert together.records == alone.records == 24_000
    assert sum(shard.status()["moved_rows"] for shard in direct.shards) > 1000
    scale = rows_by_key(direct.shards, "scale")
    assert next(iter(scale.values()))[0] == 24_000, "every rating counts once in the running mean"
    assert together.summary()["rmse"] == pytest.approx(alone.summary()["rmse"], rel=0.01)
