"""A batch's distinct keys, by shard."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learning.grouping import KeyGrouper, shard_of_segment, split_by_shard
from learning.keys import BIAS_KEY, SEGMENTS, segment_of


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=80), max_size=5),
    st.integers(1, 7),
)
def test_every_entry_finds_its_key_in_its_shards_group(batches: list[list[int]], shards: int) -> None:
    """One grouper over several batches: keys distinct, grouped by owner, the bias among them, sights counted."""
    grouper, owner = KeyGrouper(shards), shard_of_segment(shards)
    for batch in batches:
        keys = np.array(batch, np.uint64)
        grouped = grouper.group(keys)
        for key, sights in zip(grouped.keys.tolist(), grouped.sights.tolist(), strict=True):
            assert sights == batch.count(key) + (key == BIAS_KEY)
        assert np.array_equal(grouped.keys[grouped.index], keys)
        assert grouped.keys[grouped.bias] == BIAS_KEY
        assert sorted(grouped.keys.tolist()) == sorted({*batch, int(BIAS_KEY)})
        for shard in range(shards):
            own = grouped.keys[grouped.bounds[shard] : grouped.bounds[shard + 1]]
            assert (owner[segment_of(own)] == shard).all()


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=60), min_size=2, max_size=6),
    st.integers(1, 5),
    st.booleans(),
)
def test_carried_keys_come_first_and_say_where_they_were(
    batches: list[list[int]], shards: int, bias: bool
) -> None:
    """A worker pulls ahead: of each shard, the keys that were in the grouping before, with their places in it."""
    grouper, before = KeyGrouper(shards, bias=bias), None
    for batch in batches:
        keys = np.array(batch, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        grouped = grouper.group(keys, carry=True)
        assert np.array_equal(grouped.keys[grouped.index], keys)
        for shard in range(shards):
            own = grouped.keys[grouped.bounds[shard] : grouped.bounds[shard + 1]]
            count, places = grouped.carries[shard], grouped.carried_of(shard)
            if before is None:
                assert count == 0, "there was none before"
                continue
            theirs = before.keys[before.bounds[shard] : before.bounds[shard + 1]]
            assert np.array_equal(own[:count], theirs[places])
            assert not set(own[count:].tolist()) & set(theirs.tolist())
        before = grouped


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50), st.integers(1, 4), st.integers(1, 9))
def test_a_snapshot_of_some_shards_is_dealt_to_any_number_of_others(
    keys: list[int], shards: int, others: int
) -> None:
    """N shards' rows, put together and split for M, are the rows of M shards; nothing is lost or doubled."""
    every = np.array(keys, np.uint64)
    rows = np.arange(2 * len(every), dtype=np.float32).reshape(-1, 2)
    parts = split_by_shard(every, rows, shards)
    joined = [np.concatenate([part[i] for part in parts]) for i in range(2)]
    again = split_by_shard(joined[0], joined[1], others)
    owner = shard_of_segment(others)
    assert all((owner[segment_of(keys)] == shard).all() for shard, (keys, _) in enumerate(again))
    found = {int(key): tuple(row) for keys, rows in again for key, row in zip(keys, rows, strict=True)}
    assert found == dict(zip(keys, map(tuple, rows), strict=True))


def test_segments_are_dealt_in_nearly_equal_ranges() -> None:
    """Any number of shards up to 1024 gets its share."""
    for shards in (1, 2, 3, 5, 1000, SEGMENTS):
        counts = np.bincount(shard_of_segment(shards), minlength=shards)
        assert counts.min() >= SEGMENTS // shards
        assert counts.max() <= -(-SEGMENTS // shards)
