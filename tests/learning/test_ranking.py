"""The best rows are those that a full sort would find, on one shard or on several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.factors import Factors
from learning.ranking import merge_top, similar_rows, top_rows
from tests.learning.factors_world import Store, key, ratings, toy


def table(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (bias, count, -, -, three factors) in coarse steps, so that many score the same; some are freed."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (n, 7)).astype(np.float32)
    rows[:, 1] = rng.integers(0, 20, n)
    return rows, rng.permutation(n).astype(np.uint64) * np.uint64(2**40), rng.random(n) < 0.8


def sorted_top(scores: np.ndarray, keys: np.ndarray, live: np.ndarray, n: int) -> list[tuple[int, float]]:
    every = sorted((-s, int(k)) for s, k, alive in zip(scores, keys, live, strict=True) if alive)
    return [(k, -s) for s, k in every[:n]]


@given(
    st.integers(0, 200),
    st.integers(0, 30),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1.0]),
    st.integers(1, 5),
)
def test_the_winners_are_those_of_a_full_sort(
    n: int, wanted: int, seed: int, popularity: float, shards: int
) -> None:
    """Any number of rows, freed ones among them, ties, and any number of shards."""
    rows, keys, live = table(n, seed)
    factors = np.array([1.0, -0.5, 2.0])
    scores = rows[:, 0] + rows[:, 4:].astype(float) @ factors
    scores += popularity * np.log(np.maximum(rows[:, 1].astype(float), 0.5))
    parts = [
        top_rows(rows[s::shards], keys[s::shards], live[s::shards], factors, wanted, first=4, bias=0, count=1,
                 popularity=popularity)
        for s in range(shards)
    ]  # fmt: skip
    best, values = merge_top(parts, wanted)
    expected = sorted_top(scores, keys, live, wanted)
    if popularity == 0.0:  # exact arithmetic: ties are ties
        assert list(zip(best.tolist(), values.tolist(), strict=True)) == expected
    assert values == pytest.approx([score for _, score in expected])


def test_the_most_alike_are_those_of_the_largest_cosine() -> None:
    """Rows with few ratings are left out, and so are rows of zeros, which are alike to nothing."""
    rows, keys, live = table(300, 4)
    factors = rows[0, 4:].astype(float) + 0.25
    q = rows[:, 4:].astype(float)
    lengths = np.linalg.norm(q, axis=1)
    known = live & (rows[:, 1] >= 5) & (lengths > 0)
    cosines = np.divide(q @ factors, lengths * np.linalg.norm(factors), where=lengths > 0, out=np.zeros(300))
    best, values = similar_rows(rows, keys, live, factors, 10, first=4, count=1, count_min=5)
    expected = sorted_top(cosines, keys, known, 10)
    assert values == pytest.approx([cosine for _, cosine in expected])
    assert set(best.tolist()) <= set(keys[known].tolist())
    assert len(similar_rows(rows, keys, live, np.zeros(3), 10, first=4, count=1, count_min=5)[0]) == 0


def test_nothing_is_the_best_of_nothing() -> None:
    """No shard answered, or the table is empty."""
    rows, keys, live = table(0, 1)
    empty = top_rows(rows, keys, live, np.zeros(3), 5, first=4, bias=0, count=1)
    for keys, scores in (empty, merge_top([], 5), merge_top([empty, empty], 5)):
        assert len(keys) == len(scores) == 0


def test_a_user_is_recommended_what_is_new_and_liked() -> None:
    """As a shard and its caller do it: n more for each rating of the user, without the pairs that are known."""
    u, i, y, _ = toy(1500, 3)
    learner = Factors(factors=4)
    store = Store(learner)
    store.learn(ratings(u, i, y))
    users, items, scale, seen = store.tables
    user_key = key("user", 3)
    user = users.rows[users.find(np.array([user_key]))[0]]
    rated = {int(key("item", item)) for item in i[u == 3]}
    assert learner.ratings_of(user) == (u == 3).sum()
    keys, scores = learner.top(
        user, items.rows, items.keys, np.ones(len(items), bool), 5 + learner.ratings_of(user)
    )
    new = seen.find(learner.seen_keys(user_key, keys)) < 0
    best, graded = keys[new][:5], learner.grade(scores[new][:5], user, scale.rows[0])
    fresh = np.array([int(k) not in rated for k in items.keys])
    every = learner.score_items(user, items.rows)
    assert best.tolist() == [k for k, _ in sorted_top(every, items.keys, fresh, 5)]
    numbers = {int(key("item", number)): number for number in range(40)}
    batch = ratings([3] * len(best), [numbers[int(k)] for k in best], np.zeros(len(best)))
    assert graded == pytest.approx(learner.predict(store.find(batch), batch), abs=1e-9)
    own, _ = learner.similar(items.rows[0], items.rows, items.keys, np.ones(len(items), bool), 1)
    assert own[0] == items.keys[0]
