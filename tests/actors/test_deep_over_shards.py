"""The torch learner over shards: one worker equals one process to the bit, several still learn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.deep import Deep
from learning.learners import learner_from
from tests.direct import ListSource, Rig, coordinator_for, rows_by_key
from tests.learning.deep_world import SMALL, encoded, log_loss
from tests.streams import cut, stream

if TYPE_CHECKING:
    from actors.ports import ParameterStore
    from learning.batch import Batch

LEARNERS = [SMALL, replace(SMALL, row_optimizer="adam", dropout=0.2), Deep(step_records=64)]


def run(learner: Deep, store: ParameterStore, batches: list[Batch], in_flight: int = 2) -> np.ndarray:
    """One worker over the batches; its predictions."""
    rig = Rig(learner, store, ListSource(batches), coordinator_for(learner), in_flight=in_flight)
    rig.build().run()
    return np.concatenate(rig.predicted.predictions)


@pytest.mark.parametrize("learner", LEARNERS, ids=["adagrad", "adam", "default"])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_one_worker_over_any_shards_equals_one_process_to_the_bit(learner: Deep, in_flight: int) -> None:
    """Every prediction, every row of keys and every block of dense parameters with its moments, for the same cuts."""
    batches = cut(stream(700), 150)
    local = LocalStore(learner)
    expected = run(learner, local, batches)
    for shards in (1, 2, 3):
        direct = DirectShards(shards, learner)
        found = run(learner, ShardedStore(0, direct, learner), batches, in_flight)
        assert np.array_equal(found, expected)
        for spec in learner.specs():
            assert rows_by_key(direct.shards, spec.name) == rows_by_key([local], spec.name), spec.name


def test_an_expert_of_an_ensemble_is_the_same_over_shards() -> None:
    """FTRL and a torch model side by side on one batch: both columns, to the bit."""
    experts = [{"kind": "ftrl"}, {"kind": "deep", "hidden": [8], "embedding": 4}]
    learner = learner_from({"kind": "ensemble", "experts": experts})
    found = []
    for store in (LocalStore(learner), ShardedStore(0, DirectShards(2, learner), learner)):
        columns = []
        for batch in cut(encoded(600), 200):
            store.pull(batch)
            pulled = store.wait()
            columns.append(learner.learn(pulled.tables, batch))
            store.push(pulled)
        found.append(np.concatenate(columns))
    assert found[0].shape == (600, 2)
    assert found[0].tobytes() == found[1].tobytes()


def together(learner: Deep, workers: int, records: int, size: int) -> float:
    """Prequential log-loss of workers who all pull before any of them pushes, on parts of one stream."""
    whole = encoded(records)
    batches = cut(whole, size)
    direct = DirectShards(2, learner)
    stores = [ShardedStore(worker, direct, learner) for worker in range(workers)]
    found = []
    for first in range(0, len(batches), workers):
        turn = batches[first : first + workers]
        for store, batch in zip(stores, turn, strict=False):
            store.pull(batch)
        for store, batch in zip(stores, turn, strict=False):
            pulled = store.wait()
            found.append(learner.learn(pulled.tables, batch))
            store.push(pulled)
        for store in stores:
            store.flush()
    return log_loss(np.concatenate(found), whole.labels)


BY_ADAGRAD = Deep(embedding=8, hidden=(16,), step_records=32)
BY_ADAM = replace(BY_ADAGRAD, row_optimizer="adam", weight_rate=0.02)


@pytest.mark.parametrize(("learner", "worse"), [(BY_ADAGRAD, 0.02), (BY_ADAM, 0.06)], ids=["adagrad", "adam"])
def test_four_workers_side_by_side_stay_near_one(learner: Deep, worse: float) -> None:
    """All four pull the same rows and learn two steps each before any of them pushes, from empty tables on."""
    assert together(learner, 4, 8000, 64) < (1.0 + worse) * together(learner, 1, 8000, 64)


def test_adams_walks_that_are_only_added_overshoot() -> None:
    """What kappa is for: four workers of 16 steps each, all from the same rows."""
    learner = replace(BY_ADAM, step_records=64)
    damped = together(learner, 4, 8192, 1024)
    assert damped < 0.95 * together(replace(learner, kappa=0.0), 4, 8192, 1024)
    assert damped < 0.69
