"""KeyIndex: where each key's row is, in parts that grow one at a time.

A small table has one part, which doubles. Beyond `rows_split` rows there are PARTS, chosen by the key's hash: one that
is full is rebuilt larger on its own, so a birth waits for a rebuild of a 256th of the index at most. As keys
spread evenly over parts, equal parts would all be full at the same time; so they begin with capacities spread over a
factor of growth, evenly in the logarithm, and multiplying keeps them spread.

Parts double while they are small, because memory is no issue yet and every rebuild also costs a call and the cache;
larger ones grow by 1.4, whose load between 0.54 and 0.75 makes 6.3 bytes a row on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning import index_kernels
from learning.index_slots import ADDRESS, CAPACITY, REST

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PARTS", "ROWS_SPLIT", "KeyIndex"]

PARTS = 256
ROWS_SPLIT = 1 << 17
"""A single part that is full with so many rows is replaced by PARTS parts, which takes about three milliseconds."""

_LOAD_SINGLE, _GROWTH_SINGLE = 0.4, 2.0
"""Small tables are in the cache: a wrong guess costs more there than a slot."""
_LOAD, _GROWTH = 0.75, 1.4
_SLOTS_SMALL, _LOAD_SMALL, _GROWTH_SMALL = 1 << 14, 0.65, 2.0
"""A part below so many slots doubles: three million rows or so in all parts."""
_SLOTS_MIN = 8


class KeyIndex:
    """Slots of the keys of one table. Not thread-safe; the arrays it passes to kernels live as long as it does."""

    def __init__(self, rows: int, rows_split: int = ROWS_SPLIT) -> None:
        self._rows_split = rows_split
        self._resize(_single(min(rows, rows_split)), np.zeros(1, np.int64))

    @property
    def slots(self) -> int:
        """Slots of all parts."""
        return self._slots

    @property
    def memory_bytes(self) -> int:
        """Bytes of all parts and of what finds them."""
        return 4 * self._slots + self._parts.nbytes

    def locate(
        self, wanted: NDArray[np.uint64], start: int, keys: NDArray[np.uint64], state: NDArray[np.int64],
        reused: NDArray[np.int64], out: NDArray[np.int64],
    ) -> int:  # fmt: skip
        """Row numbers of wanted[start:] into out, births included; stops only where `keys` has no room.

        Returns:
            The position reached.

        """
        while True:
            start, full = index_kernels.locate(wanted, start, self._parts, keys, state, reused, out)
            if full < 0:
                return int(start)
            self._grow(full, keys, int(state[0] - state[2]))

    def find(self, wanted: NDArray[np.uint64], keys: NDArray[np.uint64], out: NDArray[np.int64]) -> int:
        """Row numbers of wanted into out, -1 where there is none; returns how many there are not."""
        return int(index_kernels.find(wanted, self._parts, keys, out))

    def remove(self, rows: NDArray[np.int64], keys: NDArray[np.uint64], state: NDArray[np.int64]) -> None:
        """Forget live rows, which become free."""
        index_kernels.remove(rows, self._parts, keys, state)

    def fill(self, words: NDArray[np.uint32], keys: NDArray[np.uint64], rows: int) -> None:
        """Begin anew with the rows of `words` (row + 1; 0: none), `rows` in all, which have distinct keys."""
        if rows < self._rows_split:
            self._resize(_single(rows), np.array([rows]))
        else:
            counts = np.zeros(PARTS, np.int64)
            index_kernels.count_parts(words, keys, counts)
            self._resize(_spread(counts), counts)
        index_kernels.fill_parts(words, keys, self._parts)

    def _resize(self, capacities: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Empty parts of `capacities` slots, which are about to take `rows` rows."""
        self._memory = [np.zeros(capacity, np.uint32) for capacity in capacities.tolist()]
        load = (
            np.where(capacities < _SLOTS_SMALL, _LOAD_SMALL, _LOAD) if len(capacities) > 1 else _LOAD_SINGLE
        )
        self._parts = np.zeros((len(capacities), 4), np.int64)
        self._parts[:, ADDRESS] = [index_kernels.address_of(slots) for slots in self._memory]
        self._parts[:, CAPACITY] = capacities
        self._parts[:, REST] = (capacities * load).astype(np.int64) - rows
        self._slots = int(capacities.sum())

    def _grow(self, part: int, keys: NDArray[np.uint64], rows: int) -> None:
        """Rebuild a full part larger, or make many out of the one; `rows` are live."""
        old = self._memory[part]
        if len(self._memory) == 1:
            self.fill(old, keys, rows)
            return
        capacity = int(len(old) * (_GROWTH if len(old) >= _SLOTS_SMALL else _GROWTH_SMALL)) + 1
        self._memory[part] = slots = np.zeros(capacity, np.uint32)
        rest = self._parts[part, REST] + _rows_max(capacity) - _rows_max(len(old))
        self._parts[part, :3] = index_kernels.address_of(slots), capacity, rest
        self._slots += capacity - len(old)
        index_kernels.fill_parts(old, keys, self._parts)


def _rows_max(capacity: int) -> int:
    """Rows of a part that is full."""
    return int(capacity * (_LOAD_SMALL if capacity < _SLOTS_SMALL else _LOAD))


def _single(rows: int) -> NDArray[np.int64]:
    """The capacity for a single part of `rows` rows that is to double."""
    return np.array([max(2 * _SLOTS_MIN, int(rows / _LOAD_SINGLE * _GROWTH_SINGLE))])


def _spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Capacities for parts of `rows` rows, spread so that they will not be full at the same time."""
    small = rows.mean() < _SLOTS_SMALL * _LOAD
    load, factor = (_LOAD_SMALL, _GROWTH_SMALL) if small else (_LOAD, _GROWTH)
    wished = (rows.mean() / load + 1) * factor ** ((np.arange(len(rows)) + 1) / len(rows))
    slots: NDArray[np.float64] = np.maximum(np.maximum(wished, (rows + 2) / load), _SLOTS_MIN)
    return slots.astype(np.int64) + 1
