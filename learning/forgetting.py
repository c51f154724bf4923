"""Forgetting: an FTRL coordinate keeps a share of its squares, and every weight stays what it is.

    w = -(z - sgn(z) l1) / ((beta + sqrt(n)) / alpha + l2);   n' = keep n;   z' = z + w (sqrt(n) - sqrt(n')) / alpha

(McMahan et al., KDD 2013, Algorithm 1, solved for the z that gives the same w.) Columns that share n forget together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["forget_columns"]


def forget_columns(
    z: NDArray[np.float32],
    n: NDArray[np.float32],
    alphas: NDArray[np.float64] | float,
    penalties: tuple[Any, Any, Any],
    bias: int,
    keep: float,
) -> None:
    """Change z (k, columns) and the n (k, 1) that they share, in place.

    `penalties`: beta, l1, l2; the row `bias` (-1: none of them) takes no l1.
    """
    beta, l1, l2 = penalties
    floor = np.full((len(z), 1), float(l1))
    if bias >= 0:
        floor[bias] = 0.0
    root = np.sqrt(n.astype(np.float64))
    beyond = np.sign(z) * np.maximum(np.abs(z.astype(np.float64)) - floor, 0.0)
    weights = -beyond / np.maximum((beta + root) / alphas + l2, 1e-30)
    z += (weights * root * (1.0 - np.sqrt(keep)) / alphas).astype(np.float32)
    n *= np.float32(keep)
