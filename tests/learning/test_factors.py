"""The factor learner is its equations, whatever the batches; it predicts for strangers, and refuses nonsense."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from learning.factors import Factors
from tests.learning.factors_world import Plain, Store, key, ratings, toy

NOTHING = ratings([], [], [])


def test_the_kernel_is_its_equations() -> None:
    """A thousand weighted ratings, against dictionaries and lists in doubles: float32 rows cost a millionth or so."""
    learner = Factors(factors=5, seed=3)
    u, i, y, w = toy(1000, 1)
    predictions = Store(learner).learn(ratings(u, i, y, w))
    plain = Plain(learner)
    expected = [plain.learn(*record) for record in zip(u.tolist(), i.tolist(), y, w, strict=True)]
    assert predictions == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("cut", [1, 7, 64, 499])
def test_ratings_come_in_batches_of_any_size(cut: int) -> None:
    """One worker: predictions and all rows are the same to the bit, however the stream is cut."""
    u, i, y, w = toy(500, 2)
    learner = Factors(factors=8)
    whole, parts = Store(learner), Store(learner)
    at_once = whole.learn(ratings(u, i, y, w))
    in_parts = [
        parts.learn(ratings(u[a : a + cut], i[a : a + cut], y[a : a + cut], w[a : a + cut], first=a))
        for a in range(0, 500, cut)
    ]
    assert np.concatenate(in_parts).tobytes() == at_once.tobytes()
    assert parts.state() == whole.state()


def test_the_first_rating_of_all_is_predicted() -> None:
    """Nothing is known: the middle of the scale if it was given, else 0 within what was given; then what was seen."""
    for given, first in (((None, None), 0.0), ((1.0, 5.0), 3.0), ((1.0, None), 1.0), ((None, -2.0), -2.0)):
        store = Store(Factors(rating_min=given[0], rating_max=given[1]))
        assert store.learn(ratings([1, 1], [1, 2], [4.0, 4.0])).tolist() == [
            first,
            4.0 if first != -2.0 else -2.0,
        ]
        assert not store.tables[0].rows[:, 0].any()  # ratings that are all the same have no unit to learn in
        assert store.tables[0].rows[0, 1] == 2.0


def test_predictions_stay_on_the_scale() -> None:
    """Learnt or not, no prediction is above the greatest rating seen, or the one that was given."""
    u, i, y, _ = toy(2000, 3)
    for learner, low, high in (
        (Factors(), y.min(), y.max()),
        (Factors(rating_min=2.0, rating_max=4.0), 2.0, 4.0),
    ):
        predictions = Store(learner).learn(ratings(u, i, y))[2:]
        assert predictions.min() >= low
        assert predictions.max() <= high


def test_ratings_on_another_scale_are_learnt_alike() -> None:
    """-10 to 10 in place of 1 to 5: the same parameters give the same predictions on that scale."""
    u, i, y, _ = toy(2000, 4)
    learner = Factors(factors=4)
    small = Store(learner).learn(ratings(u, i, y))
    large = Store(learner).learn(ratings(u, i, 5.0 * (y - 3.0)))
    assert large[1:] == pytest.approx(5.0 * (small[1:] - 3.0), abs=1e-3)


def test_tastes_are_learnt() -> None:
    """Factors explain what user's and item's bias cannot, and both explain more than the mean."""
    u, i, y, _ = toy(20_000, 5)

    def rmse(learner: Factors) -> float:
        metrics = learner.metrics()
        batch = ratings(u, i, y)
        learner.judge(metrics, Store(learner).learn(batch), batch)
        return metrics.summary()["rmse"]

    still = Factors(user_memory=0.0, item_memory=0.0)
    assert rmse(still) < 0.75 * rmse(replace(still, factors=0)) < 0.7 * y.std()


def test_a_rating_of_weight_two_counts_as_two() -> None:
    """The scale is exactly as if the record had come twice; a bias nearly so, as the other one moves in between."""
    learner = Factors(factors=0, user_memory=0.0, item_memory=0.0)
    u, i, y, _ = toy(1000, 8)
    stores = [Store(learner) for _ in range(3)]
    for store in stores:
        store.learn(ratings(u, i, y))
    stores[0].learn(ratings([99], [99], [5.0]))
    stores[1].learn(ratings([99], [99], [5.0], [2.0]))
    stores[2].learn(ratings([99, 99], [99, 99], [5.0, 5.0]))
    once, heavy, twice = (store.state()[0][int(key("user", 99))][0] for store in stores)
    assert heavy == pytest.approx(twice, rel=0.1)
    assert once < 0.75 * heavy
    assert stores[1].tables[2].rows[0] == pytest.approx(stores[2].tables[2].rows[0], rel=1e-5, abs=1e-6)


def test_strangers_are_predicted_from_what_is_known() -> None:
    """A new user has the item's mean, a new item the user's, both new the mean of all; or what is predicted first."""
    u, i, y, _ = toy(3000, 6)
    store = Store(Factors())
    store.learn(ratings(u, i, y))
    batch = ratings([1, 999, 1, 999], [1, 1, 999, 999], [0.0] * 4)
    found = store.find(batch)
    known, new_user, new_item, both_new = store.learner.predict(found, batch)
    scale = store.tables[2].rows[0]
    mean, deviation = float(scale[2]) + float(scale[3]), math.sqrt(scale[4] / scale[0])
    user, item = (store.state()[t][int(key(name, 1))] for t, name in enumerate(("user", "item")))
    assert new_user == pytest.approx(mean + deviation * item[0], abs=1e-5)
    assert new_item == pytest.approx(mean + deviation * user[0], abs=1e-5)
    assert both_new == pytest.approx(y.mean(), abs=1e-5)
    product = float(np.dot(user[4:], item[4:]))
    assert known == pytest.approx(mean + deviation * (user[0] + item[0] + product), abs=1e-5)
    empty = Store(Factors(rating_min=1.0, rating_max=5.0))
    assert empty.learner.predict(empty.find(batch), batch).tolist() == [3.0] * 4


def test_absurd_ratings_leave_finite_rows() -> None:
    """A billion among ones and twos: rows stay finite, and what follows is still learnt."""
    rng = np.random.default_rng(7)
    y = rng.choice([1.0, 2.0, 1e9, -1e9], 4000, p=[0.45, 0.45, 0.05, 0.05])
    store = Store(Factors())
    predictions = store.learn(ratings(rng.integers(3, size=4000), rng.integers(3, size=4000), y))
    assert np.isfinite(predictions).all()
    assert all(np.isfinite(table.rows).all() for table in store.tables)


def test_rows_are_born_the_same_everywhere() -> None:
    """Another process, another order of arrival: a key's first factors are the same; another seed has others."""
    users, items = np.arange(20), np.arange(20)
    forward, backward, other = Store(Factors(seed=1)), Store(Factors(seed=1)), Store(Factors(seed=2))
    forward.pull(ratings(users, items, np.ones(20)))
    backward.pull(ratings(users[::-1], items[::-1], np.ones(20)))
    other.pull(ratings(users, items, np.ones(20)))
    assert forward.state()[:2] == backward.state()[:2]
    assert forward.state()[0] != other.state()[0]
    factors = forward.tables[0].rows[:, 4:]
    assert 0.9 * 0.05 < abs(factors).max() <= 0.05
    assert not np.array_equal(factors, forward.tables[1].rows[:, 4:])


