"""Deep models on mini-batches, by torch: embeddings in the sharded table, dense parameters in a table of their own.

A model (learning/deep_models.py, or any torch.nn.Module of the pipeline's) reads each record as a bag of its keys'
rows; its loss and its steps stand in learning/deep_training.py. Tables:

    embeddings  of each key its own weight, its vector, and what the optimiser knows of them: Adagrad's sums or Adam's
                moments, one for the whole vector. A new vector is hashed from (seed, key).
    dense       the model's parameters in blocks of 256 with Adam's moments (learning/deep_layout.py); every batch has
                all of them. New ones are as torch initialises them from `seed`.

So snapshots, recovery, resharding, carrying forward, merging and scoring take them as they take any rows. There is no
other state: dropout and the like are seeded anew for each batch from (seed, partition, first offset).

Unlike the other learners this one is no recursion over records: a batch is cut into gradient steps of `step_records`,
and a record's prediction is as of before its step. So numbers depend on where batches are cut, though not on shards: a
bounded stream, whose cuts are a fixed grid, is learnt the same to the bit by one worker whatever happens to it, on one
kind of CPU, with the same version and number of threads of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from learning.batch import ROLE_FIRST
from learning.birth import Birth
from learning.deep_entries import kept_entries, steps_of
from learning.deep_layout import DENSE_WIDTH, DenseBirth, layout_of
from learning.deep_merge import merge_adagrad, merge_adam, merge_dense
from learning.deep_parameters import DeepParameters
from learning.keys import name_key, value_key
from learning.learner import TableSpec
from learning.metrics import Prequential

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.learner import TableRows

__all__ = ["Deep"]

_EMBEDDINGS, _DENSE = range(2)
_POSITIVE, _NEGATIVE = ("1", "true"), ("0", "false")


@dataclass(frozen=True, slots=True)
class Deep(DeepParameters):
    """The torch learner: its parameters, and what can be done with rows of embeddings and dense parameters."""

    kind: ClassVar[str] = "deep"
    encodes: ClassVar[bool] = True
    reacts: ClassVar[frozenset[str]] = frozenset()

    @property
    def label_range(self) -> tuple[float, float]:
        """Labels are probabilities: 0, 1, or between."""
        return 0.0, 1.0

    @property
    def roles(self) -> tuple[str, ...]:
        """User and item of two towers; the second label of two tasks."""
        if self.model == "two_tower":
            return self.user, self.item
        return (self.second_label,) if self.second_label else ()

    @property
    def named(self) -> dict[str, int]:
        """Nobody asks for a vector by its name."""
        return {}

    @property
    def more_labels(self) -> tuple[str, ...]:
        """Roles that are known only with the label."""
        return (self.second_label,) if self.second_label else ()

    @property
    def libraries(self) -> tuple[str, ...]:
        """What a program that scores needs beside what all learners do."""
        return ("torch",)

    @property
    def imports(self) -> tuple[str, ...]:
        """The module of a model by dotted name; whoever trusts the pipeline imports it."""
        return () if self.ready_made else (self.model.rpartition(".")[0],)

    def specs(self) -> tuple[TableSpec, ...]:
        """Rows of keys, and blocks of dense parameters."""
        values = 1 + self.embedding
        birth = Birth.of(self.seed, "embeddings", self.birth_scale, 1, values)
        width = values + 2 if self.row_optimizer == "adagrad" else 2 * values + 3
        learnt = values if self.row_optimizer == "adagrad" else 2 * values
        embeddings = TableSpec("embeddings", width, birth=birth, learnt=learnt)
        return embeddings, TableSpec("dense", DENSE_WIDTH, birth=DenseBirth(self))

    def keys(self, batch: Batch) -> tuple[NDArray[np.uint64], ...]:
        """Every entry but a second label has a row; all dense parameters belong to every batch."""
        kept = kept_entries(batch, self._excluded)
        return batch.keys if kept is None else batch.keys[kept], layout_of(self).keys

    @property
    def _excluded(self) -> int:
        return ROLE_FIRST if self.second_label else -1

    def learn(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Predict and learn step after step; changes the rows in place.

        Returns:
            f64 (n,): each record's probability of label 1, as of before its step; for multi_task (n, 2), that of the
            second label beside it; with negatives (n, 1 + negatives), NaN where a step had nothing to compare with.

        """
        from learning.deep_training import Targets, learn_steps

        embeddings, dense = tables
        labels, weights = self._targets(batch)
        steps, chosen = self._steps(embeddings, batch)
        rows = embeddings.rows if chosen is None else embeddings.rows[chosen]
        blocks = dense.rows[dense.index]
        place = batch.batch_id.partition, batch.batch_id.first_offset
        targets = Targets(labels, weights)
        found = learn_steps(self, rows, blocks, steps, targets, place, float(batch.pace.rate))
        dense.rows[dense.index] = blocks
        if chosen is not None:
            embeddings.rows[chosen] = rows
        if self.negatives:
            found[:, 1:][weights[:, 1:] == 0.0] = np.nan
        return found[:, 0] if found.shape[1] == 1 else found

    def predict(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Probabilities f64 (n,) without learning; keys without a row are left out."""
        from learning.deep_training import predict_steps

        embeddings, dense = tables
        steps, chosen = self._steps(embeddings, batch)
        rows = embeddings.rows if chosen is None else embeddings.rows[chosen]
        blocks = np.zeros((len(dense.index), DENSE_WIDTH), np.float32)
        DenseBirth(self).fill(layout_of(self).keys, blocks)
        there = dense.index >= 0
        blocks[there] = dense.rows[dense.index[there]]
        return predict_steps(self, rows, blocks, steps)[:, 0].copy()

    def _steps(self, embeddings: TableRows, batch: Batch) -> Any:
        kept = kept_entries(batch, self._excluded)
        items = ROLE_FIRST + 1 if self.model == "two_tower" else -1
        return steps_of(embeddings.index, len(embeddings.rows), batch, self.step_records, kept, items)

    def _targets(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels and weights f32 (n, outputs) of what the model gives for each record."""
        labels, weights = batch.labels[:, None], batch.weights[:, None]
        if self.second_label:
            second, known = self._second(batch)
            labels = np.concatenate((labels, second[:, None]), 1)
            weights = np.concatenate((weights, weights * np.float32(self.second_weight) * known[:, None]), 1)
        if self.negatives:
            # Within a step of n records, the k-th negative is the item of k records before, unless that is its own.
            records = np.arange(len(batch))
            sizes = np.minimum(
                self.step_records, len(batch) - records // self.step_records * self.step_records
            )
            others = (np.arange(1, self.negatives + 1) % sizes[:, None] != 0) * (labels > 0.0)
            labels = np.concatenate((labels, np.zeros(others.shape, np.float32)), 1)
            weights = np.concatenate((weights, weights / np.float32(self.negatives) * others), 1)
        if batch.taught is not None:
            labels, weights = labels.copy(), weights.copy()
            labels[:, 0], weights[:, 0] = batch.taught.softened(batch.labels, batch.weights)
        return np.ascontiguousarray(labels, np.float32), np.ascontiguousarray(weights, np.float32)

    def _second(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The second label f32 (n,), and where it is known: 1 and true, 0 and false; any other text is none."""
        keys = batch.keys[batch.kinds == ROLE_FIRST]
        name = name_key(self.second_label)
        ones = np.isin(keys, np.array([value_key(name, text) for text in _POSITIVE]))
        zeros = np.isin(keys, np.array([value_key(name, text) for text in _NEGATIVE]))
        return ones.astype(np.float32), (ones | zeros).astype(np.float32)

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
        """Merge walks from `base` to `end` (f32 (k, width)) into rows[at], as learning/deep_merge.py says."""
        if table == _DENSE:
            return int(merge_dense(rows, at, base, end, self.kappa))
        if self.row_optimizer == "adagrad":
            return int(merge_adagrad(rows, at, base, end, 1 + self.embedding))
        return int(merge_adam(rows, at, base, end, 1 + self.embedding, self.kappa))

    def coupling(
        self, bases: Sequence[NDArray[np.float32]], tables: Sequence[TableRows], batch: Batch
    ) -> float:
        """1: the merge looks at the walks themselves."""
        return 1.0

    def metrics(self) -> Prequential:
        """Metrics of probabilities."""
        return Prequential.zero()

    def judge(self, metrics: Prequential, predictions: NDArray[np.float64], batch: Batch) -> None:
        """Add a batch's probabilities to `metrics`: of the first task, or of the record and its negatives."""
        if not self.negatives:
            metrics.update(predictions if predictions.ndim == 1 else predictions[:, 0], batch.labels)
            return
        labels = np.zeros(predictions.shape, np.float32)
        labels[:, 0] = batch.labels
        drawn = ~np.isnan(predictions)
        metrics.update(predictions[drawn], labels[drawn])
