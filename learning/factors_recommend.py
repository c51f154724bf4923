"""What a shard answers when it is asked for the best items of a user, or for items like one.

recommend(user, n): the user's row and the scale are looked up where they lie; each shard gives its n + s best items,
s being the user's count of ratings (bounded by the caller); `ranking.merge_top` makes one list of theirs; those whose
`seen_keys` have a row in the table `seen` are left out; the first n stay, and `grade` says what ratings they stand for.
An unknown user gets the items that everyone likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning.factors_kernels import BIAS, COUNT, FACTORS, predict_scores
from learning.ranking import similar_rows, top_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.ranking import Ranked

__all__ = ["alike", "grades", "scores_of", "top_items"]

_SIMILAR_COUNT_MIN = 5
"""Fewer ratings leave an item's factors near those of its birth, which are alike by accident."""


def _factors(row: NDArray[np.float32] | None, width: int) -> NDArray[np.float64]:
    """Factors of a row; of none, zeros."""
    return np.zeros(width - FACTORS) if row is None else row[FACTORS:].astype(np.float64)


def top_items(
    user_row: NDArray[np.float32] | None,
    rows: NDArray[np.float32],
    keys: NDArray[np.uint64],
    live: NDArray[np.bool_],
    n: int,
    *,
    popularity: bool,
) -> Ranked:
    """The n best of items' rows (r, width) by b_i + p_u . q_i, and ln count where scores leave fame out."""
    return top_rows(
        rows, keys, live, _factors(user_row, rows.shape[1]), n,
        first=FACTORS, bias=BIAS, count=COUNT, popularity=float(popularity),
    )  # fmt: skip


def scores_of(
    user_row: NDArray[np.float32] | None, item_rows: NDArray[np.float32], *, popularity: bool
) -> NDArray[np.float64]:
    """The same scores, f64 (n,), of all item_rows (n, width)."""
    scores = item_rows[:, BIAS] + item_rows[:, FACTORS:].astype(np.float64) @ _factors(
        user_row, item_rows.shape[1]
    )
    return scores + np.log(np.maximum(item_rows[:, COUNT], 0.5, dtype=np.float64)) if popularity else scores


def alike(
    item_row: NDArray[np.float32],
    rows: NDArray[np.float32],
    keys: NDArray[np.uint64],
    live: NDArray[np.bool_],
    n: int,
) -> Ranked:
    """The n most alike of items' rows (r, width)."""
    return similar_rows(
        rows, keys, live, _factors(item_row, rows.shape[1]), n,
        first=FACTORS, count=COUNT, count_min=_SIMILAR_COUNT_MIN,
    )  # fmt: skip


def grades(
    scores: NDArray[np.float64],
    user_row: NDArray[np.float32] | None,
    scale_row: NDArray[np.float32] | None,
    bounds: tuple[float, float],
) -> NDArray[np.float64]:
    """mu + sd (b_u + score), clipped as predictions are."""
    shifted = scores + (0.0 if user_row is None else float(user_row[BIAS]))
    scale = np.zeros((1, 1), np.float32) if scale_row is None else scale_row[np.newaxis]
    out: NDArray[np.float64] = predict_scores(scale, -1 if scale_row is None else 0, shifted, bounds)
    return out