def test_an_empty_batch_changes_nothing() -> None:
    """Every record of a stretch was bad."""
    for learner in (Factors(), Factors(feedback="implicit"), Factors(remember_seen=False)):
        store = Store(learner)
        assert len(store.learn(NOTHING)) == 0
        assert not store.tables[2].rows.any()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"item": "user"}, "two features"),
        ({"factors": -1}, "factors"),
        ({"noise": 0.0}, "noise"),
        ({"bias_variance": math.nan}, "bias_variance"),
        ({"factor_variance": -1.0}, "factor_variance"),
        ({"birth_scale": -0.1}, "birth_scale"),
        ({"kappa": math.inf}, "kappa"),
        ({"user_memory": 0.5}, "user_memory"),
        ({"feedback": "both"}, "feedback"),
        ({"negatives": 0}, "negatives"),
        ({"seed": -1}, "seed"),
        ({"rating_min": 5.0, "rating_max": 1.0}, "rating_min"),
        ({"rating_max": math.nan}, "rating_max"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(wrong: dict, word: str) -> None:
    """A pipeline file is wrong: the sentence names the field."""
    with pytest.raises(ValueError, match=word):
        Factors(**wrong)


def test_records_of_absurd_weight_and_rating_leave_everything_finite() -> None:
    """Weights up to the largest float and ratings up to 1e9: nothing becomes NaN, then or for those who come after."""
    store = Store(Factors(factors=4))
    labels, weights = [3.0, 4.0, 1e9, -1e9, 3.0, 2.0], [1.0, 2e38, 2e38, 3e38, 1.0, 1.0]
    found = store.learn(ratings([1, 2, 3, 1, 2, 3], [1, 2, 3, 3, 1, 2], labels, weights))
    assert np.isfinite(found).all()
    assert all(np.isfinite(table.rows).all() for table in store.tables)
