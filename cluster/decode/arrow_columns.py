"""Columns of Arrow tables to feature entries: one pass a column, then all columns interleaved record by record.

A column becomes a row of two matrices over (column, record): `payload`, 64 bits that are a float64 or a key, and
`present`. Keys are hashed straight from Arrow's buffers, those of a dictionary once a dictionary entry. Buffers must
have been validated in full before they come here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from cluster.decode.json_tokens import pointer
from cluster.decode.record_rules import AS_CATEGORICAL, AS_NUMERIC, AS_ROLE, FLOAT32_BOUND, category_kind
from learning.batch import NUMBER
from learning.keys import name_key, number_text, value_key, xxh64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Entries", "Features", "doubles", "is_number", "is_text", "text_buffers", "valid", "value_type"]

_WHOLE_BOUND = 2.0**53  # below it, the text of a whole number is its digits
_STRIDE = 512  # records; a row of a matrix is 9 elements longer, so that columns do not share cache sets


class Entries(NamedTuple):
    """Columns as in learning.batch.Batch."""

    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    kinds: NDArray[np.uint8]
    features: NDArray[np.uint64] | None
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Features:
    """Feature columns of n records, filled one by one; `bad[i]` says that record i must not be learnt."""

    payload: NDArray[np.uint64]
    present: NDArray[np.bool_]
    names: NDArray[np.uint64]
    kinds: NDArray[np.uint8]
    bad: NDArray[np.bool_]

    @classmethod
    def room(cls, columns: int, records: int) -> Features:
        """Room for so many columns and records."""
        stride = -(-records // _STRIDE) * _STRIDE + 9
        return cls(
            payload=np.empty((columns, stride), np.uint64),
            present=np.zeros((columns, stride), np.bool_),
            names=np.zeros(columns, np.uint64),
            kinds=np.zeros(columns, np.uint8),
            bad=np.zeros(records, np.bool_),
        )

    def fill(self, j: int, name: str, column: pa.ChunkedArray, how: int) -> None:
        """Read column j, whose type `is_number` or `is_text`; `how` is one of AS_FOUND and its like."""
        self.names[j] = name_key(name)
        number = how < AS_CATEGORICAL and is_number(value_type(column.type))
        self.kinds[j] = NUMBER if number else category_kind(how)
        start = 0
        # Chunks are joined to save calls, but joining dictionaries costs more than reading them one by one.
        for chunk in column.chunks if pa.types.is_dictionary(column.type) else [column.combine_chunks()]:
            self._fill(j, chunk, how, slice(start, start + len(chunk)))
            start += len(chunk)

    def _fill(self, j: int, column: pa.Array, how: int, records: slice) -> None:
        if pa.types.is_dictionary(column.type) and not is_text(column.type):
            column = column.dictionary_decode()
        present, bad, name = valid(column), self.bad[records], self.names[j]
        if is_number(column.type):
            numbers = doubles(column)
            bad |= present & ~(np.abs(numbers) < FLOAT32_BOUND)
            if self.kinds[j] == NUMBER:
                self.payload[j, records].view(np.float64)[:] = numbers
            else:
                boolean = pa.types.is_boolean(column.type)
                self.payload[j, records] = _number_keys(numbers, present & ~bad, name, boolean=boolean)
        elif how == AS_NUMERIC:
            bad |= present
        else:
            present &= _text_keys(column, present, name, self.payload[j, records])
        if how >= AS_ROLE:
            bad |= ~present
        self.present[j, records] = present

    def entries(self, *, want_features: bool) -> Entries:
        """Those of the records that are not bad."""
        total = int(np.count_nonzero(self.present))
        keys, values = np.empty(total, np.uint64), np.empty(total, np.float32)
        features = np.empty(total if want_features else 0, np.uint64)
        kinds, ends = np.empty(total, np.uint8), np.zeros(len(self.bad) + 1, np.int64)
        _interleave(
            self.payload,
            self.present,
            self.names,
            self.kinds,
            self.bad,
            (keys, values, kinds, features, ends),
        )
        offsets = np.concatenate([ends[:1], ends[1:][~self.bad]])
        last = int(offsets[-1])
        return Entries(
            keys[:last], values[:last], kinds[:last], features[:last] if want_features else None, offsets
        )


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type is read as numbers; the type of nothing but nulls is."""
    t = pa.types
    return any(test(kind) for test in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal, t.is_null))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type is read as categories."""
    kind = value_type(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def value_type(kind: pa.DataType) -> pa.DataType:
    """What a column of this type holds: of a dictionary, the type of its values."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def valid(column: pa.Array) -> NDArray[np.bool_]:
    """Which elements are not null; the caller may write to it."""
    if column.null_count == 0:
        return np.ones(len(column), np.bool_)
    return np.array(column.is_valid().to_numpy(zero_copy_only=False))


