"""Predictions as JSON messages, one a record, and the place of each record, which it has once and for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learning.batch import Batch
    from learning.mixer import Mixed

__all__ = ["encode_predictions", "places_of"]


def encode_predictions(
    batch: Batch, mixed: Mixed, version: str, topic: str, experts: Sequence[str] = ()
) -> list[tuple[bytes, bytes]]:
    """Key and JSON message of each record; with the expert, by name, and its propensity if one was chosen."""
    assert len(mixed.predictions) == len(batch), (
        f"{len(mixed.predictions)} predictions for {len(batch)} records"
    )
    ids = batch.ids.tolist() if batch.ids is not None else [""] * len(batch)
    if not all(ids):
        partition = batch.batch_id.partition
        offsets = batch.positions.tolist()
        ids = [identity or f"{partition}:{offset}" for identity, offset in zip(ids, offsets, strict=True)]
    dumps, batch_text = orjson.dumps, str(batch.batch_id)
    return [
        (
            identity.encode(),
            dumps(
                {
                    "id": identity,
                    "prediction": prediction,
                    "version": version,
                    "place": place,
                    "batch": batch_text,
                    **choice,
                }
            ),
        )
        for identity, prediction, place, choice in zip(
            ids, mixed.predictions.tolist(), places_of(batch, topic), _choices(mixed, experts), strict=True
        )
    ]


def _choices(mixed: Mixed, experts: Sequence[str]) -> list[dict[str, Any]]:
    """Of each record what is said of the choice among experts."""
    if mixed.arms is None or mixed.propensities is None:
        return [{}] * len(mixed.predictions)
    chosen = zip(mixed.arms.tolist(), mixed.propensities.tolist(), strict=True)
    return [{"expert": experts[arm], "propensity": propensity} for arm, propensity in chosen]


def places_of(batch: Batch, topic: str) -> list[str]:
    """Where each record of a batch came from: topic[partition]@offset, and #k where its message holds several."""
    prefix = f"{topic}[{batch.batch_id.partition}]@"
    offsets = batch.positions
    if not len(offsets) or np.all(offsets[1:] != offsets[:-1]):
        return [f"{prefix}{offset}" for offset in offsets.tolist()]
    starts = np.flatnonzero(np.concatenate([[True], offsets[1:] != offsets[:-1]]))
    counts = np.diff(starts, append=len(offsets))
    numbers = np.arange(len(offsets)) - np.repeat(starts, counts)
    several = np.repeat(counts > 1, counts)
    return [
        f"{prefix}{offset}#{k}" if many else f"{prefix}{offset}"
        for offset, k, many in zip(offsets.tolist(), numbers.tolist(), several.tolist(), strict=True)
    ]
