"""Bytes of messages to columnar batches, and a dead letter with its reason for every record that cannot be learnt.

Each message is told by its first bytes: an Arrow IPC stream (0xFFFFFFFF) or file ("ARROW1") holds many records, all
else is one JSON record. Both may come in one topic; order is kept. Every record is counted once: it is in the batch,
or it is a dead letter; a message that cannot be read at all counts as one record.

JSON is read by a compiled parser of our own (json_kernel.py) that agrees bit for bit with a plain judge on top of
orjson (json_records.py), and not by joining messages into lines for Arrow's reader, because then
- the type of a column would depend on where a block is cut: "7" and 7, or 1 and 1.5, in one block or in two;
- one bad record would fail the block, and finding it means splitting and reading again;
- texts that look like times would be read as times;
- it would be slower, before a single key is hashed. CPU time of one core (Xeon, 2.3 GHz, shared), 13 numbers and
  26 texts in a record of 715 bytes: ours to finished batches 520,000 records/s (370 MB/s), pyarrow.json to columns
  alone 200,000 (148 MB/s), the judge alone 6,000 (4.5 MB/s). Of 275 bytes (6 numbers of 17 digits, 2 texts):
  1,100,000 (300 MB/s), 570,000 (156 MB/s) and 46,000 (13 MB/s).
What the parser leaves to the judge is read at the judge's speed: a record with nested values under unknown keys, with
a name that comes twice, with an escaped id, with fractions as categories, with numbers of 20 digits and more.
Arrow, 39 columns: 1,000,000-1,370,000 rows/s in messages of 1.6 MiB and more, 540,000 in messages of 105 KiB.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from actors.ports import DeadLetter, Decoded
from cluster.decode.arrow_messages import ARROW_STARTS
from cluster.decode.arrow_records import read_arrow
from cluster.decode.decoded_rows import Refusal, Rows
from cluster.decode.json_rows import overrides_of, read_json
from cluster.decode.messages import Messages
from cluster.decode.record_rules import Rules
from learning.batch import Batch, BatchId
from learning.slice_values import SliceValues
from learning.texts import TextColumn

if TYPE_CHECKING:
    from cluster.config import FeaturesConfig

__all__ = ["Decoder"]

_JSON, _ARROW, _TOO_LONG = 0, 1, 2


class Decoder:
    """Decodes the messages of one source. Nothing is kept between calls, and threads may share one decoder.

    `roles` are the features that the learner needs by name (record_rules.py); roles that contradict `features` are a
    ValueError. Texts of the `kept_roles`, by number, ids of records, and the key of each entry's feature are kept where
    they are wanted. With a `slice_feature` batches tell each record's value of it (`Batch.slices`).
    """

    def __init__(
        self,
        source_name: str,
        features: FeaturesConfig,
        *,
        label_max: float = 1.0,
        label_min: float = 0.0,
        roles: tuple[str, ...] = (),
        kept_roles: tuple[int, ...] = (),
        want_ids: bool = False,
        want_features: bool = False,
        slice_feature: str | None = None,
        message_bytes_max: int = 8 * 2**20,
    ) -> None:
        self._source_name = source_name
        self._rules = Rules.of(
            features, label_min, label_max, roles, kept_roles, slice_feature, want_features=want_features
        )
        self._overrides = overrides_of(self._rules)
        self._want_ids = want_ids
        self._message_bytes_max = message_bytes_max

    def decode(self, messages: Messages) -> Decoded:
        """All records of `messages`: the good ones as one batch, in order, and the bad ones as dead letters."""
        batches, dead = [], []
        first_offset = int(messages.offsets[0]) if len(messages.offsets) else messages.next_offset
        batch_id = BatchId(messages.partition, first_offset, messages.next_offset)
        for kind, start, end in self._runs(messages.values):
            parts, refused = self._read(kind, messages.values[start:end])
            batches += [self._batch(rows, messages, start, batch_id) for rows in parts]
            dead += [self._dead_letter(refusal, messages, start) for refusal in refused]
        batch = Batch.concat(batch_id, batches)
        if not batches:
            # Nothing was read; joined with other batches, a batch without texts would take theirs away.
            none = TextColumn.from_list([])
            batch = replace(
                batch,
                ids=none if self._want_ids else None,
                role_texts=dict.fromkeys(self._rules.kept_roles, none) or None,
                features=batch.keys if self._rules.want_features else None,
                slices=SliceValues.concat([]) if self._rules.slice_feature is not None else None,
            )
        return Decoded(batch, dead)

    def _runs(self, values: list[bytes]) -> list[tuple[int, int, int]]:
        """Consecutive messages of the same kind, as (kind, start, end)."""
        n = len(values)
        kinds = np.array([value.startswith(ARROW_STARTS) for value in values], np.int64)
        kinds[np.fromiter(map(len, values), np.int64, n) > self._message_bytes_max] = _TOO_LONG
        bounds = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), n] if n else []
        return [(int(kinds[start]), start, end) for start, end in pairwise(bounds)]

    def _read(self, kind: int, values: list[bytes]) -> tuple[list[Rows], list[Refusal]]:
        if kind == _TOO_LONG:
            limit = f"more than the {self._message_bytes_max} of message_bytes_max; send smaller messages or raise it"
            return [], [
                Refusal(i, None, f"the message has {len(v)} bytes, {limit}", v) for i, v in enumerate(values)
            ]
        if kind == _ARROW:
            return read_arrow(values, self._rules, want_ids=self._want_ids)
        rows, refused = read_json(values, self._rules, self._overrides, want_ids=self._want_ids)
        return [rows], refused

    def _batch(self, rows: Rows, messages: Messages, start: int, batch_id: BatchId) -> Batch:
        source = rows.message + start
        return rows.batch(batch_id, messages.produced_s[source], messages.offsets[source])

    def _dead_letter(self, refusal: Refusal, messages: Messages, start: int) -> DeadLetter:
        offset = int(messages.offsets[start + refusal.message])
        return DeadLetter(
            self._source_name, messages.partition, offset, refusal.row, refusal.reason, refusal.value
        )
