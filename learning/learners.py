"""The learners by the name that a pipeline file gives them: a new one is a file of its own and a line here."""

from __future__ import annotations

from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.population import Population

__all__ = ["LEARNERS"]

LEARNERS = {learner.kind: learner for learner in (Ftrl, Population, Factors)}
