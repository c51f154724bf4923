"""Every learner that a pipeline may ask for can be warmed up: it is the first thing that a job does."""

from __future__ import annotations

import pytest

from cluster.warm import warm_up
from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.learner import Learner
from learning.policy import TablePolicy
from learning.population import Population


@pytest.mark.parametrize(
    "learner",
    [
        Ftrl(),
        Population(),
        Population(rates=(0.1,), restless=(), stackers=()),
        Factors(),
        Factors(remember_seen=False),
        Factors(factors=0),
        Factors(rating_min=2.0, rating_max=3.0),
        Factors(feedback="implicit", user="customer", item="film"),
    ],
    ids=lambda learner: f"{learner.kind}-{getattr(learner, 'feedback', '')}",
)
def test_a_job_with_this_learner_starts(learner: Learner) -> None:
    """Settings that leave something out (pairs seen, factors, the label of the warm-up's record) stop no job."""
    policies = [TablePolicy(admit_after=2, expire_after_records=9), TablePolicy(rows_max=5)]
    warm_up(learner, policies)
