"""A river model as an expert: each worker's own, which predicts every record of its partitions and then learns it.

River's models are Python objects that learn one record at a time, and most have no way to be merged. So each worker has
one of its own. The alternative, one actor that owns the model, would give one model the whole stream, and bound the
whole job to what one process of river can learn, and make the numbers depend on which worker asks first.

Where one model is wanted (for a version, or when the number of workers changes), it is the one that has learnt most:
river merges statistics and distributions, but no estimator.

A record on which river's code fails costs this expert its say and nobody else anything: it predicts what it would of
nothing, does not learn the record, and counts it.

A record comes as river wants it, {feature: value}, with the keys u64 of its entries for features: a number under its
name's key, as it was sent; a category as 1.0 under the key of name and value.
"""

from __future__ import annotations

import inspect
import itertools
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from learning.river_build import built_model
from learning.river_decode import decoded
from learning.river_encode import encoded
from learning.river_names import RiverError, public_class
from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.river_build import RiverSettings

__all__ = ["RiverExpert"]

_UNKNOWN = 0.5


class RiverExpert:
    """One model and how many records it has learnt; `ratings`: it predicts numbers, else probabilities of label 1."""

    def __init__(self, settings: RiverSettings, *, ratings: bool = False, model: Any = None) -> None:
        self.settings = settings
        self.records = self.failed = 0
        """Records so far, and of them those on which river failed."""
        self.failure = ""
        """The last failure of this process, as a sentence."""
        self._ratings = ratings
        self._model = built_model(settings) if model is None else model
        self._predict = self._rating if ratings else self._probability
        self._weighted = _takes_weights(self._model)

    @property
    def model(self) -> Any:
        """River's own object."""
        return self._model

    def learn(self, batch: Batch) -> NDArray[np.float64]:
        """Predictions f64 (n,) of a batch as it was sent, each made before its record was learnt."""
        labels: Any = batch.labels.tolist() if self._ratings else (batch.labels >= 0.5).tolist()
        learn_one = self._model.learn_one
        out = np.full(len(batch), self._of_nothing)
        for i, (x, y, weight) in enumerate(zip(_records(batch), labels, batch.weights.tolist(), strict=True)):
            try:
                out[i] = self._predict(x)
                if weight != 1.0 and self._weighted:
                    learn_one(x, y, w=weight)
                else:
                    learn_one(x, y)
            except Exception as error:  # noqa: BLE001 - whatever river's code raises about one record
                self._note(batch, i, error)
        self.records += len(batch)
        return out

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predictions f64 (n,) without learning."""
        out = np.full(len(batch), self._of_nothing)
        for i, x in enumerate(_records(batch)):
            try:
                out[i] = self._predict(x)
            except Exception as error:  # noqa: BLE001 - as in `learn`
                self._note(batch, i, error)
        return out

    @property
    def _of_nothing(self) -> float:
        return 0.0 if self._ratings else _UNKNOWN

    def _note(self, batch: Batch, i: int, error: Exception) -> None:
        place = f"partition {batch.batch_id.partition}, offset {int(batch.positions[i])}"
        self.failed += 1
        self.failure = (
            f"{self.settings.model} of river failed at the record at {place}, with {type(error).__name__}: {error}; "
            "take the expert out of the pipeline, or give it transformers that make its input fit"
        )

    def _probability(self, x: dict[int, float]) -> float:
        """P(label 1), at least `clip` from 0 and 1; a model that knows no class yet knows nothing."""
        chances = self._model.predict_proba_one(x)
        p = chances.get(True)
        if p is None:
            p = 1.0 - chances[False] if False in chances else _UNKNOWN
        if math.isnan(p):
            return _UNKNOWN
        return float(min(max(p, self.settings.clip), 1.0 - self.settings.clip))

    def _rating(self, x: dict[int, float]) -> float:
        rating = self._model.predict_one(x)
        return float(rating) if rating is not None and math.isfinite(rating) else 0.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it but the settings: records and failures i64 (2,), graph u8, data u8 (learning/river_encode.py)."""
        return {"records": np.array([self.records, self.failed], np.int64), **encoded(self._model)}

    @classmethod
    def of(
        cls, settings: RiverSettings, arrays: Mapping[str, NDArray[Any]], *, ratings: bool = False
    ) -> Self:
        """The expert that gave `arrays`. Raises ValueError for anything that is no state of such a model."""
        found = restored(
            arrays, {"records": (np.int64, (2,)), "graph": (np.uint8, ("g",)), "data": (np.uint8, ("d",))}
        )
        model = decoded({name: found[name] for name in ("graph", "data")})
        wanted = public_class("river.compose.Pipeline" if settings.transformers else settings.model)
        if type(model) is not wanted:
            raise RiverError(
                f"expected a model of {settings.model}, but the arrays hold {type(model).__name__}"
            )
        expert = cls(settings, ratings=ratings, model=model)
        expert.records, expert.failed = (int(n) for n in found["records"])
        return expert

    @staticmethod
    def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """Of several workers' experts (as `arrays` gave them) the one that has learnt most, the first of equals."""
        return dict(max(parts, key=lambda part: int(part["records"][0])))


def _records(batch: Batch) -> Iterator[dict[int, float]]:
    """Each record as river takes it."""
    keys, values, bounds = batch.keys.tolist(), batch.values.tolist(), batch.offsets.tolist()
    return (
        dict(zip(keys[first:end], values[first:end], strict=True))
        for first, end in itertools.pairwise(bounds)
    )


def _takes_weights(model: Any) -> bool:
    """Whether `learn_one` knows what a record's weight is; a pipeline passes it on to whom it concerns."""
    return hasattr(model, "steps") or "w" in inspect.signature(model.learn_one).parameters
