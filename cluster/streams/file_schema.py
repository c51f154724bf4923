"""Which columns of a file are numbers and which are categories, and rows brought into those types.

The rule looks at the first 10,000 rows. In CSV a column is numeric if all values that are not missing are numbers or
booleans; digits with a leading zero (zip codes, hashes) are no number, and one value that is none makes the whole
column categorical, so that 1e345 among hexadecimal ids does not. In JSON lines and Parquet numbers and booleans are
numeric and text is categorical, whatever it spells. A column without any value in the sample is categorical, which
nothing can contradict. `as_numeric` and `as_categorical` outrank the rule. Features that the learner needs by name
(`roles`: its user, its item) are categorical: in CSV the text as it stands there, leading zeros and all, in JSON lines
and Parquet a number by its canonical text. Missing are: in CSV an empty field, NA, N/A, nan, null and None; in JSON
null; in Parquet null and NaN.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from actors.ports import SourceError
from cluster.config import FeaturesConfig, NumericConfig
from cluster.decode.record_rules import Rules, range_text
from cluster.streams.file_rows import column_names, file_format, open_rows

__all__ = ["SAMPLE_ROWS", "FileSchema", "check_named", "infer_features", "infer_schema"]

SAMPLE_ROWS = 10_000

NUMBER = r"^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
BOOLEAN = r"^(true|false|True|False|TRUE|FALSE)$"
MESSAGE_FIELDS = ("label", "ts", "id", "weight")
_VALUES_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class FileSchema:
    """Uses and kinds of a file's columns; `features` are in the order of the file, and `numeric` some of them."""

    path: Path
    features: tuple[str, ...]
    numeric: frozenset[str]
    label: str
    time: str | None = None
    id: str | None = None
    weight: str | None = None

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        fields = [name for name in (self.label, self.time, self.id, self.weight) if name is not None]
        return [*self.features, *fields]

    def as_config(self, numeric: NumericConfig) -> FeaturesConfig:
        """The `features` section of a pipeline that says what was inferred here."""
        return FeaturesConfig(
            numeric=numeric,
            as_numeric=tuple(name for name in self.features if name in self.numeric),
            as_categorical=tuple(name for name in self.features if name not in self.numeric),
        )

    def json_types(self) -> pa.Schema:
        """What a JSON-lines file should hold; the time and the id may be numbers or texts, so they are read as text."""
        numeric = [name for name in self.features if name in self.numeric]
        numbers = [name for name in (*numeric, self.label, self.weight) if name is not None]
        categorical = [name for name in self.features if name not in self.numeric]
        texts = [name for name in (*categorical, self.time, self.id) if name is not None]
        return pa.schema([(name, pa.float64()) for name in numbers] + [(name, pa.string()) for name in texts])


def infer_features(
    path: str | Path, label: str, ignore: Iterable[str] = (), *, numeric: NumericConfig | None = None
) -> FeaturesConfig:
    """The `features` section of a pipeline that learns from this file. Raises SourceError."""
    schema = infer_schema(Path(path), label=label, features=FeaturesConfig(ignore=tuple(ignore)))
    return schema.as_config(numeric or NumericConfig()).model_copy(update={"ignore": tuple(ignore)})


def infer_schema(
    path: Path,
    *,
    label: str,
    features: FeaturesConfig,
    time: str | None = None,
    id_: str | None = None,
    weight: str | None = None,
    roles: tuple[str, ...] = (),
    slice_feature: str | None = None,
    label_min: float = 0.0,
    label_max: float = 1.0,
) -> FileSchema:
    """Kinds of all columns by the rule above. Raises SourceError: no such file or column, no usable label."""
    names = column_names(path)
    # As in messages, `ts`, `id` and `weight` mean what they say unless the pipeline names other columns.
    given = {"label": label, "time": time, "id": id_, "weight": weight}
    for use, usual in (("time", "ts"), ("id", "id"), ("weight", "weight")):
        if given[use] is None and usual in names and usual not in features.ignore:
            given[use] = usual
    for use, name in given.items():
        if name is not None and name not in names:
            raise _no_column(path, f"which was named as the {use}", name, names)
    check_named(features, roles, slice_feature)
    needed = dict.fromkeys(roles, "the learner needs")
    if slice_feature is not None:
        needed.setdefault(slice_feature, "slices.feature names")
    _check_columns(path, needed, names, given)
    wanted = [name for name in names if name not in given.values() and name not in features.ignore]
    _check_names(path, wanted, label)
    sample = _sample(path, [*wanted, label])
    _check_label(path, label, sample.column(label), range_text(label_min, label_max))
    is_csv = file_format(path)[0] in ("csv", "tsv")
    numeric = {name for name in wanted if _is_numeric(path, name, sample.column(name), is_csv=is_csv)}
    numeric = (numeric | set(features.as_numeric)) - {*features.as_categorical, *roles}
    return FileSchema(
        path,
        tuple(wanted),
        frozenset(numeric),
        label,
        time=given["time"],
        id=given["id"],
        weight=given["weight"],
    )


