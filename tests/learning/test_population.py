"""A population equals its scalar transcription, and one column alone is FTRL."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.batch import NUMBER, Batch, BatchId
from learning.ftrl import Ftrl
from learning.population import Population
from tests.learning.population_world import (
    Oracle,
    features_of,
    learn_all,
    log_loss,
    rows_of,
    tables_of,
)
from tests.streams import cut, stream

SETTINGS = [
    Population(),
    Population(rates=(0.1, 0.5), restless=(), stackers=(0.1, 0.5), share=0.01, beta=0.3, l1=0.2, l2=0.01),
    Population(rates=(0.1,), restless=(0.3, 1.0, 0.05), keep=0.9, stackers=(), share=0.0),
    Population(rates=(0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0), restless=(0.3,), stackers=(0.1,)),
]


@pytest.mark.parametrize("learner", SETTINGS)
def test_a_stream_is_learnt_as_the_docstrings_say(learner: Population) -> None:
    """Predictions, weights of the experts and rows agree with the transcription to float32."""
    weights = np.random.default_rng(5).uniform(0.5, 2.0, 1500).astype(np.float32)
    batch = replace(stream(1500), weights=np.where(np.arange(1500) % 3 == 0, weights, np.float32(1.0)))
    predictions, tables, bias = learn_all(learner, [batch])
    oracle = Oracle(learner)
    expected = [
        oracle.learn(features_of(batch, i), float(batch.labels[i]), float(batch.weights[i]))
        for i in range(len(batch))
    ]
    np.testing.assert_allclose(predictions, expected, rtol=2e-4, atol=2e-5)
    keys = [-1 if row == bias[0] else int(key) for row, key in enumerate(tables[0].keys)]
    rows, columns = tables[0].rows[: len(keys)], learner.columns
    np.testing.assert_allclose(rows[:, columns], [oracle.n[key] for key in keys], rtol=1e-3, atol=1e-6)
    for k in range(columns):
        np.testing.assert_allclose(rows[:, k], [oracle.z[key, k] for key in keys], rtol=5e-3, atol=5e-4)
    mixture = tables[1].rows[bias[1]]
    np.testing.assert_allclose(mixture[: len(oracle.v)], oracle.v, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize(
    "ftrl", [Ftrl(), Ftrl(alpha=0.5, beta=0.1, l1=0.3, l2=0.01), Ftrl(alpha=0.02, l1=2.0, l2=1.0)]
)
def test_one_column_alone_is_ftrl_to_the_bit(ftrl: Ftrl) -> None:
    """Predictions and rows, with every penalty and with records of any weight and any label."""
    batch = stream(3000)
    rng = np.random.default_rng(5)
    batch = replace(batch, weights=rng.uniform(0.5, 2.0, 3000).astype(np.float32))
    batch = replace(batch, labels=np.where(rng.random(3000) < 0.1, np.float32(0.3), batch.labels))
    one = Population(
        rates=(ftrl.alpha,), restless=(), stackers=(), beta=ftrl.beta, l1=ftrl.l1, l2=ftrl.l2, share=0.01
    )
    expected, (table,), _ = learn_all(ftrl, [batch])
    predictions, (weights, _), _ = learn_all(one, [batch])
    assert np.array_equal(predictions, expected)
    assert np.array_equal(weights.rows, table.rows)


@pytest.mark.parametrize("learner", SETTINGS)
@pytest.mark.parametrize("size", [1, 7, 256])
def test_where_batches_are_cut_changes_no_bit(learner: Population, size: int) -> None:
    """All state is rounded after every record: any cut gives the same predictions and the same rows."""
    expected, tables, _ = learn_all(learner, [stream(600)])
    predictions, others, _ = learn_all(learner, cut(stream(600), size))
    assert np.array_equal(predictions, expected)
    for table, other in zip(tables, others, strict=True):
        assert np.array_equal(table.rows, other.rows)


@pytest.mark.parametrize("learner", SETTINGS)
def test_a_label_is_not_seen_before_its_record_is_predicted(learner: Population) -> None:
    """Another label of record i changes what comes after it, and no bit of what comes before or of i itself."""
    batch = stream(60)
    expected, _, _ = learn_all(learner, [batch])
    for i in range(0, 60, 7):
        labels = batch.labels.copy()
        labels[i] = 1.0 - labels[i]
        found, _, _ = learn_all(learner, [replace(batch, labels=labels)])
        assert np.array_equal(found[: i + 1], expected[: i + 1])
        assert i == 59 or (found[i + 1 :] != expected[i + 1 :]).all()


@pytest.mark.parametrize("learner", SETTINGS)
def test_against_an_adversary_no_record_costs_less_than_a_coin(learner: Population) -> None:
    """Labels that contradict the prediction made without them: who weighs experts by them would do better than ln 2."""
    batch = stream(300)
    tables, bias = tables_of(learner)
    for part in cut(batch, 1):
        foreseen = learner.predict(rows_of(learner, tables, bias, part, born=False), part)
        against = replace(part, labels=np.where(foreseen < 0.5, np.float32(1.0), np.float32(0.0)))
        p = learner.learn(rows_of(learner, tables, bias, against), against)
        assert np.array_equal(p, foreseen)
        assert log_loss(p, against.labels)[0] >= np.log(2.0)


@settings(max_examples=40)
@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([1e-30, 1.0, 1e6, 1e30]),
)
def test_huge_values_never_turn_a_weight_into_nan(value: float, label: float, weight: float) -> None:
    """Logits are clipped, rows saturate: predictions stay within [0, 1], rows finite, and learning goes on."""
    one = replace(
        Batch.empty(BatchId(0, 0, 1)),
        keys=np.array([1], np.uint64),
        values=np.array([value], np.float32),
        kinds=np.array([NUMBER], np.uint8),
        offsets=np.array([0, 1]),
        labels=np.array([label], np.float32),
        weights=np.array([weight], np.float32),
    )
    for learner in SETTINGS:
        predictions, tables, _ = learn_all(learner, [one, one, one, *cut(stream(20), 10)])
        assert ((predictions >= 0) & (predictions <= 1)).all()
        assert all(np.isfinite(table.rows).all() for table in tables)


def test_who_was_never_seen_gets_the_beginning() -> None:
    """Scoring before anything was learnt: one half, and no row of the mixture is needed."""
    learner, batch = Population(), stream(5)
    tables, _ = tables_of(learner)
    rows = rows_of(learner, tables, [-1, -1], batch, born=False)
    assert learner.predict(rows, batch).tolist() == [0.5] * 5


def test_scoring_changes_no_row() -> None:
    """A model that scores is frozen, and may lie in memory that cannot be written."""
    learner = Population()
    first, second = cut(stream(200), 150)
    _, tables, bias = learn_all(learner, [first])
    before = [table.rows.copy() for table in tables]
    rows = rows_of(learner, tables, bias, second, born=False)
    for each in rows:
        each.rows.flags.writeable = False
    learner.predict(rows, second)
    assert all(np.array_equal(a, table.rows) for a, table in zip(before, tables, strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rates": ()}, {"rates": (0.1, 0.0)}, {"restless": (-1.0,)}, {"stackers": (float("nan"),)}, {"keep": 1.0},
        {"keep": 0.0}, {"share": 1.0}, {"share": -0.1}, {"beta": -1.0}, {"rates": (0.1,) * 65},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_a_sentence(wrong: dict) -> None:
    """Where the pipeline file is read."""
    with pytest.raises(ValueError, match=r"should be|at most"):
        Population(**wrong)
