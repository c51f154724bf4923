"""Mixer: what turns the predictions of an ensemble's experts into one, by what it knew before the record's label.

Either weights (learning/experts.py): the mixture sum_k w_k p_k of probabilities, never a vote; all experts' losses are
seen. Or a contextual bandit (learning/bandit.py) that picks one expert for each record and sees the reward, minus the
loss, of that one only; then the arm and its propensity are told for each record. Its context is 1 and the named
features' running z-scores, clipped, 0 where one is missing.

Several workers have a mixer each, of their own records. At a barrier what they have learnt since the last one, from
the same base, is joined: evidence multiplies, and sums add:

    exponential weights   ln w = ln w0 + sum_i (ln w_i - ln w0), normalised
    by mean loss          the mean of the decayed sums and counts, so losses count by their records
    bandit, losses        s = s0 + sum_i (s_i - s0)

Only workers that have learnt a record since count: one that has finished would hold a mean at what it was. What one
worker alone has learnt is taken as it is, to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from learning.bandit import Bandit
from learning.experts import Experts
from learning.keys import name_key
from learning.mixer_kernels import context_of, losses_of, tally
from learning.mixer_settings import Mixing
from learning.state_arrays import joined, restored, section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch

__all__ = ["Mixed", "Mixer", "Mixing"]

MIXTURE = "mixture"
"""The name of the mixture among the experts' losses."""

_CONTEXT_CLIP = 6.0
_REWARD_MIN = -5.0
"""A worse loss than 5 counts as 5: one record that cost 30 would outweigh thousands."""


class Mixed(NamedTuple):
    """Predictions f64 (n,); of a bandit, the arm i64 (n,) of each record and its propensity f64 (n,)."""

    predictions: NDArray[np.float64]
    arms: NDArray[np.int64] | None = None
    propensities: NDArray[np.float64] | None = None


