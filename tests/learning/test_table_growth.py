"""Births, removals, growth and the split into parts, in any order, are a dictionary's insertions and deletions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.birth import Birth
from learning.index import PARTS
from learning.index_memory import Column
from learning.table import Table

keys_lists = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 60), max_size=60)
steps = st.lists(st.tuples(st.sampled_from(["locate", "remove", "restore"]), keys_lists), max_size=14)


def _u64(keys: list[int]) -> np.ndarray:
    return np.array(keys, np.uint64)


def _born(birth: Birth | None, key: int) -> list[float]:
    row = np.zeros((1, 3), np.float32)
    if birth is not None:
        birth.fill(_u64([key]), row)
    return list(row[0].tolist())


@settings(max_examples=60)
@given(steps, st.integers(1, 40), st.integers(1, 8), st.booleans())
def test_any_interleaving_equals_a_dictionary(
    steps: list[tuple[str, list[int]]], rows_split: int, rows_initial: int, hashed: bool
) -> None:
    """Keys come, change, go, come again and are restored: each has its last row, or that of its birth if it is new."""
    birth = Birth(5, 0.1, 1, 3) if hashed else None
    table = Table(3, rows_initial=rows_initial, birth=birth, rows_split=rows_split)
    model: dict[int, list[float]] = {}
    for number, (what, keys) in enumerate(steps, start=1):
        if what == "locate":
            at = table.locate(_u64(keys))
            for key in keys:
                model.setdefault(key, _born(birth, key))
                model[key] = [float(number), *model[key][1:]]
            table.rows[at, 0] = number
        elif what == "remove":
            gone = [key for key in dict.fromkeys(keys) if key in model]
            table.remove(table.find(_u64(gone)))
            for key in gone:
                del model[key]
        else:
            table.restore(*table.snapshot())
        assert len(table) == len(model)
    assert dict(zip(*(part.tolist() for part in table.snapshot()), strict=True)) == model
    at = table.find(_u64(list(model)))
    assert table.rows[at].tolist() == list(model.values())
    assert table.find(_u64([key for key in range(61) if key not in model])).max(initial=-1) == -1
    assert table.live().sum() == len(model)


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 37]))
def test_many_small_growths_lose_no_key(seed: int, segment: int) -> None:
    """A shard's keys, which share their top bits, fill a table through its split and the growth of its parts."""
    keys = np.random.default_rng(seed).integers(0, 2**54, 4000, dtype=np.uint64) + np.uint64(segment << 54)
    keys = np.unique(keys)
    table = Table(1, rows_initial=16, rows_split=64)
    for part in np.array_split(keys, 7):
        at = table.locate(part)
        table.rows[at, 0] = 1.0
    assert np.array_equal(table.find(keys), np.arange(len(keys)))
    assert 0.2 < table.load_factor < 0.8
    assert table.rows.all()


def test_parts_are_not_full_at_the_same_time() -> None:
    """Keys spread evenly over equal parts: of 256 parts only a few grow while the table grows by a hundredth."""
    keys = np.random.default_rng(3).integers(0, 2**64, 1_000_000, dtype=np.uint64)
    table = Table(1, rows_initial=1)
    table.locate(keys)
    for step in range(10):
        before = table._index._parts[:, 1].copy()
        table.locate(np.random.default_rng(100 + step).integers(0, 2**64, 10_000, dtype=np.uint64))
        assert np.count_nonzero(before != table._index._parts[:, 1]) < PARTS / 8


def test_from_four_million_on_rows_take_24_bytes_each() -> None:
    """Keys, rows of two floats and the index with all its slack, wherever growth stands; and 29 from a million on."""
    rng = np.random.default_rng(4)
    table = Table(2)
    while len(table) < 5_000_000:
        at = table.locate(rng.integers(0, 2**64, 200_000, dtype=np.uint64))
        table.rows[at] = 1.0
        most = 24 if len(table) >= 4_000_000 else 29
        assert len(table) < 1_000_000 or table.memory_bytes <= most * len(table)


def test_removed_rows_are_born_again_as_other_keys() -> None:
    """Freed rows are used before new ones are numbered, and begin as zeros whatever they were."""
    table = Table(2)
    at = table.locate(_u64([1, 2, 3]))
    table.rows[at] = 7.0
    table.remove(np.array([0, 2]))
    assert len(table) == 1
    at = table.locate(_u64([9, 2, 8, 7]))
    assert sorted(at.tolist()) == [0, 1, 2, 3]
    assert table.rows[at].tolist() == [[0, 0], [7, 7], [0, 0], [0, 0]]
    assert table.numbered == 4


def test_a_view_outlives_the_growth_of_its_table() -> None:
    """Rows handed out before a reservation is full are still readable after it."""
    table = Table(2, rows_initial=1)
    at = table.locate(_u64([5]))
    table.rows[at] = 3.0
    view = table.rows
    table.locate(np.arange(10_000, dtype=np.uint64) + np.uint64(10))
    assert view.tolist() == [[3.0, 3.0]]
    assert table.rows[0].tolist() == [3.0, 3.0]


def test_a_reservation_that_is_refused_is_asked_for_smaller() -> None:
    """A system that promises no more memory than it has still gets a table, with smaller reservations."""
    column = Column(0, np.uint8, 1 << 15)
    asked: list[int] = []

    def zeros(shape: tuple[int, ...], dtype: object) -> np.ndarray:
        asked.append(shape[0])
        if shape[0] > 1 << 20:
            raise MemoryError
        return np.empty(shape, np.uint8)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(np, "zeros", zeros)
        column.reach((1 << 15) + 1, 1 << 15)
    assert len(column) == 1 << 20
    assert asked == [1 << n for n in range(28, 19, -1)]
