"""Which arrays a model has: those of its learner's tables and of the encoder, with shapes that must agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from learning.learners import LEARNERS

if TYPE_CHECKING:
    from learning.learner import Learner

__all__ = ["layout_of", "layout_problems", "learner_of"]

Layout = dict[str, tuple[str, tuple[str | int, ...]]]


def learner_of(pipeline: dict[str, Any]) -> Learner:
    """The learner that a recorded pipeline names. Raises ValueError, in a sentence, if there is none such."""
    settings = pipeline.get("learner")
    kind = settings.get("kind") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or kind not in LEARNERS:
        raise ValueError(f"expected a learner of kind {', '.join(LEARNERS)}, but came {kind!r}")
    fields = {name: value for name, value in settings.items() if name != "kind"}
    try:
        learner: Learner = LEARNERS[kind](**fields)
    except TypeError as error:
        raise ValueError(f"the learner {kind} has no such settings as {', '.join(fields)}") from error
    return learner


def layout_of(learner: Learner) -> Layout:
    """Arrays by name: dtype, and shape with names for the sizes that must agree."""
    layout: Layout = {}
    for spec in learner.specs():
        layout[f"{spec.name}.keys"] = ("<u8", (spec.name,))
        layout[f"{spec.name}.rows"] = ("<f4", (spec.name, spec.width))
    return layout | {"encoder.keys": ("<u8", ("features",)), "encoder.stats": ("<f8", ("features", 3))}


def layout_problems(pipeline: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Iterator[str]:
    """A sentence for each way in which `arrays` are not those of the pipeline's learner."""
    try:
        layout = layout_of(learner_of(pipeline))
    except ValueError as error:
        yield str(error)
        return
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
