"""Batches join and texts pack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from learning.batch import ROLE_FIRST, Batch, BatchId
from learning.texts import TextColumn
from tests.streams import COLUMNS, cut, stream


def test_parts_of_a_batch_join_to_the_whole() -> None:
    """concat undoes cut, ids and the kinds of roles included."""
    kinds = np.arange(30 * COLUMNS, dtype=np.uint8) % (ROLE_FIRST + 2)
    whole = replace(stream(30), kinds=kinds, ids=TextColumn.from_list([f"id-{i}" for i in range(30)]))
    parts = [
        replace(part, ids=TextColumn.from_list([f"id-{i}" for i in part.positions]))
        for part in cut(replace(whole, ids=None), 7)
    ]
    joined = Batch.concat(whole.batch_id, parts)
    for name in ("keys", "values", "kinds", "offsets", "labels", "weights", "positions"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
    assert joined.kinds.dtype == np.uint8
    assert joined.ids is not None
    assert joined.ids.tolist() == [f"id-{i}" for i in range(30)]


def test_a_stretch_in_which_every_record_was_bad_is_an_empty_batch() -> None:
    """Its offsets still move the stream on."""
    batch = Batch.concat(BatchId(2, 10, 20), [])
    assert len(batch) == 0
    assert batch.entries == 0
    assert str(batch.batch_id) == "[2]@10..20"


def test_texts_survive_packing() -> None:
    """Empty and non-ASCII texts keep their places."""
    assert TextColumn.from_list(["", "a", "Zürich", ""]).tolist() == ["", "a", "Zürich", ""]
