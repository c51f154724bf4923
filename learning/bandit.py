"""Which of K arms (experts) for this record? A contextual bandit over numbers of the record, told only what it chose.

Per arm a Bayesian linear regression of the reward r on the context x f64 (d,), as sums of x x^T and r x (natural
parameters: Lambda = prior I + sum x x^T, h = sum r x). Sums add, so workers that began with nothing merge by adding
theirs: up to rounding to what one would have learnt, with the prior counted once. With theta = Lambda^-1 h and
s = sqrt(x^T Lambda^-1 x), by a Cholesky factor:

    linucb          the arm with the largest theta . x + width s     (L. Li, W. Chu, J. Langford, R. Schapire: A
                    Contextual-Bandit Approach to Personalized News Article Recommendation, WWW 2010)
    thompson        the arm with the largest draw from N(theta . x, (width s)^2)   (S. Agrawal, N. Goyal: Thompson
                    Sampling for Contextual Bandits with Linear Payoffs, ICML 2013)
    epsilon_greedy  the arm with the largest theta . x

and under each, with probability `epsilon`, any arm. Equal arms are drawn from.

Every decision comes with the propensities of all arms, without which it cannot be evaluated for another policy later.
Those of linucb and epsilon_greedy are exact. Those of thompson are integrals over one variable, computed on 256 nodes
of equal mass (no Monte Carlo): each within 1/256, as its integrand is monotone and between 0 and 1; that of the chosen
arm is never 0.

A draw depends on the seed and the number of the decision alone, so a run can be repeated, whatever its batches. A
decision waits for its reward among the last `pending_max`; older ones expire, and both that and rewards that come too
late are counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from learning import bandit_kernels as kernels
from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from learning.state_arrays import Forms

__all__ = ["RULES", "Bandit", "BanditSettings", "Choices"]

RULES = {
    "linucb": kernels.LINUCB, "thompson": kernels.THOMPSON, "epsilon_greedy": kernels.EPSILON_GREEDY
}  # fmt: skip
"""By name; the first is the default."""


@dataclass(frozen=True, slots=True)
class BanditSettings:
    """How arms are chosen; `width` 1 is one standard deviation, for rewards whose noise has about size 1."""

    rule: str = "linucb"
    width: float = 1.0
    epsilon: float = 0.0
    prior: float = 1.0
    """Lambda of no record is this times the identity."""
    pending_max: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule should be one of {', '.join(RULES)}, but is {self.rule!r}")
        if not (0.0 <= self.width < math.inf and 0.0 <= self.epsilon <= 1.0 and 0.0 < self.prior < math.inf):
            raise ValueError(
                "width should be 0 or more, epsilon from 0 to 1 and prior above 0, but they are "
                f"{self.width}, {self.epsilon} and {self.prior}"
            )
        if self.pending_max < 1 or self.seed < 0:
            raise ValueError(
                "pending_max should be 1 or more and seed 0 or more, but they are "
                f"{self.pending_max} and {self.seed}"
            )


@dataclass(frozen=True, slots=True)
class Choices:
    """Decisions `first` to `first` + n - 1: the arms i64 (n,), and the propensities of all arms f64 (n, K)."""

    first: int
    arms: NDArray[np.int64]
    propensities: NDArray[np.float64]

    @property
    def own(self) -> NDArray[np.float64]:
        """The propensity f64 (n,) of the arm that was chosen."""
        return np.asarray(self.propensities[np.arange(len(self.arms)), self.arms], np.float64)


class Bandit:
    """K arms over contexts of d numbers."""

    def __init__(self, arms: int, context: int, settings: BanditSettings | None = None) -> None:
        if arms < 1 or context < 1:
            raise ValueError(f"expected 1 arm and 1 number of context or more, got {arms} and {context}")
        self.settings = settings or BanditSettings()
        self.decisions = self.expired = self.late = 0
        """Decisions so far; of them without a reward in time; rewards of decisions that do not wait (any more)."""
        self.rewarded = np.zeros(arms, np.int64)
        """i64 (K,): rewards of each arm."""
        self._squares, self._sums = np.zeros((arms, context, context)), np.zeros((arms, context))
        self._lower, self._factored = np.zeros((arms, context, context)), np.zeros((arms, context))
        self._stale = set(range(arms))
        self._waiting = np.full(self.settings.pending_max, -1, np.int64)
        self._arms = np.zeros(self.settings.pending_max, np.int64)
        self._contexts = np.zeros((self.settings.pending_max, context))

    @property
    def pending(self) -> int:
        """Decisions that wait for their reward."""
        return int(np.count_nonzero(self._waiting >= 0))

    def choose(self, contexts: NDArray[np.float64]) -> Choices:
        """Choose an arm for each record's context f64 (n, d), by what was learnt until now."""
        arms, context = self._sums.shape
        if contexts.ndim != 2 or contexts.shape[1] != context or not np.isfinite(contexts).all():
            raise ValueError(f"expected finite contexts (n, {context}), got {contexts.shape}")
        x = np.require(contexts, np.float64, ["C", "W"])
        self._factor()
        chosen, chances = np.empty(len(x), np.int64), np.empty((len(x), arms))
        s = self.settings
        kernels.choose(
            x, self._lower, self._factored, RULES[s.rule], s.width, s.epsilon, s.seed, self.decisions, chosen, chances
        )  # fmt: skip
        choices = Choices(self.decisions, chosen, chances)
        self._wait(x, chosen)
        return choices

    def _wait(self, x: NDArray[np.float64], arms: NDArray[np.int64]) -> None:
        most = self.settings.pending_max
        for start in range(0, len(x), most):
            ids = np.arange(self.decisions, self.decisions + len(x[start : start + most]), dtype=np.int64)
            places = ids % most
            self.expired += int(np.count_nonzero(self._waiting[places] >= 0))
            self._waiting[places] = ids
            self._arms[places], self._contexts[places] = arms[start : start + most], x[start : start + most]
            self.decisions += len(ids)

    def reward(self, decisions: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """Learn rewards f64 (n,), larger is better, of decisions i64 (n,) by number, in this order."""
        if decisions.shape != rewards.shape or not np.isfinite(rewards).all():
            raise ValueError(
                f"expected a finite reward for each of {decisions.shape} decisions, got {rewards.shape}"
            )
        for decision, reward in zip(decisions.tolist(), rewards.tolist(), strict=True):
            place = decision % self.settings.pending_max
            if decision < 0 or self._waiting[place] != decision:
                self.late += 1
                continue
            self._waiting[place] = -1
            arm, x = int(self._arms[place]), self._contexts[place]
            self._squares[arm] += np.outer(x, x)
            self._sums[arm] += reward * x
            self.rewarded[arm] += 1
            self._stale.add(arm)

    def learn(self, contexts: NDArray[np.float64], rewards: NDArray[np.float64]) -> Choices:
        """Choose for each record's context f64 (n, d) and learn the reward of what was chosen, before the next record.

        `rewards` f64 (n, K) are those of all arms; only that of the arm chosen is looked at, and nothing waits.
        """
        arms, context = self._sums.shape
        if contexts.shape != (len(rewards), context) or rewards.shape[1:] != (arms,):
            raise ValueError(
                f"expected (n, {context}) and (n, {arms}), got {contexts.shape}, {rewards.shape}"
            )
        assert np.isfinite(contexts).all(), "contexts are clipped"
        assert np.isfinite(rewards).all(), "losses are bounded"
        self._factor()
        x, r = (np.require(array, np.float64, ["C", "W"]) for array in (contexts, rewards))
        chosen, chances = np.empty(len(x), np.int64), np.empty((len(x), arms))
        s, state = self.settings, (self._squares, self._sums, self.rewarded, self._lower, self._factored)
        numbers = (s.width, s.epsilon, s.prior)
        kernels.learn(x, r, state, RULES[s.rule], numbers, s.seed, self.decisions, chosen, chances)
        choices = Choices(self.decisions, chosen, chances)
        self.decisions += len(x)
        return choices

    def forget(self, keep: float) -> None:
        """Multiply all sums with `keep`: Lambda <- keep Lambda + (1 - keep) prior I, h <- keep h."""
        if not 0.0 <= keep <= 1.0:
            raise ValueError(f"keep should be from 0 to 1, but is {keep}")
        self._squares *= keep
        self._sums *= keep
        self._stale = set(range(len(self._sums)))

    def renew(self, arm: int) -> None:
        """Forget what was learnt of one arm."""
        self._squares[arm], self._sums[arm] = 0.0, 0.0
        self._stale.add(arm)

    def merge(self, other: Bandit) -> None:
        """Add what another worker learnt; its waiting decisions stay its own."""
        if other._sums.shape != self._sums.shape:
            raise ValueError(f"expected arms and context {self._sums.shape}, got {other._sums.shape}")
        self._squares += other._squares
        self._sums += other._sums
        self.rewarded += other.rewarded
        self._stale = set(range(len(self._sums)))

    def coefficients(self) -> NDArray[np.float64]:
        """theta f64 (K, d) of each arm: L^T theta = u, solved from the last number up."""
        self._factor()
        return np.stack(
            [np.linalg.solve(low.T, u) for low, u in zip(self._lower, self._factored, strict=True)]
        )

    def _factor(self) -> None:
        for arm in sorted(self._stale):
            of_arm = (self._sums[arm], self._lower[arm], self._factored[arm])
            kernels.factor(self._squares[arm], self.settings.prior, *of_arm)
        self._stale.clear()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it but the settings, by name; see `of` for types and shapes. Only waiting decisions are written."""
        waiting = np.flatnonzero(self._waiting >= 0)
        return {
            "counts": np.array([self.decisions, self.expired, self.late], np.int64), "rewarded": self.rewarded.copy(),
            "squares": self._squares.copy(), "sums": self._sums.copy(), "waiting": self._waiting[waiting],
            "waiting_arms": self._arms[waiting], "waiting_contexts": self._contexts[waiting],
        }  # fmt: skip

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], settings: BanditSettings | None = None) -> Self:
        """The bandit that gave `arrays`; raises ValueError for anything else."""
        forms: Forms = {
            "counts": (np.int64, (3,)), "rewarded": (np.int64, ("K",)), "squares": (np.float64, ("K", "d", "d")),
            "sums": (np.float64, ("K", "d")), "waiting": (np.int64, ("w",)), "waiting_arms": (np.int64, ("w",)),
            "waiting_contexts": (np.float64, ("w", "d")),
        }  # fmt: skip
        found = restored(arrays, forms)
        count, context = found["sums"].shape
        bandit = cls(count, context, settings)
        bandit.decisions, bandit.expired, bandit.late = (int(n) for n in found["counts"])
        ids, arms, most = found["waiting"], found["waiting_arms"], bandit.settings.pending_max
        span = bandit.decisions - most
        if (
            (ids < max(span, 0)) | (ids >= bandit.decisions) | (arms < 0) | (arms >= len(found["sums"]))
        ).any():
            raise ValueError(
                f"expected waiting decisions of the last {most} of {bandit.decisions}, and known arms"
            )
        bandit.rewarded, bandit._squares, bandit._sums = found["rewarded"], found["squares"], found["sums"]
        bandit._waiting[ids % most], bandit._arms[ids % most] = ids, arms
        bandit._contexts[ids % most] = found["waiting_contexts"]
        return bandit
