"""Arrow IPC messages opened: checked before any buffer is read, bounded, and grouped by schema.

What comes from outside may be damaged or hostile: record batches are validated in full (offsets, UTF-8, dictionary
indices), and what a few bytes can claim to hold is bounded. Not guaranteed: Arrow itself decompresses a body before
we can see its size, so whoever may write to the topic can make a worker allocate memory with a compressed message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cluster.decode.arrow_columns import is_number, is_text, value_type
from cluster.decode.decoded_rows import Refusal
from cluster.decode.record_rules import FIELDS, IGNORED, BadRecord, Rules
from learning.keys import name_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["ARROW_STARTS", "CELLS_MAX", "ROWS_MAX", "UNPACKED_BYTES_MAX", "ArrowMessage", "groups", "opened"]

ARROW_STARTS = (b"\xff\xff\xff\xff", b"ARROW1")
"""How a stream and a file of Arrow IPC begin."""

ROWS_MAX = 1_000_000
CELLS_MAX = 2**24
UNPACKED_BYTES_MAX = 256 * 2**20
"""Rows, rows times columns, and bytes of one message: nulls, dictionaries and compression make few bytes many."""

_GROUP_CELLS_MAX = 2**22
_GROUP_BYTES_MAX = 64 * 2**20
_COLUMNS_SHOWN_MAX = 8
_ID_TYPES = "texts or integers"
_FIELD_TYPES = {"ts": "unix seconds or timestamps", "label": "numbers or booleans", "weight": "numbers"}
_FEATURE_TYPES = "numbers, booleans, texts or dictionaries of these, or name it in features.ignore"
_UNREADABLE = (
    pa.ArrowException,
    OSError,
    ValueError,
    MemoryError,
    OverflowError,
    KeyError,
    TypeError,
    IndexError,
)


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """What one message holds, of which every buffer has been checked; `index` is its place among the messages."""

    index: int
    schema: pa.Schema
    batches: list[pa.RecordBatch]
    rows: int
    size_bytes: int


def groups(messages: Sequence[bytes], rules: Rules, refused: list[Refusal]) -> Iterator[list[ArrowMessage]]:
    """Open messages and join neighbours of one schema, as small ones would cost a call a column each."""
    group: list[ArrowMessage] = []
    cells = size_bytes = 0
    for i, value in enumerate(messages):
        try:
            message = _checked(i, value)
            same = bool(group) and message.schema.equals(group[0].schema)
            if not same:
                _check(message.schema, rules)
        except BadRecord as reason:
            refused.append(Refusal(i, None, str(reason), value))
            continue
        if group and not (same and cells < _GROUP_CELLS_MAX and size_bytes < _GROUP_BYTES_MAX):
            yield group
            group, cells, size_bytes = [], 0, 0
        group.append(message)
        cells += message.rows * len(message.schema)
        size_bytes += message.size_bytes
    if group:
        yield group


def _checked(index: int, value: bytes) -> ArrowMessage:
    """Open a message and check it so far that no buffer can be read beyond its end. Raises BadRecord."""
    kept = []
    rows = size_bytes = 0
    try:
        schema, batches = opened(value)
        rows_max = min(ROWS_MAX, CELLS_MAX // max(1, len(schema.names)))
        for batch in batches:
            batch.validate(full=True)
            rows += batch.num_rows
            size_bytes += batch.nbytes
            if rows > rows_max or size_bytes > UNPACKED_BYTES_MAX:
                break
            kept.append(batch)
    except _UNREADABLE as error:
        raise BadRecord(f"the message begins like Arrow IPC but cannot be read: {error}") from None
    if rows > rows_max or size_bytes > UNPACKED_BYTES_MAX:
        limit = f"{rows_max} rows (of this many columns) or {UNPACKED_BYTES_MAX >> 20} MiB unpacked"
        raise BadRecord(f"the Arrow message is longer than {limit}; send smaller messages")
    return ArrowMessage(index, schema, kept, rows, size_bytes)


def opened(message: bytes) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Schema, and record batches that are read one by one. Raises what Arrow raises."""
    buffer = pa.py_buffer(message)
    if message.startswith(ARROW_STARTS[1]):
        file = pa.ipc.open_file(buffer)
        return file.schema, map(file.get_batch, range(file.num_record_batches))
    stream = pa.ipc.open_stream(buffer)
    return stream.schema, stream


def _check(schema: pa.Schema, rules: Rules) -> None:
    """Refuse a schema of which not every column can be read. Raises BadRecord."""
    names: set[str] = set()
    keys: set[int] = set()
    for field in schema:
        if field.name in names:
            raise BadRecord(f"the Arrow column {field.name!r} comes twice; rename one")
        names.add(field.name)
        if rules.reads.get(field.name) == IGNORED and field.name not in FIELDS:
            continue
        if wanted := _wanted(field):
            raise BadRecord(f"the Arrow column {field.name!r} has the type {field.type}; send {wanted}")
        key = int(name_key(field.name))
        if key in keys:
            raise BadRecord(f"the Arrow column {field.name!r} has the same 64-bit key as another; rename one")
        keys.add(key)
    for name in ("label", *rules.roles):
        if name not in names:
            shown = ", ".join(map(repr, schema.names[:_COLUMNS_SHOWN_MAX])) or "none"
            quoted = '"label"' if name == "label" else f"{name!r}, which the learner needs,"
            raise BadRecord(f"the Arrow message has no column {quoted} among its {len(names)} ({shown}, ...)")


def _wanted(field: pa.Field) -> str:
    """What types this column may have, if it has another one; else nothing."""
    kind = field.type
    t = pa.types
    if field.name == "id":
        known = any(test(kind) for test in (t.is_integer, t.is_null, t.is_string, t.is_large_string))
        return "" if known else _ID_TYPES
    if field.name in FIELDS:
        if field.name == "ts" and t.is_timestamp(kind):
            return ""
        boolean = t.is_boolean(kind) and field.name != "label"
        return "" if is_number(kind) and not boolean else _FIELD_TYPES[field.name]
    return "" if is_number(value_type(kind)) or is_text(kind) else _FEATURE_TYPES
