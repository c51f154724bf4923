"""What a pipeline may say about the factor learner, and what follows from it; meanings in learning/factors.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["FactorParameters"]

_FACTORS_MAX = 1024
_NEGATIVES_MAX = 1024
_LABEL_MAX = 1e9
_LOGIT_VARIANCE = math.pi**2 / 3.0
"""Variance of the logistic distribution: what a unit of variance is worth in logits."""
_FIXED = 1e12
"""So much information at birth holds a parameter where it is."""


@dataclass(frozen=True, slots=True)
class FactorParameters:
    """The fields of the factor learner."""

    user: str = "user"
    item: str = "item"
    """Names of the features that say who rated, and what."""
    factors: int = 16
    noise: float = 0.8
    """Variance of a rating about its prediction, in variances of all ratings: larger steps more carefully."""
    bias_variance: float = 0.2
    factor_variance: float = 0.3
    """Variances before the first rating (in variances of ratings): their inverses are the L2 penalties."""
    birth_scale: float = 0.05
    """New factors are uniform in [-birth_scale, birth_scale)."""
    user_memory: float = 10.0
    item_memory: float = 50.0
    factor_memory: float = 0.0
    """Ratings over which a user's bias, an item's bias and the factors of both are averaged; 0: over all."""
    feedback: Literal["explicit", "implicit"] = "explicit"
    negatives: int = 4
    """For implicit feedback: items of the batch that stand for what each record did not choose."""
    rating_min: float | None = None
    rating_max: float | None = None
    remember_seen: bool = True
    """Keep each pair of user and item (one row of width 1), so that `recommend` can leave out what is known."""
    kappa: float = 1.0
    """Strength with which a merge averages rather than adds."""
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def label_range(self) -> tuple[float, float]:
        """The scale, if it is given. An implicit record is a choice: one of label 0 says that it is none."""
        if self.feedback == "implicit":
            return 1e-9, _LABEL_MAX
        low, high = self.rating_min, self.rating_max
        return -_LABEL_MAX if low is None else low, _LABEL_MAX if high is None else high

    @property
    def roles(self) -> tuple[str, ...]:
        """User and item."""
        return self.user, self.item

    @property
    def unit(self) -> float:
        """Variances of ratings are relative; of choices they are in logits."""
        return 1.0 if self.feedback == "explicit" else _LOGIT_VARIANCE

    @property
    def prior(self) -> tuple[float, float]:
        """Information about a bias and about a factor at birth."""
        biases = 1.0 / self.bias_variance if self.feedback == "explicit" else _FIXED
        return biases, 1.0 / (self.unit * self.factor_variance)

    @property
    def keep(self) -> tuple[float, float, float]:
        """What each observation leaves of the information about a user's bias, an item's bias, factors."""
        user, item, factor = (
            1.0 - 1.0 / memory if memory else 1.0
            for memory in (self.user_memory, self.item_memory, self.factor_memory)
        )
        return user, item, factor

    @property
    def bounds(self) -> tuple[float, float]:
        """The scale as it was given; NaN where it was not."""
        low, high = self.rating_min, self.rating_max
        return math.nan if low is None else float(low), math.nan if high is None else float(high)


def _check(of: FactorParameters) -> None:
    """Raise ValueError for the first parameter that cannot be."""
    if not of.user or not of.item or of.user == of.item:
        raise ValueError(f"user and item should name two features, but are {of.user!r} and {of.item!r}")
    if not 0 <= of.factors <= _FACTORS_MAX:
        raise ValueError(f"factors should be 0 to {_FACTORS_MAX}, but is {of.factors}")
    if not 1 <= of.negatives <= _NEGATIVES_MAX:
        raise ValueError(f"negatives should be 1 to {_NEGATIVES_MAX}, but is {of.negatives}")
    for name in ("noise", "bias_variance", "factor_variance"):
        if not 0.0 < getattr(of, name) < math.inf:
            raise ValueError(f"{name} should be above 0, but is {getattr(of, name)}")
    for name in ("birth_scale", "kappa"):
        if not 0.0 <= getattr(of, name) < math.inf:
            raise ValueError(f"{name} should be 0 or more, but is {getattr(of, name)}")
    for name in ("user_memory", "item_memory", "factor_memory"):
        memory = getattr(of, name)
        if memory != 0.0 and not 1.0 < memory < math.inf:
            raise ValueError(f"{name} should be 0 (all ratings) or above 1, but is {memory}")
    if of.feedback not in ("explicit", "implicit"):
        raise ValueError(f"feedback should be explicit or implicit, but is {of.feedback!r}")
    if not 0 <= of.seed < 2**64:
        raise ValueError(f"seed should be 0 to 2^64 - 1, but is {of.seed}")
    low, high = of.label_range
    if not low < high:
        raise ValueError(f"rating_min should be below rating_max, but they are {low} and {high}")
