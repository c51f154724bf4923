"""Matrix factorisation, learnt one rating after another: each row knows how sure it is, and steps accordingly.

Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", 2009, for the model; its rates are
those of a Kalman filter with one variance a row (Stern, Herbrich and Graepel, "Matchbox", 2009, has one a factor):

    score = b_u + b_i + p_u . q_i;     rating = mu + sd score;     probability = sigmoid(score - ln negatives)

mu and sd are the mean and deviation of all ratings so far, so that one set of parameters serves 1 to 5 as well as
-10 to 10. A row has, beside bias and K factors, what it was told about them: a (bias) and c (factors), 0 at birth.

    v_b = 1 / (1 / bias_variance + a);     v_f = 1 / (1 / factor_variance + c)                (of u, and of i)
    V = v_b,u + v_b,i + v_f,u |q|^2 + v_f,i |p|^2                                the score's variance
    explicit:  h = omega / noise;        y = h clip((r - mu) / sd - score, -8, 8)    mu and sd with r in them
    implicit:  h = omega P (1 - P);      y = omega (1 - P) of the choice, - omega P of a negative;   v_b = b = 0
    g = y / (1 + h V);    b += v_b g;    p_u += v_f,u g q_i;    q_i += v_f,i g p_u   (both from the old values)
    a <- keep a + h / (1 + h (V - v_b));    c <- keep c + h |q|^2 / sqrt(K) / (1 + h (V - v_f,u |q|^2))   (of i: |p|^2)

The prior precisions 1 / variance are the L2 penalties, towards 0 for biases and towards birth for factors; without
forgetting a bias alone moves as ridge regression does. keep = 1 - 1 / memory: people's moods and items' fame drift.
Predictions are made before their record is used, and clipped to the scale seen, or given.

Implicit feedback: each record is a choice, and `negatives` items that others chose in the same batch, drawn by a hash
of (seed, batch, record), stand for what was not chosen. Popular ones are drawn more often, so the score becomes the
logarithm of how much likelier the item is with this user than with anyone; a bias would have nothing to say, and `top`
adds the logarithm of the item's count. In g, h is the largest curvature on the way, omega / 4 from the wrong side of
1/2. Here numbers depend on how the stream is cut into batches, though not on the number of shards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from learning.batch import ROLE_FIRST
from learning.birth import Birth
from learning.factors_kernels import (
    COUNT,
    FACTORS,
    OF_BIAS,
    OF_FACTORS,
    learn_choices,
    learn_ratings,
    predict_pairs,
)
from learning.factors_merge import merge_factors, merge_newest, merge_scales
from learning.factors_parameters import FactorParameters
from learning.factors_recommend import alike, grades, scores_of, top_items
from learning.factors_scale import SCALE_WIDTH
from learning.factors_seen import seen_keys, write_seen
from learning.learner import TableSpec
from learning.metrics import Prequential
from learning.ratings import Ratings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.learner import TableRows
    from learning.ranking import Ranked

__all__ = ["Factors"]

_USERS, _ITEMS, _SCALE, _SEEN = range(4)
_WEIGHT_MAX = np.float32(1e6)
"""A record of a larger weight counts as this one: with ratings up to 1e9 the sums of `scale` stay far from infinity."""


@dataclass(frozen=True, slots=True)
class Factors(FactorParameters):
    """The factor learner: its parameters, and what can be done with rows of users, items and the scale."""

    kind: ClassVar[str] = "factors"
    encodes: ClassVar[bool] = False
    reacts: ClassVar[frozenset[str]] = frozenset({"raise_rates", "forget"})

    @property
    def named(self) -> dict[str, int]:
        """Items are recommended as they were sent."""
        return {"items": 1}

    def specs(self) -> tuple[TableSpec, ...]:
        """users and items (bias, count, told of bias, told of factors, factors), the scale, and pairs seen."""
        width, scale = FACTORS + self.factors, self.birth_scale * math.sqrt(self.unit)
        births = [Birth.of(self.seed, name, scale, FACTORS, width) for name in ("users", "items")]
        known = (TableSpec("seen", 1),) if self.remember_seen else ()
        return (
            TableSpec("users", width, birth=births[0], learnt=COUNT),
            TableSpec("items", width, birth=births[1], learnt=COUNT),
            TableSpec("scale", SCALE_WIDTH, bias=True),
            *known,
        )

    def keys(self, batch: Batch) -> tuple[NDArray[np.uint64], ...]:
        """Keys u64 (n,) of the records' users, items and pairs; the scale has its bias row only."""
        users, items = (batch.keys[batch.kinds == ROLE_FIRST + i] for i in range(2))
        known = (seen_keys(users, items),) if self.remember_seen else ()
        return users, items, np.empty(0, np.uint64), *known

    def learn(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Predict and learn each record in order; f64 (n,), or for implicit feedback (n, 1 + negatives): the choice
        and what it was compared with, NaN where the batch had nothing to compare it with.
        """
        users, items, scale = tables[_USERS], tables[_ITEMS], tables[_SCALE]
        state = (users.rows, users.index, items.rows, items.index, scale.rows, scale.bias)
        weights, rate = np.minimum(batch.weights, _WEIGHT_MAX), float(batch.pace.rate)
        if self.remember_seen:
            write_seen(tables[_SEEN].rows, tables[_SEEN].index, batch.labels)
        if self.feedback == "explicit":
            out = np.empty(len(batch))
            learn_ratings(
                *state, batch.labels, weights, self.noise, self.prior, self.keep, self.bounds, rate, out
            )
            return out
        out = np.empty((len(batch), 1 + self.negatives))
        place = (np.uint64(self.seed), batch.batch_id.partition, batch.batch_id.first_offset)
        learn_choices(*state, batch.labels, weights, place, self.prior, self.keep, rate, out)
        return out

    def predict(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Ratings or probabilities f64 (n,) without learning; who or what was never seen is as the average."""
        users, items, scale = tables[_USERS], tables[_ITEMS], tables[_SCALE]
        state = (users.rows, users.index, items.rows, items.index, scale.rows, scale.bias)
        out, negatives = np.empty(len(batch)), 0 if self.feedback == "explicit" else self.negatives
        predict_pairs(*state, negatives, self.bounds, out)
        return out

    def merge(
        self,
        table: int,
        rows: NDArray[np.float32],
        at: NDArray[np.int64],
        base: NDArray[np.float32],
        end: NDArray[np.float32],
        bias: int,
        coupling: float,
    ) -> int:
        """Merge walks into users and items (learning/factors_merge.py), the scale (exact), pairs (newest wins)."""
        if table == _SCALE:
            return int(merge_scales(rows, at, base, end))
        if table == _SEEN:
            return int(merge_newest(rows, at, base, end))
        keep, observed = self.keep, 1.0 if self.feedback == "explicit" else 1.0 + self.negatives
        strength = self.kappa * coupling
        return int(merge_factors(rows, at, base, end, self.prior, keep[table], keep[2], observed, strength))

    def coupling(
        self, bases: Sequence[NDArray[np.float32]], tables: Sequence[TableRows], batch: Batch
    ) -> float:
        """1: the score's variance V already shares a step among the rows that take it."""
        return 1.0

    def forget(self, table: int, rows: NDArray[np.float32], bias: int, keep: float) -> None:
        """Users and items keep the share `keep` of what they were told; biases and factors stay."""
        if table in (_USERS, _ITEMS):
            rows[:, [OF_BIAS, OF_FACTORS]] *= np.float32(keep)

    def metrics(self) -> Ratings | Prequential:
        """Of ratings, or of choices against their negatives."""
        return Ratings.zero() if self.feedback == "explicit" else Prequential.zero()

    def judge(self, metrics: Any, predictions: NDArray[np.float64], batch: Batch) -> None:
        """Compare predictions as `learn` gave them with ratings, or with 1 for choices and 0 for negatives."""
        if self.feedback == "explicit":
            metrics.update(predictions, batch.labels)
            return
        labels = np.zeros(predictions.shape, np.float32)
        labels[:, 0] = 1.0
        drawn = ~np.isnan(predictions)
        metrics.update(predictions[drawn], labels[drawn])

    def ratings_of(self, row: NDArray[np.float32]) -> int:
        """How many records a user's (or item's) row has learnt: how many items `recommend` may have to leave out."""
        return int(row[COUNT])

    def seen_keys(self, user_key: np.uint64, item_keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Keys in the table `seen` of one user with each of these items."""
        return seen_keys(np.full(len(item_keys), user_key, np.uint64), item_keys)

    def top(
        self,
        user_row: NDArray[np.float32] | None,
        rows: NDArray[np.float32],
        keys: NDArray[np.uint64],
        live: NDArray[np.bool_],
        n: int,
    ) -> Ranked:
        """A shard's n best items for a user (None: one who is unknown); scores as in `grade`."""
        return top_items(user_row, rows, keys, live, n, popularity=self.feedback == "implicit")

    def similar(
        self,
        item_row: NDArray[np.float32],
        rows: NDArray[np.float32],
        keys: NDArray[np.uint64],
        live: NDArray[np.bool_],
        n: int,
    ) -> Ranked:
        """A shard's n items that are most alike by the cosine of their factors (the item itself among them)."""
        return alike(item_row, rows, keys, live, n)

    def score_items(
        self, user_row: NDArray[np.float32] | None, item_rows: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Scores f64 (n,) of some items' rows (n, width): what `top` ranks by."""
        return scores_of(user_row, item_rows, popularity=self.feedback == "implicit")

    def grade(
        self,
        scores: NDArray[np.float64],
        user_row: NDArray[np.float32] | None,
        scale_row: NDArray[np.float32] | None,
    ) -> NDArray[np.float64]:
        """Scores as the ratings that they predict; of implicit feedback they stay as they are."""
        if self.feedback == "implicit":
            return scores
        return grades(scores, user_row, scale_row, self.bounds)
