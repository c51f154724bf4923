"""Which pairs of user and item have met: a row of width 1, the last rating, under a key derived from both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from learning.keys import derived_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["seen_keys", "write_seen"]


@njit(cache=True, nogil=True, error_model="numpy")
def _pair_keys(users, items, out):  # noqa: ANN001, ANN202
    for i in range(len(out)):
        out[i] = derived_key(users[i], np.int64(items[i]))


def seen_keys(users: NDArray[np.uint64], items: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys u64 (n,) of the pairs (users[i], items[i])."""
    out = np.empty(len(items), np.uint64)
    _pair_keys(users, items, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def write_seen(rows, index, labels):  # noqa: ANN001, ANN201
    """Each pair's row becomes its last rating in the batch."""
    for i in range(len(labels)):
        rows[index[i], 0] = labels[i]
