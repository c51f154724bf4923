"""KeyIndex: where each key's row is, in parts that grow one at a time.

A small table has one part, which doubles. Beyond `rows_split` rows there are PARTS, chosen by the key's hash: one that
is full is rebuilt a quarter larger on its own, so a birth waits for a rebuild of 1/1024 of the index at most. As keys
spread evenly over parts, equal parts would all be full at the same time; so they begin with capacities spread over a
factor of growth, evenly in the logarithm, and multiplying keeps them spread.

Bytes a row at a load between 0.6 and 0.75: 6 on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning import index_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PARTS", "ROWS_SPLIT", "KeyIndex"]

PARTS = 1024
ROWS_SPLIT = 1 << 16
"""A single part that is full with so many rows is replaced by PARTS parts, which takes about two milliseconds."""

_LOAD_SINGLE, _GROWTH_SINGLE = 0.6, 2.0
_LOAD, _GROWTH = 0.75, 1.25
_SLOTS_SMALL, _GROWTH_SMALL = 1024, 1.5
"""A part below so many slots grows faster: its rebuild costs less than the call."""
_SLOTS_MIN = 8


class KeyIndex:
    """Slots of the keys of one table. Not thread-safe; the arrays it passes to kernels live as long as it does."""

    def __init__(self, rows_split: int = ROWS_SPLIT) -> None:
        self._rows_split = rows_split
        self._resize(np.array([2 * _SLOTS_MIN], np.uint64), np.zeros(1, np.int64))

    @property
    def slots(self) -> int:
        """Slots of all parts."""
        return self._slots

    @property
    def memory_bytes(self) -> int:
        """Bytes of all parts and of what finds them."""
        return 4 * self._slots + 3 * 8 * len(self._parts)

    def locate(
        self, wanted: NDArray[np.uint64], start: int, keys: NDArray[np.uint64], state: NDArray[np.int64],
        reused: NDArray[np.int64], out: NDArray[np.int64],
    ) -> int:  # fmt: skip
        """Row numbers of wanted[start:] into out, births included; stops only where `keys` has no room.

        Returns:
            The position reached.

        """
        while True:
            start, full = index_kernels.locate(
                wanted, start, self._addresses, self._capacities, self._rest, keys, state, reused, out
            )
            if full < 0:
                return int(start)
            self._grow(full, keys, int(state[0] - state[2]))

    def find(self, wanted: NDArray[np.uint64], keys: NDArray[np.uint64], out: NDArray[np.int64]) -> int:
        """Row numbers of wanted into out, -1 where there is none; returns how many there are not."""
        return int(index_kernels.find(wanted, self._addresses, self._capacities, keys, out))

    def remove(self, rows: NDArray[np.int64], keys: NDArray[np.uint64], state: NDArray[np.int64]) -> None:
        """Forget live rows, which become free."""
        index_kernels.remove(rows, self._addresses, self._capacities, self._rest, keys, state)

    def fill(self, words: NDArray[np.uint32], keys: NDArray[np.uint64], rows: int) -> None:
        """Begin anew with the rows of `words` (row + 1; 0: none), `rows` in all, which have distinct keys."""
        if rows < self._rows_split:
            capacity = max(2 * _SLOTS_MIN, int(rows / _LOAD_SINGLE * _GROWTH_SINGLE))
            self._resize(np.array([capacity], np.uint64), np.array([rows]))
        else:
            counts = np.zeros(PARTS, np.int64)
            index_kernels.count_parts(words, keys, counts)
            self._resize(_spread(counts), counts)
        index_kernels.fill_parts(words, keys, self._addresses, self._capacities)

    def _resize(self, capacities: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """Empty parts of `capacities` slots, which are about to take `rows` rows."""
        self._capacities = capacities
        self._parts = [np.zeros(capacity, np.uint32) for capacity in capacities.tolist()]
        self._addresses = np.array([part.ctypes.data for part in self._parts], np.uint64)
        load = _LOAD_SINGLE if len(capacities) == 1 else _LOAD
        self._rest = (capacities * load).astype(np.int64) - rows
        self._slots = int(capacities.sum())

    def _grow(self, number: int, keys: NDArray[np.uint64], rows: int) -> None:
        """Rebuild a full part larger, or make many out of the one; `rows` are live."""
        old = self._parts[number]
        if len(self._parts) == 1:
            self.fill(old, keys, rows)
            return
        factor = _GROWTH if len(old) >= _SLOTS_SMALL else _GROWTH_SMALL
        capacity = int(len(old) * factor) + 1
        part = np.zeros(capacity, np.uint32)
        self._rest[number] += int(capacity * _LOAD) - int(len(old) * _LOAD)
        self._parts[number], self._addresses[number], self._capacities[number] = (
            part,
            part.ctypes.data,
            capacity,
        )
        self._slots += capacity - len(old)
        index_kernels.fill_parts(old, keys, self._addresses, self._capacities)


def _spread(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Capacities for parts of `rows` rows, spread so that they will not be full at the same time."""
    mean = rows.mean() / _LOAD
    factor = _GROWTH if mean >= _SLOTS_SMALL else _GROWTH_SMALL
    wished = (mean + 1) * factor ** ((np.arange(len(rows)) + 1) / len(rows))
    slots: NDArray[np.float64] = np.maximum(np.maximum(wished, (rows + 2) / _LOAD), _SLOTS_MIN)
    return slots.astype(np.uint64) + np.uint64(1)
