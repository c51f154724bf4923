"""What merges of walks over rows have in common."""

from __future__ import annotations

from numba import njit

__all__ = ["same_row"]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def same_row(a, i, b, j):  # noqa: ANN001, ANN201
    """Whether a[i] is b[j]: a row that still is its walk's base was touched by nobody else, and becomes its end."""
    same = True
    for c in range(a.shape[1]):
        same &= a[i, c] == b[j, c]
    return same
