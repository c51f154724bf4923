"""River models as experts: they predict as river does, come back to the bit, and are refused in time."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from river import linear_model, naive_bayes, preprocessing

from learning.batch import Batch, BatchId
from learning.river_build import RiverSettings, built_model
from learning.river_check import check_river
from learning.river_expert import RiverExpert
from learning.river_names import RiverError
from tests.learning.river_models import CLASSIFIERS, LOGISTIC, REGRESSORS, SCALER, of, records

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
def test_a_model_that_comes_back_goes_on_as_if_undisturbed(name: str) -> None:
    """Saved and read back after 400 records with a drift: the next 400 predictions are equal to the bit."""
    ratings = name in REGRESSORS
    settings = (REGRESSORS if ratings else CLASSIFIERS)[name]
    expert = RiverExpert(settings, ratings=ratings)
    expert.learn(records(400, 1, ratings=ratings))
    again = RiverExpert.of(settings, expert.arrays(), ratings=ratings)
    assert again.records == 400
    more = records(400, 2, ratings=ratings)
    assert again.predict(more).tolist() == expert.predict(more).tolist()
    assert again.learn(more).tolist() == expert.learn(more).tolist()


@pytest.mark.parametrize("name", ["scaled", "adaptive forest", "hoeffding", "bernoulli", "adwin bagging"])
def test_a_run_can_be_repeated(name: str) -> None:
    """A model that draws at random and was given no seed: two of them learn the same, and save the same arrays."""
    experts = [RiverExpert(CLASSIFIERS[name]) for _ in range(2)]
    first, second = (expert.learn(records(300)).tolist() for expert in experts)
    assert first == second
    one, other = (expert.arrays() for expert in experts)
    assert all(np.array_equal(one[part], other[part]) for part in one)


def test_it_predicts_as_river_in_a_plain_loop() -> None:
    """A pipeline of a scaler and a logistic regression, each record predicted and then learnt."""
    batch, model = records(300), preprocessing.StandardScaler() | linear_model.LogisticRegression()
    expected = []
    for i in range(len(batch)):
        own = slice(batch.offsets[i], batch.offsets[i + 1])
        x = dict(zip(batch.keys[own].tolist(), batch.values[own].tolist(), strict=True))
        expected.append(min(max(model.predict_proba_one(x)[True], 0.001), 0.999))
        model.learn_one(x, bool(batch.labels[i]))
    got = RiverExpert(of("linear_model.LogisticRegression", (SCALER,))).learn(batch)
    assert got.tolist() == expected


def test_no_record_is_learnt_before_it_is_predicted() -> None:
    """Labels from record 100 on are turned around: predictions up to it stay."""
    batch = records(200)
    turned = records(200)
    turned.labels[100:] = 1.0 - turned.labels[100:]
    own, other = (RiverExpert(CLASSIFIERS["scaled"]).learn(each) for each in (batch, turned))
    assert own[:101].tolist() == other[:101].tolist()
    assert own[101:].tolist() != other[101:].tolist()


def test_a_model_that_knows_nothing_says_one_half_and_none_is_certain() -> None:
    """The first record, one label only, and a tree that is sure: predictions stay from 0.001 to 0.999."""
    batch = records(50)
    batch.labels[:] = 0.0
    found = RiverExpert(of("naive_bayes.BernoulliNB")).learn(batch)
    assert found[0] == 0.5
    assert found[-1] == 0.001


def test_weights_of_records_are_passed_on() -> None:
    """A logistic regression knows `w`: weight 2 is learnt further than weight 1. Bernoulli's does not."""
    light, heavy = records(50), records(50, weights=2.0)
    settings = of("linear_model.LogisticRegression")
    assert RiverExpert(settings).learn(light).tolist() != RiverExpert(settings).learn(heavy).tolist()
    assert "w" not in naive_bayes.BernoulliNB.learn_one.__code__.co_varnames
    bernoulli = of("naive_bayes.BernoulliNB")
    assert RiverExpert(bernoulli).learn(light).tolist() == RiverExpert(bernoulli).learn(heavy).tolist()


