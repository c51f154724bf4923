"""Drift: detectors against river's, blocks against any cut, votes of partitions, and state that comes back."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.drift import DETECTORS, DriftWatch, WatchSettings
from learning.drift_blocks import BlockMeans, change_point, shifts
from learning.drift_kswin import ks_chance
from learning.drift_verdicts import FALL, RISE
from tests.learning import drift_streams as streams

KINDS = sorted(DETECTORS)


def watched(watch: DriftWatch, losses: np.ndarray, cut: int, partitions: int = 1, series=None) -> list:
    """All events of a stream whose batches of `cut` records go round the partitions."""
    events = []
    for turn, i in enumerate(range(0, len(losses), cut)):
        rows = None if series is None else series[:, i : i + cut]
        events += watch.update(turn % partitions, losses[i : i + cut], rows)
    return events


@pytest.mark.parametrize("name", streams.PAIRS)
@pytest.mark.parametrize("seed", range(3))
def test_a_detector_says_what_rivers_says_of_the_same_numbers(name: str, seed: int) -> None:
    """Six levels one after the other, rises and falls: verdict for verdict the same, warnings included."""
    values = streams.values_for(name, seed)
    detector = streams.ours(name)
    verdicts = np.abs(detector.update(detector.initial(), values))
    np.testing.assert_array_equal(verdicts, streams.plain_loop(name, values))
    assert (verdicts == 2).any()


@given(
    st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 35.0)), max_size=200), st.integers(0, 10)
)
@settings(max_examples=40)
def test_any_numbers_give_rivers_verdicts(values: list[float], repeats: int) -> None:
    """Constant runs, jumps and ties, with the settings of river's own defaults."""
    series = np.repeat(np.array(values), repeats + 1)
    for name in ("adwin", "adwin_rarely", "page_hinkley", "page_hinkley_river"):
        detector = streams.ours(name)
        verdicts = np.abs(detector.update(detector.initial(), series))
        np.testing.assert_array_equal(verdicts, streams.plain_loop(name, series))


