"""Statistics of features: against numpy, merged over workers, bounded, and back from their arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.batch import CATEGORY, NUMBER
from learning.feature_stats import FeatureStats
from learning.keys import name_key
from tests.streams import stream


def entries(seed: int, n: int, features: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, values and keys of n entries."""
    rng = np.random.default_rng(seed)
    values = rng.normal(10, 3, n).round(1)
    return rng.integers(0, features, n).astype(np.uint64), values, values.view(np.uint64).copy()


def test_figures_are_those_of_numpy() -> None:
    """Count, missing rate, mean and deviation to rounding, the number of values to a few percent."""
    features, values, keys = entries(0, 30_000)
    stats = FeatureStats()
    stats.update(features, values, keys, 20_000)
    for key, summary in stats.summary().items():
        own = features == key
        assert summary.count == own.sum()
        assert summary.missing_rate == pytest.approx(1 - own.sum() / 20_000)
        assert summary.mean == pytest.approx(values[own].mean())
        assert summary.deviation == pytest.approx(values[own].std())
        assert summary.distinct == pytest.approx(len(np.unique(values[own])), rel=0.1)
    assert list(stats.summary(2)) == stats.keys[:2].tolist()


@pytest.mark.parametrize("distinct", [0, 1, 10, 300, 3000, 30_000, 300_000])
def test_numbers_of_distinct_values_are_within_ten_percent(distinct: int) -> None:
    """Three standard errors of 1,024 registers, for keys that are consecutive numbers; repeats change nothing."""
    keys = np.arange(distinct, dtype=np.uint64)
    stats = FeatureStats()
    for _ in range(2):
        stats.update(np.full(distinct, 5, np.uint64), np.full(distinct, np.nan), keys, distinct)
    found = [summary.distinct for summary in stats.summary().values()]
    assert found == ([pytest.approx(distinct, rel=0.1, abs=0.5)] if distinct else [])


@given(cuts=st.lists(st.integers(0, 300), max_size=10))
def test_workers_merge_to_what_one_would_have(cuts: list[int]) -> None:
    """Counts and registers to the bit, moments to rounding; any number of workers, some without records."""
    features, values, keys = entries(1, 1000)
    alone = FeatureStats()
    alone.update(features, values, keys, 1500)
    merged, seen = FeatureStats(), 0
    for cut in [*cuts, 1000]:
        here = slice(seen, seen + cut)
        part = FeatureStats()
        part.update(features[here], values[here], keys[here], 0)
        merged.merge(part)
        seen = min(seen + cut, 1000)
    merged.records = 1500
    one, other = alone.arrays(), merged.arrays()
    for name in ("keys", "job", "counts", "registers"):
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_allclose(one["moments"], other["moments"], rtol=1e-9)


def test_a_part_alone_is_taken_as_it_is() -> None:
    """One worker, merged into nothing or with a worker that saw nothing: not a bit changes."""
    stats, empty = FeatureStats(), FeatureStats()
    stats.update(*entries(2, 500), 500)
    empty.merge(stats)
    for name, array in stats.arrays().items():
        np.testing.assert_array_equal(array, empty.arrays()[name])
    stats.merge(FeatureStats())
    for name, array in stats.arrays().items():
        np.testing.assert_array_equal(array, empty.arrays()[name])


def test_statistics_come_back_from_their_arrays_bit_for_bit() -> None:
    """Written in the middle: the rest of the stream gives the same arrays, also for features not seen before."""
    whole = FeatureStats()
    whole.update(*entries(3, 500), 400)
    arrays = {
        name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in whole.arrays().items()
    }
    second = FeatureStats.of(arrays)
    for stats in (whole, second):
        stats.update(*entries(4, 500, 6), 400)
    assert all(
        a.tobytes() == b.tobytes()
        for a, b in zip(whole.arrays().values(), second.arrays().values(), strict=True)
    )
    assert FeatureStats.of(FeatureStats().arrays()).summary() == {}
    with pytest.raises(ValueError, match="features that differ"):
        FeatureStats.of(arrays | {"keys": arrays["keys"] * np.uint64(0)})


def test_features_beyond_the_most_are_counted_and_left_out() -> None:
    """A stream that invents names cannot fill the memory."""
    stats = FeatureStats(features_max=2)
    features = np.array([7, 8, 9, 7, 9], np.uint64)
    stats.update(features, np.arange(5.0), features, 5)
    assert stats.keys.tolist() == [7, 8]
    assert stats.left_out == 2
    other = FeatureStats()
    other.update(features, np.arange(5.0), features, 5)
    stats.merge(other)
    assert stats.left_out == 4
    assert stats.summary()[7].count == 4


def test_entries_that_do_not_fit_together_are_refused() -> None:
    """As many values and keys as features."""
    keys = np.arange(3, dtype=np.uint64)
    with pytest.raises(ValueError, match="as many"):
        FeatureStats().update(keys, np.zeros(1), keys, 2)


def test_a_batch_counts_as_its_entries_whatever_the_order_of_their_features() -> None:
    """Records that lack features or have them in another order: places are looked up once for many, and are right."""
    random = np.random.default_rng(4)
    names = np.array([name_key(name) for name in "abcdefgh"], np.uint64)
    rows = [random.permutation(8)[: random.integers(0, 9)] if i % 3 else np.arange(8) for i in range(300)]
    chosen = np.concatenate(rows)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    kinds = np.where(chosen % 2 == 0, NUMBER, CATEGORY).astype(np.uint8)
    values = random.normal(size=len(chosen)).astype(np.float32)
    keys = np.where(kinds == NUMBER, names[chosen], names[chosen] * np.uint64(3) + np.uint64(1))
    batch = replace(
        stream(300), keys=keys, values=values, kinds=kinds, offsets=offsets, features=names[chosen]
    )
    whole, plain = FeatureStats(), FeatureStats()
    whole.update_batch(batch)
    numbers = np.where(kinds == NUMBER, values.astype(np.float64), np.nan)
    distinct = np.where(kinds == NUMBER, numbers.view(np.uint64), keys)
    plain.update(names[chosen], numbers, distinct, 300)
    assert {n: a.tobytes() for n, a in whole.arrays().items()} == {
        n: a.tobytes() for n, a in plain.arrays().items()
    }
