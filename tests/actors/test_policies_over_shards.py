"""Admission, expiry and ceilings over shards: whatever the tables keep, any number of shards keeps the same."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.local_store import DirectShards
from cluster.store import ShardedStore
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY
from learning.policy import TablePolicy
from tests.direct import ListSource, Rig, coordinator_for, rows_by_key
from tests.streams import cut, stream

LEARNER = Ftrl(alpha=0.1)


def run(
    policy: TablePolicy, shards: int, in_flight: int, records: int = 3000
) -> tuple[np.ndarray, DirectShards]:
    """Predictions and shards after one worker has learnt a stream in batches of 50."""
    direct = DirectShards(shards, LEARNER, {"weights": policy})
    store = ShardedStore(0, direct, LEARNER, has_policies=True)
    coordinator = coordinator_for(LEARNER)
    rig = Rig(LEARNER, store, ListSource(cut(stream(records), 50)), coordinator, in_flight=in_flight)
    rig.build().run()
    return np.concatenate(rig.predicted.predictions), direct


@pytest.mark.parametrize(
    "policy",
    [
        TablePolicy(admit_after=3, admission="exact"),
        TablePolicy(admit_after=2, admission="bloom"),
        TablePolicy(expire_after_records=400),
        TablePolicy(admit_after=2, admission="exact", expire_after_records=600),
    ],
)
@pytest.mark.parametrize("in_flight", [1, 2])
def test_one_worker_over_any_shards_keeps_the_same_rows_to_the_bit(
    policy: TablePolicy, in_flight: int
) -> None:
    """Which keys have rows, what the rows hold and what was predicted does not depend on where keys live."""
    expected, one = run(policy, 1, in_flight=1)
    found, several = run(policy, 3, in_flight)
    assert np.array_equal(found, expected)
    wanted, rows = rows_by_key(one.shards), rows_by_key(several.shards)
    for key in wanted.keys() & rows.keys():
        assert wanted[key] == rows[key]
    # Rows that nobody asks for any more go when the sweep comes by, which is the one thing that shards do apart.
    untouched = wanted.keys() ^ rows.keys()
    assert not untouched or policy.expire_after_records
    everything, _ = run(TablePolicy(), 1, in_flight=1)
    assert not np.array_equal(found, everything), "the policy made no difference, so nothing was tested"


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_ceiling_holds_and_the_coldest_go(in_flight: int) -> None:
    """Far more keys than room: the job learns on, the ceiling is never passed, and what went is counted."""
    predictions, direct = run(TablePolicy(rows_max=600), 2, in_flight)
    status = [shard.status()["tables"]["weights"] for shard in direct.shards]
    assert sum(table["rows"] for table in status) <= 600 + 1  # the bias is let in, ceiling or not
    assert sum(table["evicted"] for table in status) > 100
    assert np.isfinite(predictions).all()
    assert int(BIAS_KEY) in rows_by_key(direct.shards)
    everything, free = run(TablePolicy(), 2, in_flight)
    assert sum(shard.status()["tables"]["weights"]["rows"] for shard in free.shards) > 800
    loss = [-np.mean(np.log(np.where(stream(3000).labels > 0, p, 1 - p))) for p in (predictions, everything)]
    assert loss[0] < loss[1] * 1.1, "what is asked for often must have kept its row"
