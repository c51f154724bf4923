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

from cluster.arrow_columns import Features, doubles, is_number, is_text, text_buffers, valid
from cluster.decoded_rows import Refusal, Rows, gather
from cluster.json_records import AS_FOUND, FLOAT32_ABOVE_0, FLOAT32_BOUND, IGNORED, BadRecord, Rules, judge
from learning.batch import TextColumn
from learning.keys import name_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["ROWS_MAX", "read_arrow"]

ROWS_MAX = 1_000_000
"""Rows of one message; a column of nulls takes no bytes, so a few bytes could claim any number of rows."""

_UNPACKED_BYTES_MAX = 256 * 2**20  # of one message, once decompressed
_GROUP_BYTES_MAX = 64 * 2**20
_COLUMNS_SHOWN_MAX = 8
_ID_TYPES = "texts or integers"
_FIELD_TYPES = {"ts": "unix seconds or timestamps", "label": "numbers or booleans", "weight": "numbers"}
_FIELDS = ("id", "ts", "label", "weight")
_TICKS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, KeyError, TypeError, IndexError)


@dataclass(slots=True)
class _Group:
    """Consecutive messages of one schema, read together: their indices, record batches and sizes."""

    schema: pa.Schema
    messages: list[int]
    rows: list[int]
    batches: list[pa.RecordBatch]
    size_bytes: int = 0


def read_arrow(messages: Sequence[bytes], rules: Rules, *, want_ids: bool) -> tuple[list[Rows], list[Refusal]]:
    """Read messages of many records each; the rows are in order if the parts are joined in order."""
    refused: list[Refusal] = []
    parts = []
    for group in _groups(messages, rules, refused):
        rows, bad = _read(group, rules, want_ids=want_ids)
        parts.append(rows)
        refused += bad
    return parts, sorted(refused, key=lambda refusal: (refusal.message, refusal.row or 0))


def _groups(messages: Sequence[bytes], rules: Rules, refused: list[Refusal]) -> Iterator[_Group]:
    """Open the messages and join neighbours of the same schema; small messages would cost a call a column each."""
    group: _Group | None = None
    for i, message in enumerate(messages):
        try:
            schema, batches = _opened(message)
            if group is None or not schema.equals(group.schema):
                _check(schema, rules)
        except BadRecord as reason:
            refused.append(Refusal(i, None, str(reason), message))
            continue
        if group and (not schema.equals(group.schema) or group.size_bytes > _GROUP_BYTES_MAX):
            yield group
            group = None
        group = group or _Group(schema, [], [], [])
        group.messages.append(i)
        group.rows.append(sum(batch.num_rows for batch in batches))
        group.batches += batches
        group.size_bytes += sum(batch.nbytes for batch in batches)
    if group:
        yield group


