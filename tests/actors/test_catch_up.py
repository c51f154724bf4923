"""A shard that loaded an older snapshot ahead, and takes in what came since: what a resize does while a job stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from actors.ports import StaleGenerationError, StoreError
from actors.shard import ParameterShard
from cluster.local_store import DirectShards
from cluster.store import ShardedStore
from learning.admission import counts_of
from learning.exchange import Moment
from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.grouping import shard_of_segment
from learning.keys import segment_of
from learning.policy import TablePolicy
from learning.table_state import TableChange, TableState
from tests.direct import rows_by_key, taken
from tests.ratings_stream import ratings
from tests.streams import cut, stream

if TYPE_CHECKING:
    from learning.batch import Batch
    from learning.learner import Learner

    Changes = list[dict[str, TableChange]]
    """By shard, what a snapshot holds of each table."""

FTRL = Ftrl(alpha=0.1)
FACTORS = Factors(factors=4)
ONCE = Moment(1, 1, 0)
LATER = Moment(1, 2, 1)
NEXT = Moment(2, 2, 0)


def learn(
    learner: Learner,
    shards: list[ParameterShard],
    batches: list[Batch],
    moment: Moment,
    *,
    has_policies: bool = False,
) -> np.ndarray:
    """One worker over the batches; its predictions."""
    store, predictions = ShardedStore(0, DirectShards.of(shards), learner, has_policies=has_policies), []
    store.advance(moment)
    for batch in batches:
        store.pull(batch)
        pulled = store.wait()
        predictions.append(learner.learn(pulled.tables, batch))
        store.push(pulled)
    store.flush()
    return np.concatenate(predictions)


def snapshot(shards: list[ParameterShard], moment: Moment) -> Changes:
    """What each shard writes."""
    for shard in shards:
        shard.freeze(moment)
    return [taken(shard) for shard in shards]


def share(parts: Changes, shard: int, shards: int) -> dict[str, list[TableChange]]:
    """What one of so many shards takes of the parts of any number of others."""

    def own(keys: np.ndarray) -> np.ndarray:
        return np.asarray(shard_of_segment(shards)[segment_of(keys)] == shard)

    return {
        table: [
            TableChange(
                part[table].state.take(own(part[table].state.keys)),
                part[table].removed[own(part[table].removed)],
                counts_of(part[table].side, shard, shards),
            )
            for part in parts
        ]
        for table in parts[0]
    }


def restored(made: ParameterShard, of: dict[str, list[TableChange]], moment: Moment) -> ParameterShard:
    """A shard with the content of a whole snapshot."""
    tables = {name: TableState.join([change.state for change in changes]) for name, changes in of.items()}
    count = max(map(len, of.values()))
    sides = [{name: changes[n].side for name, changes in of.items()} for n in range(count)]
    made.restore(tables, sides, moment, 0)
    return made


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize(
    ("learner", "policy"),
    [
        (FTRL, TablePolicy()),
        (FTRL, TablePolicy(admit_after=3, admission="exact")),
        (FTRL, TablePolicy(admit_after=2, admission="bloom")),
        (FTRL, TablePolicy(expire_after_records=400)),
        (FTRL, TablePolicy(admit_after=2, admission="exact", expire_after_records=600)),
        (FACTORS, TablePolicy()),
    ],
)
def test_an_older_snapshot_and_the_differences_to_it_are_the_newer_one(
    learner: Learner, policy: TablePolicy, shards: int
) -> None:
    """Rows, names, ages and waiting keys: two shards write, any number loads, and what is learnt next is the same."""
    policies = {spec.name: policy for spec in learner.specs()}
    has = not policy.keeps_all
    batches = cut(stream(3000) if learner is FTRL else ratings(3000), 50)
    writers = [ParameterShard(shard, learner, policies) for shard in range(2)]
    learn(learner, writers, batches[:20], Moment(1, 0, 0), has_policies=has)
    base = snapshot(writers, ONCE)
    learn(learner, writers, batches[20:40], ONCE, has_policies=has)
    difference = snapshot(writers, LATER)
    ahead = [ParameterShard(shard, learner, policies) for shard in range(shards)]
    for n, shard in enumerate(ahead):
        restored(shard, share(base, n, shards), ONCE)
        shard.catch_up([share(difference, n, shards)], NEXT, 2000)
    whole = snapshot(writers, Moment(1, 3, 0))
    loaded = [
        restored(ParameterShard(n, learner, policies), share(whole, n, shards), NEXT) for n in range(shards)
    ]
    for spec in learner.specs():
        assert rows_by_key(ahead, spec.name) == rows_by_key(loaded, spec.name) != {}
        assert names_of(ahead, spec.name) == names_of(loaded, spec.name)
    found = learn(learner, ahead, batches[40:], NEXT, has_policies=has)
    assert np.array_equal(found, learn(learner, loaded, batches[40:], NEXT, has_policies=has))
    differs = [snapshot(holders, Moment(2, 3, 2)) for holders in (ahead, loaded)]
    for one, other in zip(*differs, strict=True):
        for table in one:
            assert {*one[table].state.keys.tolist()} == {*other[table].state.keys.tolist()}
            assert {*one[table].removed.tolist()} == {*other[table].removed.tolist()}


def names_of(holders: list[ParameterShard], table: str) -> dict[int, str]:
    """Names by key."""
    states = [holder.snapshot()[table] for holder in holders]
    return {
        int(key): name
        for state in states
        if state.names is not None
        for key, name in zip(state.keys, state.names.tolist(), strict=True)
    }


def test_a_shard_goes_on_with_what_it_holds_only_if_that_is_the_snapshot() -> None:
    """Workers came to their end, so nothing is behind it; a shard that was pushed to since has to load it."""
    batches = cut(stream(500), 50)
    shard, twin = ParameterShard(0, FTRL), ParameterShard(0, FTRL)
    for one in (shard, twin):
        learn(FTRL, [one], batches[:4], Moment(1, 0, 0))
        one.freeze(ONCE)
    shard.resume(Moment(2, 1, 0), 200)
    with pytest.raises(StaleGenerationError):
        learn(FTRL, [shard], batches[4:5], ONCE)
    found = learn(FTRL, [shard], batches[4:], Moment(2, 1, 0))
    assert np.array_equal(found, learn(FTRL, [twin], batches[4:], ONCE))
    with pytest.raises(StoreError, match="6 pulls and pushes behind it"):
        shard.resume(Moment(3, 1, 0), 500)
    with pytest.raises(StoreError, match="expected to hold snapshot 2 and nothing later, but holds 1"):
        shard.resume(Moment(3, 2, 1), 500)
