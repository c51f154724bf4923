"""Metrics of ratings are those of numpy and river, and add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from river import metrics as river_metrics

from learning.ratings import Ratings


def rated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(1, 11, n).astype(np.float32) / 2
    return y + rng.normal(0.1, 0.9, n), y


def test_metrics_agree_with_river_and_numpy() -> None:
    """All are exact, up to the order of sums."""
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
    assert first.sums[0] < copy.sums[0]


def test_no_records_give_nan_and_equal_ratings_no_error() -> None:
    """The first second of a stream; and a stream in which everybody gives a 0.1."""
    assert all(math.isnan(value) for value in Ratings.zero().summary().values())
    metrics = Ratings.zero()
    metrics.update(np.full(7, 0.2), np.full(7, 0.1, np.float32))
    assert metrics.summary()["deviation"] == pytest.approx(0.0, abs=1e-7)
