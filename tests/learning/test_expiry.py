"""The age of ticks in records and seconds of the stream, and the sweep over stamps."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learning.expiry import CONFIRMED, StreamAge
from learning.last_use import STAMP_NEVER, rebase, sample, sweep, touch


@given(st.lists(st.integers(0, 9), max_size=200), st.integers(1, 60))
def test_a_short_history_is_never_too_early(records: list[int], after: int) -> None:
    """More ticks matter than are kept: rows stay longer than they should, at most by a part of the window."""
    exact, short = StreamAge(after, 0.0), StreamAge(after, 0.0, history_max=8)
    before, total = [0], 0
    for tick, count in enumerate(records, start=1):
        right = max((u for u, at in enumerate(before) if total - at >= after), default=-1)
        assert exact.advance(tick, count, math.nan) == right
        assert short.advance(tick, count, math.nan) <= right
        total += count
        before.append(total)


def test_time_begins_when_it_is_first_known() -> None:
    """Batches without a time come first: their rows are as old as the first time, and late records age nothing."""
    age = StreamAge(0, 10.0)
    times_s = [math.nan, math.nan, 100.0, 95.0, 109.0, 110.0, 119.0, 118.0, 120.0]
    cutoffs = [age.advance(tick, 1, time_s) for tick, time_s in enumerate(times_s, start=1)]
    assert cutoffs == [-1, -1, -1, -1, -1, 4, 5, 5, 6]


def test_the_hand_goes_around_and_stops_where_its_hands_are_full() -> None:
    """A sweep finds rows up to a stamp, skips free ones and those that never go, and continues where it was."""
    stamps = np.array([3, 0, 1, STAMP_NEVER, 2, 9], np.uint32)
    found = np.empty(2, np.int64)
    assert sweep(stamps, 6, 1, 6, 3, found) == (5, 2)
    assert found.tolist() == [2, 4]
    stamps[found] = 0  # whoever looks for them has them forgotten, once their content is noted
    assert sweep(stamps, 6, 5, 2, 3, found) == (1, 1)
    assert found[0] == 0
    assert stamps.tolist() == [3, 0, 0, STAMP_NEVER, 0, 9], "a search changes nothing"


def test_touching_finds_what_is_too_old() -> None:
    """Rows that are there are stamped, except one that never goes; old ones are reported and count as missing."""
    stamps, rows, stale = (
        np.array([3, 4, STAMP_NEVER], np.uint32),
        np.array([2, -1, 0, 1]),
        np.empty(4, np.int64),
    )
    assert touch(rows, stamps, 3, 7, stale) == 1
    assert (rows.tolist(), stale[0], stamps.tolist()) == ([2, -1, -1, 1], 0, [3, 7, STAMP_NEVER])


def test_a_sample_of_a_small_table_is_all_of_it() -> None:
    """Up to its size a sample is exact, beyond it is drawn from everywhere; free rows and held ones are left out."""
    stamps, taken = np.array([5, 0, 2, 9, STAMP_NEVER], np.uint32), np.empty(5, np.uint32)
    assert sorted(taken[: sample(stamps, 5, 8, 1, taken)].tolist()) == [2, 5]
    many, taken = np.repeat(np.arange(1, 101, dtype=np.uint32), 100), np.empty(1000, np.uint32)
    assert sample(many, len(many), 50, 1, taken) > 400
    assert 20 < np.median(taken[:400]) < 30


def test_stamps_begin_again_without_losing_their_order() -> None:
    """After four thousand million batches stamps become smaller; free rows and those that never go stay so."""
    stamps = np.array([0, 3, 10, 12, STAMP_NEVER], np.uint32)
    rebase(stamps, 8)
    assert stamps.tolist() == [0, 1, 2, 4, STAMP_NEVER]


def test_one_absurd_time_ages_nobody_and_a_lasting_leap_is_believed() -> None:
    """A batch in milliseconds, or by another clock, among batches of seconds; and a stream that slept for months."""
    age = StreamAge(0, 30.0)
    assert all(age.advance(tick, 1, float(tick)) < 1 for tick in range(1, 10))
    assert age.advance(10, 1, 1.7e12) < 1
    assert age.advance(11, 1, 11.0) < 1
    cutoffs = [age.advance(12 + i, 1, 1e6 + i) for i in range(CONFIRMED)]
    assert all(cutoff < 1 for cutoff in cutoffs[:-1])
    assert cutoffs[-1] >= 11, "the leap is real: what came before it is too old"
