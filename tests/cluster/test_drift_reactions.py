"""Reactions in the pipeline file that would change nothing of the learner are refused before a job begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.config_watch import DriftConfig
from learning.learner import Forgetting, forgetting_tables
from learning.learners import LEARNERS, learner_from

FTRL, DEEP, RIVER = (
    {"kind": "ftrl"},
    {"kind": "deep"},
    {"kind": "river", "model": "river.naive_bayes.BernoulliNB"},
)


def mixed(*experts: dict[str, Any], rule: str = "fixed_share") -> dict[str, Any]:
    """The section of an ensemble."""
    return {"kind": "ensemble", "experts": list(experts), "mixing": {"rule": rule}}


ALL, STEPS = {"raise_rates", "raise_share", "forget"}, {"raise_rates", "forget"}
REACTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "ftrl": (FTRL, STEPS),
    "factors": ({"kind": "factors"}, STEPS),
    "deep": (DEEP, set()),
    "population": ({"kind": "population"}, ALL),
    "one column alone": ({"kind": "population", "rates": [0.1], "restless": [], "stackers": []}, STEPS),
    "an ensemble by fixed share": (mixed(FTRL, RIVER), ALL),
    "by hedge": (mixed(FTRL, RIVER, rule="hedge"), STEPS),
    "by mean loss": (mixed(FTRL, RIVER, rule="best_recent"), STEPS),
    "by a bandit": (mixed(FTRL, RIVER, rule="linucb"), STEPS),
    "by a bandit, over a population": (mixed(FTRL, {"kind": "population"}, rule="linucb"), ALL),
    "of experts that cannot forget": (mixed(DEEP, RIVER, rule="thompson"), set()),
}


@pytest.mark.parametrize("name", REACTS)
@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_reaction_that_changes_nothing_is_refused(name: str, kind: str) -> None:
    """By learner and reaction: accepted where something reads it, else a sentence that says why."""
    section, reacts = REACTS[name]
    drift, learner = DriftConfig.model_validate({"reactions": [{"kind": kind}]}), learner_from(section)
    if kind in reacts:
        drift.check(learner)
    else:
        with pytest.raises(ValueError, match=f"{kind} changes nothing of the learner {learner.kind}"):
            drift.check(learner)


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_learner_says_that_it_forgets_where_it_can(kind: str) -> None:
    """What a pipeline is checked by is what shards go by."""
    learner = LEARNERS[kind]()
    assert ("forget" in learner.reacts) == isinstance(learner, Forgetting)


def test_an_ensemble_forgets_in_the_tables_of_experts_that_can() -> None:
    """Rows of deep stay as they are beside FTRL's, whose squares keep a tenth."""
    learner = learner_from(mixed(FTRL, DEEP))
    assert isinstance(learner, Forgetting)
    for table, spec in enumerate(learner.specs()):
        rows = np.full((3, spec.width), 2.0, np.float32)
        learner.forget(table, rows, -1, 0.1)
        assert (rows != 2.0).any() == spec.name.startswith("ftrl0")
    assert forgetting_tables(learner) == (0,)
    assert forgetting_tables(learner_from(FTRL)) == (0,)
    assert forgetting_tables(learner_from(DEEP)) == ()
