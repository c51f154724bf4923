"""Keys are admitted at their n-th sight: exactly, or by a filter that may be early and never late."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.admission import BloomAdmission, ExactAdmission, admission_of
from learning.keys import segment_of
from learning.policy import TablePolicy

batches = st.lists(
    st.dictionaries(st.integers(0, 30), st.integers(1, 3), min_size=1, max_size=10), max_size=30
)


@settings(max_examples=60)
@given(batches, st.integers(2, 6))
def test_counts_are_exact_until_too_many_wait(batches: list[dict[int, int]], admit_after: int) -> None:
    """A key that was admitted begins again, for its row may have gone; what does not fit forgets all counts."""
    admission, model, forgotten = ExactAdmission(admit_after, 12), Counter[int](), 0
    for batch in batches:
        keys, sights = np.array(list(batch), np.uint64), np.array(list(batch.values()), np.uint8)
        new = sum(key not in model for key in batch)
        if new and model and len(model) + new > 12:
            model.clear()
            forgotten += 1
        model.update(batch)
        admitted = {key for key in batch if model[key] >= admit_after}
        assert set(keys[admission.see(keys, sights)].tolist()) == admitted
        for key in admitted:
            del model[key]
        assert admission.waiting == len(model)
    assert admission.forgotten == forgotten


@settings(max_examples=60)
@given(batches, st.integers(2, 6))
def test_the_filter_is_never_late(batches: list[dict[int, int]], admit_after: int) -> None:
    """As long as nothing is forgotten, a key seen often enough is admitted."""
    admission, seen = BloomAdmission(admit_after, 100_000), Counter[int]()
    for batch in batches:
        keys, sights = np.array(list(batch), np.uint64), np.array(list(batch.values()), np.uint8)
        seen.update(batch)
        enough = {key for key in batch if seen[key] >= admit_after}
        assert set(keys[admission.see(keys, sights)].tolist()) >= enough
    assert admission.forgotten == 0


def test_the_filter_is_rarely_early() -> None:
    """As many keys wait as it is sized for: of those seen for the first time, few count as seen before."""
    keys = np.unique(np.random.default_rng(2).integers(0, 2**64, 90_000, dtype=np.uint64))
    admission = BloomAdmission(2, 100_000)
    early = sum(np.count_nonzero(admission.see(part, None)) for part in np.array_split(keys, 20))
    assert early < 0.02 * len(keys)
    assert admission.memory_bytes < 9 * 100_000 + 70_000


def test_keys_that_never_come_again_do_not_fill_the_filter() -> None:
    """One-off keys come for ever: segments are forgotten, and a new key is still not admitted at once."""
    rng, admission = np.random.default_rng(3), BloomAdmission(3, 20_000)
    for _ in range(20):
        early = np.count_nonzero(admission.see(rng.integers(0, 2**64, 20_000, dtype=np.uint64), None))
    assert early < 100
    assert admission.forgotten > 1024
    assert admission.waiting <= 24 * 1024


@pytest.mark.parametrize("shards", [2, 5])
def test_filters_of_shards_decide_as_one(shards: int) -> None:
    """Each shard sees the keys of its segments only, forgets them at the same moment, and admits the same."""
    policy, rng = TablePolicy(admit_after=3, waiting_max=10_000), np.random.default_rng(4)
    one, parts = admission_of(policy), [admission_of(policy.of_shard(shards)) for _ in range(shards)]
    assert one is not None
    for _ in range(20):
        keys = np.unique(rng.integers(0, 40_000, 5_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        admitted = one.see(keys, None)
        owner = segment_of(keys) * shards // 1024
        for shard, part in enumerate(parts):
            assert part is not None
            assert np.array_equal(part.see(keys[owner == shard], None), admitted[owner == shard])
    assert one.forgotten == sum(part.forgotten for part in parts if part is not None) > 0


def test_many_sights_need_wide_cells() -> None:
    """A key may have to be seen more often than a byte can count."""
    admission, key = BloomAdmission(300, 1), np.array([7], np.uint64)
    assert [bool(admission.see(key, np.array([150], np.uint8))[0]) for _ in range(2)] == [False, True]
