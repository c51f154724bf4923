"""Prequential sums give the metrics that scikit-learn gives, and add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from learning.metrics import DelayHistogram, Prequential


def predictions(n: int, seed: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated predictions around a base rate, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.beta(20 * rate, 20 * (1 - rate), n)
    return p, (rng.random(n) < p).astype(np.float32)


@pytest.mark.parametrize(("rate", "precision_rel"), [(0.5, 1e-3), (0.1, 3e-3), (0.01, 2e-2)])
def test_metrics_agree_with_scikit_learn(rate: float, precision_rel: float) -> None:
    """Exact for log-loss and accuracy, within 1e-4 for the binned AUC; average precision suffers where hits are few."""
    p, y = predictions(50_000, 1, rate)
    metrics = Prequential.zero()
    metrics.update(p, y)
    summary = metrics.summary()
    assert summary["log_loss"] == pytest.approx(log_loss(y, p), rel=1e-9)
    assert summary["accuracy"] == pytest.approx(float(((p >= 0.5) == (y >= 0.5)).mean()))
    assert summary["auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-4)
    assert summary["average_precision"] == pytest.approx(average_precision_score(y, p), rel=precision_rel)
    assert summary["calibration"] == pytest.approx(p.mean() / y.mean())
    assert summary["prior_log_loss"] == pytest.approx(log_loss(y, np.full(len(y), y.mean())))


def test_parts_add_to_the_whole_and_windows_are_differences() -> None:
    """Batches of two workers sum; later minus earlier is the window."""
    p, y = predictions(10_000, 2, 0.3)
    whole, first, second = Prequential.zero(), Prequential.zero(), Prequential.zero()
    whole.update(p, y)
    first.update(p[:4000], y[:4000])
    second.update(p[4000:], y[4000:])
    assert (first + second).summary() == pytest.approx(whole.summary())
    assert (whole - first).summary() == pytest.approx(second.summary())


def test_no_records_and_a_single_class_give_nan_not_an_error() -> None:
    """The first seconds of a stream of rare events have no positives."""
    assert all(math.isnan(value) for value in Prequential.zero().summary().values())
    metrics = Prequential.zero()
    metrics.update(np.array([0.1, 0.2]), np.zeros(2, np.float32))
    summary = metrics.summary()
    assert math.isnan(summary["auc"])
    assert math.isnan(summary["average_precision"])
    assert summary["prior_log_loss"] == 0.0


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinity() -> None:
    """Predictions of 0 and 1 are clipped in the loss."""
    metrics = Prequential.zero()
    metrics.update(np.array([0.0, 1.0]), np.array([1.0, 0.0], np.float32))
    assert 30 < metrics.summary()["log_loss"] < 40


def test_quantiles_of_delays_are_within_five_percent() -> None:
    """Logarithmic bins over five decades."""
    delays = np.random.default_rng(0).lognormal(0.0, 2.0, 20_000)
    histogram = DelayHistogram()
    histogram.update(np.append(delays, np.nan))
    for share in (0.5, 0.9, 0.99):
        assert histogram.quantile_s(share) == pytest.approx(float(np.quantile(delays, share)), rel=0.05)


def test_unknown_production_times_leave_no_delay() -> None:
    """Files have no production times."""
    histogram = DelayHistogram()
    histogram.update(np.full(3, np.nan))
    assert math.isnan(histogram.quantile_s(0.5))
