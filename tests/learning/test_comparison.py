"""An older model is called better when it is, hardly ever when it is not, and whenever one looks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as mean_log_loss

from learning.comparison import Comparison
from learning.losses import log_loss, squared_error
from learning.metrics import Prequential

STREAMS = 400
RECORDS = 20_000


def first_alarm(differences: np.ndarray, labels: np.ndarray | None = None) -> int:
    """Records after which the older model was called better, looking at every block; 0: never."""
    comparison = Comparison()
    nothing = np.zeros(comparison.block_records)
    for first in range(0, len(differences), comparison.block_records):
        block = slice(first, first + comparison.block_records)
        comparison.add(differences[block], nothing, None if labels is None else labels[block])
        if comparison.older_is_better:
            return comparison.records
    return 0


def alarms(
    make: Callable[[np.random.Generator], tuple[np.ndarray, ...]], streams: int = STREAMS
) -> np.ndarray:
    return np.array([first_alarm(*make(np.random.default_rng(seed))) for seed in range(streams)])


def classified(rng: np.random.Generator, rate: float, present: float, older: float) -> tuple[np.ndarray, ...]:
    """Differences of log-loss and labels: logits around a base rate, which two models know with errors."""
    logits = rng.normal(math.log(rate / (1 - rate)), 1.0, RECORDS)
    y = (rng.random(RECORDS) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    losses = [log_loss(1 / (1 + np.exp(-logits - rng.normal(0.0, s, RECORDS))), y) for s in (present, older)]
    return losses[0] - losses[1], y


def test_equal_models_seldom_raise_an_alarm() -> None:
    """Two models err alike, and somebody looks 200 times: wrong in at most one of a hundred streams, within noise."""
    assert np.mean(alarms(lambda rng: (rng.normal(size=RECORDS),)) > 0) <= 0.02


@pytest.mark.parametrize("rate", [0.3, 0.03])
def test_equal_classifiers_seldom_raise_an_alarm(rate: float) -> None:
    """Their differences of log-loss are skewed, the more the rarer the clicks are."""
    assert np.mean(alarms(lambda rng: classified(rng, rate, 0.5, 0.5), 200) > 0) <= 0.02


def test_neighbours_that_depend_on_each_other_raise_no_more_alarms() -> None:
    """A hard minute is hard for many records in a row: an autoregression of 0.9."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(RECORDS, STREAMS))
    for i in range(1, RECORDS):
        noise[i] += 0.9 * noise[i - 1]
    assert np.mean([first_alarm(stream) > 0 for stream in np.ascontiguousarray(noise.T)]) <= 0.02


