"""What the records of a batch have as the feature by which metrics are sliced: a key each, and its text for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from learning.keys import xxh64
from learning.texts import TextColumn

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

__all__ = ["MISSING_KEY", "MISSING_TEXT", "SliceValues"]

MISSING_KEY = 0
"""Key of the slice of the records that do not have the feature; no value's key but by a 64-bit accident."""
MISSING_TEXT = "(missing)"

_WHOLE_BOUND = 2.0**53  # below it, the text of a whole number is its digits


@dataclass(frozen=True, slots=True)
class SliceValues:
    """One feature's value in each of n records.

    Attributes:
        keys: u64 (n,), the value key of the record's text: for a category the key of its entry; MISSING_KEY where
            the record does not have the feature.
        texts: what the keys were made of. Of a number it is the shortest text of its float32, in digits where it is
            whole, so that 3 and 3.0 are "3" in every format; "" where it is missing (a category may be "", too).

    """

    keys: NDArray[np.uint64]
    texts: TextColumn

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(
        cls, feature: np.uint64, texts: TextColumn, there: NDArray[np.bool_], numbers: NDArray[np.float32]
    ) -> SliceValues:
        """Values under the name key `feature`: `texts` where they are `there`, else `numbers` that are not NaN."""
        is_number = ~(there | np.isnan(numbers))
        if is_number.any():
            distinct, which = np.unique(numbers[is_number], return_inverse=True)
            places = np.arange(len(texts))
            places[is_number] = len(texts) + which
            pool = TextColumn.concat([texts, TextColumn.from_list([_number_text(x) for x in distinct])])
            texts = pool.take(places)
        # Texts out of Arrow's buffers are read-only, for which numba would compile anew, in the stream.
        data, offsets = np.require(texts.data, None, ["C", "W"]), np.require(texts.offsets, None, ["C", "W"])
        return cls(_value_keys(data, offsets, there | is_number, feature), texts)

    @classmethod
    def concat(cls, parts: Sequence[SliceValues]) -> SliceValues:
        """The values of all parts, in the order given."""
        keys = np.concatenate([np.empty(0, np.uint64), *(part.keys for part in parts)])
        return cls(keys, TextColumn.concat([part.texts for part in parts]))

    def take(self, places: NDArray[Any]) -> SliceValues:
        """The values of the records at `places`: their numbers, or bool (n,) for which of them."""
        return SliceValues(self.keys[places], self.texts.take(places))

    def texts_of(self, keys: Collection[int]) -> dict[int, str]:
        """For people: the texts of those of `keys` that records here have, `MISSING_TEXT` for the missing one."""
        if not keys:
            return {}
        distinct, first = np.unique(self.keys, return_index=True)
        found = np.isin(distinct, np.array(list(keys), np.uint64))
        texts = self.texts.take(first[found]).tolist()
        known = dict(zip(distinct[found].tolist(), texts, strict=True))
        return known | ({MISSING_KEY: MISSING_TEXT} if MISSING_KEY in known else {})


def _number_text(number: np.float32) -> str:
    whole = abs(number) < _WHOLE_BOUND and number == int(number)
    return str(int(number) if whole else number)


@njit(cache=True, nogil=True, error_model="numpy")
def _value_keys(data, offsets, there, feature):  # noqa: ANN001, ANN202 - numba infers types
    """Value keys, under the name key `feature`, of the texts that are there; MISSING_KEY for the others."""
    keys = np.full(len(there), np.uint64(MISSING_KEY), np.uint64)
    for i in range(len(there)):
        if there[i]:
            keys[i] = xxh64(data, offsets[i], offsets[i + 1] - offsets[i], feature)
    return keys
