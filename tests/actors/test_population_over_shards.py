"""A population over shards: one worker equals one process to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.population import Population
from tests.direct import ListSource, Rig, coordinator_for, rows_by_key
from tests.streams import cut, stream

if TYPE_CHECKING:
    from actors.ports import ParameterStore
    from learning.batch import Batch

LEARNERS = [Population(), Population(rates=(0.1, 0.4), restless=(), stackers=())]


def run(learner: Population, store: ParameterStore, batches: list[Batch], in_flight: int = 2) -> np.ndarray:
    """One worker over the batches; its predictions."""
    rig = Rig(learner, store, ListSource(batches), coordinator_for(learner), in_flight=in_flight)
    rig.build().run()
    return np.concatenate(rig.predicted.predictions)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 256])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_one_worker_over_any_shards_equals_one_process_to_the_bit(
    learner: Population, shards: int, size: int, in_flight: int
) -> None:
    """Every prediction, every row of weights and the row of the mixture, for any cut of the stream."""
    local, direct = LocalStore(learner), DirectShards(shards, learner)
    expected = run(learner, local, [stream(1000)])
    found = run(learner, ShardedStore(0, direct, learner), cut(stream(1000), size), in_flight)
    assert np.array_equal(found, expected)
    for spec in learner.specs():
        assert rows_by_key(direct.shards, spec.name) == rows_by_key([local], spec.name), spec.name
