"""What several workers' walks over a population's rows and over its mixture become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.ftrl import Ftrl
from learning.learner import TableRows
from learning.mixing import share_out
from learning.population import Population
from tests.learning.population_world import learn_all, log_loss, rows_of, tables_of
from tests.streams import cut, stream

LEARNER = Population(stackers=(0.05, 0.2))
SEEDS, LENGTHS = st.integers(0, 2**31), st.integers(1, 400)


def walks(learner: Population, seed: int, first: int, others: int, own: int) -> list[list[np.ndarray]]:
    """Of each table (base, rows after the others' walk, rows after this walk): real walks over the same keys."""
    before, one, two = (stream(n, seed=seed + i) for i, n in enumerate((first, others, own)))
    _, tables, bias = learn_all(learner, [before])
    for batch in (one, two):
        rows_of(learner, tables, bias, batch)
    base = [table.rows.copy() for table in tables]
    found = [base]
    for batch in (one, two):
        rows = [
            TableRows(held.copy(), each.index, each.bias)
            for held, each in zip(base, rows_of(learner, tables, bias, batch, born=False), strict=True)
        ]
        learner.learn(rows, batch)
        found.append([each.rows for each in rows])
    return [list(of) for of in zip(*found, strict=True)]


def merged(learner: Population, table: int, base: np.ndarray, now: np.ndarray, end: np.ndarray) -> np.ndarray:
    rows = now.copy()
    learner.merge(table, rows, np.arange(len(rows)), base, end, 0, 2.0)
    return rows


@given(SEEDS, st.integers(1, 300), LENGTHS, LENGTHS)
@settings(max_examples=25)
def test_rows_that_nobody_moved_become_the_pushed_ones(seed: int, first: int, others: int, own: int) -> None:
    """One worker, or rare keys: to the bit, in both tables."""
    for table, (base, _, end) in enumerate(walks(LEARNER, seed, first, others, own)):
        rows = base.copy()
        assert LEARNER.merge(table, rows, np.arange(len(rows)), base, end, 0, 1.0) == 0
        assert rows.tobytes() == end.tobytes()


@given(SEEDS, st.integers(1, 300), LENGTHS, LENGTHS)
@settings(max_examples=25)
def test_two_walks_merge_to_the_same_in_any_order(seed: int, first: int, others: int, own: int) -> None:
    """Which push comes first is chance."""
    for table, (base, one, two) in enumerate(walks(LEARNER, seed, first, others, own)):
        found = [merged(LEARNER, table, base, *ways) for ways in ((one, two), (two, one))]
        np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=1e-4)


@given(SEEDS, LENGTHS, LENGTHS)
@settings(max_examples=25)
def test_one_column_merges_as_ftrl_does(seed: int, others: int, own: int) -> None:
    """The rule of learning/merge.py, to the bit."""
    one = Population(rates=(0.2,), restless=(), stackers=(), l1=0.1, l2=0.01)
    base, now, end = walks(one, seed, 50, others, own)[0]
    rows = now.copy()
    ftrl = Ftrl(alpha=0.2, l1=0.1, l2=0.01)
    moved = ftrl.merge(0, rows, np.arange(len(rows)), base, end, 0, 2.0)
    found = now.copy()
    assert one.merge(0, found, np.arange(len(found)), base, end, 0, 2.0) == moved
    assert np.array_equal(found, rows)


@given(SEEDS, st.integers(1, 300), LENGTHS, LENGTHS)
@settings(max_examples=25)
def test_counts_add_and_weights_meet_in_the_middle(seed: int, first: int, others: int, own: int) -> None:
    """Each record is counted once; the experts' weights, and averages that have forgotten the base, are halved."""
    base, now, end = (rows[0].astype(np.float64) for rows in walks(LEARNER, seed, first, others, own)[1])
    found = merged(LEARNER, 1, *(row[None].astype(np.float32) for row in (base, now, end)))[0]
    experts = LEARNER.columns + 1 + len(LEARNER.stackers)
    np.testing.assert_allclose(found[:experts], (now[:experts] + end[:experts]) / 2, rtol=1e-5)
    assert found[experts : experts + 2].sum() == first + others + own
    averages = slice(experts + 2, experts + 6)
    np.testing.assert_allclose(found[averages], (now[averages] + end[averages]) / 2, rtol=1e-5)


def test_the_first_walks_of_a_job_start_from_a_row_of_zeros() -> None:
    """Two workers pull the mixture before anyone has pushed: the base is not born yet, and nothing is divided by 0."""
    base, now, end = walks(LEARNER, 3, 1, 40, 40)[1]
    nothing = np.zeros_like(base)
    found = merged(LEARNER, 1, nothing, now, end)[0]
    experts = LEARNER.columns + 1 + len(LEARNER.stackers)
    assert np.isfinite(found).all()
    assert found[:experts].sum() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(merged(LEARNER, 1, nothing, nothing, end)[0], end[0])


def test_an_expert_that_all_workers_gave_up_stays_given_up() -> None:
    """A hundred rounds of four walks over an expert that is always wrong: what lifts it in each does not multiply."""
    experts = LEARNER.columns + 1 + len(LEARNER.stackers)
    now = np.zeros((1, LEARNER.specs()[1].width), np.float32)
    now[0, :experts] = 1 / experts
    for _ in range(100):
        base = now.copy()
        for _ in range(4):
            end = base.copy()
            for _ in range(16):
                share_out(end[0, :experts], np.where(np.arange(experts) == 3, 1e-3, 0.5), LEARNER.share)
            now = merged(LEARNER, 1, base, now, end)
        assert now[0, 3] < 3 * LEARNER.share / experts


def test_two_halvings_leave_counts_that_are_counts() -> None:
    """Both workers halved the counts: what remains is what either has, and not nothing."""
    base, now, end = (np.zeros((1, LEARNER.specs()[1].width), np.float32) for _ in range(3))
    experts = LEARNER.columns + 1 + len(LEARNER.stackers)
    for row, counts in ((base, (2.0**22 - 10, 5)), (now, (2.0**21, 4)), (end, (2.0**21, 3))):
        row[0, :experts] = 1 / experts
        row[0, experts : experts + 2] = counts
    assert merged(LEARNER, 1, base, now, end)[0, experts : experts + 2].tolist() == [2.0**21, 3]


def test_four_workers_learn_nearly_as_well_as_one() -> None:
    """Four who always pull at the same time, from a cold start: within 1 per cent in log-loss."""
    learner, losses = Population(), []
    streams = [cut(stream(6000, seed=w), 64) for w in range(4)]
    for workers in (1, 4):
        tables, bias = tables_of(learner)
        total = 0.0
        for turn in zip(*streams, strict=True):
            for parts in ([batch] for batch in turn) if workers == 1 else [turn]:
                pulled = [rows_of(learner, tables, bias, part) for part in parts]
                bases = [table.rows.copy() for table in tables]
                for part, rows in zip(parts, pulled, strict=True):
                    own = [
                        TableRows(base.copy(), each.index, each.bias)
                        for base, each in zip(bases, rows, strict=True)
                    ]
                    total += log_loss(learner.learn(own, part), part.labels).sum()
                    coupling = learner.coupling(bases, own, part)
                    for t, table in enumerate(tables):
                        at = np.unique(np.concatenate((rows[t].index, [bias[t]])))
                        learner.merge(t, table.rows, at, bases[t][at], own[t].rows[at], bias[t], coupling)
        losses.append(total)
    assert losses[1] < 1.01 * losses[0]
