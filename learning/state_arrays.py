"""Arrays of a snapshot by name: parts in a whole, and the way back, where nothing is believed unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

    Forms = dict[str, tuple[DTypeLike, tuple[int | str, ...]]]

__all__ = ["joined", "restored", "section"]


def restored(arrays: Mapping[str, NDArray[Any]], expected: Forms) -> dict[str, NDArray[Any]]:
    """Writable copies of `arrays`, by name.

    `expected` has each array's type and shape; a length that is a name may be any, the same wherever the name stands.

    Raises:
        ValueError: names, types or shapes are others.

    """
    if set(arrays) != set(expected):
        raise ValueError(f"expected arrays {sorted(expected)}, got {sorted(arrays)}")
    lengths: dict[str, int] = {}
    for name, (dtype, shape) in expected.items():
        got = arrays[name]
        fits = got.dtype == np.dtype(dtype) and got.ndim == len(shape)
        if fits:
            wanted = [
                side if isinstance(side, int) else lengths.setdefault(side, length)
                for side, length in zip(shape, got.shape, strict=True)
            ]
            fits = list(got.shape) == wanted
        if not fits:
            known = f" with {lengths}" if lengths else ""
            raise ValueError(
                f"expected {name} as {np.dtype(dtype)} {shape}{known}, got {got.dtype} {got.shape}"
            )
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def section(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    """The arrays of one part, by their names in it."""
    return {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}.")}


def joined(name: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A part's arrays, by their names in the whole."""
    return {f"{name}.{key}": array for key, array in arrays.items()}
