"""Metrics by group: exact sums, slices that add up to the whole, windows, workers that merge, state that comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.metrics import CoarsePrequential, Prequential
from learning.ratings import Ratings
from learning.slices import ALL, OTHER, PARTITION, VALUE, Slices, kind_of_slices


def stream(seed: int, n: int, values: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, labels, and keys of a feature whose frequent values come first."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return (
        p,
        (rng.random(n) < p).astype(np.float32),
        np.minimum(rng.geometric(0.3, n), values).astype(np.uint64),
    )


def same(first: Any, second: Any) -> bool:
    """Sums that are equal to the bit."""
    return all(
        a.tobytes() == b.tobytes()
        for a, b in zip(first.arrays().values(), second.arrays().values(), strict=True)
    )


def whole_of(p: np.ndarray, y: np.ndarray, kind: Any = CoarsePrequential) -> Any:
    """The metrics of these records alone."""
    metrics = kind.zero()
    metrics.update(p, y)
    return metrics


@given(cuts=st.lists(st.integers(1, 400), max_size=12))
def test_a_slice_is_exactly_the_metrics_of_its_records(cuts: list[int]) -> None:
    """However batches are cut: each slice, the rest, and all of them together."""
    p, y, keys = stream(1, 1000, 8)
    slices, seen = Slices(slices_max=4), 0
    for turn, cut in enumerate([*cuts, 1000]):
        here = slice(seen, seen + cut)
        slices.update(turn % 2, p[here], y[here], keys[here])
        seen = min(seen + cut, 1000)
    assert len(slices.values) == 4
    for key in slices.values:
        assert same(slices.total(VALUE, key), whole_of(p[keys == key], y[keys == key]))
    rest = ~np.isin(keys, np.array(slices.values, np.uint64))
    assert same(slices.total(OTHER), whole_of(p[rest], y[rest]))
    together = slices.total(OTHER)
    for key in slices.values:
        together += slices.total(VALUE, key)
    assert same(together, slices.total())
    assert same(slices.total(PARTITION, 0) + slices.total(PARTITION, 1), slices.total())


def test_a_slice_that_gets_worse_is_seen_there_and_in_the_window() -> None:
    """Half of the stream on, the labels of one value turn round: its recent figures tell, the whole's hardly."""
    p, y, keys = stream(2, 40_000, 8)
    turned = (np.arange(40_000) >= 30_000) & (keys == 3)
    y = np.where(turned, 1 - y, y).astype(np.float32)
    slices = Slices(window_records=4000)
    for i in range(0, 40_000, 1000):
        slices.update(0, p[i : i + 1000], y[i : i + 1000], keys[i : i + 1000])
    told, healthy = (slices.recent(VALUE, key).summary()["log_loss"] for key in (3, 1))
    assert told > healthy + 0.5
    assert slices.total(VALUE, 3).summary()["log_loss"] < told
    assert slices.groups[:3] == [(ALL, 0), (PARTITION, 0), (VALUE, slices.values[0])]
    assert 4000 <= slices.recent().records <= 8000
    assert same(slices.recent(VALUE, 3), whole_of(p[-8000:][keys[-8000:] == 3], y[-8000:][keys[-8000:] == 3]))


def test_what_has_no_record_is_zero_and_slices_may_be_none() -> None:
    """No feature named in the pipeline; a group that never came."""
    slices = Slices(slices_max=0)
    p, y, keys = stream(3, 100, 4)
    slices.update(7, p, y)
    assert slices.values == []
    assert slices.total(VALUE, 1).records == slices.recent(PARTITION, 3).records == 0
    slices.update(7, p, y, keys)
    assert slices.total(OTHER).records == 100
    with pytest.raises(ValueError, match="a key for each"):
        slices.update(7, p, y, keys[:5])


@pytest.mark.parametrize("kind", [CoarsePrequential, Prequential, Ratings])
def test_slices_come_back_from_their_arrays_bit_for_bit(kind: type) -> None:
    """Written in the middle of a window: the rest of the stream gives the same arrays."""
    p, y, keys = stream(4, 3000, 9)
    whole = Slices(kind, 3, 700)
    for i in range(0, 1500, 100):
        whole.update(i // 100 % 3, p[i : i + 100], y[i : i + 100], keys[i : i + 100])
    arrays = {
        name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in whole.arrays().items()
    }
    second = Slices.of(arrays, kind, 3, 700)
    for i in range(1500, 3000, 100):
        for slices in (whole, second):
            slices.update(i // 100 % 5, p[i : i + 100], y[i : i + 100], keys[i : i + 100])
    assert same(whole, second)
    assert same(whole.recent(VALUE, 1), second.recent(VALUE, 1))
    assert Slices.of(Slices(kind).arrays(), kind).total().records == 0
    with pytest.raises(ValueError, match="groups of different names"):
        Slices.of(arrays | {"what": arrays["what"] * 0, "keys": arrays["keys"] * 0}, kind)


def test_workers_merge_exactly_and_what_is_too_much_is_other() -> None:
    """Two workers with other values: the sums are those of one stream, whose slices are the first that come."""
    p, y, keys = stream(5, 2000, 9)
    first, second, alone = Slices(slices_max=3), Slices(slices_max=3), Slices(slices_max=3)
    first.update(0, p[:1000], y[:1000], keys[:1000])
    second.update(1, p[1000:], y[1000:], keys[1000:][::-1].copy())
    alone.update(0, p[:1000], y[:1000], keys[:1000])
    alone.update(1, p[1000:], y[1000:], keys[1000:][::-1].copy())
    recent = first.recent() + second.recent()
    merged = Slices(slices_max=3)
    merged.merge(first)
    assert merged.values == first.values
    merged.merge(second)
    assert same(merged.total(), alone.total())
    assert merged.values == first.values
    parts = [merged.total(VALUE, key) for key in merged.values]
    together = merged.total(OTHER)
    for part in parts:
        together += part
    assert same(together, merged.total())
    assert same(merged.recent(), recent)
    assert same(Slices.of(merged.arrays(), slices_max=3), merged)


def test_a_group_is_small_enough_to_be_reported_every_two_seconds() -> None:
    """Three sums of 4 KiB each, where whole metrics have 64 KiB; of ratings there is no smaller kind."""
    assert kind_of_slices(Ratings) is Ratings
    slices = Slices(kind_of_slices(Prequential), 16)
    p, y, keys = stream(6, 2000, 9)
    slices.update(0, p, y, keys)
    size = sum(array.nbytes for array in slices.arrays().values())
    assert size / len(slices.groups) < 13_000


def test_once_full_no_value_is_looked_at_alone() -> None:
    """A feature of a value a record: all but the first values are `other`, in one piece, whatever the batch."""
    slices = Slices(slices_max=4)
    p, y, _ = stream(7, 4000, 9)
    keys = np.arange(4000, dtype=np.uint64)[::-1].copy()
    slices.update(0, p[:2000], y[:2000], keys[:2000])
    slices.update(0, p[2000:], y[2000:], keys[2000:])
    assert slices.values == [3999, 3998, 3997, 3996]
    assert slices.values_count == 4
    assert same(slices.total(OTHER), whole_of(p[4:], y[4:]))
    assert same(slices.total(VALUE, 3998), whole_of(p[1:2], y[1:2]))
