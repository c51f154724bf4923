"""Prequential sums give the metrics that scikit-learn gives, and add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from learning import metrics as kernels
from learning.metrics import CoarsePrequential, DelayHistogram, Prequential
from tests.learning.exact_sums import assert_grouping_changes_nothing, same, totals

ROWS = st.lists(
    st.tuples(st.floats(0.0, 1.0), st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0, width=32))),
    max_size=40,
)


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


@pytest.mark.parametrize(("rate", "spread"), [(0.5, 0.5), (0.5, 1.0), (0.1, 1.0), (0.01, 1.0), (0.01, 2.0)])
def test_coarse_metrics_are_exact_but_for_the_order(rate: float, spread: float) -> None:
    """AUC is within 0.005, where predictions differ at all; sums are those of the whole metrics."""
    rng = np.random.default_rng(3)
    p = 1 / (1 + np.exp(-rng.normal(np.log(rate / (1 - rate)), spread, 50_000)))
    y = (rng.random(50_000) < p).astype(np.float32)
    coarse, fine = CoarsePrequential.zero(), Prequential.zero()
    coarse.update(p, y)
    fine.update(p, y)
    assert coarse.sums.tobytes() == fine.sums.tobytes()
    assert coarse.summary()["auc"] == pytest.approx(roc_auc_score(y, p), abs=0.005)
    assert (coarse.histograms == fine.histograms.reshape(2, 256, 16).sum(axis=2)).all()
    assert isinstance(coarse + coarse - coarse, CoarsePrequential)


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


@given(ROWS, st.lists(st.integers(0, 40), max_size=4), st.randoms(use_true_random=False))
def test_every_split_and_order_gives_the_same_bytes(rows, cuts, random) -> None:
    """Reports come by the clock, from workers in any order: sums of the same records are the same, differences too."""
    assert_grouping_changes_nothing(Prequential, rows, cuts, random)


def test_a_long_stream_in_batches_of_any_size_gives_the_same_bytes() -> None:
    """A restart cuts the stream elsewhere: 50,000 records in batches of 1 to 5,000."""
    p, y = predictions(50_000, 3, 0.1)
    whole, rng = Prequential.zero(), np.random.default_rng(4)
    whole.update(p, y)
    cut, first = Prequential.zero(), 0
    while first < len(p):
        last = first + int(rng.choice([1, 7, 500, 5000]))
        cut.update(p[first:last], y[first:last])
        first = last
    assert same(cut, whole)


def test_predictions_that_are_lost_count_as_certain_and_wrong() -> None:
    """A learner diverged and predicts NaN: the metrics say so, no sum is poisoned, and the next window is clean."""
    lost, wrong = (
        totals(Prequential, [(math.nan, 1.0), (math.nan, 0.0)]),
        totals(Prequential, [(0.0, 1.0), (1.0, 0.0)]),
    )
    assert same(lost, wrong)
    assert lost.summary()["auc"] == 0.0
    later = totals(Prequential, [(0.2, 0.0), (0.7, 1.0)])
    assert same(lost + later - lost, later)


def test_arrays_and_back() -> None:
    """A snapshot keeps the sums as arrays: what comes back is the same, and its own, even from read-only arrays."""
    metrics, histogram = totals(Prequential, [(0.25, 1.0), (0.5, 0.0)]), DelayHistogram()
    histogram.update(np.array([0.5, 2.0]))
    for kept in (metrics, histogram):
        arrays = kept.arrays()
        for array in arrays.values():
            array.flags.writeable = False
        assert same(type(kept).of(arrays), kept)
    again = Prequential.of(metrics.arrays())
    again.update(np.array([0.5]), np.ones(1, np.float32))
    assert not same(again, metrics)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("sums", np.zeros((4, 3), np.int64)),
        ("sums", np.zeros((4, 2))),
        ("histograms", np.zeros((2, 100), np.int64)),
        ("records", np.zeros(1, np.int32)),
        ("others", np.zeros(1, np.int64)),
    ],
)
def test_arrays_of_something_else_are_refused(name: str, array: np.ndarray) -> None:
    """A snapshot of another learner, or a damaged one, is a sentence and not a wrong sum."""
    with pytest.raises(ValueError, match=r"^expected .* got "):
        Prequential.of(Prequential.zero().arrays() | {name: array})
    with pytest.raises(ValueError, match=r"^expected .* got "):
        DelayHistogram.of({name: array})


def test_read_only_arrays_of_another_process_compile_nothing() -> None:
    """Ray hands arrays over read-only, and numba compiles for those anew: half a second in the middle of a stream."""
    metrics, delays = totals(Prequential, [(0.25, 1.0)]), DelayHistogram()
    compiled = len(kernels._tally.signatures)
    p, y = np.array([0.5, 0.0, 0.75, 0.0]), np.ones(2, np.float32)
    for array in (metrics.sums, metrics.histograms, delays.counts, p, y):
        array.flags.writeable = False
    metrics.update(p[::2], y)
    delays.update(p)
    assert (metrics.records, delays.counts.sum()) == (3, 4)
    assert len(kernels._tally.signatures) == compiled
