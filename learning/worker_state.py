"""WorkerState: all that a worker knows by itself, beside the tables. It is part of every snapshot, worker by worker.

    encoder      running means and deviations of numbers, and what a learner sees of them (learning/encoding.py)
    statistics   of each feature, how often it is there, its moments and how many values it has (feature_stats.py)
    slices       metrics by partition and by the values of a feature (slices.py)
    rehearsal    old records that are learnt again (rehearsal.py)
    teacher      whose model says beforehand what it thinks of each record (distillation.py); chosen anew at a start
    ensemble     the mixer of its experts, and experts outside the tables (ensemble_state.py): `mixer.`, `experts.`
    names        for people, what the keys of features and of slices were made of (plain.py)

A batch passes twice: `prepare` takes it in before anybody looks at a label, in stream order, up to two batches ahead of
`judge`, which takes its predictions. At a snapshot's barrier nothing is in between.

As arrays, names begin with the part that they are of: `encoder.keys`. Workers merge when their number changes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.encoding import NumericEncoder, merge_stats
from learning.feature_stats import FeatureStats
from learning.mixer import Mixed
from learning.plain import plain
from learning.rehearsal import Rehearsal
from learning.slices import Slices
from learning.state_arrays import joined, section

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.distillation import Teacher
    from learning.ensemble_state import EnsembleState
    from learning.job_messages import Directive

    Arrays = dict[str, NDArray[Any]]
    """Part of a state, by name."""

__all__ = ["WorkerState", "encoder_of", "merged_encoders", "texts_of"]


class WorkerState:
    """One worker's; `statistics` and `slices` None: nobody wants them."""

    def __init__(
        self,
        encoder: NumericEncoder | None = None,
        statistics: FeatureStats | None = None,
        slices: Slices | None = None,
        ensemble: EnsembleState | None = None,
        rehearsal: Rehearsal | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.encoder = encoder or NumericEncoder()
        self.statistics = statistics
        self.slices = slices
        self.slice_texts: dict[int, str] = {}
        self.feature_names: dict[int, str] = {}
        """For people, what the keys of slices and of features with statistics stand for, as far as it was told."""
        self.ensemble = ensemble
        self.rehearsal = rehearsal
        self.teacher = teacher

    def prepare(self, batch: Batch) -> Batch:
        """The batch as the learner sees it; statistics then include it."""
        if self.statistics is not None and batch.features is not None:
            self.statistics.update_batch(batch)
            if batch.feature_names:
                self._name({key: plain(name) for key, name in batch.feature_names.items()})
        if self.ensemble is not None:
            batch = self.ensemble.prepare(batch)
        taught = None if self.teacher is None else self.teacher.of(batch)
        return self.encoder.encode(replace(batch, features=None, feature_names=None, taught=taught))

    def rehearse(self, batch: Batch) -> Batch:
        """A prepared batch with old records behind its own, where that is wanted; those are learnt, and no more."""
        return batch if self.rehearsal is None else self.rehearsal.extend(batch)

    def begin(self, directive: Directive) -> None:
        """A moment of the job begins, with what becomes of an ensemble in it."""
        if self.ensemble is not None:
            self.ensemble.begin(directive.shared, directive.renewed)

    def mix(self, predictions: NDArray[np.float64], batch: Batch) -> Mixed:
        """What a learner's `learn` gave, with the columns of an ensemble's experts as one, before labels were known."""
        return Mixed(predictions) if self.ensemble is None else self.ensemble.mix(predictions, batch)

    def judge(self, predictions: NDArray[np.float64], batch: Batch) -> None:
        """Take in predictions f64 (n,), made before their labels were learnt."""
        if self.slices is None or predictions.ndim != 1:
            return
        values = batch.slices
        keys = None if values is None else values.keys
        self.slices.update(batch.batch_id.partition, predictions, batch.labels, keys)
        if values is not None and len(self.slice_texts) < self.slices.values_count:
            unknown = [key for key in self.slices.values if key not in self.slice_texts]
            self.slice_texts |= {key: plain(text) for key, text in values.texts_of(unknown).items()}

    def _name(self, names: Mapping[int, str]) -> None:
        """Take in names of features, in the order of the statistics; of others nobody asks for one."""
        assert self.statistics is not None
        known = {**names, **self.feature_names}
        self.feature_names = {key: known[key] for key in self.statistics.keys.tolist() if key in known}

    def arrays(self) -> Arrays:
        """All of it, as copies by name."""
        keys, stats = self.encoder.state()
        ensemble = {} if self.ensemble is None else self.ensemble.arrays()
        rehearsal = {} if self.rehearsal is None else joined("rehearsal", self.rehearsal.arrays())
        teacher = {} if self.teacher is None else joined("teacher", self.teacher.arrays())
        return {"encoder.keys": keys, "encoder.stats": stats} | self.shown() | ensemble | rehearsal | teacher

    def shown(self) -> Arrays:
        """What is of interest to people while the worker learns."""
        arrays = {} if self.ensemble is None else self.ensemble.shown()
        for name, part in (("statistics", self.statistics), ("slices", self.slices)):
            if part is not None:
                arrays |= joined(name, part.arrays())
        for name, texts in (("slice_texts", self.slice_texts), ("feature_names", self.feature_names)):
            if texts:
                arrays[name] = np.frombuffer(json.dumps(texts).encode(), np.uint8).copy()
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `arrays`; what they lack begins anew. Raises ValueError for arrays that are none of a state."""
        keys, stats = encoder_of(arrays)
        self.encoder.restore(keys, stats)
        if self.statistics is not None and (found := section(arrays, "statistics")):
            self.statistics = FeatureStats.of(found, self.statistics.features_max)
        if self.slices is not None and (found := section(arrays, "slices")):
            self.slices = self.slices.like(found)
        if self.rehearsal is not None and (found := section(arrays, "rehearsal")):
            self.rehearsal = self.rehearsal.like(found)
        if "slice_texts" in arrays:
            self.slice_texts = texts_of(arrays["slice_texts"])
        if self.statistics is not None and "feature_names" in arrays:
            self._name(texts_of(arrays["feature_names"]))
        if self.ensemble is not None:
            self.ensemble.restore(arrays)

    def merge(self, others: Sequence[WorkerState]) -> None:
        """Take in what other workers know, in their order; of an ensemble it is joined already."""
        self.encoder.restore(*merge_stats([self.encoder.state(), *(o.encoder.state() for o in others)]))
        for other in others:
            if self.statistics is not None and other.statistics is not None:
                self.statistics.merge(other.statistics)
                self._name(other.feature_names)
            if self.rehearsal is not None and other.rehearsal is not None:
                self.rehearsal.merge(other.rehearsal)
            if self.slices is not None and other.slices is not None:
                self.slices.merge(other.slices)
                texts = other.slice_texts | self.slice_texts
                self.slice_texts = {key: texts[key] for key in self.slices.values if key in texts}


def texts_of(array: NDArray[Any]) -> dict[int, str]:
    """What keys stand for, from its array. Raises ValueError."""
    found = json.loads(array.tobytes())
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("expected texts by key")
    return {int(key): text for key, text in found.items()}


def merged_encoders(parts: Iterable[Mapping[str, NDArray[Any]]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the encoders of several states know together: keys u64 (k,), stats f64 (k, 3)."""
    return merge_stats([encoder_of(part) for part in parts])


def encoder_of(arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Keys and statistics of an encoder. Raises KeyError, ValueError."""
    keys, stats = arrays["encoder.keys"], arrays["encoder.stats"]
    if keys.dtype != np.uint64 or stats.dtype != np.float64 or stats.shape != (len(keys), 3):
        raise ValueError("expected an encoder as keys u64 (k,) and stats f64 (k, 3)")
    return keys, stats
