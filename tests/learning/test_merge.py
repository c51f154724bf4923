"""What several workers' walks over the same rows become."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.batch import Batch, BatchId
from learning.ftrl import Ftrl
from learning.learner import TableRows
from tests.streams import stream

LEARNERS = [Ftrl(), Ftrl(alpha=0.5, beta=0.0), Ftrl(alpha=0.02, beta=1.0, l1=0.7, l2=0.1)]

anything = st.floats(width=32, min_value=-(2.0**127), max_value=2.0**127)
squares = st.one_of(st.just(0.0), st.floats(width=32, min_value=0.0, max_value=2.0**126))
learners = st.sampled_from(LEARNERS)
grown = st.floats(0.5, 2000.0)
steps = st.floats(0.0, 3.0)


def rows_of(z: float, n: float) -> np.ndarray:
    """One row."""
    return np.array([[z, n]], np.float32)


def push(
    ftrl: Ftrl, rows: np.ndarray, base: np.ndarray, end: np.ndarray, *, bias: int = -1, coupling: float = 4.0
) -> int:
    """Merge a walk over all rows."""
    return ftrl.merge(0, rows, np.arange(len(rows)), base, end, bias, coupling)


def row_at(ftrl: Ftrl, weight: float, n: float) -> np.ndarray:
    """The row, without L1, that has this weight."""
    return rows_of(-weight * ((ftrl.beta + math.sqrt(n)) / ftrl.alpha + ftrl.l2), n)


def weight(ftrl: Ftrl, row: np.ndarray) -> float:
    """The weight of a row without L1."""
    return -float(row[0, 0]) / ((ftrl.beta + math.sqrt(row[0, 1])) / ftrl.alpha + ftrl.l2)


@given(learners, anything, squares, anything, squares)
def test_a_row_that_nobody_moved_becomes_the_end_row_to_the_bit(ftrl, z, n, z_end, n_end) -> None:
    """One worker is always in this case, so it computes what one process does."""
    rows, end = rows_of(z, n), rows_of(z_end, n_end)
    assert push(ftrl, rows, rows.copy(), end) == 0
    assert rows.tobytes() == end.tobytes()


@given(learners, grown, st.lists(st.tuples(steps, grown), min_size=2, max_size=6), st.randoms())
def test_squared_gradients_all_count_whatever_the_order_of_the_pushes(ftrl, n0, walks, random) -> None:
    """Workers push when they are done, in any order; learning rates must not depend on it."""
    base = rows_of(1.0, n0)
    ends = [rows_of(1.0 + step, n0 + square) for step, square in walks]
    random.shuffle(ends)
    rows = base.copy()
    for end in ends:
        push(ftrl, rows, base, end)
    assert rows[0, 1] == pytest.approx(n0 + sum(square for _, square in walks), rel=1e-5)


@given(learners, anything, anything, anything, squares, squares, squares)
def test_absurd_rows_stay_finite(ftrl, z0, z, z_end, n0, no, dn) -> None:
    """Values near the end of float32 saturate; no merge turns a weight into NaN or infinity for ever."""
    base = rows_of(z0, n0)
    end, rows = rows_of(z_end, n0 + dn), rows_of(z, n0 + no)
    push(ftrl, rows, base, end)
    assert np.isfinite(rows).all()
    assert rows[0, 1] >= 0


@given(st.sampled_from([Ftrl(), Ftrl(alpha=0.5, beta=0.0), Ftrl(l2=0.5)]), grown, steps, steps, grown, grown)
def test_walks_in_one_direction_end_between_nothing_and_their_sum(ftrl, n0, first, second, no, dn) -> None:
    """Two workers both walk towards the optimum: the second may not push beyond both walks, nor turn round."""
    start = 0.25
    base = row_at(ftrl, start, n0)
    rows, end = row_at(ftrl, start + first, n0 + no), row_at(ftrl, start + second, n0 + dn)
    push(ftrl, rows, base, end)
    slack = 1e-4 * (1 + first + second)
    assert start - slack <= weight(ftrl, rows) <= start + first + second + slack


@given(st.floats(0.0, 4.0), st.floats(0.0, 8.0), grown, steps, steps, grown, grown)
def test_a_larger_kappa_goes_less_far(kappa, more, n0, first, second, no, dn) -> None:
    """kappa is the one setting of a merge: walks in one direction get shorter with it, never longer."""
    base = row_at(Ftrl(), 0.0, n0)
    end = row_at(Ftrl(), second, n0 + dn)
    lightly, strongly = (row_at(Ftrl(), first, n0 + no) for _ in range(2))
    push(Ftrl(kappa=kappa), lightly, base, end)
    push(Ftrl(kappa=kappa + more), strongly, base, end)
    assert weight(Ftrl(), strongly) <= weight(Ftrl(), lightly) + 1e-4


def test_the_bias_takes_no_l1_in_a_merge() -> None:
    """Otherwise a bias inside the L1 ball would be merged as if its weight were 0."""
    ftrl = Ftrl(l1=5.0)
    base, end, others = rows_of(1.0, 4.0), rows_of(2.0, 9.0), rows_of(-3.0, 8.0)
    as_bias, as_feature = others.copy(), others.copy()
    push(ftrl, as_bias, base, end, bias=0)
    push(ftrl, as_feature, base, end)
    assert as_bias[0, 0] != as_feature[0, 0]
    assert as_bias[0, 1] == as_feature[0, 1] == pytest.approx(13.0)


@given(learners, st.floats(-3.0, 3.0), grown, st.tuples(steps, grown), st.tuples(steps, grown))
def test_two_walks_merge_to_the_same_in_either_order(ftrl, z0, n0, first, second) -> None:
    """Which of two workers is done first is chance; the model does not depend on it."""
    base = rows_of(z0, n0)
    ends = [rows_of(z0 + step, n0 + square) for step, square in (first, second)]
    merged = []
    for order in (ends, ends[::-1]):
        rows = base.copy()
        for end in order:
            push(ftrl, rows, base, end)
        merged.append(rows)
    np.testing.assert_allclose(merged[0], merged[1], rtol=1e-4, atol=1e-4)


@given(st.floats(1.0, 1000.0), grown, steps, steps, grown, grown)
def test_walks_in_one_direction_go_at_least_as_far_as_their_mean(coupling, n0, first, second, no, dn) -> None:
    """However strong the coupling, no walk counts less than its share of the squared gradients."""
    base = row_at(Ftrl(), 0.0, n0)
    rows, end = row_at(Ftrl(), first, n0 + no), row_at(Ftrl(), second, n0 + dn)
    push(Ftrl(), rows, base, end, coupling=coupling)
    mean = (no * first + dn * second) / (no + dn)
    assert weight(Ftrl(), rows) >= mean - 1e-4 * (1 + first + second)


def records(count: int, columns: int, *, same: bool) -> Batch:
    """Records of `columns` features: all the same ones, or each record its own."""
    keys = np.arange(columns if same else count * columns, dtype=np.uint64)
    return replace(
        stream(count, columns=columns),
        keys=np.resize(keys, count * columns),
        values=np.ones(count * columns, np.float32),
    )


def coupling(base: np.ndarray, end: np.ndarray, index: np.ndarray, bias: int, batch: Batch) -> float:
    """The coupling of a walk from `base` to `end`."""
    return Ftrl().coupling([base], [TableRows(end, index, bias)], batch)


@pytest.mark.parametrize("columns", [3, 5, 20])
def test_features_that_always_come_together_are_coupled_by_their_number(columns) -> None:
    """Each moves the logit by its step, all together by the sum: bias and columns make columns + 1."""
    batch = records(100, columns, same=True)
    base = np.zeros((columns + 1, 2), np.float32)
    end = np.repeat(rows_of(-1.0, 4.0), columns + 1, axis=0)
    index = np.tile(np.arange(columns), 100)
    assert coupling(base, end, index, columns, batch) == pytest.approx(columns + 1)


def test_features_that_came_once_do_not_couple() -> None:
    """Their steps point along their own record and would tell nothing of other workers' records."""
    batch = records(50, 4, same=False)
    base = np.zeros((201, 2), np.float32)
    end = np.repeat(rows_of(-1.0, 4.0), 201, axis=0)
    assert coupling(base, end, np.arange(200), 200, batch) == pytest.approx(1.0)


@given(st.lists(st.tuples(anything, squares, anything, squares), min_size=6, max_size=6))
def test_absurd_walks_have_a_bounded_coupling(cells) -> None:
    """Overflow counts as fully coupled, so that merges of absurd rows are averages."""
    drawn = np.array(cells, np.float32)
    batch = records(30, 5, same=True)
    found = coupling(drawn[:, :2], drawn[:, 2:], np.tile(np.arange(5), 30), 5, batch)
    assert 1.0 <= found <= 6.0


def test_an_empty_batch_is_not_coupled() -> None:
    """A stretch of a stream may hold bad records only."""
    row = rows_of(0.0, 0.0)
    batch = Batch.empty(BatchId(0, 0, 1))
    assert coupling(row, row, np.empty(0, np.int64), 0, batch) == 1.0
