"""Raises of rates and shares: when they begin, how they fade, and that no prediction jumps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.pace import CALM, Pace, Raise, over, pace_at
from learning.population import Population
from tests.ratings_stream import ratings
from tests.streams import stream

RATE = Raise("rate", begins=100, top=4.0, records=50, half_life_records=10.0)


def test_a_raise_holds_for_its_records_and_halves_after_them() -> None:
    """From its first record on; then half, a quarter, and in the end nothing at all."""
    at = [99, 100, 150, 160, 170, 1000]
    assert [pace_at([RATE], count).rate for count in at] == [1.0, 4.0, 4.0, 2.5, 1.75, 1.0]
    assert not over(RATE, 99)
    assert not over(RATE, 160)
    assert over(RATE, 1000)


def test_of_several_raises_the_highest_counts() -> None:
    """A new one never cuts an older one short."""
    later = replace(RATE, begins=140, top=2.0, records=100)
    share = Raise("share", 0, 0.05, 10, 5.0)
    assert pace_at([RATE, later], 145) == Pace(4.0, 0.0)
    assert pace_at([RATE, later], 200) == Pace(2.0, 0.0)
    assert pace_at([RATE, share], 5) == Pace(1.0, 0.05)


def test_a_raise_goes_on_where_a_snapshot_was_taken() -> None:
    """Counted from there, it is the same raise."""
    assert [pace_at([RATE.since(120)], count - 120) for count in range(120, 300)] == [
        pace_at([RATE], count) for count in range(120, 300)
    ]


def tables_for(learner: Any, batch: Any, seed: int) -> list[TableRows]:
    """Rows as after some learning, of every key of the batch."""
    random, tables = np.random.default_rng(seed), []
    for spec, keys in zip(learner.specs(), learner.keys(batch), strict=True):
        distinct = np.unique(np.append(keys, BIAS_KEY)) if spec.bias else np.unique(keys)
        rows = np.zeros((len(distinct), spec.width), np.float32)
        if spec.birth is not None:
            spec.birth.fill(distinct, rows)
        index = np.searchsorted(distinct, keys).astype(np.int64)
        bias = int(np.flatnonzero(distinct == BIAS_KEY)[0]) if spec.bias else -1
        tables.append(TableRows(rows, index, bias))
    for _ in range(3):
        order = random.permutation(len(batch))
        learner.learn(tables, replace(batch, labels=batch.labels[order]))
    return tables


LEARNERS = [Ftrl(alpha=0.1, l1=0.02, l2=0.1), Population(l1=0.01), Factors(factors=4)]


def batch_for(learner: Any) -> Any:
    """Records that the learner takes."""
    return ratings(200, users=20) if learner.kind == "factors" else stream(200)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
def test_a_raised_rate_moves_no_prediction_but_later_ones(learner: Any) -> None:
    """The first record is predicted the same; then steps are larger, and what is remembered of them is not."""
    batch = batch_for(learner)
    calm, raised = tables_for(learner, batch, 1), tables_for(learner, batch, 1)
    a = learner.learn(calm, replace(batch, pace=CALM))
    b = learner.learn(raised, replace(batch, pace=Pace(rate=5.0)))
    assert a[0] == b[0]
    assert np.abs(a[1:] - b[1:]).max() > 1e-3
    if learner.kind == "ftrl":
        assert np.all(raised[0].rows[:, 1] > 0.0)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.kind)
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.9])
def test_forgetting_changes_no_prediction_and_makes_later_steps_larger(learner: Any, keep: float) -> None:
    """Continuous at the moment of forgetting, to the rounding of float32; after it, rows move further."""
    batch = batch_for(learner)
    tables = tables_for(learner, batch, 2)
    before, kept = learner.predict(tables, batch), [table.rows.copy() for table in tables]
    for number, table in enumerate(tables):
        learner.forget(number, table.rows, table.bias, keep)
    assert np.allclose(learner.predict(tables, batch), before, atol=2e-5)
    assert any((table.rows != rows).any() for table, rows in zip(tables, kept, strict=True))
    remembered = [replace(table, rows=rows) for table, rows in zip(tables, kept, strict=True)]
    learner.learn(tables, batch)
    learner.learn(remembered, batch)
    moved, calm = (np.abs(learner.predict(of, batch) - before).mean() for of in (tables, remembered))
    assert moved > calm
