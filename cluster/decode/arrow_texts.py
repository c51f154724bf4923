"""The texts that a role's keys are made of, out of an Arrow column: the same as JSON would bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cluster.decode.arrow_columns import doubles, is_text, text_buffers
from learning.keys import number_text
from learning.texts import TextColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["texts_of"]

_WHOLE_BOUND = 2.0**53  # below it, the text of a whole number is its digits


def texts_of(column: pa.ChunkedArray, good: NDArray[np.int64]) -> TextColumn:
    """Texts of a role at the places `good`, where it is neither null nor infinite."""
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
