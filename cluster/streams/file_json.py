"""Rows of JSON lines as Arrow columns: by the block where Arrow understands it, else line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from cluster.streams.file_blocks import BAD_VALUE_BYTES_MAX, BLOCK_BYTES, BadRow, RowBlock
from learning.keys import number_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["json_rows"]


def json_rows(stream: Any, columns: list[str] | None, types: pa.Schema | None) -> Iterator[RowBlock]:
    """Blocks of rows; `types` are the expected columns, None while they are still to be found out."""
    row, rest, more = 0, b"", True
    while more:
        data = stream.read(BLOCK_BYTES)
        more = len(data) > 0
        lines, newline, rest = (rest + data).rpartition(b"\n") if more else (rest, b"", b"")
        if not lines.strip():
            continue
        block = _json_block(lines + newline, row, columns, types)
        row = block.next_row
        yield block


def _json_block(lines: bytes, first: int, columns: list[str] | None, types: pa.Schema | None) -> RowBlock:
    """Arrow reads a block of lines at once if all of them are plain and of the expected types."""
    try:
        table = _json_table(lines, types)
    except pa.ArrowException:
        return _json_block_by_line(lines, first, columns, types)
    count = (
        sum(1 for line in lines.splitlines() if line.strip()) if b"\n\n" in lines else len(lines.splitlines())
    )
    if table.num_rows != count or table.num_rows == 0:  # two objects in a line, or the like
        return _json_block_by_line(lines, first, columns, types)
    names = [name for name in (columns or table.schema.names) if name in table.schema.names]
    batch = table.select(names).combine_chunks().to_batches()[0]
    return RowBlock(np.arange(first, first + count), batch, [])


def _json_table(lines: bytes, types: pa.Schema | None) -> pa.Table:
    """All lines as columns. Raises ArrowException where one of them is not of the expected types."""
    try:
        return _arrow_json(lines, types, "infer" if types is None else "ignore")
    except pa.ArrowException:
        if types is None:
            raise
    # Ids, most often: integers in columns that are read as text. Arrow finds out for itself what those hold.
    numbers = pa.schema([field for field in types if not pa.types.is_string(field.type)])
    table = _arrow_json(lines, numbers, "infer")
    table = table.select([name for name in types.names if name in table.schema.names])
    for i, name in enumerate(table.schema.names):
        if pa.types.is_string(types.field(name).type):
            table = table.set_column(i, name, _as_texts(table.column(name)))
    return table


def _arrow_json(lines: bytes, types: pa.Schema | None, others: str) -> pa.Table:
    read_options = pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    options = pa_json.ParseOptions(explicit_schema=types, unexpected_field_behavior=others)
    return pa_json.read_json(pa.BufferReader(lines), read_options, options)


def _as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Integers and booleans as their canonical texts. Raises ArrowInvalid for what Arrow would write otherwise."""
    kind = column.type
    if not any(
        test(kind)
        for test in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_null)
    ):
        raise pa.ArrowInvalid(f"a column of {kind} has to be read line by line")
    if pa.types.is_integer(kind) and any(
        abs(x) >= 2**53 for x in pc.min_max(column).as_py().values() if x is not None
    ):
        raise pa.ArrowInvalid("integers that are no exact doubles have to be read line by line")
    return column.cast(pa.string())


def _json_block_by_line(
    lines: bytes, first: int, columns: list[str] | None, types: pa.Schema | None
) -> RowBlock:
    """The same line by line: a bad line is a bad row, and a text column takes numbers as their canonical text."""
    records: list[dict[str, Any]] = []
    rows: list[int] = []
    bad: list[BadRow] = []
    for row, line in enumerate((line for line in lines.split(b"\n") if line.strip()), start=first):
        reason = None
        try:
            record = orjson.loads(line)
            reason = _objection(record, columns, types)
        except orjson.JSONDecodeError as error:
            reason = f"the line is not JSON: {error}"
        if reason is None:
            records.append(record)
            rows.append(row)
        else:
            bad.append(BadRow(row, reason, line[:BAD_VALUE_BYTES_MAX]))
    names = columns or list(dict.fromkeys(name for record in records for name in record))
    arrays = [_json_column([record.get(name) for record in records], name, types) for name in names]
    return RowBlock(np.array(rows, np.int64), pa.RecordBatch.from_arrays(arrays, names=names), bad)


def _objection(record: Any, columns: list[str] | None, types: pa.Schema | None) -> str | None:
    """Why a parsed line is no record; None if it is one."""
    if not isinstance(record, dict):
        return "the line is no JSON object; expected {...}"
    for name in columns or record:
        value = record.get(name)
        if isinstance(value, dict | list):
            return f"column {name!r} holds a nested value; expected a number, a text, true, false or null"
        number_expected = (
            types is not None and name in types.names and not pa.types.is_string(types.field(name).type)
        )
        if number_expected and isinstance(value, str):
            return f"column {name!r} is numeric, but holds the text {value[:80]!r}"
        if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            return f"column {name!r} holds {value}, which is beyond 64 bits"
    return None


def _json_column(values: list[Any], name: str, types: pa.Schema | None) -> pa.Array:
    expected = types.field(name).type if types is not None and name in types.names else None
    is_text = (
        any(isinstance(value, str) for value in values) if expected is None else pa.types.is_string(expected)
    )
    if is_text:
        return pa.array([_text(value) for value in values], pa.string())
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else number_text(value)
