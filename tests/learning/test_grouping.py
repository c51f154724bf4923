"""A batch's distinct keys, by shard."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learning.grouping import KeyGrouper, shard_of_segment
from learning.keys import BIAS_KEY, SEGMENTS, segment_of


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=80), max_size=5),
    st.integers(1, 7),
)
def test_every_entry_finds_its_key_in_its_shards_group(batches: list[list[int]], shards: int) -> None:
    """One grouper over several batches: keys distinct, grouped by owner, the bias among them."""
    grouper, owner = KeyGrouper(shards), shard_of_segment(shards)
    for batch in batches:
        keys = np.array(batch, np.uint64)
        grouped = grouper.group(keys)
        assert np.array_equal(grouped.keys[grouped.index], keys)
        assert grouped.keys[grouped.bias] == BIAS_KEY
        assert sorted(grouped.keys.tolist()) == sorted({*batch, int(BIAS_KEY)})
        for shard in range(shards):
            own = grouped.keys[grouped.bounds[shard] : grouped.bounds[shard + 1]]
            assert (owner[segment_of(own)] == shard).all()


def test_segments_are_dealt_in_nearly_equal_ranges() -> None:
    """Any number of shards up to 1024 gets its share."""
    for shards in (1, 2, 3, 5, 1000, SEGMENTS):
        counts = np.bincount(shard_of_segment(shards), minlength=shards)
        assert counts.min() >= SEGMENTS // shards
        assert counts.max() <= -(-SEGMENTS // shards)
