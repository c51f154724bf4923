"""How a row begins: zeros, or small numbers that depend on nothing but seed, table and key.

A new row of factors must not be zero (its gradient would be zero for ever), and it must be the same in every process,
after every restart and on any number of shards. So column c of key k is a hash of (seed, k, c), made uniform in
[-scale, scale). The table's name is part of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numba import njit

from learning.keys import derived_key, value_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Birth", "RowBirth"]

_UNIT = 2.0**-52


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(keys, rows, seed, scale, first, last):  # noqa: ANN001, ANN202
    for i in range(len(keys)):
        for c in range(first, last):
            bits = derived_key(keys[i] ^ seed, np.int64(c)) >> np.uint64(11)  # 53 bits: exact in a double
            rows[i, c] = scale * (np.float64(bits) * _UNIT - 1.0)


class RowBirth(Protocol):
    """How rows of a table begin, as far as they do not begin as zeros."""

    def fill(self, keys: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Write the first values of rows (n, width), which are zeros, of `keys` u64 (n,), in place."""


@dataclass(frozen=True, slots=True)
class Birth:
    """Columns `first` to `last` (exclusive) of a new row are hashed, uniform in [-scale, scale); the others are 0."""

    seed: int
    scale: float
    first: int
    last: int

    @classmethod
    def of(cls, seed: int, table: str, scale: float, first: int, last: int) -> Birth:
        """The rule of one table: its name is part of the seed."""
        return cls(int(value_key(np.uint64(seed), table)), scale, first, last)

    def fill(self, keys: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Write the hashed columns of rows (n, width) of `keys` u64 (n,), in place."""
        _fill(keys, rows, np.uint64(self.seed), self.scale, self.first, self.last)