class Mixer:
    """The state of one worker's mixing; `squared`: predictions are ratings, and their loss the squared error."""

    def __init__(
        self, mixing: Mixing, names: Sequence[str], *, squared: bool = False, worker: int = 0
    ) -> None:
        self.mixing = mixing
        self.names = tuple(names)
        self.records = 0
        self._squared = squared
        self._worker = worker
        self._losses = np.zeros(len(self.names) + 1)
        self._context = np.array([name_key(name) for name in mixing.context], np.uint64)
        self._experts: Experts | None = None
        self._bandit: Bandit | None = None
        if mixing.is_bandit:
            self._bandit = Bandit(len(self.names), 1 + len(mixing.context), mixing.bandit(worker))
        else:
            self._experts = Experts(len(self.names), mixing.weighting(), squared=squared)

    def learn(self, predictions: NDArray[np.float64], batch: Batch) -> Mixed:
        """Mix, then learn, record after record.

        Args:
            predictions: f64 (n, K), each made before its record was learnt.
            batch: the records as the learner saw them.

        """
        found, labels = (
            np.require(predictions, np.float64, ["C", "W"]),
            np.require(batch.labels, np.float32, ["C", "W"]),
        )
        if self._experts is not None:
            mixed = Mixed(self._experts.learn(found, labels, batch.pace.share))
        else:
            mixed = self._choose(found, labels, batch)
        tally(found, mixed.predictions, labels, self._squared, self._losses)
        self.records += len(batch)
        return mixed

    def _choose(self, predictions: NDArray[np.float64], labels: NDArray[np.float32], batch: Batch) -> Mixed:
        assert self._bandit is not None, "either weights or a bandit"
        rewards = np.empty(predictions.shape)
        losses_of(predictions, labels, self._squared, rewards)
        np.negative(rewards, out=rewards)
        if not self._squared:
            np.maximum(rewards, _REWARD_MIN, out=rewards)
        choices = self._bandit.learn(self._contexts(batch), rewards)
        own = predictions[np.arange(len(predictions)), choices.arms]
        return Mixed(own, choices.arms, choices.own)

    def _contexts(self, batch: Batch) -> NDArray[np.float64]:
        """Contexts f64 (n, 1 + m): 1, and the named features' values."""
        out = np.zeros((len(batch), 1 + len(self._context)))
        out[:, 0] = 1.0
        if len(self._context):
            keys, values = (
                np.require(batch.keys, None, ["C", "W"]),
                np.require(batch.values, None, ["C", "W"]),
            )
            offsets = np.require(batch.offsets, None, ["C", "W"])
            context_of(keys, values, offsets, self._context, _CONTEXT_CLIP, out)
        return out

    def mix(self, predictions: NDArray[np.float64], batch: Batch) -> NDArray[np.float64]:
        """Predictions f64 (n,) of f64 (n, K), for scoring, as things stand; a bandit takes the arm it holds best."""
        if self._experts is not None:
            return self._experts.mix(predictions)
        assert self._bandit is not None, "either weights or a bandit"
        expected = self._contexts(batch) @ self._bandit.coefficients().T
        return np.asarray(predictions[np.arange(len(predictions)), np.argmax(expected, axis=1)], np.float64)

    def weights(self) -> dict[str, float]:
        """The weight of each expert by name; of a bandit the share of records for which it was picked."""
        if self._experts is not None:
            return dict(zip(self.names, self._experts.weights().tolist(), strict=True))
        assert self._bandit is not None, "either weights or a bandit"
        picked = self._bandit.rewarded.astype(np.float64)
        shares = picked / picked.sum() if picked.any() else np.full(len(picked), 1.0 / len(picked))
        return dict(zip(self.names, shares.tolist(), strict=True))

    def expert_losses(self) -> dict[str, float]:
        """Summed losses over `records`, by expert, and of the `mixture`."""
        return dict(zip((*self.names, MIXTURE), self._losses.tolist(), strict=True))

    def renew(self, name: str) -> None:
        """Forget what is known of an expert that begins afresh: its weight goes to the others."""
        place = self.names.index(name)
        if self._experts is not None:
            self._experts.renew(place)
        elif self._bandit is not None:
            self._bandit.renew(place)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All but the settings: `weights.` of Experts or `bandit.` of Bandit, losses f64 (K + 1,), records i64 (1,)."""
        kind, inner = ("weights", self._experts) if self._experts is not None else ("bandit", self._bandit)
        assert inner is not None, "either weights or a bandit"
        return joined(kind, inner.arrays()) | {
            "losses": self._losses.copy(),
            "records": np.array([self.records], np.int64),
        }

    @classmethod
    def of(
        cls,
        mixing: Mixing,
        names: Sequence[str],
        arrays: Mapping[str, NDArray[Any]],
        *,
        squared: bool = False,
        worker: int = 0,
    ) -> Self:
        """The mixer that gave `arrays`; raises ValueError for anything else."""
        mixer = cls(mixing, names, squared=squared, worker=worker)
        kind = "bandit" if mixing.is_bandit else "weights"
        inner = section(arrays, kind)
        own = {name: array for name, array in arrays.items() if not name.startswith(f"{kind}.")}
        found = restored(own, {"losses": (np.float64, (len(mixer._losses),)), "records": (np.int64, (1,))})
        if mixing.is_bandit:
            mixer._bandit = Bandit.of(inner, mixing.bandit(worker))
            arms, width = mixer._bandit.rewarded.size, inner["sums"].shape[1]
            fits = (arms, width) == (len(mixer.names), 1 + len(mixing.context))
        else:
            mixer._experts = Experts.of(inner, mixing.weighting(), squared=squared)
            fits = len(mixer._experts) == len(mixer.names)
        if not fits:
            raise ValueError(f"expected a mixer of the experts {', '.join(mixer.names)}, got one of others")
        mixer._losses, mixer.records = found["losses"], int(found["records"][0])
        return mixer
