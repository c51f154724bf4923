"""Weights over K experts: predictions are mixed with weights that were fixed before the label, then the weights learn.

    fixed_share   w_k <- (1 - a) w_k exp(-eta loss_k) / Z + a / K     (M. Herbster, M. Warmuth: Tracking the Best
                  Expert, 1998), uniform at the start. With log-loss and eta = 1 it is the exact Bayes mixture over all
                  sequences of experts, each of whose steps stays with probability 1 - a and else draws one of the K
                  anew; so of any sequence with s switches in T records it loses at most `regret_bound` more. Labels of
                  0 and 1 need no logarithm: exp(-loss) is a probability. Other losses go by logarithms.
    hedge         the same with a = 0, always in logarithms (Y. Freund, R. Schapire 1997): loses at most ln K more than
                  the best expert.
    inverse_error w_k ~ 1 / (mean loss_k + offset), the mean decaying with `half_life_records`.
    best_recent   the expert with the least decayed mean loss alone; equal ones share.

Experts may come and go. With `parent`, an expert that begins as a copy of another takes half of that one's weight:
while both predict the same, the mixture is what it was. Without one, it begins with the weight `mass`, taken from all
in proportion. That is 0 unless said otherwise (under hedge 1 / (K + 1), for a weight of 0 would stay), so the mixture
does not jump either: fixed share gives it a / K with the next record. Under inverse_error and best_recent a new expert
has weight 0, and gets its due over, or after, `ramp_records`. With mass q a prediction moves by at most
q |p_new - p_mixed|; removing an expert of weight w moves it by at most w |p_removed - p_others|.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from learning import experts_kernels as kernels
from learning.experts_kernels import COUNT, RAMP, SCORE, WEIGHT
from learning.experts_rules import FixedShare, Rule
from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from learning.state_arrays import Forms

__all__ = ["Experts", "regret_bound"]


class Experts:
    """K experts' weights under a rule; the state is arrays, and the same to the bit for any cut into batches."""

    def __init__(self, experts: int, rule: Rule | None = None, *, squared: bool = False) -> None:
        if experts < 1:
            raise ValueError(f"expected 1 expert or more, got {experts}")
        self.rule: Rule = rule or FixedShare()
        self.ids = np.arange(experts, dtype=np.int64)
        """i64 (K,), of the experts in the order of their columns; ids are never given twice."""
        self._next_id = experts
        self._squared = squared
        self._state = np.zeros((4, experts))
        self._state[WEIGHT], self._state[RAMP] = 1.0 / experts, 1.0
        if self._hedge:
            self._state[SCORE] = -math.log(experts)

    @property
    def _hedge(self) -> bool:
        """Whether logarithms of weights are what counts."""
        return self.rule.code == kernels.SHARE and self.rule.numbers[1] == 0.0

    def __len__(self) -> int:
        return len(self.ids)

    def weights(self) -> NDArray[np.float64]:
        """A copy of the weights f64 (K,) that the next record's prediction is mixed with."""
        return np.array(self._state[WEIGHT])

    def mix(self, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mixed predictions f64 (n,) of f64 (n, K), all with the present weights: for scoring without labels."""
        out = np.empty(len(predictions))
        kernels.mix_all(self._state, self._checked(predictions), out)
        return out

    def learn(
        self, predictions: NDArray[np.float64], labels: NDArray[np.float32], share: float = 0.0
    ) -> NDArray[np.float64]:
        """Mix, then learn, record after record.

        Args:
            predictions: f64 (n, K), each made before its record was learnt; NaN counts as certain and wrong.
            labels: f32 (n,).
            share: what the share of these records is at least; without effect on rules that have none.

        Returns:
            f64 (n,): mixed with the weights as they were before the record's label.

        """
        found = self._checked(predictions)
        if labels.shape != (len(found),):
            raise ValueError(f"expected labels ({len(found)},), got {labels.shape}")
        out = np.empty(len(found))
        y = np.require(labels, np.float32, ["C", "W"])
        eta, own, *others = self.rule.numbers
        numbers = (eta, own if self._hedge else min(max(own, share), 1.0), *others)
        kernels.run(self._state, found, y, self.rule.code, numbers, self._squared, out)
        return out

    def update(self, losses: NDArray[np.float64], records: int = 1) -> None:
        """Learn from losses f64 (n, K) of n records in sequence, or f64 (K,), the sums over an interval of `records`.

        A sum over an interval is one step with the losses' sum, and with the share that so many records have.
        """
        rows = losses[None] if losses.ndim == 1 else losses
        for row in np.nan_to_num(self._checked(rows), nan=1e6, posinf=1e6):
            size = float(records) if losses.ndim == 1 else 1.0
            kernels.advance(self._state, row, size, self.rule.code, self.rule.numbers)

    def spawn(self, parent: int | None = None, mass: float | None = None) -> int:
        """Add an expert as the last column, and give its id; see the module's docstring for `parent` and `mass`."""
        place = None if parent is None else self._place(parent)
        column = np.zeros(4)
        if self.rule.code == kernels.SHARE:
            self._spawn_weight(column, place, mass)
        elif mass is not None:
            raise ValueError(f"{self.rule.name} lets an expert in over ramp_records; it takes no mass")
        elif place is not None:
            column[[SCORE, COUNT]] = self._state[[SCORE, COUNT], place]
        self._state = np.ascontiguousarray(np.column_stack((self._state, column)))
        self.ids = np.append(self.ids, self._next_id)
        self._next_id += 1
        return int(self.ids[-1])

    def _spawn_weight(self, column: NDArray[np.float64], place: int | None, mass: float | None) -> None:
        if place is not None:
            if mass is not None:
                raise ValueError("an expert with a parent takes half of its weight: give no mass")
            if self._hedge:
                self._state[SCORE, place] -= math.log(2.0)
            self._state[WEIGHT, place] *= 0.5
            column[:] = self._state[:, place]
            return
        taken = (1.0 / (len(self) + 1) if self._hedge else 0.0) if mass is None else mass
        if not 0.0 <= taken < 1.0 or (self._hedge and taken == 0.0):
            raise ValueError(f"expected a mass below 1 and 0 or more (hedge: above 0), got {taken}")
        self._state[WEIGHT] *= 1.0 - taken
        column[[WEIGHT, RAMP]] = taken, 1.0
        if self._hedge:
            self._state[SCORE] += math.log1p(-taken)
            column[SCORE] = math.log(taken)

    def remove(self, expert: int) -> float:
        """Take an expert's column out; its weight, which is returned, goes to the others in proportion."""
        place = self._place(expert)
        if len(self) == 1:
            raise ValueError("the last expert cannot be removed")
        weight = float(self._state[WEIGHT, place])
        self._state = np.ascontiguousarray(np.delete(self._state, place, axis=1))
        self.ids = np.delete(self.ids, place)
        total = self._state[WEIGHT].sum()
        alone = np.full(len(self), 1.0 / len(self))
        self._state[WEIGHT] = self._state[WEIGHT] / total if total > 0.0 else alone
        if self._hedge:
            whole = np.logaddexp.reduce(self._state[SCORE])
            self._state[SCORE] = self._state[SCORE] - whole if np.isfinite(whole) else np.log(alone)
        return weight

    def renew(self, place: int) -> None:
        """Have the expert of a column begin afresh, as one that has just come, in the same column."""
        self.remove(int(self.ids[place]))
        self.spawn()
        order = np.insert(np.arange(len(self) - 1), place, len(self) - 1)
        self._state, self.ids = np.ascontiguousarray(self._state[:, order]), self.ids[order]

    def _place(self, expert: int) -> int:
        found = np.flatnonzero(self.ids == expert)
        if not len(found):
            raise ValueError(f"expected the id of one of the experts {self.ids.tolist()}, got {expert}")
        return int(found[0])

    def _checked(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if rows.ndim != 2 or rows.shape[1] != len(self):
            raise ValueError(f"expected columns of {len(self)} experts, got {rows.shape}")
        return np.require(rows, np.float64, ["C", "W"])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it but the rule, by name: ids i64 (K,), next_id i64 (1,), state f64 (4, K)."""
        return {
            "ids": self.ids.copy(),
            "next_id": np.array([self._next_id], np.int64),
            "state": self._state.copy(),
        }

    @classmethod
    def of(
        cls, arrays: Mapping[str, NDArray[Any]], rule: Rule | None = None, *, squared: bool = False
    ) -> Self:
        """The experts that gave `arrays`, given what they were made with; raises ValueError for anything else."""
        forms: Forms = {
            "ids": (np.int64, ("K",)),
            "next_id": (np.int64, (1,)),
            "state": (np.float64, (4, "K")),
        }
        found = restored(arrays, forms)
        experts = cls(len(found["ids"]), rule, squared=squared)
        experts.ids, experts._state = found["ids"], found["state"]
        experts._next_id = int(found["next_id"][0])
        return experts


def regret_bound(records: int, switches: int, experts: int, rule: FixedShare) -> float:
    """What fixed share loses at most, in summed log-loss, against a sequence of experts with so many switches.

    (ln K - s ln(a / K) - (T - 1 - s) ln(1 - a + a / K)) / eta, for eta <= 1: the prior of that sequence.
    """
    to_another = rule.share / experts
    stays = records - 1 - switches
    prior = -math.log(experts) + switches * math.log(to_another) + stays * math.log1p(to_another - rule.share)
    return -prior / rule.eta
