"""FTRL equals Algorithm 1 of the paper, whatever the batches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.batch import NUMBER, Batch, BatchId
from learning.ftrl import Ftrl
from learning.learner import TableRows
from learning.table import Table
from tests.streams import cut, stream

SETTINGS = [Ftrl(), Ftrl(alpha=0.5, beta=0.1, l1=0.3, l2=0.01), Ftrl(alpha=0.02, beta=1.0, l1=2.0, l2=1.0)]


class Algorithm1:
    """Scalar transcription of McMahan et al. 2013, Algorithm 1, over dictionaries; the oracle."""

    def __init__(self, ftrl: Ftrl) -> None:
        self.f = ftrl
        self.z: dict[int, float] = {}
        self.n: dict[int, float] = {}

    def weight(self, key: int) -> float:
        """w of a coordinate; the bias (key -1) takes no L1."""
        z, n, l1 = self.z.get(key, 0.0), self.n.get(key, 0.0), 0.0 if key == -1 else self.f.l1
        if abs(z) <= l1:
            return 0.0
        return -(z - math.copysign(l1, z)) / ((self.f.beta + math.sqrt(n)) / self.f.alpha + self.f.l2)

    def learn(self, x: dict[int, float], y: float, omega: float) -> float:
        """Predict, then update every coordinate of x with the weights of that prediction."""
        w = {key: self.weight(key) for key in x}
        p = 1 / (1 + math.exp(-max(-35.0, min(35.0, sum(w[key] * value for key, value in x.items())))))
        for key, value in x.items():
            g = omega * (p - y) * value
            n = self.n.get(key, 0.0)
            sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / self.f.alpha
            self.z[key] = self.z.get(key, 0.0) + g - sigma * w[key]
            self.n[key] = n + g * g
        return p


def learn_all(ftrl: Ftrl, batches: list[Batch]) -> tuple[np.ndarray, Table, int]:
    """Predictions over all batches, and the table at the end with the bias's row."""
    table = Table(ftrl.width, rows_initial=4)
    bias = int(table.locate(np.array([0], np.uint64))[0])
    out = []
    for batch in batches:
        index = table.locate(batch.keys)
        out.append(ftrl.learn([TableRows(table.rows, index, bias)], batch))
    return np.concatenate(out), table, bias


@pytest.mark.parametrize("ftrl", SETTINGS)
def test_a_stream_is_learnt_as_the_paper_says(ftrl: Ftrl) -> None:
    """Predictions and weights agree with the scalar transcription to float32."""
    batch = replace(stream(3000), weights=np.random.default_rng(5).uniform(0.5, 2.0, 3000).astype(np.float32))
    predictions, table, bias = learn_all(ftrl, [batch])
    oracle = Algorithm1(ftrl)
    expected = [
        oracle.learn({-1: 1.0, **_features(batch, i)}, float(batch.labels[i]), float(batch.weights[i]))
        for i in range(len(batch))
    ]
    np.testing.assert_allclose(predictions, expected, rtol=1e-5, atol=1e-6)
    keys = [-1 if row == bias else int(key) for row, key in enumerate(table.keys)]
    np.testing.assert_allclose(table.rows[:, 1], [oracle.n[key] for key in keys], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(table.rows[:, 0], [oracle.z[key] for key in keys], rtol=1e-4, atol=2e-5)


def _features(batch: Batch, i: int) -> dict[int, float]:
    entries = range(batch.offsets[i], batch.offsets[i + 1])
    return {int(batch.keys[j]): float(batch.values[j]) for j in entries}


@pytest.mark.parametrize("size", [1, 7, 256, 4096])
def test_where_batches_are_cut_changes_no_bit(size: int) -> None:
    """The kernel is sequential: any cut gives the same predictions and the same rows."""
    whole = stream(2000)
    expected, table, _ = learn_all(Ftrl(), [whole])
    predictions, other, _ = learn_all(Ftrl(), cut(whole, size))
    assert np.array_equal(predictions, expected)
    assert np.array_equal(other.rows, table.rows)


def test_a_records_weight_multiplies_its_gradient() -> None:
    """omega = 2 doubles the first gradient (z) and quadruples its square (n); it divides nothing."""
    batch = stream(1)
    _, light, _ = learn_all(Ftrl(), [batch])
    _, heavy, _ = learn_all(Ftrl(), [replace(batch, weights=np.array([2.0], np.float32))])
    assert np.array_equal(heavy.rows, light.rows * np.array([2.0, 4.0], np.float32))


def test_weights_inside_the_l1_ball_are_exactly_zero_but_the_bias_is_free() -> None:
    """With a huge L1 only the bias learns: predictions go to the base rate."""
    batch = stream(4000)
    predictions, _, _ = learn_all(Ftrl(alpha=0.1, l1=1e6), [batch])
    assert abs(predictions[-500:].mean() - batch.labels.mean()) < 0.1
    assert len(np.unique(np.round(predictions[-5:], 3))) < 5


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.0]))
def test_huge_values_never_turn_a_weight_into_nan(value: float, label: float) -> None:
    """The logit is clipped before exp and rows saturate: predictions stay inside (0, 1), rows finite."""
    batch = Batch.empty(BatchId(0, 0, 1))
    one = replace(
        batch,
        keys=np.array([1], np.uint64),
        values=np.array([value], np.float32),
        kinds=np.array([NUMBER], np.uint8),
        offsets=np.array([0, 1]),
        labels=np.array([label], np.float32),
        weights=np.ones(1, np.float32),
    )
    predictions, table, _ = learn_all(Ftrl(), [one, one, one])
    assert ((predictions > 0) & (predictions < 1)).all()
    assert np.isfinite(table.rows).all()


def test_a_walk_whose_rows_nobody_touched_is_merged_to_the_bit() -> None:
    """One worker stays exact: the merge stores the end rows themselves."""
    rng = np.random.default_rng(3)
    base, end = rng.normal(size=(2, 50, 2)).astype(np.float32) ** 2
    rows = np.concatenate([np.zeros((1, 2), np.float32), base])
    moved = Ftrl().merge(0, rows, np.arange(1, 51), base, end, 0, 1.0)
    assert moved == 0
    assert np.array_equal(rows[1:], end)


def test_a_second_worker_with_the_same_walk_is_damped_and_its_squares_all_count() -> None:
    """n adds up in full, z moves less than twice the way, and the row is counted as moved."""
    base, end = np.array([[0.0, 4.0]], np.float32), np.array([[-3.0, 9.0]], np.float32)
    rows, at = base.copy(), np.array([0])
    ftrl = Ftrl(alpha=0.5)
    assert ftrl.merge(0, rows, at, base, end, -1, 1.0) == 0
    assert ftrl.merge(0, rows, at, base, end, -1, 1.0) == 1
    assert rows[0, 1] == pytest.approx(14.0)
    undamped = replace(ftrl, kappa=0.0)
    free = end.copy()
    undamped.merge(0, free, at, base, end, -1, 1.0)
    assert free[0, 0] < rows[0, 0] < 0.0


def test_scoring_gives_what_learning_would_have_predicted() -> None:
    """predict on the rows before learning equals learn's own predictions for the first record."""
    first, second = cut(stream(200), 199)
    ftrl = SETTINGS[1]
    _, table, bias = learn_all(ftrl, [first])
    scored = ftrl.predict([TableRows(table.rows, table.find(second.keys), bias)], second)
    learnt = ftrl.learn([TableRows(table.rows, table.locate(second.keys), bias)], second)
    np.testing.assert_allclose(scored, learnt, rtol=1e-12)
