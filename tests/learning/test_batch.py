"""Batches join and texts pack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learning.batch import ROLE_FIRST, Batch, BatchId
from learning.encoding import NumericEncoder
from learning.slice_values import SliceValues
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


def with_features(batch: Batch) -> Batch:
    """The batch, saying that the features of each record are 0, 1, 2 and so on, and its slices the third of them."""
    features = np.tile(np.arange(COLUMNS, dtype=np.uint64), len(batch))
    keys = batch.keys[2::COLUMNS]
    return replace(
        batch, features=features, slices=SliceValues(keys, TextColumn.from_list([str(key) for key in keys]))
    )


def test_parts_join_with_their_features_and_slices() -> None:
    """What the entries are of, and what the records are sliced by, goes with them; unless a part does not know."""
    whole = with_features(stream(30))
    parts = cut(whole, 7)
    joined = Batch.concat(whole.batch_id, parts)
    assert joined.features is not None
    assert joined.slices is not None
    assert whole.features is not None
    assert whole.slices is not None
    assert np.array_equal(joined.features, whole.features)
    assert np.array_equal(joined.slices.keys, whole.slices.keys)
    assert joined.slices.texts.tolist() == whole.slices.texts.tolist()
    mute = Batch.concat(whole.batch_id, [parts[0], replace(parts[1], features=None, slices=None)])
    assert mute.features is None
    assert mute.slices is None


def test_each_record_tells_its_key_of_one_feature() -> None:
    """Some records lack the feature, one has no entry at all, and of a number's entries the first counts."""
    batch = with_features(stream(4))
    kept = np.ones(batch.entries, np.bool_)
    kept[2], kept[COLUMNS : 2 * COLUMNS] = False, False
    assert batch.features is not None
    some = replace(
        batch.with_entries(
            batch.keys[kept],
            batch.values[kept],
            batch.kinds[kept],
            np.cumsum([0, COLUMNS - 1, 0, COLUMNS, COLUMNS]),
            batch.features[kept],
        )
    )
    expected = batch.keys[2::COLUMNS].copy()
    expected[:2] = 99
    assert np.array_equal(some.keys_of(np.uint64(2), missing=99), expected)
    encoded = NumericEncoder(exact=True).encode(batch)
    assert np.array_equal(encoded.keys_of(np.uint64(0)), batch.keys[::COLUMNS])
    with pytest.raises(ValueError, match="want_features"):
        stream(4).keys_of(np.uint64(2))


def test_texts_survive_packing() -> None:
    """Empty and non-ASCII texts keep their places."""
    assert TextColumn.from_list(["", "a", "Zürich", ""]).tolist() == ["", "a", "Zürich", ""]
