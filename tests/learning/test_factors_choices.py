"""Implicit feedback: choices are learnt against what others chose in the same batch."""

from __future__ import annotations

import math

import numpy as np

from learning.factors import Factors
from tests.learning.factors_world import Store, key, ratings


def choices(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Even users choose of the items 0 to 9, odd ones of 10 to 19; low numbers are chosen more often."""
    rng = np.random.default_rng(seed)
    u = rng.integers(40, size=n)
    return u, (10 * rng.random(n) ** 2).astype(int) + 10 * (u % 2)


def learnt(learner: Factors, n: int = 8000, batch: int = 200) -> tuple[Store, np.ndarray, dict[str, float]]:
    store, metrics, predictions = Store(learner), learner.metrics(), []
    u, i = choices(n, 1)
    for a in range(0, n, batch):
        part = ratings(u[a : a + batch], i[a : a + batch], np.ones(batch), first=a)
        predictions.append(store.learn(part))
        learner.judge(metrics, predictions[-1], part)
    return store, np.concatenate(predictions), metrics.summary()


def test_choices_are_told_from_what_was_not_chosen() -> None:
    """Two groups of users with tastes of their own: half of the negatives are of the other group, and told apart."""
    _, predictions, summary = learnt(Factors(feedback="implicit", factors=4))
    assert predictions.shape == (8000, 5)
    late = predictions[4000:]
    assert np.nanmean(late[:, 0]) > 1.3 * np.nanmean(late[:, 1:])
    assert summary["log_loss"] < 0.95 * summary["prior_log_loss"]
    assert summary["auc"] > 0.65


def test_a_users_best_items_are_those_of_the_taste_that_are_chosen_often() -> None:
    """The score leaves fame out, because famous items are drawn more often; top adds it again."""
    store, _, _ = learnt(Factors(feedback="implicit", factors=4))
    items = store.tables[1]
    numbers = {int(key("item", number)): number for number in range(20)}
    user = store.tables[0].rows[store.tables[0].find(np.array([key("user", 3)]))[0]]
    keys, scores = store.learner.top(user, items.rows, items.keys, np.ones(len(items), bool), 10)
    best = [numbers[int(k)] for k in keys]
    assert sum(number >= 10 for number in best[:5]) == 5
    assert 10 in best[:3]
    assert store.learner.grade(scores, user, store.tables[2].rows[0]).tolist() == scores.tolist()
    everyone, _ = store.learner.top(None, items.rows, items.keys, np.ones(len(items), bool), 2)
    assert {numbers[int(k)] for k in everyone} == {0, 10}


def test_negatives_are_drawn_the_same_again_and_otherwise_in_another_batch() -> None:
    """A batch that is repeated after a crash learns the same; the next batch, or another seed, draws anew."""
    u, i = choices(100, 2)
    for learner, first, same in (
        (Factors(feedback="implicit"), 0, True),
        (Factors(feedback="implicit"), 100, False),
        (Factors(feedback="implicit", seed=1), 0, False),
    ):
        reference = Store(Factors(feedback="implicit")).learn(ratings(u, i, np.ones(100)))
        again = Store(learner).learn(ratings(u, i, np.ones(100), first=first))
        assert (again.tobytes() == reference.tobytes()) == same


def test_a_user_alone_in_a_batch_has_no_negatives() -> None:
    """What the same user chose is no negative: there is nothing to compare with, and the metrics leave it out."""
    learner = Factors(feedback="implicit", negatives=3)
    batch = ratings([1] * 5, range(5), np.ones(5))
    predictions, metrics = Store(learner).learn(batch), learner.metrics()
    assert np.isnan(predictions[:, 1:]).all()
    assert not np.isnan(predictions[:, 0]).any()
    learner.judge(metrics, predictions, batch)
    assert metrics.records == 5


def test_only_choices_are_counted_and_no_bias_is_learnt() -> None:
    """Counts stand for fame, and fame is what the negatives cancel."""
    store, _, _ = learnt(Factors(feedback="implicit", factors=4), n=1000)
    assert store.tables[0].rows[:, 1].sum() == store.tables[1].rows[:, 1].sum() == 1000
    assert abs(store.tables[1].rows[:, 0]).max() < 1e-6


def test_a_stranger_chooses_as_anyone_would() -> None:
    """Without rows the probability is that of one among its negatives."""
    store, _, _ = learnt(Factors(feedback="implicit", negatives=4), n=400)
    batch = ratings([999], [1], [1.0])
    assert math.isclose(store.learner.predict(store.find(batch), batch)[0], 0.2, abs_tol=1e-6)


def test_rare_large_factors_do_not_explode() -> None:
    """A prior so wide that a plain Kalman step would leap from the wrong side of a half: it stays bounded."""
    store, predictions, _ = learnt(Factors(feedback="implicit", factor_variance=5.0, birth_scale=1.0))
    assert np.isfinite(store.tables[0].rows).all()
    clipped = np.clip(predictions[4000:, 0], 1e-15, None)
    assert -np.log(clipped).mean() < 3.0