def _opened(message: bytes) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and record batches of a message, checked so far that no buffer can be read beyond its end."""
    kept = []
    rows = size_bytes = 0
    try:
        schema, batches = _stream(message)
        for batch in batches:
            batch.validate(full=True)
            rows += batch.num_rows
            size_bytes += batch.nbytes
            if rows > ROWS_MAX or size_bytes > _UNPACKED_BYTES_MAX:
                break
            kept.append(batch)
    except _UNREADABLE as error:
        raise BadRecord(f"the message begins like Arrow IPC but cannot be read: {error}") from None
    if rows > ROWS_MAX or size_bytes > _UNPACKED_BYTES_MAX:
        limit = f"{ROWS_MAX} rows or {_UNPACKED_BYTES_MAX >> 20} MiB unpacked"
        raise BadRecord(f"the Arrow message is longer than {limit}; send smaller messages")
    return schema, kept


def _stream(message: bytes) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    buffer = pa.py_buffer(message)
    if message.startswith(b"ARROW1"):
        file = pa.ipc.open_file(buffer)
        return file.schema, map(file.get_batch, range(file.num_record_batches))
    stream = pa.ipc.open_stream(buffer)
    return stream.schema, stream


def _check(schema: pa.Schema, rules: Rules) -> None:
    """Refuse a schema of which not every column can be read. Raises BadRecord."""
    names = schema.names
    for field in schema:
        if names.count(field.name) > 1:
            raise BadRecord(f"the Arrow column {field.name!r} comes twice; rename one")
        wanted = _wanted(field, rules)
        if wanted:
            raise BadRecord(f"the Arrow column {field.name!r} has the type {field.type}; send {wanted}")
    if "label" not in names:
        shown = ", ".join(map(repr, names[:_COLUMNS_SHOWN_MAX])) + ("..." if len(names) > _COLUMNS_SHOWN_MAX else "")
        raise BadRecord(f'the Arrow message has no column "label", the columns are {shown or "none"}')
    features = [name for name in names if name not in _FIELDS and rules.kinds.get(name) != IGNORED]
    if len({int(name_key(name)) for name in features}) < len(features):
        raise BadRecord("two Arrow columns have the same 64-bit key; rename one")


def _wanted(field: pa.Field, rules: Rules) -> str:
    """What types this column may have, if it has another one; else nothing."""
    kind = field.type
    t = pa.types
    if field.name == "id":
        return "" if t.is_integer(kind) or t.is_null(kind) or t.is_string(kind) or t.is_large_string(kind) else _ID_TYPES
    if field.name in _FIELDS:
        if field.name == "ts" and t.is_timestamp(kind):
            return ""
        boolean = t.is_boolean(kind) and field.name != "label"
        return "" if is_number(kind) and not boolean else _FIELD_TYPES[field.name]
    value = kind.value_type if t.is_dictionary(kind) else kind
    if is_number(value) or is_text(kind) or rules.kinds.get(field.name) == IGNORED:
        return ""
    return "numbers, booleans, texts or dictionaries of these, or name it in features.ignore"


@dataclass(frozen=True, slots=True)
class _Records:
    """The four fields of n records, before anything is refused; NaN where a time or a label is missing."""

    labels: NDArray[np.float64]
    weights: NDArray[np.float64]
    times_s: NDArray[np.float64]
    bad: NDArray[np.bool_]


def _read(group: _Group, rules: Rules, *, want_ids: bool) -> tuple[Rows, list[Refusal]]:
    table = pa.Table.from_batches(group.batches, schema=group.schema)
    table = table.select([name for name in table.column_names if name in _FIELDS or rules.kinds.get(name) != IGNORED])
    fields = {name: table[name].combine_chunks() for name in _FIELDS if name in table.column_names}
    features = _features(table, rules)
    records = _records(fields, table.num_rows, rules)
    features.bad[:] |= records.bad
    keys, values, numeric, offsets = features.entries()
    good = np.flatnonzero(~features.bad)
    message = np.repeat(np.array(group.messages, np.int64), group.rows)
    rows = Rows(
        keys=keys,
        values=values,
        numeric=numeric,
        offsets=offsets,
        labels=records.labels[good].astype(np.float32),
        weights=records.weights[good].astype(np.float32),
        times_s=records.times_s[good],
        message=message[good],
        ids=_ids(fields.get("id"), good) if want_ids else None,
    )
    first_rows = np.repeat(np.cumsum([0, *group.rows[:-1]]), group.rows)
    bad = np.flatnonzero(features.bad)
    return rows, [
        _refusal(int(message[i]), int(i - first_rows[i]), _document(table, records.times_s, i), rules)
        for i in bad.tolist()
    ]


def _features(table: pa.Table, rules: Rules) -> Features:
    names = [name for name in table.column_names if name not in _FIELDS]
    features = Features.room(len(names), table.num_rows)
    for j, name in enumerate(names):
        features.fill(j, name, table[name], rules.kinds.get(name, AS_FOUND))
    return features


def _records(fields: dict[str, pa.Array], n: int, rules: Rules) -> _Records:
    labels, labelled = doubles(fields["label"]), valid(fields["label"])
    bad = ~(labelled & (labels >= rules.label_min) & (labels <= rules.label_max) & (np.abs(labels) < FLOAT32_BOUND))
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
    taken, offsets = gather(places[good], places[good + 1] - places[good])
    return TextColumn(data[taken], offsets)


def _document(table: pa.Table, times_s: NDArray[np.float64], i: int) -> dict[str, Any]:
    """Row i as a JSON record, for the judge and for the dead letter."""
    row = {name: table[name][i].as_py() for name in table.column_names if name != "ts"}
    row = {name: float(value) if isinstance(value, (Decimal, np.floating)) else value for name, value in row.items()}
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
