"""The texts that the keys of categories are made of, out of an Arrow column: the same as JSON would bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cluster.decode.arrow_columns import doubles, is_text, text_buffers
from learning.keys import number_text
from learning.texts import TextColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["texts_of", "texts_where"]

_WHOLE_BOUND = 2.0**53  # below it, the text of a whole number is its digits


def texts_of(column: pa.ChunkedArray, good: NDArray[np.int64]) -> TextColumn:
    """Texts at the places `good`, where the column is neither null nor infinite."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    taken = column.take(pa.array(good)).combine_chunks()
    if is_text(column.type):
        return TextColumn(*text_buffers(taken)).take(
            np.arange(len(taken))
        )  # without what lies around a slice
    if pa.types.is_boolean(column.type):
        return TextColumn(*text_buffers(taken.cast(pa.string())))
    numbers = doubles(taken)
    if bool(np.all((np.abs(numbers) < _WHOLE_BOUND) & (np.floor(numbers) == numbers))):
        return TextColumn(*text_buffers(pa.array(numbers.astype(np.int64)).cast(pa.string())))
    return TextColumn.from_list([number_text(number) for number in numbers.tolist()])


def texts_where(column: pa.ChunkedArray, good: NDArray[np.int64], there: NDArray[np.bool_]) -> TextColumn:
    """Texts at the places `good`, empty where `there`, bool of the same length, says that there is none."""
    texts = texts_of(column, good[there])
    offsets = np.zeros(len(good) + 1, np.int64)
    sizes = np.zeros(len(good), np.int64)
    sizes[there] = np.diff(texts.offsets)
    np.cumsum(sizes, out=offsets[1:])
    return TextColumn(texts.data[texts.offsets[0] :], offsets)
