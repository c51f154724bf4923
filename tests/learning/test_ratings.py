"""Metrics of ratings are those of numpy and river, and add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import metrics as river_metrics

from learning.ratings import Ratings
from tests.learning.exact_sums import assert_grouping_changes_nothing, same, totals

ROWS = st.lists(st.tuples(st.floats(-1e10, 1e10), st.floats(-1e9, 1e9, width=32)), max_size=40)


def rated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(1, 11, n).astype(np.float32) / 2
    return y + rng.normal(0.1, 0.9, n), y


def test_metrics_agree_with_river_and_numpy() -> None:
    """Sums are exact; each record is rounded once, by at most 2^-49."""
    p, y = rated(5000, 1)
    metrics = Ratings.zero()
    metrics.update(p, y)
    rmse, mae = river_metrics.RMSE(), river_metrics.MAE()
    for prediction, rating in zip(p.tolist(), y.tolist(), strict=True):
        rmse.update(rating, prediction)
        mae.update(rating, prediction)
    summary = metrics.summary()
    assert list(summary)[:2] == ["rmse", "mae"]
    assert summary["rmse"] == pytest.approx(rmse.get(), rel=1e-12)
    assert summary["mae"] == pytest.approx(mae.get(), rel=1e-12)
    assert summary["bias"] == pytest.approx((p - y).mean(), rel=1e-9)
    assert summary["deviation"] == pytest.approx(y.astype(float).std(), rel=1e-9)


def test_parts_add_to_the_whole_and_windows_are_differences() -> None:
    """Batches of two workers sum; later minus earlier is the window; a copy is its own."""
    p, y = rated(1000, 2)
    whole, first, second = Ratings.zero(), Ratings.zero(), Ratings.zero()
    whole.update(p, y)
    first.update(p[:400], y[:400])
    second.update(p[400:], y[400:])
    assert (first + second).summary() == pytest.approx(whole.summary())
    assert (whole - first).summary() == pytest.approx(second.summary())
    copy = first.copy()
    copy.update(p[400:], y[400:])
    assert (first.records, copy.records) == (400, 1000)
    assert not np.array_equal(first.sums, copy.sums)


def test_no_records_give_nan_and_equal_ratings_no_error() -> None:
    """The first second of a stream; and a stream in which everybody gives a 0.1."""
    assert all(math.isnan(value) for value in Ratings.zero().summary().values())
    metrics = Ratings.zero()
    metrics.update(np.full(7, 0.2), np.full(7, 0.1, np.float32))
    assert metrics.summary()["deviation"] == pytest.approx(0.0, abs=1e-7)


@given(ROWS, st.lists(st.integers(0, 40), max_size=4), st.randoms(use_true_random=False))
def test_every_split_and_order_gives_the_same_bytes(rows, cuts, random) -> None:
    """Reports come by the clock, from workers in any order: sums of the same records are the same, differences too."""
    assert_grouping_changes_nothing(Ratings, rows, cuts, random)


@given(ROWS.filter(bool))
def test_sums_are_those_of_exact_arithmetic(rows) -> None:
    """Ratings of any size, far apart: means agree with math.fsum, which rounds once."""
    p, y = np.array(rows, np.float64).T
    e = p - y
    e = e[np.abs(e) <= 2**31]
    summary = totals(
        Ratings, [row for row, error in zip(rows, p - y, strict=True) if abs(error) <= 2**31]
    ).summary()
    if len(e):
        assert summary["rmse"] == pytest.approx(math.sqrt(math.fsum(e * e) / len(e)), rel=1e-12, abs=1e-7)
        assert summary["mae"] == pytest.approx(math.fsum(np.abs(e)) / len(e), rel=1e-12, abs=1e-14)
        assert summary["bias"] == pytest.approx(math.fsum(e) / len(e), rel=1e-12, abs=1e-14)


def test_predictions_that_are_lost_show_and_pass_with_their_window() -> None:
    """A learner diverged: NaN and infinity count as errors of 2^31, no sum is poisoned, the next window is clean."""
    before, later = (
        totals(Ratings, [(math.nan, 3.0), (math.inf, 1.0), (-math.inf, 1.0), (2.0, 1.0)]),
        totals(Ratings, [(2.0, 1.0)]),
    )
    assert before.summary()["rmse"] == pytest.approx(2**31 * math.sqrt(3 / 4))
    assert before.summary()["bias"] == pytest.approx((2**31 + 1) / 4)
    assert (before + later - before).summary() == pytest.approx(totals(Ratings, [(2.0, 1.0)]).summary())


def test_the_largest_errors_do_not_overflow() -> None:
    """A hundred thousand errors of two thousand million: rmse is as exact as ever, and stays after merging."""
    metrics = Ratings.zero()
    metrics.update(np.full(100_000, 1e9), np.full(100_000, -1e9, np.float32))
    for _ in range(10):
        metrics += metrics
    assert metrics.records == 102_400_000
    assert metrics.summary()["rmse"] == 2e9


def test_arrays_and_back() -> None:
    """A snapshot keeps the sums as arrays: what comes back is the same, and its own, even from read-only arrays."""
    metrics = totals(Ratings, [(1.5, 2.0), (-3.25, 4.0)])
    arrays = metrics.arrays()
    for array in arrays.values():
        array.flags.writeable = False
    back = Ratings.of(arrays)
    assert same(back, metrics)
    back.update(np.ones(1), np.ones(1, np.float32))
    assert not same(back, metrics)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("sums", np.zeros((4, 2), np.int64)),
        ("sums", np.zeros((7, 2))),
        ("records", np.zeros((), np.int64)),
        ("counts", np.zeros(1, np.int64)),
    ],
)
def test_arrays_of_something_else_are_refused(name: str, array: np.ndarray) -> None:
    """A snapshot of another learner, or a damaged one, is a sentence and not a wrong sum."""
    with pytest.raises(ValueError, match=r"^expected .* got "):
        Ratings.of(Ratings.zero().arrays() | {name: array})
