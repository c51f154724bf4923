"""Which arrays each kind of learner has: names, dtypes, and shapes that must agree with each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

__all__ = ["LAYOUTS", "layout_problems"]

LAYOUTS: dict[str, dict[str, tuple[str, tuple[str | int, ...]]]] = {
    "ftrl": {
        "weights.keys": ("<u8", ("rows",)),
        "weights.rows": ("<f4", ("rows", 2)),
        "encoder.keys": ("<u8", ("features",)),
        "encoder.stats": ("<f8", ("features", 3)),
    },
}
"""Arrays of each kind of learner: dtype, and shape with names for the sizes that must agree."""


def layout_problems(pipeline: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Iterator[str]:
    """A sentence for each way in which `arrays` are not those of the pipeline's learner."""
    learner = pipeline.get("learner")
    kind = learner.get("kind") if isinstance(learner, dict) else None
    if kind not in LAYOUTS:
        yield f"expected a learner of kind {', '.join(LAYOUTS)}, but came {kind!r}"
        return
    layout = LAYOUTS[kind]
    if arrays.keys() != layout.keys():
        yield f"expected the arrays {', '.join(layout)}, but came {', '.join(sorted(arrays)) or 'none'}"
        return
    sizes: dict[str | int, int] = {}
    for name, (dtype, shape) in layout.items():
        array = arrays[name]
        wanted = tuple(size if isinstance(size, int) else sizes.get(size, -1) for size in shape)
        fits = len(array.shape) == len(shape) and all(
            w in (-1, s) for w, s in zip(wanted, array.shape, strict=True)
        )
        if array.dtype.str != dtype or not fits:
            yield f"expected {name} as {dtype} {shape}, but came {array.dtype.str} {array.shape}"
        sizes.update(zip(shape, array.shape, strict=False))
