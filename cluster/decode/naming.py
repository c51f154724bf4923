"""Names of features: a batch has their keys, and the messages that it was made of know what those stand for.

Only people need them. So a message is looked into a second time only where a feature comes for the first time, for as
many features as statistics are kept of (learning/feature_stats.py): in most streams that is the first message.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
from numba import njit

from cluster.decode.arrow_messages import ARROW_STARTS, opened
from cluster.decode.record_rules import FIELDS
from learning.keys import name_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actors.ports import Decoded
    from cluster.decode.decoder import Decoder
    from cluster.decode.messages import Messages
    from learning.batch import Batch

__all__ = ["NamingDecoder", "names_in"]


def names_in(message: bytes) -> list[str]:
    """Names of the features of one message, JSON or Arrow; none where it cannot be read."""
    try:
        if message.startswith(ARROW_STARTS):
            schema, _ = opened(message)
            return [name for name in schema.names if name not in FIELDS]
        return list(orjson.loads(message)["features"])
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException):
        return []


class NamingDecoder:
    """A decoder whose batches tell the names of features that come for the first time (`Batch.feature_names`).

    It names the first `names_max` features, in the order in which they come, and then nothing more. It belongs to one
    source and one thread. `decoder` has to tell of which feature each entry is (`want_features`).
    """

    def __init__(self, decoder: Decoder, names_max: int) -> None:
        self._decoder = decoder
        self._names_max = names_max
        self._known = np.empty(0, np.uint64)
        """Keys of the features that came already, in their order as numbers."""

    def decode(self, messages: Messages) -> Decoded:
        """As the decoder does."""
        decoded = self._decoder.decode(messages)
        batch = decoded.batch
        if len(self._known) >= self._names_max or batch.features is None:
            return decoded
        entries = _unknown(batch.features, batch.offsets, self._known)
        if not len(entries):
            return decoded
        first = np.unique(batch.features[entries], return_index=True)[1]
        new = np.sort(first)[: self._names_max - len(self._known)]
        entries = entries[new]
        self._known = np.union1d(self._known, batch.features[entries])
        return replace(decoded, batch=replace(batch, feature_names=_names(batch, entries, messages)))


def _names(batch: Batch, entries: NDArray[np.int64], messages: Messages) -> dict[int, str]:
    """Names by key of the features of `entries`, each of which is the first one of its feature."""
    assert batch.features is not None
    records = np.searchsorted(batch.offsets, entries, side="right") - 1
    places = np.searchsorted(messages.offsets, batch.positions[records]).tolist()
    wanted: dict[int, str | None] = dict.fromkeys(batch.features[entries].tolist())
    for key, place in zip(wanted, places, strict=True):
        if wanted[key] is None:
            own = {int(name_key(name)): name for name in names_in(messages.values[place])}
            wanted |= {known: own[known] for known in own if known in wanted}
    return {key: name for key, name in wanted.items() if name is not None}


@njit(cache=True, nogil=True, error_model="numpy")
def _unknown(features, offsets, known):  # noqa: ANN001, ANN202 - numba infers types
    """Places i64 of entries whose feature is not in `known`, which is sorted; some of the same feature are left out.

    Records mostly have the same features in the same order, so few of them have to be looked up: an entry like the
    one at the same place of the record before it says nothing new.
    """
    places = np.empty(len(features), np.int64)
    count = before = 0
    for i in range(len(offsets) - 1):
        first = offsets[i]
        for j in range(first, offsets[i + 1]):
            twin = before + j - first
            if twin < first and features[twin] == features[j]:
                continue
            at = np.searchsorted(known, features[j])
            if at == len(known) or known[at] != features[j]:
                places[count] = j
                count += 1
        before = first
    return places[:count].copy()
