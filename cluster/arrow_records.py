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

from cluster.arrow_columns import Features, doubles, is_number, is_text, plain, text_buffers, valid
from cluster.decoded_rows import Refusal, Rows, gather
from cluster.json_records import AS_FOUND, FLOAT32_ABOVE_0, FLOAT32_BOUND, IGNORED, BadRecord, Rules, judge
from learning.batch import TextColumn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["ROWS_MAX", "read_arrow"]

ROWS_MAX = 1_000_000
"""Rows of one message; a column of nulls takes no bytes, so a few bytes could claim any number of rows."""

_GROUP_BYTES_MAX = 64 * 2**20
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
        if group and (not schema.equals(group.schema) or group.size_bytes + len(message) > _GROUP_BYTES_MAX):
            yield group
            group = None
        group = group or _Group(schema, [], [], [])
        group.messages.append(i)
        group.rows.append(sum(batch.num_rows for batch in batches))
        group.batches += batches
        group.size_bytes += len(message)
    if group:
        yield group


def _opened(message: bytes) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and record batches of a message, checked so far that no buffer can be read beyond its end."""
    batches = []
    rows = 0
    try:
        opened = pa.ipc.open_file if message.startswith(b"ARROW1") else pa.ipc.open_stream
        with opened(pa.py_buffer(message)) as reader:
            count = reader.num_record_batches if message.startswith(b"ARROW1") else ROWS_MAX
            for i in range(count):
                batch = reader.get_batch(i) if message.startswith(b"ARROW1") else reader.read_next_batch()
                batch.validate(full=True)
                rows += batch.num_rows
                if rows > ROWS_MAX:
                    raise BadRecord(f"the Arrow message has more than {ROWS_MAX} rows; send smaller messages")
                batches.append(batch)
    except BadRecord:
        raise
    except StopIteration:
        return reader.schema, batches
    except _UNREADABLE as error:
        raise BadRecord(f"the message begins like Arrow IPC but cannot be read: {error}") from None
    return reader.schema, batches
