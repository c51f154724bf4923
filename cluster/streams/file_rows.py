"""Rows of a CSV, JSON-lines or Parquet file as Arrow columns, block by block: memory is bounded by a block.

Row numbers count records from 0: a CSV's header and blank lines are none. A line that cannot be split into columns
keeps its number and comes as a BadRow. CSV columns come as bytes, so that one bad value cannot end the stream.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actors.ports import SourceError
from cluster.streams.file_blocks import BAD_VALUE_BYTES_MAX, BLOCK_BYTES, BadRow, RowBlock
from cluster.streams.file_json import json_rows

__all__ = ["FORMATS", "column_names", "file_format", "open_rows"]

PARQUET_BLOCK_ROWS = 16_384
HEADER_BYTES_MAX = 1 << 20

FORMATS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_MISSING = ["", "NA", "N/A", "nan", "NaN", "NAN", "null", "NULL", "Null", "None"]


def file_format(path: Path) -> tuple[str, bool]:
    """The format by the file's name, and whether it is compressed with gzip. Raises SourceError."""
    compressed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if compressed else path.suffix.lower()
    if suffix not in FORMATS or (compressed and suffix == ".parquet"):
        known = ", ".join([*FORMATS, *(f"{name}.gz" for name in FORMATS if name != ".parquet")])
        raise SourceError(
            f"the format of {path} is told by its ending, and {path.name!r} has none of: {known}"
        )
    if not path.is_file():
        raise SourceError(
            f"there is no file {path} (seen from {Path.cwd()}); give the path of an existing one"
        )
    return FORMATS[suffix], compressed


def open_rows(
    path: Path, columns: list[str] | None = None, types: pa.Schema | None = None
) -> Iterator[RowBlock]:
    """All rows in order; `columns` names those that are wanted, `types` is what JSON lines are expected to hold."""
    kind, compressed = file_format(path)
    try:
        if kind == "parquet":
            yield from _parquet_rows(path, columns)
        else:
            with pa.input_stream(str(path), compression="gzip" if compressed else None) as stream:
                if kind == "jsonl":
                    yield from json_rows(stream, columns, types)
                else:
                    yield from _csv_rows(path, stream, "\t" if kind == "tsv" else ",", columns)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, compressed, error) from error


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
        raise _unreadable(path, compressed, error) from error


def _unreadable(path: Path, compressed: bool, error: Exception) -> SourceError:  # noqa: FBT001 - a plain fact
    is_gzip_error = compressed and isinstance(error, OSError)
    broken = "it is no whole gzip file" if is_gzip_error else "it cannot be read"
    return SourceError(f"{path}: {broken} ({' '.join(str(error).split())}); check or fetch the file again")


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


def _parquet_rows(path: Path, columns: list[str] | None) -> Iterator[RowBlock]:
    with pq.ParquetFile(path) as file:
        row = 0
        for batch in file.iter_batches(PARQUET_BLOCK_ROWS, columns=columns, use_threads=False):
            yield RowBlock(np.arange(row, row + batch.num_rows), batch, [])
            row += batch.num_rows