def test_workers_become_one_by_who_has_learnt_most() -> None:
    """Three workers of 100, 300 and 300 records: the second's model is the job's."""
    experts = [RiverExpert(CLASSIFIERS["logistic"]) for _ in range(3)]
    for seed, (expert, n) in enumerate(zip(experts, (100, 300, 300), strict=True)):
        expert.learn(records(n, seed))
    joined = RiverExpert.joined([expert.arrays() for expert in experts])
    assert np.array_equal(joined["graph"], experts[1].arrays()["graph"])


def test_a_record_that_the_model_cannot_learn_is_counted_and_stops_nothing() -> None:
    """A multinomial model and negative numbers: which record it was, what to do, and the others are learnt."""
    expert, batch = RiverExpert(of("naive_bayes.MultinomialNB")), records(400)
    predictions = expert.learn(batch)
    assert re.search(r"MultinomialNB.* failed at the record at partition 0, offset \d+", expert.failure)
    assert 0 < expert.failed < expert.records == 400
    assert np.isfinite(predictions).all()
    again = RiverExpert.of(expert.settings, expert.arrays())
    assert (again.failed, again.records) == (expert.failed, 400)
    assert np.isfinite(again.predict(batch)).all()


def test_an_empty_batch_is_no_matter() -> None:
    """All records of a stretch were bad."""
    assert not len(RiverExpert(CLASSIFIERS["scaled"]).learn(Batch.empty(BatchId(0, 0, 5))))


REFUSED = [
    (of("linear_model.LogisticRegresion"), "did you mean river.linear_model.LogisticRegression"),
    (of("linear_models.LogisticRegression"), "did you mean river.linear_model?"),
    (RiverSettings("os.system"), "expected a class as river.package.Name"),
    (of("datasets.Phishing"), "expected a class as river.package.Name"),
    (of("linear_model.base.GLM.__init__"), "no 'base.*' that could be built|could be built"),
    (of("stream.iter_csv"), "expected a class as river.package.Name"),
    (of("tree.HoeffdingTreeClassifier", grace_perod=3), "did you mean grace_period"),
    (of("linear_model.LogisticRegression", optimizer={"model": "river.optim.Adm"}), "did you mean river.optim.Ada"),
    (of("linear_model.LogisticRegression", optimizer={"model": "river.optim.Adam", "lr": 1}), "but not 'lr'"),
    (of("linear_model.LinearRegression"), "should be a classifier"),
    (of("preprocessing.StandardScaler"), "should be a classifier|failed"),
    (of("linear_model.LogisticRegression", ("river.preprocessing.LDA",)), r"steps\['LDA'\].nu_1.*numpy|ones"),
    (of("facto.FFMClassifier"), "failed at the record"),
    (of("ensemble.VotingClassifier", models=[LOGISTIC, LOGISTIC]), "NotImplementedError"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "said"), REFUSED, ids=[settings.model for settings, _ in REFUSED])
def test_what_cannot_be_an_expert_is_refused_before_a_job_begins(settings: RiverSettings, said: str) -> None:
    """A name that is none of river's, a parameter that is none, no probabilities, or no way back from a snapshot."""
    with pytest.raises(RiverError, match=said):
        check_river(settings, ratings=False)


def test_ratings_need_a_regressor() -> None:
    """Beside factors of ratings, a classifier is refused and a regression is not."""
    check_river(REGRESSORS["linear"], ratings=True)
    with pytest.raises(RiverError, match="should be a regressor"):
        check_river(CLASSIFIERS["logistic"], ratings=True)


def test_parameters_are_what_json_brings_back() -> None:
    """The recorded pipeline is JSON: a mapping with keys that are no texts, or no number at all, is refused."""
    with pytest.raises(RiverError, match="would not come back"):
        built_model(of("imblearn.RandomUnderSampler", classifier=LOGISTIC, desired_dist={0: 0.5}))
    with pytest.raises(RiverError, match="numbers, texts"):
        of("linear_model.LogisticRegression", l2=math.nan).key()
