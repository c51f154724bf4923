"""What every metric made of exact sums promises, whatever it sums."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

Pairs = list[tuple[float, float]]


def totals(kind: type[Any], pairs: Pairs) -> Any:
    """The metrics of (prediction, label) pairs."""
    metrics = kind.zero()
    p, y = np.array(pairs, np.float64).reshape(-1, 2).T
    metrics.update(p, y.astype(np.float32))
    return metrics


def same(first: Any, second: Any) -> bool:
    """To the byte."""
    one, two = first.arrays(), second.arrays()
    return all(one[name].tobytes() == two[name].tobytes() for name in one | two)


def assert_grouping_changes_nothing(kind: type[Any], rows: Pairs, cuts: list[int], random: Random) -> None:
    """Any split of `rows`, any order of its parts, any order of the rows, and differences: the same bytes."""
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [totals(kind, rows[first:last]) for first, last in pairwise(edges)]
    random.shuffle(parts)
    merged = kind.zero()
    for part in parts:
        merged += part
    whole = totals(kind, rows)
    assert same(merged, whole)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert same(totals(kind, shuffled), whole)
    assert same(whole - parts[0] + parts[0], whole)
    assert same(kind.zero() - whole + whole, kind.zero())