def check_named(features: FeaturesConfig, roles: tuple[str, ...], slice_feature: str | None) -> None:
    """The pipeline must not use a feature that somebody needs by name for something else. Raises SourceError."""
    try:
        Rules.of(features, roles=roles, slice_feature=slice_feature)
    except ValueError as error:
        raise SourceError(str(error)) from error


def _check_columns(
    path: Path, needed: dict[str, str], names: list[str], given: dict[str, str | None]
) -> None:
    """The features that somebody needs by name must be columns of the file, and features."""
    for needed_name, why in needed.items():
        if needed_name not in names:
            raise _no_column(path, f"which {why}", needed_name, names)
        for use, name in given.items():
            if needed_name == name:
                raise SourceError(
                    f"column {name!r} of {path} is a feature that {why}, and was named as the {use}; "
                    f"name another column as the {use}"
                )


def _check_names(path: Path, wanted: list[str], label: str) -> None:
    """A feature called like a message's own field could not be told from it."""
    taken = [name for name in wanted if name in MESSAGE_FIELDS]
    if taken:
        raise SourceError(
            f"{path} has a column {taken[0]!r} beside the label {label!r}, but the names {', '.join(MESSAGE_FIELDS)} "
            f"are a record's own; add {taken[0]} to the ignored features, or rename it"
        )


def _sample(path: Path, columns: Sequence[str]) -> pa.Table:
    parts: list[pa.RecordBatch] = []
    rows = 0
    for block in open_rows(path, list(columns)):
        parts.append(block.columns)
        rows += block.columns.num_rows
        if rows >= SAMPLE_ROWS:
            break
    if not rows:
        raise SourceError(f"{path} holds no rows; expected at least one record")
    return pa.concat_tables([pa.Table.from_batches([part]) for part in parts], promote_options="permissive")[
        :SAMPLE_ROWS
    ]


def _no_column(path: Path, why: str, name: str, names: list[str]) -> SourceError:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]!r}?" if close else "name one of them"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return SourceError(f"{path} has no column {name!r}, {why}; {hint}. Columns: {shown}")


def _is_numeric(path: Path, name: str, column: pa.ChunkedArray, *, is_csv: bool) -> bool:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        return True
    if pa.types.is_temporal(kind) and file_format(path)[0] == "jsonl":
        return False  # Arrow took texts for times
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_null(kind)
    ):
        raise SourceError(
            f"column {name!r} of {path} is of type {kind}, which is no number and no text; add it to ignore"
        )
    return is_csv and _all_numbers(column)


def _all_numbers(column: pa.ChunkedArray) -> bool:
    """True if there are values and all of them are spelt as numbers or booleans."""
    values = column.drop_null()
    if not len(values):
        return False
    return bool(pc.all(pc.match_substring_regex(values, f"{NUMBER}|{BOOLEAN}")).as_py())


def _check_label(path: Path, label: str, column: pa.ChunkedArray, limits: str) -> None:
    """Labels are numbers (within `limits`) or booleans; of texts only 'true' and 'false' are understood."""
    kind = column.type
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        return
    is_text = pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    values = column.drop_null()
    if is_text and len(values):
        understood = pc.match_substring_regex(values, f"{NUMBER}|{BOOLEAN}")
        if pc.any(understood).as_py() and pc.mean(understood.cast(pa.float64())).as_py() > 0.5:
            return  # the others are dead letters
    if not len(values):
        raise SourceError(
            f"column {label!r} of {path} holds no value in the first {SAMPLE_ROWS} rows; name the label"
        )
    seen = [_shown(value) for value in values.unique()[:_VALUES_SHOWN_MAX].to_pylist()]
    raise SourceError(
        f"the labels in column {label!r} of {path} should be numbers{limits}, or true and false, "
        f"but these values were seen: {', '.join(seen)}; make them numbers, or name another column as the label"
    )


def _shown(value: object) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return repr(text[:40])
