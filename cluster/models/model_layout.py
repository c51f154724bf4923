"""Which arrays a model has, with shapes that must agree: those of its learner's tables and of the encoder.

What they hold:

    NAME.keys NAME.rows            a table's live rows
    NAME.names NAME.name_ends      of a named table the text of each key: their bytes, and where each one ends
    encoder.keys encoder.stats     what the encoder knows about numbers
    mixer.*                        of an ensemble, how its experts are mixed (learning/mixer.py)
    experts.NAME.*                 each of its experts outside the tables (learning/river_expert.py)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from learning.ensemble import Ensemble
from learning.learners import learner_from
from learning.table_state import TableState
from learning.texts import TextColumn

if TYPE_CHECKING:
    from learning.learner import Learner

__all__ = ["arrays_of", "layout_of", "layout_problems", "learner_of", "tables_of"]

Layout = dict[str, tuple[str, tuple[str | int, ...]]]


def learner_of(pipeline: dict[str, Any]) -> Learner:
    """The learner that a recorded pipeline names. Raises ValueError, in a sentence, if there is none such."""
    settings = pipeline.get("learner")
    return learner_from(settings if isinstance(settings, dict) else {})


def layout_of(learner: Learner) -> Layout:
    """Arrays by name: dtype, and shape with names for the sizes that must agree."""
    layout: Layout = {}
    for spec in learner.specs():
        layout[f"{spec.name}.keys"] = ("<u8", (spec.name,))
        layout[f"{spec.name}.rows"] = ("<f4", (spec.name, spec.width))
        if spec.name in learner.named:
            layout[f"{spec.name}.names"] = ("|u1", (f"{spec.name} bytes",))
            layout[f"{spec.name}.name_ends"] = ("<i8", (spec.name,))
    if isinstance(learner, Ensemble):
        layout |= {f"mixer.{name}": (a.dtype.str, a.shape) for name, a in learner.mixer().arrays().items()}
        for expert in learner.outside:
            layout[f"experts.{expert}.records"] = ("<i8", (2,))
            for name in ("graph", "data"):
                layout[f"experts.{expert}.{name}"] = ("|u1", (f"{expert} {name}",))
    return layout | {"encoder.keys": ("<u8", ("features",)), "encoder.stats": ("<f8", ("features", 3))}


def arrays_of(name: str, state: TableState) -> dict[str, NDArray[Any]]:
    """The arrays of one table."""
    arrays: dict[str, NDArray[Any]] = {f"{name}.keys": state.keys, f"{name}.rows": state.rows}
    if state.names is not None:
        arrays |= {f"{name}.names": state.names.data, f"{name}.name_ends": state.names.offsets[1:]}
    return arrays


def tables_of(learner: Learner, arrays: dict[str, NDArray[Any]]) -> dict[str, TableState]:
    """The tables that a model's arrays hold, as stores and shards restore them."""
    return {spec.name: _table_of(spec.name, arrays) for spec in learner.specs()}


def _table_of(name: str, arrays: dict[str, NDArray[Any]]) -> TableState:
    ends = arrays.get(f"{name}.name_ends")
    names = None if ends is None else TextColumn(arrays[f"{name}.names"], np.concatenate(([0], ends)))
    return TableState(arrays[f"{name}.keys"], arrays[f"{name}.rows"], names)


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
    for table in learner_of(pipeline).named:
        ends, last = arrays[f"{table}.name_ends"], len(arrays[f"{table}.names"])
        if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != last:
            yield f"expected {table}.name_ends to rise from 0 to the {last} bytes of {table}.names"
