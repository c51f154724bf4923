"""Rows of a CSV, JSON-lines or Parquet file as Arrow columns, block by block: memory is bounded by a block.

Row numbers count records from 0: a CSV's header and blank lines are none. A line that cannot be split into columns
keeps its number and comes as a BadRow. CSV columns come as bytes, so that one bad value cannot end the stream.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.records import SourceError
from learning.keys import number_text

__all__ = ["FORMATS", "BadRow", "RowBlock", "column_names", "file_format", "open_rows"]

BLOCK_BYTES = 1 << 20
PARQUET_BLOCK_ROWS = 16_384
HEADER_BYTES_MAX = 1 << 20
BAD_VALUE_BYTES_MAX = 1 << 20

FORMATS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_MISSING = ["", "NA", "N/A", "nan", "NaN", "NAN", "null", "NULL", "Null", "None"]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no record: its number, why, and its text."""

    row: int
    reason: str
    value: bytes


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some consecutive rows: `rows` (n,) ascending row numbers of `columns`; `bad` are those left out between them."""

    rows: NDArray[np.int64]
    columns: pa.RecordBatch
    bad: list[BadRow]

    @property
    def next_row(self) -> int:
        """The number of the row behind the block."""
        last_good = int(self.rows[-1]) if len(self.rows) else -1
        return max([last_good, *(bad.row for bad in self.bad)]) + 1


def file_format(path: Path) -> tuple[str, bool]:
    """The format by the file's name, and whether it is compressed with gzip. Raises SourceError."""
    compressed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if compressed else path.suffix.lower()
    if suffix not in FORMATS or (compressed and suffix == ".parquet"):
        known = ", ".join([*FORMATS, *(f"{name}.gz" for name in FORMATS if name != ".parquet")])
        raise SourceError(f"the format of {path} is told by its ending, and {path.name!r} has none of: {known}")
    if not path.is_file():
        raise SourceError(f"there is no file {path} (seen from {Path.cwd()}); give the path of an existing one")
    return FORMATS[suffix], compressed


def open_rows(path: Path, columns: list[str] | None = None, types: pa.Schema | None = None) -> Iterator[RowBlock]:
    """All rows in order; `columns` names those that are wanted, `types` is what JSON lines are expected to hold."""
    kind, compressed = file_format(path)
    try:
        if kind == "parquet":
            yield from _parquet_rows(path, columns)
        else:
            with pa.input_stream(str(path), compression="gzip" if compressed else None) as stream:
                if kind == "jsonl":
                    yield from _json_rows(stream, columns, types)
                else:
                    yield from _csv_rows(path, stream, "\t" if kind == "tsv" else ",", columns)
    except (pa.ArrowException, OSError) as error:
        broken = "it is no whole gzip file" if compressed and isinstance(error, OSError) else "it cannot be read"
        raise SourceError(f"{path}: {broken} ({' '.join(str(error).split())}); check or fetch the file again") from error


def column_names(path: Path) -> list[str]:
    """Names in the order of the file; for JSON lines, of the first block's records. Raises SourceError."""
    kind, compressed = file_format(path)
    try:
        if kind == "parquet":
            return list(pq.read_schema(path).names)
        if kind == "jsonl":
            first = next(open_rows(path), None)
            return [] if first is None else list(first.columns.schema.names)
        with pa.input_stream(str(path), compression="gzip" if compressed else None) as stream:
            return _header(path, stream.read(HEADER_BYTES_MAX), "\t" if kind == "tsv" else ",")
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read ({' '.join(str(error).split())}); check or fetch it again") from error


def _header(path: Path, start: bytes, delimiter: str) -> list[str]:
    text = start.decode("utf-8-sig", errors="replace")
    names = next((row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row), [])
    if not names:
        raise SourceError(f"{path} is empty; a CSV file begins with a line of column names")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{path} has more than one column named {', '.join(twice)}; rename all but one")
    return names


def _csv_rows(path: Path, stream: Any, delimiter: str, columns: list[str] | None) -> Iterator[RowBlock]:
    names = column_names(path)
    bad: dict[int, BadRow] = {}

    def keep_bad(row: Any) -> str:
        number = row.number - 2  # Arrow counts from 1, and the header
        reason = f"the line has {row.actual_columns} columns, but the header has {row.expected_columns}"
        bad[number] = BadRow(number, reason, row.text.encode()[:BAD_VALUE_BYTES_MAX])
        return "skip"

    reader = pa_csv.open_csv(
        stream,
        # One thread: only so does Arrow number the lines it cannot split.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep_bad
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()),
            include_columns=columns,
            null_values=_MISSING,
            strings_can_be_null=True,
        ),
    )
    row = 0
    for batch in reader:
        rows, row = _numbered(row, batch.num_rows, bad)
        yield RowBlock(rows, batch, [bad.pop(number) for number in sorted(bad) if number < row])
    if bad:
        yield RowBlock(np.empty(0, np.int64), reader.schema.empty_table().to_batches()[0], list(bad.values()))


def _numbered(first: int, count: int, bad: dict[int, BadRow]) -> tuple[NDArray[np.int64], int]:
    """Numbers of `count` good rows from `first` on, leaving out the bad ones; and the number behind the last."""
    if not bad:
        return np.arange(first, first + count), first + count
    candidates = np.arange(first, first + count + len(bad))
    rows = candidates[~np.isin(candidates, list(bad))][:count]
    return rows, int(rows[-1]) + 1 if count else first


def _json_rows(stream: Any, columns: list[str] | None, types: pa.Schema | None) -> Iterator[RowBlock]:
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
    options = pa_json.ParseOptions(
        explicit_schema=types, unexpected_field_behavior="infer" if types is None else "ignore"
    )
    try:
        table = pa_json.read_json(
            pa.BufferReader(lines), pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1), options
        )
    except pa.ArrowException:
        return _json_block_by_line(lines, first, columns, types)
    count = sum(1 for line in lines.splitlines() if line.strip()) if b"\n\n" in lines else len(lines.splitlines())
    if table.num_rows != count or table.num_rows == 0:  # two objects in a line, or the like
        return _json_block_by_line(lines, first, columns, types)
    names = [name for name in (columns or table.schema.names) if name in table.schema.names]
    batch = table.select(names).combine_chunks().to_batches()[0]
    return RowBlock(np.arange(first, first + count), batch, [])


def _json_block_by_line(lines: bytes, first: int, columns: list[str] | None, types: pa.Schema | None) -> RowBlock:
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
        number_expected = types is not None and name in types.names and not pa.types.is_string(types.field(name).type)
        if number_expected and isinstance(value, str):
            return f"column {name!r} is numeric, but holds the text {value[:80]!r}"
        if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            return f"column {name!r} holds {value}, which is beyond 64 bits"
    return None


def _json_column(values: list[Any], name: str, types: pa.Schema | None) -> pa.Array:
    expected = types.field(name).type if types is not None and name in types.names else None
    is_text = any(isinstance(value, str) for value in values) if expected is None else pa.types.is_string(expected)
    if is_text:
        return pa.array([_text(value) for value in values], pa.string())
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else number_text(value)


def _parquet_rows(path: Path, columns: list[str] | None) -> Iterator[RowBlock]:
    with pq.ParquetFile(path) as file:
        row = 0
        for batch in file.iter_batches(PARQUET_BLOCK_ROWS, columns=columns, use_threads=False):
            yield RowBlock(np.arange(row, row + batch.num_rows), batch, [])
            row += batch.num_rows