def test_a_rare_positive_that_did_not_come_yet_raises_no_alarm() -> None:
    """One click in a thousand; the older model halves every probability: better on each negative, on the whole worse.

    Without labels the first 2,000 records would often decide, wrongly, for there may be no click in them.
    """

    def halved(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        y = (rng.random(RECORDS) < 0.001).astype(np.float32)
        return log_loss(np.full(RECORDS, 1e-3), y) - log_loss(np.full(RECORDS, 5e-4), y), y

    assert np.mean(alarms(halved, 200) > 0) <= 0.02
    assert np.mean(alarms(lambda rng: halved(rng)[:1], 200) > 0) > 0.05


@pytest.mark.parametrize("rate", [0.3, 0.03])
def test_a_drop_of_five_percent_is_found_within_20000_records(rate: float) -> None:
    """The present model's logits are noisier by 0.6, which costs 5 to 6 percent of log-loss."""
    found = alarms(lambda rng: classified(rng, rate, 0.6, 0.0), 40)
    assert (found > 0).all()
    assert np.median(found) <= 5000


def test_the_better_present_model_is_kept() -> None:
    """It learnt, the older one did not: the interval ends below zero, and nothing is decided."""
    comparison = Comparison()
    differences, _ = classified(np.random.default_rng(1), 0.3, 0.0, 0.6)
    comparison.add(differences, np.zeros(RECORDS))
    assert comparison.lower < comparison.mean < comparison.upper < 0.0
    assert not comparison.older_is_better


def test_models_that_are_the_same_are_never_apart() -> None:
    """An older version that equals the present one, so that all differences are zero."""
    comparison, losses = Comparison(), np.random.default_rng(2).random(5000)
    comparison.add(losses, losses.copy())
    assert (comparison.lower, comparison.mean, comparison.upper) == (0.0, 0.0, 0.0)
    assert not comparison.older_is_better


def test_a_constant_difference_has_no_noise_and_counts_against_the_margin() -> None:
    """The present model is worse by a quarter on every record: better than 0 and than 0.2, not than 0.25."""
    for margin, better in ((0.0, True), (0.2, True), (0.25, False)):
        comparison = Comparison(margin=margin)
        comparison.add(np.full(2000, 0.75), np.full(2000, 0.5))
        assert (comparison.lower, comparison.upper) == (0.25, 0.25)
        assert comparison.older_is_better == better


def test_fewer_blocks_than_the_least_never_decide() -> None:
    """1,999 records are 19 blocks of 100: the largest difference does not tell; one record more does."""
    comparison = Comparison()
    assert math.isnan(comparison.mean)
    assert (comparison.lower, comparison.upper) == (-math.inf, math.inf)
    comparison.add(np.full(1999, 30.0), np.zeros(1999))
    assert (comparison.records, comparison.blocks) == (1999, 19)
    assert not comparison.older_is_better
    comparison.add(np.full(1, 30.0), np.zeros(1))
    assert comparison.older_is_better


@given(st.lists(st.integers(0, 700), max_size=6))
@settings(max_examples=50)
def test_every_split_into_batches_gives_the_same(sizes: list[int]) -> None:
    """Batches are cut by the clock and by restarts: mean and interval are the same to the bit."""
    rng = np.random.default_rng(3)
    present, older = rng.random(750), rng.random(750)
    whole, cut = Comparison(block_records=7), Comparison(block_records=7)
    whole.add(present, older)
    for first, last in zip([0, *sorted(sizes)], [*sorted(sizes), 750], strict=True):
        cut.add(present[first:last], older[first:last])
    assert cut == whole
    assert (cut.lower, cut.mean, cut.upper) == (whole.lower, whole.mean, whole.upper)


def test_a_model_that_is_lost_is_the_worse_one() -> None:
    """The present model diverged to NaN or to infinity; or both did, and going back would help nobody."""
    lost, well = np.full(2000, math.nan), np.full(2000, 0.5)
    for present, older, better in (
        (lost, well, True),
        (well, lost, False),
        (lost, np.full(2000, math.inf), False),
    ):
        comparison = Comparison()
        comparison.add(present, older)
        assert comparison.older_is_better == better


def test_losses_are_those_of_the_metrics() -> None:
    """Certain and wrong costs as much here as there; NaN as well."""
    p = np.array([0.0, 0.2, 0.9, 1.0, math.nan, math.nan])
    y = np.array([1, 0, 1, 0, 1, 0], np.float32)
    metrics = Prequential.zero()
    metrics.update(p, y)
    assert log_loss(p, y).mean() == pytest.approx(metrics.summary()["log_loss"], rel=1e-12)
    assert log_loss(p[1:3], y[1:3]).mean() == pytest.approx(mean_log_loss(y[1:3], p[1:3]), rel=1e-12)
    assert squared_error(np.array([1.5, 2.0]), np.array([2, 4], np.float32)).tolist() == [0.25, 4.0]


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": 1.0}, {"block_records": 0}, {"blocks_min": 1}])
def test_parameters_that_cannot_be_are_refused(wrong: dict) -> None:
    """A pipeline asks for no risk at all, or for blocks of nothing."""
    with pytest.raises(ValueError, match="should be"):
        Comparison(**wrong)


def test_losses_of_other_records_are_refused() -> None:
    """One model was asked about fewer records than the other."""
    with pytest.raises(ValueError, match="as many losses"):
        Comparison().add(np.zeros(3), np.zeros(2))
