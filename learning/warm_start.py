"""Rows that a new run may begin with: of FTRL from given weights, of the torch learner from given parameters.

A weight w0 that is trusted as if it had seen the squares n0 (its confidence) becomes, by McMahan et al.'s closed form,

    z0 = -w0 ((beta + sqrt(n0)) / alpha + l2) - sgn(w0) l1;    n = n0

which reads as w0 again. With z = n = 0 instead, one gradient of 0.01 would turn w = 1 into 0.08. The bias has no l1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning.deep_layout import DENSE_WIDTH, layout_of
from learning.keys import BIAS_KEY
from learning.table_state import TableState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from learning.deep import Deep
    from learning.ftrl import Ftrl

__all__ = ["KEYS", "ROWS", "deep_tables", "ftrl_tables"]

KEYS, ROWS = "embeddings.keys", "embeddings.rows"
"""Names beside those of parameters: keys u64 (n,), and their weights and vectors f32 (n, 1 + embedding)."""


def ftrl_tables(
    learner: Ftrl, keys: NDArray[np.uint64], weights: NDArray[np.float64], confidence: float
) -> dict[str, TableState]:
    """The table of FTRL in which `keys` u64 (n,), distinct, have `weights` f64 (n,)."""
    l1 = np.where(keys == BIAS_KEY, 0.0, learner.l1)
    z = -weights * ((learner.beta + np.sqrt(confidence)) / learner.alpha + learner.l2) - np.sign(weights) * l1
    rows = np.stack((z, np.full(len(z), confidence)), 1).astype(np.float32)
    if not np.isfinite(rows).all() or len(np.unique(keys)) < len(keys):
        raise ValueError(
            "expected distinct features and finite weights, but one comes twice or is not finite"
        )
    return {"weights": TableState(keys, rows)}


def deep_tables(learner: Deep, given: Mapping[str, NDArray[np.generic]]) -> dict[str, TableState]:
    """The tables of the torch learner with the parameters that are given by name, and rows of keys (`KEYS`, `ROWS`).

    Parameters that are not given begin as in a new run; moments begin as zeros. Raises ValueError, in a sentence.
    """
    layout, embeddings = layout_of(learner), _embeddings(learner, given)
    shapes = {
        name: shape for group in layout.groups for name, shape in zip(group.names, group.shapes, strict=True)
    }
    parameters = {name: array for name, array in given.items() if name not in (KEYS, ROWS)}
    if odd := sorted(set(parameters) - set(shapes)):
        raise ValueError(
            f"the base has {', '.join(odd)}, but the parameters of {learner.model} are {', '.join(shapes)}; give the "
            "base the same names"
        )
    for name, array in parameters.items():
        if tuple(array.shape) != tuple(shapes[name]) or not np.isfinite(array).all():
            raise ValueError(
                f"expected {name} as finite numbers of shape {tuple(shapes[name])}, but the base has {array.shape}"
            )
    missing = sorted(set(layout.groups[0].names) - set(parameters))
    if learner.freeze_updates and missing:
        raise ValueError(
            f"learner.freeze_updates would hold {', '.join(missing)} where torch initialised them: the base lacks them"
        )
    values = {name: np.asarray(array, np.float32) for name, array in parameters.items()}
    return {
        "embeddings": embeddings,
        "dense": TableState(layout.keys, layout.pack(values).reshape(-1, DENSE_WIDTH)),
    }


def _embeddings(learner: Deep, given: Mapping[str, NDArray[np.generic]]) -> TableState:
    values = 1 + learner.embedding
    keys = np.asarray(given.get(KEYS, np.empty(0, np.uint64)))
    found = np.asarray(given.get(ROWS, np.empty((0, values), np.float32)), np.float32)
    if keys.dtype.kind not in "iu" or found.shape != (len(keys), values) or len(np.unique(keys)) < len(keys):
        raise ValueError(
            f"expected {KEYS} as distinct 64-bit keys (n,) and {ROWS} as (n, {values}), but the base has "
            f"{keys.dtype} {keys.shape} and {found.shape}"
        )
    rows = np.zeros((len(keys), learner.specs()[0].width), np.float32)
    rows[:, :values] = found
    return TableState(keys.astype(np.uint64), rows)
