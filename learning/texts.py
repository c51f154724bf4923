"""Columns of texts: their bytes end to end, and where each begins and ends."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["TextColumn", "gather"]


@dataclass(frozen=True, slots=True)
class TextColumn:
    """UTF-8 texts in Arrow's layout: text i is data[offsets[i]:offsets[i + 1]]; data u8, offsets i64 (n + 1)."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def tolist(self) -> list[str]:
        """All texts as Python strings; an empty text means that the record brought none."""
        raw = self.data.tobytes()
        bounds = self.offsets.tolist()
        return [raw[a:b].decode() for a, b in itertools.pairwise(bounds)]

    def take(self, places: NDArray[Any]) -> TextColumn:
        """The texts at `places`: their numbers, or bool (n,) for which of them."""
        return TextColumn.between(self.data, self.offsets[:-1][places], self.offsets[1:][places])

    @classmethod
    def from_list(cls, texts: Sequence[str]) -> TextColumn:
        """Pack Python strings."""
        encoded = [text.encode() for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(e) for e in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    @classmethod
    def between(
        cls, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> TextColumn:
        """Copies of the stretches data[starts[i]:ends[i]]."""
        offsets = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        copies = np.empty(offsets[-1], np.uint8)
        _copy(data, starts, offsets, copies)
        return cls(copies, offsets)

    @classmethod
    def concat(cls, parts: Sequence[TextColumn]) -> TextColumn:
        """The texts of all parts, in the order given."""
        starts = np.cumsum([0, *(len(part.data) for part in parts)])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts[:-1], strict=True)]
        data = [part.data for part in parts]
        return cls(np.concatenate([np.empty(0, np.uint8), *data]), np.concatenate([*offsets, starts[-1:]]))


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(data, starts, offsets, out):  # noqa: ANN001, ANN202 - numba infers types
    """The stretches of data that begin at `starts`, one after another, as long as `offsets` say."""
    for i in range(len(starts)):
        for j in range(offsets[i + 1] - offsets[i]):
            out[offsets[i] + j] = data[starts[i] + j]


def gather(starts: NDArray[Any], counts: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices that bring the stretches starts[i]:starts[i] + counts[i] one after another, and their new offsets."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1]), offsets
