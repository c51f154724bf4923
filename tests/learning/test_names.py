"""Names of keys: kept by row, told again as they came, and gone with the row's key."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learning.names import Names
from learning.table_state import TableState
from learning.texts import TextColumn

EMPTY = TextColumn.from_list([])


def keys(*numbers: int) -> np.ndarray:
    """Keys of these numbers."""
    return np.array(numbers, np.uint64)


def rows(*numbers: int) -> np.ndarray:
    """Row numbers."""
    return np.array(numbers, np.int64)


def test_a_name_comes_back_as_it_was_sent() -> None:
    """Items are named by letters of all alphabets, in any order of rows; others have none."""
    names = Names()
    names.put(rows(7, 200, 3), keys(70, 2000, 30), TextColumn.from_list(["é", "東京", "a b"]))
    assert names.of(rows(3, 7, 200, 5, -1, 9999), keys(30, 70, 2000, 50, 1, 2)).tolist() == [
        "a b", "é", "東京", "", "", "",
    ]  # fmt: skip
    assert names.missing(rows(3, 5, -1, 7, 9999), keys(30, 50, 1, 70, 2)).tolist() == [1, 4]


def test_a_name_that_comes_again_changes_nothing() -> None:
    """Two workers name the same item, or one names it twice in a message: the first name stays, and no byte more."""
    names = Names()
    names.put(rows(1, 1, 2, -1), keys(10, 10, 20, 5), TextColumn.from_list(["x", "y", "z", "no row"]))
    before = names.memory_bytes
    for _ in range(10_000):
        names.put(rows(2, 1), keys(20, 10), TextColumn.from_list(["other", "names"]))
    assert names.of(rows(1, 2), keys(10, 20)).tolist() == ["x", "z"]
    assert names.memory_bytes == before


def test_a_row_that_is_born_again_as_another_key_has_no_name() -> None:
    """The table dropped an item and gave its row to the next one, which must not be called like the first."""
    names = Names()
    names.put(rows(4), keys(40), TextColumn.from_list(["old"]))
    assert names.of(rows(4), keys(41)).tolist() == [""]
    assert names.missing(rows(4), keys(41)).tolist() == [0]
    names.put(rows(4), keys(41), TextColumn.from_list(["new"]))
    assert names.of(rows(4, 4), keys(41, 40)).tolist() == ["new", ""]


def test_bytes_of_names_that_are_gone_are_given_back() -> None:
    """A table of 100 rows sees 400,000 items pass: memory stays that of some thousand names."""
    names, at = Names(), np.arange(100)
    for turn in range(4000):
        texts = TextColumn.from_list([f"item number {turn} of row {row}" for row in range(100)])
        names.put(at, at.astype(np.uint64) + np.uint64(1000 * turn), texts)
    assert names.memory_bytes < 3 << 20, "of 11 MB of names that came"
    assert names.of(at, at.astype(np.uint64) + np.uint64(1000 * turn)).tolist() == texts.tolist()


@given(
    st.lists(
        st.tuples(st.integers(-1, 9), st.integers(0, 3), st.sampled_from(["", "a", "bb", "ccc" * 20_000])),
        max_size=30,
    ),
    st.integers(1, 4),
)
def test_names_are_what_a_dictionary_would_hold(calls: list[tuple[int, int, str]], size: int) -> None:
    """Any order of names for few rows and keys, in messages of any size: the first name of a row's newest key."""
    names = Names()
    model: dict[int, tuple[int, str]] = {}
    for start in range(0, len(calls), size):
        part = calls[start : start + size]
        first = {row: (key, text) for row, key, text in reversed(part)}
        names.put(
            rows(*(row for row, _, _ in part)),
            keys(*(key for _, key, _ in part)),
            TextColumn.from_list([text for _, _, text in part]),
        )
        for row, (key, text) in first.items():
            known = model.get(row)
            if row >= 0 and not (known and known[0] == key and known[1]):
                model[row] = (key, text)
    for row, (key, text) in model.items():
        assert names.of(rows(row), keys(key)).tolist() == [text]


def test_a_state_split_over_shards_and_joined_is_the_same_state() -> None:
    """A snapshot of one shard goes on with three, whose snapshot is one again: every key keeps its row and name."""
    numbers = np.random.default_rng(5).integers(0, 2**64, 500, np.uint64)
    values = np.arange(1000, dtype=np.float32).reshape(-1, 2)
    named = TableState(numbers, values, TextColumn.from_list([f"n{key}" for key in numbers.tolist()]))
    parts = named.split(3)
    assert min(len(part.keys) for part in parts) > 100
    joined = TableState.join(parts)
    assert joined.names is not None
    assert sorted(zip(joined.keys.tolist(), joined.rows[:, 0].tolist(), joined.names.tolist(), strict=True)) == [
        (key, row, f"n{key}") for key, row in sorted(zip(numbers.tolist(), values[:, 0].tolist(), strict=True))
    ]  # fmt: skip
    plain = TableState.join(TableState(numbers, values).split(3))
    assert plain.names is None
    assert len(TableState(numbers[:0], values[:0], EMPTY).split(2)) == 2
