"""Arrow IPC messages to rows: what is a record's label, time and id, what is a feature, and what is refused.

One message is one stream or file of any number of record batches. The columns `id`, `ts`, `label` and `weight` mean
what they mean in JSON; every other column is a feature of that name: integers, floats, booleans and decimals are
numbers, texts and dictionaries of texts are categories, null is missing. A column of another type (a list, a
timestamp, bytes) makes the message unreadable unless the pipeline ignores it; a value that cannot be learnt makes its
row a dead letter, whose bytes are the row as JSON. The same records give the same bits by JSON and by Arrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from cluster.decode.arrow_columns import Entries, Features, doubles, text_buffers, valid
from cluster.decode.arrow_messages import ArrowMessage, groups
from cluster.decode.arrow_texts import texts_of, texts_where
from cluster.decode.decoded_rows import Refusal, Rows, numbers_of
from cluster.decode.json_records import judge
from cluster.decode.record_rules import (
    AS_FOUND,
    FIELDS,
    FLOAT32_ABOVE_0,
    FLOAT32_BOUND,
    IGNORED,
    BadRecord,
    Rules,
)
from learning.batch import NUMBER
from learning.slice_values import SliceValues
from learning.texts import TextColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["read_arrow"]

_TICKS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def read_arrow(
    messages: Sequence[bytes], rules: Rules, *, want_ids: bool
) -> tuple[list[Rows], list[Refusal]]:
    """Read messages of many records each; the rows are in order if the parts are joined in order."""
    refused: list[Refusal] = []
    parts = []
    for group in groups(messages, rules, refused):
        rows, bad = _read(group, rules, want_ids=want_ids)
        parts.append(rows)
        refused += bad
    return parts, sorted(refused, key=lambda refusal: (refusal.message, refusal.row or 0))


@dataclass(frozen=True, slots=True)
class _Records:
    """The four fields of n records, before anything is refused; NaN where a time or a label is missing."""

    labels: NDArray[np.float64]
    weights: NDArray[np.float64]
    times_s: NDArray[np.float64]
    bad: NDArray[np.bool_]


def _read(group: list[ArrowMessage], rules: Rules, *, want_ids: bool) -> tuple[Rows, list[Refusal]]:
    table = pa.Table.from_batches(
        [batch for message in group for batch in message.batches], schema=group[0].schema
    )
    table = table.select(
        [name for name in table.column_names if name in FIELDS or rules.reads.get(name) != IGNORED]
    )
    fields = {name: table[name].combine_chunks() for name in FIELDS if name in table.column_names}
    names = [name for name in table.column_names if name not in FIELDS]
    features = _features(table, names, rules)
    records = _records(fields, table.num_rows, rules)
    features.bad[:] |= records.bad
    entries = features.entries(want_features=rules.want_features)
    good = np.flatnonzero(~features.bad)
    sizes = [message.rows for message in group]
    source = np.repeat(np.array([message.index for message in group], np.int64), sizes)
    rows = Rows(
        keys=entries.keys,
        values=entries.values,
        kinds=entries.kinds,
        offsets=entries.offsets,
        labels=records.labels[good].astype(np.float32),
        weights=records.weights[good].astype(np.float32),
        times_s=records.times_s[good],
        message=source[good],
        ids=_ids(fields.get("id"), good) if want_ids else None,
        role_texts={role: texts_of(table[rules.roles[role]], good) for role in rules.kept_roles} or None,
        features=entries.features,
        slices=_slices(table, names, features, entries, rules) if rules.slice_feature is not None else None,
    )
    first_rows = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    bad = np.flatnonzero(features.bad)
    return rows, [
        _refusal(int(source[i]), int(i - first_rows[i]), _document(table, records.times_s, i), rules)
        for i in bad.tolist()
    ]


def _features(table: pa.Table, names: list[str], rules: Rules) -> Features:
    features = Features.room(len(names), table.num_rows)
    for j, name in enumerate(names):
        features.fill(j, name, table[name], rules.reads.get(name, AS_FOUND))
    return features


def _slices(
    table: pa.Table, names: list[str], features: Features, entries: Entries, rules: Rules
) -> SliceValues:
    good, name = np.flatnonzero(~features.bad), rules.slice_feature
    there, texts = np.zeros(len(good), np.bool_), TextColumn.from_list([""] * len(good))
    if name in names and features.kinds[names.index(name)] != NUMBER:
        there = features.present[names.index(name), good]
        texts = texts_where(table[name], good, there)
    numbers = numbers_of(rules.slice_key, entries.keys, entries.values, entries.kinds, entries.offsets)
    return SliceValues.of(rules.slice_key, texts, there, numbers)


def _records(fields: dict[str, pa.Array], n: int, rules: Rules) -> _Records:
    labels, labelled = doubles(fields["label"]), valid(fields["label"])
    bad = ~(
        labelled
        & (labels >= rules.label_min)
        & (labels <= rules.label_max)
        & (np.abs(labels) < FLOAT32_BOUND)
    )
    weights, times_s = np.ones(n), np.full(n, np.nan)
    if "weight" in fields:
        weights = np.where(valid(fields["weight"]), doubles(fields["weight"]), 1.0)
        bad |= ~((weights > FLOAT32_ABOVE_0) & (weights < FLOAT32_BOUND))
    if "ts" in fields:
        times_s = np.where(valid(fields["ts"]), _seconds(fields["ts"]), np.nan)
        bad |= np.isinf(times_s)
    return _Records(labels, weights, times_s, bad)


def _seconds(column: pa.Array) -> NDArray[np.float64]:
    if pa.types.is_timestamp(column.type):
        return doubles(column.cast(pa.int64())) / _TICKS_PER_S[column.type.unit]
    return doubles(column)


def _ids(column: pa.Array | None, good: NDArray[np.int64]) -> TextColumn:
    if column is None:
        return TextColumn(np.empty(0, np.uint8), np.zeros(len(good) + 1, np.int64))
    data, places = text_buffers(column.cast(pa.large_string()).fill_null(""))
    return TextColumn(data, places).take(good)


def _document(table: pa.Table, times_s: NDArray[np.float64], i: int) -> dict[str, Any]:
    """Row i as a JSON record, for the judge and for the dead letter."""
    row = {name: table[name][i].as_py() for name in table.column_names if name != "ts"}
    row = {
        name: float(value) if isinstance(value, (Decimal, np.floating)) else value
        for name, value in row.items()
    }
    document: dict[str, Any] = {name: row.pop(name) for name in ("id", "label", "weight") if name in row}
    if "ts" in table.column_names:
        document["ts"] = None if np.isnan(times_s[i]) else float(times_s[i])
    return document | {"features": row}


def _refusal(message: int, row: int, document: dict[str, Any], rules: Rules) -> Refusal:
    reason = "the row cannot be learnt"
    try:
        judge(document, rules)
    except BadRecord as verdict:
        reason = str(verdict)
    return Refusal(message, row, reason, orjson.dumps(document))
