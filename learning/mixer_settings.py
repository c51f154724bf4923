"""How an ensemble mixes: the settings of learning/mixer.py, by rule."""

from __future__ import annotations

from dataclasses import dataclass

from learning.bandit import RULES as BANDITS
from learning.bandit import BanditSettings
from learning.experts_rules import RULES, BestRecent, FixedShare, Hedge, InverseError, Rule

__all__ = ["Mixing"]

_CONTEXT_MAX = 64
_SEED_MAX = 2**40
_WORKERS_MAX = 1024

_SETTINGS: dict[str, set[str]] = {
    "fixed_share": {"eta", "share"}, "hedge": {"eta"},
    "inverse_error": {"half_life_records", "offset"}, "best_recent": {"half_life_records"},
    "linucb": {"context", "width", "epsilon", "prior", "seed"},
    "thompson": {"context", "width", "epsilon", "prior", "seed"},
    "epsilon_greedy": {"context", "epsilon", "prior", "seed"},
}  # fmt: skip
"""By rule, the settings that mean something."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """How an ensemble mixes: a rule of learning/experts_rules.py, or of learning/bandit.py."""

    rule: str = "fixed_share"
    eta: float = 1.0
    share: float = 5e-4
    half_life_records: float = 10_000.0
    offset: float = 0.01
    context: tuple[str, ...] = ()
    """Names of the numeric features by which a bandit chooses."""
    width: float = 0.2
    epsilon: float = 0.05
    prior: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule not in _SETTINGS:
            raise ValueError(f"rule should be one of {', '.join(_SETTINGS)}, but is {self.rule!r}")
        for name, field in type(self).__dataclass_fields__.items():
            unused = name != "rule" and name not in _SETTINGS[self.rule]
            if unused and getattr(self, name) != field.default:
                known = ", ".join(sorted(_SETTINGS[self.rule]))
                raise ValueError(f"{name} means nothing to {self.rule}, which has {known}; leave it out")
        if len(self.context) > _CONTEXT_MAX or len(set(self.context)) < len(self.context):
            raise ValueError(f"context should be at most {_CONTEXT_MAX} names of features, each once")
        if not 0 <= self.seed < _SEED_MAX:
            raise ValueError(f"seed should be from 0 to below 2^40, but is {self.seed}")
        if self.is_bandit:
            self.bandit(0)
        else:
            self.weighting()

    @property
    def is_bandit(self) -> bool:
        """Whether one expert is picked for each record, instead of all being weighted."""
        return self.rule in BANDITS

    def weighting(self) -> Rule:
        """The rule of the weights."""
        kind = RULES[self.rule]
        if kind is FixedShare:
            return FixedShare(self.eta, self.share)
        if kind is Hedge:
            return Hedge(self.eta)
        if kind is InverseError:
            return InverseError(self.half_life_records, offset=self.offset)
        return BestRecent(self.half_life_records)

    def bandit(self, worker: int) -> BanditSettings:
        """The bandit's settings; each worker draws its own numbers. Rewards come with the record: nothing waits."""
        seed = self.seed * _WORKERS_MAX + worker
        return BanditSettings(self.rule, self.width, self.epsilon, self.prior, pending_max=1, seed=seed)
