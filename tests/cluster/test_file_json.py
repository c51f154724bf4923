"""JSON lines read by the block or line by line: the same columns, however ids are written."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from cluster.streams import file_json

TYPES = pa.schema([("x", pa.float64()), ("user", pa.string())])
NAMES = ["x", "user"]


def both(lines, monkeypatch):
    """The block as it is read, the same line by line, and whether the first was read at once."""
    data = b"\n".join(lines) + b"\n"
    expected = file_json._json_block_by_line(data, 0, NAMES, TYPES)
    calls = []

    def by_line(*arguments):
        calls.append(arguments)
        return expected

    monkeypatch.setattr(file_json, "_json_block_by_line", by_line)
    return file_json._json_block(data, 0, NAMES, TYPES), expected, not calls


@pytest.mark.parametrize(
    ("users", "at_once"),
    [
        (["17", "0017"], True),
        ([17, -3, None, 2**53 - 1], True),
        ([True, None, False], True),
        ([None, None], True),
        ([17, "17"], False),
        ([17.0, 18], False),
        ([0.5], False),
        ([2**53 + 1, 17], False),
        ([2**64, 17], False),
        (["2026-07-01", 5], False),
        (["2026-07-01", True], False),
        ([[1], 17], False),
    ],
)
def test_ids_are_the_same_texts_by_the_block_and_line_by_line(users, at_once, monkeypatch):
    """Users come as integers, texts, booleans or doubles; what Arrow would write otherwise is read line by line."""
    lines = [json.dumps({"more": [i], "x": i, "user": user}).encode() for i, user in enumerate(users)]
    found, expected, fast = both(lines, monkeypatch)
    assert fast == at_once
    assert found.columns.select(NAMES).to_pydict() == expected.columns.to_pydict()
    assert found.columns.schema.field("user").type == pa.string()
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert [bad.reason for bad in found.bad] == [bad.reason for bad in expected.bad]


def test_a_column_that_no_line_has_is_left_out(monkeypatch):
    """A block of lines without a user: the column is missing there, and every row of it is refused later."""
    found, _, fast = both([b'{"x":1,"user":5}', b'{"x":2}'], monkeypatch)
    assert fast
    assert found.columns.to_pydict() == {"x": [1.0, 2.0], "user": ["5", None]}