def doubles(column: pa.Array) -> NDArray[np.float64]:
    """A number column as float64, exactly as JSON would bring it; elements that are null hold anything."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column))
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.string()).cast(pa.float64())  # by way of text it is the nearest double
    with np.errstate(invalid="ignore"):  # a signalling NaN is found and refused later, like any other
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _number_keys(
    numbers: NDArray[np.float64], wanted: NDArray[np.bool_], name: np.uint64, *, boolean: bool
) -> NDArray[np.uint64]:
    """Keys of numbers that are used as categories; any key where they are not wanted."""
    numbers = np.where(wanted, numbers, 0.0)
    keys = np.zeros(len(numbers), np.uint64)
    whole = bool(np.all((np.abs(numbers) < _WHOLE_BOUND) & (np.floor(numbers) == numbers)))
    if whole and not boolean:
        # Most often ids, nearly all of them different: Arrow writes the digits of all at once.
        _hash(*text_buffers(pa.array(numbers.astype(np.int64)).cast(pa.string())), wanted, name, keys)
        return keys
    distinct, which = np.unique(numbers, return_inverse=True)
    texts = [("true" if x else "false") if boolean else number_text(x) for x in distinct.tolist()]
    return np.array([value_key(name, text) for text in texts], np.uint64)[which]


def _text_keys(
    column: pa.Array, present: NDArray[np.bool_], name: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Write the keys of present texts to `keys`; returns which elements hold a text (a dictionary may hold nulls)."""
    if not pa.types.is_dictionary(column.type):
        _hash(*text_buffers(column), present, name, keys)
        return present
    dictionary = column.dictionary
    named = np.zeros(len(dictionary) + 1, np.uint64)  # one more: indices of nulls point there
    known = np.zeros(len(dictionary) + 1, np.bool_)
    known[:-1] = valid(dictionary)
    _hash(*text_buffers(dictionary), known[:-1], name, named[:-1])
    indices = np.asarray(column.indices.fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    indices = np.where(present, indices, len(dictionary))
    keys[:] = named[indices]
    return known[indices]


def text_buffers(column: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bytes of all texts, and the n + 1 places in them where the texts begin and end."""
    width = np.int64 if pa.types.is_large_string(column.type) else np.int32
    _, places, data = column.buffers()
    if len(column) == 0 or places is None:
        return np.zeros(1, np.uint8), np.zeros(len(column) + 1, np.int64)
    offsets = np.frombuffer(places, width)[column.offset : column.offset + len(column) + 1]
    # An empty buffer may be absent, and then there is no text to read in it.
    texts = np.frombuffer(data, np.uint8) if data and data.size else np.zeros(1, np.uint8)
    return texts, offsets.astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy")
def _hash(data, offsets, present, name, keys):  # noqa: ANN001, ANN202 - numba infers types
    """Value keys, under the name key `name`, of the texts that are present."""
    memory = pointer(data)
    for i in range(len(keys)):
        if present[i]:
            keys[i] = xxh64(memory, offsets[i], offsets[i + 1] - offsets[i], name)


@njit(cache=True, nogil=True, error_model="numpy")
def _interleave(payload, present, names, column_kinds, bad, out):  # noqa: ANN001, ANN202
    """Write the entries of all records that are not bad, record by record, in the order of the columns."""
    keys, values, kinds, features, ends = out
    wants_features = len(features) > 0
    as_double = payload.view(np.float64)
    entry = 0
    for i in range(len(bad)):
        for j in range(len(names)):
            if present[j, i] and not bad[i]:
                is_number = column_kinds[j] == NUMBER
                keys[entry] = names[j] if is_number else payload[j, i]
                values[entry] = np.float32(as_double[j, i]) if is_number else np.float32(1.0)
                kinds[entry] = column_kinds[j]
                if wants_features:
                    features[entry] = names[j]
                entry += 1
        ends[i + 1] = entry