@pytest.mark.parametrize("name", [*streams.PAIRS, "window"])
def test_a_detector_restored_in_the_middle_gives_the_same_verdicts(name: str) -> None:
    """Its state is one vector: written and read at any moment, the rest of the stream is judged the same."""
    if name == "window":
        detector, values = DETECTORS["window"](), streams.values_for("adwin", 4)
    else:
        detector, values = streams.ours(name), streams.values_for(name, 4)
    whole = detector.update(state := detector.initial(), values)
    for cut in (1, len(values) // 3, len(values) // 2, len(values) - 1):
        before = detector.initial()
        first = detector.update(before, values[:cut])
        restored = np.frombuffer(before.tobytes()).copy()
        rest = detector.update(restored, values[cut:])
        np.testing.assert_array_equal(np.concatenate((first, rest)), whole)
        assert restored.tobytes() == state.tobytes()


@pytest.mark.parametrize("r", [1, 5, 12, 30, 100])
def test_the_chance_of_a_distance_is_that_of_the_formula(r: int) -> None:
    """Gnedenko and Korolyuk's sum in whole numbers; that it is scipy's, the comparison with river shows."""
    assert ks_chance(r, 0) == 1.0
    for h in range(1, r + 1):
        terms = ((-1) ** (k - 1) * math.comb(2 * r, r - k * h) for k in range(1, r // h + 1))
        assert ks_chance(r, h) == pytest.approx(2 * sum(terms) / math.comb(2 * r, r), rel=1e-9)


def test_the_window_detector_sees_a_level_that_comes_again() -> None:
    """High, low, high, low: a baseline that only went up would miss the second rise."""
    values = np.repeat([0.3, 0.6, 0.3, 0.6, 0.3], 300) + np.random.default_rng(0).normal(0, 0.05, 1500)
    detector = DETECTORS["window"]()
    verdicts = detector.update(detector.initial(), values)
    found = [int(v) for v in verdicts if v in {RISE, FALL}]
    assert found == [RISE, FALL, RISE, FALL]


def test_the_default_finds_a_rise_as_soon_as_single_records_would() -> None:
    """A loss of 0.44 that rises by 0.13: found within 2,000 records in each of five streams.

    Fed with means of blocks instead of sums ADWIN would need twice that: its bound takes the range of a value for 1.
    """
    for seed in range(5):
        drift = watched(DriftWatch(), streams.losses(seed, [0.15, 0.21], 20_000), 512)
        assert [event.kind for event in drift] == ["drift"]
        assert 20_000 < drift[0].records < 22_000


@pytest.mark.parametrize("kind", ["adwin", "kswin", "window"])
def test_a_stationary_stream_is_left_in_peace(kind: str) -> None:
    """100,000 records at one rate of 0.1: no drift in any of five streams."""
    for seed in range(5):
        watch = DriftWatch(DETECTORS[kind]())
        events = watched(watch, streams.losses(seed, [0.1], 100_000), 4096)
        assert "drift" not in {event.kind for event in events}


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(1, 70))
@settings(max_examples=30)
def test_block_means_do_not_see_where_batches_are_cut(cuts: list[int], block: int) -> None:
    """To the bit, also where a series has no value for some records or for a whole block."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 2000))
    values[1, rng.random(2000) < 0.5] = np.nan
    values[2] = np.nan
    whole, _ = BlockMeans.empty(block, 3).add(values)
    parts = BlockMeans.empty(block, 3)
    means, seen = [], 0
    for cut in [*cuts, 2000]:
        got, ends = parts.add(values[:, seen : seen + cut])
        assert ((ends + seen) % block == 0).all()
        means.append(got)
        seen = min(seen + cut, 2000)
    np.testing.assert_array_equal(np.concatenate(means, axis=1), whole)
    assert whole.shape == (3, 2000 // block)
    np.testing.assert_allclose(whole[0], values[0, : 2000 // block * block].reshape(-1, block).mean(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_events_do_not_see_where_batches_are_cut(kind: str) -> None:
    """One partition, batches of 1,000, of 37 or all at once: equal events, with equal levels and moments."""
    losses = streams.losses(2, [0.1, 0.4, 0.1], 6000)
    series = (losses > 1.0).astype(float)[None]
    told = [
        watched(DriftWatch(DETECTORS[kind](), ("wrong",)), losses, cut, series=series)
        for cut in (1000, 37, len(losses))
    ]
    assert told[0] == told[1] == told[2]
    assert {event.kind for event in told[0]} >= {"drift"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_watch_comes_back_from_its_arrays_bit_for_bit(kind: str) -> None:
    """Three partitions, stopped at any batch: the same arrays, and the very same later events."""
    losses = streams.losses(3, [0.1, 0.4, 0.1, 0.4], 9000)
    series = np.random.default_rng(0).random((1, len(losses)))
    whole = DriftWatch(DETECTORS[kind](), ("other",))
    told = watched(whole, losses, 300, 3, series)
    for cut in (300, 9300, 9600, 20100):
        first = DriftWatch(DETECTORS[kind](), ("other",))
        events = watched(first, losses[:cut], 300, 3, series[:, :cut])
        arrays = {
            name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
            for name, array in first.arrays().items()
        }
        assert all(array.dtype != object for array in arrays.values())
        second = DriftWatch.of(arrays, DETECTORS[kind](), ("other",))
        turn = cut // 300
        for i in range(cut, len(losses), 300):
            events += second.update(turn % 3, losses[i : i + 300], series[:, i : i + 300])
            turn += 1
        assert events == told
        ours, theirs = whole.arrays(), second.arrays()
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
        assert second.signals == whole.signals


def test_arrays_of_another_watch_are_refused() -> None:
    """Another detector, other series, or missing arrays: a sentence, and no half-restored watch."""
    watch = DriftWatch(series=("other",))
    watched(watch, np.zeros(100), 10, series=np.zeros((1, 100)))
    arrays = watch.arrays()
    for detector, names in ((DETECTORS["ddm"](), ("other",)), (None, ())):
        with pytest.raises(ValueError, match="expected"):
            DriftWatch.of(arrays, detector, names)
    with pytest.raises(ValueError, match="expected arrays"):
        DriftWatch.of({k: v for k, v in arrays.items() if k != "job"}, None, ("other",))
    with pytest.raises(ValueError, match="open block"):
        DriftWatch.of(arrays | {"counts": arrays["counts"] + 1000}, None, ("other",))
    assert DriftWatch.of(DriftWatch().arrays()).records == 0


def test_a_drift_of_one_partition_of_four_is_a_warning() -> None:
    """One partition of four goes bad: a warning that names it, and no drift of the job."""
    good, bad = streams.losses(5, [0.1], 20_000), streams.losses(6, [0.1, 0.5], 10_000)
    watch, events = DriftWatch(), []
    for i in range(0, 20_000, 500):
        for partition in range(4):
            events += watch.update(partition, (bad if partition == 2 else good)[i : i + 500])
    assert [(event.kind, event.partitions) for event in events] == [("warning", (2,))]
    assert events[0].records > 40_000


def test_a_drift_of_all_is_one_drift_and_those_who_come_later_join_it() -> None:
    """Four partitions, one change: one drift at the quorum of two, two that join, no second drift."""
    watch = DriftWatch()
    events = watched(watch, streams.losses(7, [0.1, 0.5], 40_000), 500, 4)
    assert Counter(event.kind for event in events) == {"warning": 1, "drift": 1, "joined": 2}
    drift = next(event for event in events if event.kind == "drift")
    assert len(drift.partitions) == 2
    assert 40_000 < drift.records < 46_000
    assert drift.before == pytest.approx(0.325, abs=0.05)
    assert drift.after == pytest.approx(1.2, abs=0.15)
    assert all(event.number == 1 and event.rose for event in events)
    late = {n for event in events if event.kind == "joined" for n in event.partitions}
    assert late | set(drift.partitions) == {0, 1, 2, 3}


def test_an_idle_partition_has_no_say() -> None:
    """Of three partitions two have fallen silent: the third's drift is the job's."""
    watch = DriftWatch(settings=WatchSettings(window_records=2000))
    for partition in range(3):
        watch.update(partition, streams.losses(8, [0.1], 2000))
    events = watched(watch, streams.losses(9, [0.1, 0.5], 20_000), 500)
    assert [event.kind for event in events] == ["drift"]
    assert events[0].partitions == (0,)


def test_a_fall_of_the_loss_is_no_drift() -> None:
    """The model learns: an improvement, which has to call for no reaction."""
    events = watched(DriftWatch(), streams.losses(10, [0.5, 0.1], 10_000), 500)
    assert [event.kind for event in events] == ["improvement"]
    assert not events[0].rose
    assert events[0].after < events[0].before


def test_a_drift_says_what_moved_with_it() -> None:
    """Missing values rise and one slice gets worse; another series does not move, and a third never has a value."""
    rng = np.random.default_rng(11)
    losses = streams.losses(11, [0.1, 0.4], 10_000)
    late = np.arange(20_000) >= 10_000
    missing = (rng.random(20_000) < np.where(late, 0.3, 0.05)).astype(float)
    slice_loss = np.where(rng.random(20_000) < 0.3, losses, np.nan)
    names = ("missing age", "loss of device=mobile", "new keys", "loss of device=none")
    series = np.stack((missing, slice_loss, rng.random(20_000), np.full(20_000, np.nan)))
    (drift,) = watched(DriftWatch(series=names), losses, 1000, series=series)
    assert {shift.name for shift in drift.moved} == {"missing age", "loss of device=mobile"}
    moved = next(shift for shift in drift.moved if shift.name == "missing age")
    assert (moved.before, moved.after) == pytest.approx((0.05, 0.3), abs=0.04)


def test_a_model_that_is_lost_is_a_drift_not_a_crash() -> None:
    """NaN and infinite losses count as the largest."""
    losses = np.concatenate((streams.losses(12, [0.1], 10_000), np.full(1000, np.nan), np.full(100, np.inf)))
    events = watched(DriftWatch(), losses, 500)
    assert [event.kind for event in events] == ["drift"]
    assert events[0].after > 5.0


def test_the_change_is_found_where_it_was() -> None:
    """A step between values 40 and 41 of 100; in the other direction there is nothing so large."""
    values = np.r_[np.full(40, 1.0), np.full(60, 2.0)] + np.random.default_rng(0).normal(0, 0.2, 100)
    assert change_point(values, 3, 1) == 40
    assert change_point(values[:5], 3, 1) == 0
    (still, moved) = shifts(("moved", "still"), np.stack((values, np.full(100, 0.1))), 40)[::-1]
    assert (still.name, still.errors) == ("still", 0.0)
    assert moved.errors > 20


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("adwin", {"delta": 0.0}),
        ("kswin", {"window_size": 50, "stat_size": 30}),
        ("page_hinkley", {"mode": "sideways"}),
        ("window", {"warning": 9.0}),
        ("ddm", {"warm_start": 0}),
        ("hddm_a", {"drift_confidence": 0.5, "warning_confidence": 0.1}),
        ("hddm_w", {"rate": 2.0}),
    ],
)
def test_a_parameter_that_cannot_be_is_named(kind: str, wrong: dict) -> None:
    """A slip in the pipeline file: the sentence says which key it is."""
    with pytest.raises(ValueError, match="should be"):
        DETECTORS[kind](**wrong)
