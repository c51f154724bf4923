"""The table behaves like a dictionary from keys to rows, at every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.table import Table

key_lists = st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 50), max_size=60), max_size=12)


@given(key_lists, st.integers(1, 16))
def test_any_sequence_of_writes_reads_back_like_a_dictionary(
    batches: list[list[int]], rows_initial: int
) -> None:
    """Keys that repeat, collide in the index, or make the table grow keep rows of their own."""
    table, model = Table(2, rows_initial=rows_initial), dict[int, float]()
    for step, batch in enumerate(batches, start=1):
        at = table.locate(np.array(batch, np.uint64))
        table.rows[at] += 1.0 if len(set(batch)) == len(batch) else 0.0
        for key in batch:
            model.setdefault(key, 0.0)
        if len(set(batch)) == len(batch):
            for key in batch:
                model[key] += 1.0
        assert len(table) == len(model), f"after step {step}"
    assert table.keys.tolist() == list(model)
    assert table.rows[:, 0].tolist() == list(model.values())


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=300))
def test_a_restored_table_equals_the_one_it_was_copied_from(keys: list[int]) -> None:
    """Same keys, same rows, same row numbers; and it goes on growing."""
    table = Table(2, rows_initial=1)
    at = table.locate(np.array(keys, np.uint64))
    table.rows[at] = np.arange(2 * len(keys), dtype=np.float32).reshape(-1, 2)
    other = Table(2, rows_initial=1)
    other.restore(table.keys.copy(), table.rows.copy())
    assert np.array_equal(other.keys, table.keys)
    assert np.array_equal(other.rows, table.rows)
    assert np.array_equal(other.locate(np.array(keys, np.uint64)), at)


def test_a_million_keys_grow_the_table_without_losing_one() -> None:
    """Growth from 1 row to 2^20 keeps each key's row number and content."""
    keys = np.random.default_rng(1).permutation(np.arange(1_000_000, dtype=np.uint64))
    table = Table(1, rows_initial=1)
    for part in np.split(keys, 10):
        at = table.locate(part)  # before `rows`, whose view ends where the table grows
        table.rows[at] = part[:, None].astype(np.float32)
    assert np.array_equal(table.find(keys), np.arange(1_000_000))
    assert np.array_equal(table.rows[:, 0], keys.astype(np.float32))


def test_finding_an_unknown_key_changes_nothing() -> None:
    """Scoring must not give rows to keys it has never seen."""
    table = Table(2)
    table.locate(np.array([1, 2], np.uint64))
    assert table.find(np.array([2, 3, 1], np.uint64)).tolist() == [1, -1, 0]
    assert len(table) == 2


@pytest.mark.parametrize(
    ("keys", "rows", "sentence"), [([1, 1], (2, 2), "comes twice"), ([1, 2], (3, 2), "expected 2 rows")]
)
def test_a_damaged_state_is_refused(keys: list[int], rows: tuple[int, int], sentence: str) -> None:
    """A snapshot with a doubled key or a missing row is no table."""
    with pytest.raises(ValueError, match=sentence):
        Table(2).restore(np.array(keys, np.uint64), np.zeros(rows, np.float32))
