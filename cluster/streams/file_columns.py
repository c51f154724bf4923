"""Rows of a file brought into the shape of an Arrow message: feature columns, `label`, `ts`, `id` and `weight`.

From here on a file's rows go the same way as Kafka's Arrow messages, so both formats and JSON agree.
"""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from cluster.streams.file_blocks import BadRow, RowBlock
from cluster.streams.file_schema import BOOLEAN, NUMBER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cluster.streams.file_schema import FileSchema

__all__ = ["to_message"]

_VALUE_SHOWN_CHARS_MAX = 80


def to_message(block: RowBlock, schema: FileSchema) -> RowBlock:
    """The block's rows as feature columns, `label`, and `ts`, `id`, `weight` where the file has them.

    A value that contradicts its column's kind (text in a numeric column, bytes that are no UTF-8) makes a bad row.
    """
    columns = block.columns
    objections = _Objections(columns.num_rows)
    fields = {
        name: _column(columns, name, objections, numeric=name in schema.numeric) for name in schema.features
    }
    fields["label"] = _column(columns, schema.label, objections, numeric=True)
    if schema.time is not None:
        fields["ts"] = _times(
            schema.time, _column(columns, schema.time, objections, numeric=False), objections
        )
    if schema.id is not None:
        fields["id"] = _identity(_column(columns, schema.id, objections, numeric=False))
    if schema.weight is not None:
        fields["weight"] = _column(columns, schema.weight, objections, numeric=True)
    message = pa.RecordBatch.from_arrays(list(fields.values()), names=list(fields))
    return _without_bad(block, message, objections)


class _Objections:
    """The first reason against each row of a block."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.reasons: dict[int, str] = {}

    def add(self, wrong: NDArray[np.bool_], values: pa.Array, reason: str) -> None:
        for row in np.flatnonzero(wrong).tolist():
            shown = _text_of(values[row].as_py())[:_VALUE_SHOWN_CHARS_MAX]
            self.reasons.setdefault(row, f"{reason} {shown!r}")

    def good(self) -> NDArray[np.bool_]:
        good = np.ones(self._rows, np.bool_)
        good[list(self.reasons)] = False
        return good


def _without_bad(block: RowBlock, message: pa.RecordBatch, objections: _Objections) -> RowBlock:
    if not objections.reasons:
        return RowBlock(block.rows, message, block.bad)
    bad = [
        BadRow(int(block.rows[row]), reason, _row_json(block.columns, row))
        for row, reason in objections.reasons.items()
    ]
    good = objections.good()
    return RowBlock(
        block.rows[good],
        message.filter(pa.array(good)),
        sorted([*block.bad, *bad], key=lambda each: each.row),
    )


def _row_json(columns: pa.RecordBatch, row: int) -> bytes:
    """The row as a JSON object of its columns, for the dead letter; the file's own line is not kept."""
    values = {name: columns.column(name)[row].as_py() for name in columns.schema.names}
    return orjson.dumps(
        {name: value if _is_plain(value) else _text_of(value) for name, value in values.items()}
    )


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | float | str)


def _text_of(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _column(columns: pa.RecordBatch, name: str, objections: _Objections, *, numeric: bool) -> pa.Array:
    if name not in columns.schema.names:  # a JSON line need not hold every column, nor need a block of them
        return pa.nulls(columns.num_rows, pa.float64() if numeric else pa.string())
    values = columns.column(name)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_binary(values.type):
        values = _decoded(name, values, objections)
        return _numbers(name, values, objections) if numeric else values
    if numeric and pa.types.is_string(values.type):
        return _numbers(name, values, objections)
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), None, values)
    if numeric and (pa.types.is_boolean(values.type) or pa.types.is_decimal(values.type)):
        return values.cast(pa.float64())
    return values


def _decoded(name: str, values: pa.Array, objections: _Objections) -> pa.Array:
    """Bytes as text; rows with bytes that are no UTF-8 are objected to."""
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        wrong = np.array([not _is_utf8(value) for value in values.to_pylist()], np.bool_)
        objections.add(wrong, values, f"column {name!r} is no UTF-8 text:")
        return pc.if_else(pa.array(wrong), pa.scalar(None, pa.binary()), values).cast(pa.string())


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or bool(value.decode() or True)
    except UnicodeDecodeError:
        return False


def _numbers(name: str, values: pa.Array, objections: _Objections) -> pa.Array:
    """Texts as f64; true and false are 1 and 0; rows with other texts are objected to."""
    try:
        return values.cast(pa.float64())
    except pa.ArrowInvalid:
        present = pc.is_valid(values)
        number = pc.fill_null(pc.match_substring_regex(values, NUMBER), fill_value=False)
        boolean = pc.fill_null(pc.match_substring_regex(values, BOOLEAN), fill_value=False)
        wrong = pc.and_(present, pc.invert(pc.or_(number, boolean)))
        objections.add(
            wrong.to_numpy(zero_copy_only=False), values, f"column {name!r} is numeric, but holds the text"
        )
        truth = pc.equal(pc.utf8_lower(values), "true").cast(pa.float64())
        return pc.if_else(boolean, truth, pc.if_else(number, values, None).cast(pa.float64()))


def _times(name: str, values: pa.Array, objections: _Objections) -> pa.Array:
    """Unix seconds; texts are numbers or ISO 8601 times (UTC where they name no zone), Arrow's own types stay."""
    if not pa.types.is_string(values.type):
        return values
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            times = values.cast(kind)
        except pa.ArrowInvalid:
            continue
        return times if kind == pa.float64() else pc.divide(times.cast(pa.int64()).cast(pa.float64()), 1e6)
    times_s = [None if value is None else _time_s(value) for value in values.to_pylist()]
    wrong = np.array([time_s is not None and math.isnan(time_s) for time_s in times_s], np.bool_)
    objections.add(wrong, values, f"column {name!r} should hold unix seconds or ISO 8601 times, but holds")
    return pa.array(times_s, pa.float64())


def _time_s(text: str) -> float:
    """Unix seconds of one text; NaN if it is no time."""
    with contextlib.suppress(ValueError):  # then it may still be an ISO text
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _identity(values: pa.Array) -> pa.Array:
    """Ids as text; whole numbers in a floating-point column lose their .0."""
    if pa.types.is_floating(values.type):
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid:
            return values.cast(pa.string())
    return values.cast(pa.string())
