"""What several workers' walks over users, items and the scale become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.factors import Factors
from learning.factors_scale import SCALE_WIDTH, add_rating, read_scale
from tests.learning.factors_world import Store, ratings, toy

WIDTH = 4 + 3
LEARNER = Factors(factors=3, factor_memory=200.0)
STILL = Factors(factors=3, user_memory=0.0, item_memory=0.0)
ONE = np.zeros(1, np.int64)


def row(rng: np.random.Generator, base: np.ndarray, observations: int, learner: Factors) -> np.ndarray:
    """A row after some observations, which told something of everything."""
    end = base.copy()
    for _ in range(observations):
        end[2] = learner.keep[0] * end[2] + rng.uniform(0.1, 1.2)
        end[3] = learner.keep[2] * end[3] + rng.uniform(0.01, 0.5)
    end[1] += observations
    end[[0, 4, 5, 6]] += rng.normal(size=4).astype(np.float32)
    return end


def walks(seed: int, first: int, others: int, own: int, learner: Factors) -> tuple[np.ndarray, ...]:
    """(base, present, end), f32 (1, width): rows that grew from `first` observations."""
    rng = np.random.default_rng(seed)
    base = row(rng, np.zeros(WIDTH, np.float32), first, learner)
    return tuple(
        np.array([r], np.float32)
        for r in (base, row(rng, base, others, learner), row(rng, base, own, learner))
    )


def merged(
    learner: Factors, base: np.ndarray, present: np.ndarray, end: np.ndarray, table: int = 0
) -> np.ndarray:
    rows = present.copy()
    assert learner.merge(table, rows, ONE, base, end, -1, 1.0) == int(not np.array_equal(present, base))
    return rows


lengths = st.integers(1, 300)
seeds = st.integers(0, 2**31)


@given(seeds, st.integers(0, 300), lengths)
def test_a_row_that_nobody_moved_becomes_the_pushed_one(seed: int, first: int, own: int) -> None:
    """One worker, or a rare key: to the bit, in all four tables."""
    base, _, end = walks(seed, first, 1, own, LEARNER)
    for table in range(2):
        assert merged(LEARNER, base, base, end, table).tobytes() == end.tobytes()
    for table, width in ((2, SCALE_WIDTH), (3, 1)):
        rng = np.random.default_rng(seed)
        old, new = rng.normal(size=(2, 1, width)).astype(np.float32)
        rows = old.copy()
        assert LEARNER.merge(table, rows, ONE, old, new, 0, 1.0) == 0
        assert rows.tobytes() == new.tobytes()


@given(seeds, st.integers(0, 300), lengths, lengths)
def test_walks_in_one_direction_never_overshoot(seed: int, first: int, others: int, own: int) -> None:
    """Between nothing and the sum, and at least the shorter of two: nothing explodes, and nothing is thrown away."""
    base, present, end = walks(seed, first, others, own, LEARNER)
    values = [0, 4, 5, 6]
    ways = [np.abs(r[0, values] - base[0, values]) for r in (present, end)]
    present[0, values], end[0, values] = base[0, values] + ways[0], base[0, values] + ways[1]
    way = merged(LEARNER, base, present, end)[0, values] - base[0, values]
    assert (way <= (ways[0] + ways[1]) * (1 + 1e-5) + 1e-5).all()
    assert (way >= np.minimum(*ways) * (1 - 1e-5) - 1e-5).all()


@given(seeds, st.integers(0, 300), lengths, lengths)
def test_two_walks_merge_to_the_same_in_any_order(seed: int, first: int, others: int, own: int) -> None:
    """Which push comes first is chance."""
    base, one, two = walks(seed, first, others, own, LEARNER)
    assert merged(LEARNER, base, one, two)[0] == pytest.approx(
        merged(LEARNER, base, two, one)[0], rel=1e-4, abs=1e-5
    )


@given(seeds, st.integers(0, 300), lengths, lengths)
def test_without_forgetting_natural_parameters_add(seed: int, first: int, others: int, own: int) -> None:
    """The merge is then that of Gaussian beliefs: precisions add, and means weigh by them."""
    base, one, two = walks(seed, first, others, own, STILL)
    result = merged(STILL, base, one, two)[0].astype(float)
    for prior, told, columns in ((STILL.prior[0], 2, [0]), (STILL.prior[1], 3, [4, 5, 6])):
        precision = [prior + r[0, told].astype(float) for r in (base, one, two)]
        together = precision[1] + precision[2] - precision[0]
        natural = [p * r[0, columns].astype(float) for p, r in zip(precision, (base, one, two), strict=True)]
        assert result[columns] == pytest.approx(
            (natural[1] + natural[2] - natural[0]) / together, rel=1e-3, abs=1e-3
        )
        assert prior + result[told] == pytest.approx(together, rel=1e-4)
    assert result[1] == first + others + own


@given(st.integers(2, 400), st.integers(2, 400))
def test_short_walks_add_and_long_ones_are_averaged(observations: int, own: int) -> None:
    """A walk of a hundredth of what is known adds in full; two of a hundred times that end in their mean."""
    base = np.zeros((1, WIDTH), np.float32)
    base[0, 1], base[0, 2] = 1e5, 1e5
    one, two = base.copy(), base.copy()
    one[0, 2] += observations
    two[0, 2] += own
    one[0, 1] += observations
    two[0, 1] += own
    one[0, 0], two[0, 0] = 1.0, 2.0
    assert merged(STILL, base, one, two)[0, 0] == pytest.approx(3.0, rel=0.01)
    base[0, :3] = 0.0
    one[0, :3], two[0, :3] = (1.0, 1e5, 1e5), (2.0, 1e5, 1e5)
    assert merged(STILL, base, one, two)[0, 0] == pytest.approx(1.5, rel=0.01)


def scale(values: list[float], weights: list[float], start: np.ndarray | None = None) -> np.ndarray:
    rows = np.zeros((1, SCALE_WIDTH), np.float32) if start is None else start.copy()
    for value, weight in zip(values, weights, strict=True):
        add_rating(rows, 0, value, weight)
    return rows


rated = st.lists(
    st.tuples(st.floats(-10, 10, width=32), st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=50
)


@given(rated, rated, rated, st.booleans())
@settings(max_examples=50)
def test_the_scale_of_three_parts_is_that_of_the_whole(before, others, own, from_nothing: bool) -> None:
    """Any two walks from any base: count, mean, deviation, least and greatest are those of all ratings together."""
    before = [] if from_nothing else before
    split = [([r for r, _ in part], [w for _, w in part]) for part in (before, others, own)]
    base = scale(*split[0])
    rows = scale(*split[1], base)
    LEARNER.merge(2, rows, ONE, base, scale(*split[2], base), 0, 1.0)
    values, weights = (np.array([x for part in split for x in part[j]]) for j in (0, 1))
    n, mean, squares, least, greatest = read_scale(rows, 0)
    assert n == weights.sum()
    assert mean == pytest.approx(np.average(values, weights=weights), abs=1e-9)
    assert squares == pytest.approx(
        (weights * (values - np.average(values, weights=weights)) ** 2).sum(), abs=1e-6
    )
    assert (least, greatest) == (values.min(), values.max())


def test_the_scale_counts_beyond_the_integers_of_a_float32() -> None:
    """20 million ratings: one float32 would stand still at 16,777,216."""
    rows = scale([1.0, 3.0], [1.0, 2e7])
    before = read_scale(rows, 0)
    add_rating(rows, 0, 5.0, 1.0)
    after = read_scale(rows, 0)
    assert after[0] - before[0] == 1.0
    assert after[1] - before[1] == pytest.approx(2.0 / 2e7, rel=1e-3)


def test_the_newest_rating_of_a_pair_stays() -> None:
    """Two workers saw the same pair: whoever pushes last."""
    rows, base, end = (
        np.array([[4.0]], np.float32),
        np.array([[0.0]], np.float32),
        np.array([[2.0]], np.float32),
    )
    assert LEARNER.merge(3, rows, ONE, base, end, -1, 1.0) == 1
    assert rows[0, 0] == 2.0


def test_four_workers_learn_nearly_as_well_as_one() -> None:
    """Users divided among four workers who pull at the same time: within 2 per cent in root mean square error."""
    u, i, y, _ = toy(12_000, 9, users=200, items=100)
    learner, errors = Factors(factors=4), []
    for workers in (1, 4):
        store, metrics = Store(learner), learner.metrics()
        streams = [np.flatnonzero(u % workers == w) for w in range(workers)]
        for a in range(0, max(map(len, streams)), 64):
            parts = [s[a : a + 64] for s in streams if len(s) > a]
            batches = [ratings(u[p], i[p], y[p]) for p in parts]
            pulled = [store.pull(batch) for batch in batches]
            for batch, rows in zip(batches, pulled, strict=True):
                learner.judge(metrics, learner.learn(rows.tables, batch), batch)
            moved = [store.push(rows) for rows in pulled]
            assert all(m[0] == 0 for m in moved)  # a user belongs to one worker
        errors.append(metrics.summary()["rmse"])
    assert errors[1] < 1.02 * errors[0]
