"""Whether a pipeline's river expert can be built, learns, and comes back from a snapshot: tried before a job begins."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np

from learning.batch import Batch, BatchId
from learning.river_build import RiverSettings
from learning.river_expert import RiverExpert
from learning.river_names import RiverError, public_class

__all__ = ["check_river"]

_TRIED = 200
"""Records that a model learns before it is saved, and again as many after."""


def check_river(settings: RiverSettings, *, ratings: bool) -> None:
    """Build the model, have it learn, save it and read it back: what comes back must go on as the first one does.

    Raises:
        RiverError: it cannot be built, does not fit the other experts, or cannot be saved; says which part of it.

    """
    _check(settings.key(), ratings)


@lru_cache(maxsize=64)
def _check(key: str, ratings: bool) -> None:  # noqa: FBT001 - part of the cache's key
    settings = RiverSettings(**json.loads(key))
    expert = RiverExpert(settings, ratings=ratings)
    last = getattr(expert.model, "_last_step", expert.model)
    wanted = public_class("river.base.Regressor" if ratings else "river.base.Classifier")
    if not isinstance(last, wanted):
        what = (
            "ratings, so it should be a regressor"
            if ratings
            else "probabilities, so it should be a classifier"
        )
        raise RiverError(f"{settings.model}: the experts beside it predict {what}, but it is none")
    first, second = (_invented(start, ratings=ratings) for start in (0, _TRIED))
    expert.learn(first)
    if expert.failed:
        raise RiverError(expert.failure)
    saved = expert.arrays()
    again = RiverExpert.of(settings, saved, ratings=ratings)
    if expert.learn(second).tolist() != again.learn(second).tolist():
        raise RiverError(
            f"{settings.model} goes on otherwise after it was saved and read back; take another model"
        )


def _invented(start: int, *, ratings: bool) -> Batch:
    """Records of three numbers and one of eight categories each, of which the label is made, with some noise."""
    draws = np.random.default_rng(start).normal(size=(_TRIED, 4)).astype(np.float32)
    category = (np.abs(draws[:, 3]) * 8).astype(np.int64) % 8
    keys = np.stack([*(np.full(_TRIED, key) for key in (2**61, 2**62, 2**40)), 2**50 + category], axis=1)
    values = np.concatenate((draws[:, :3], np.ones((_TRIED, 1), np.float32)), axis=1)
    score = draws[:, 0] + 0.5 * (category < 4) + 0.5 * draws[:, 2]
    empty = Batch.empty(BatchId(0, start, start + _TRIED))
    return replace(
        empty,
        keys=keys.astype(np.uint64).ravel(),
        values=values.ravel(),
        offsets=np.arange(0, 4 * _TRIED + 1, 4, dtype=np.int64),
        labels=(score if ratings else score > 0.0).astype(np.float32),
        weights=np.ones(_TRIED, np.float32),
        positions=np.arange(start, start + _TRIED, dtype=np.int64),
    )
