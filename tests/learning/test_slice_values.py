"""A record's value of the feature by which is sliced: key and text agree, in every kind of value."""

from __future__ import annotations

import numpy as np

from learning.keys import name_key, value_key
from learning.metrics import Prequential
from learning.slice_values import MISSING_KEY, MISSING_TEXT, SliceValues
from learning.slices import VALUE, Slices
from learning.texts import TextColumn

COUNTRY = name_key("country")


def values(*given):
    """Slice values of these texts, numbers and None."""
    texts = [value if isinstance(value, str) else "" for value in given]
    numbers = [value if isinstance(value, float) else np.nan for value in given]
    there = np.array([isinstance(value, str) for value in given], np.bool_)
    return SliceValues.of(COUNTRY, TextColumn.from_list(texts), there, np.array(numbers, np.float32))


def test_keys_are_those_of_the_texts():
    """A category has the key of its entry, a number that of its shortest text, whatever the order they come in."""
    found = values("at", 3.0, None, "", 0.1, "Zürich", -0.0, 3.0, 1e30)
    assert found.texts.tolist() == ["at", "3", "", "", "0.1", "Zürich", "0", "3", "1e+30"]
    expected = [value_key(COUNTRY, text) for text in found.texts.tolist()]
    expected[2] = np.uint64(MISSING_KEY)
    assert found.keys.tolist() == expected
    assert values("3").keys[0] == found.keys[1]


def test_parts_join_and_records_are_taken():
    """Batches are joined and cut."""
    whole = values("at", 3.0, None, "de", None)
    parts = [values("at", 3.0), values(), values(None, "de", None)]
    assert SliceValues.concat(parts).keys.tolist() == whole.keys.tolist()
    assert SliceValues.concat(parts).texts.tolist() == whole.texts.tolist()
    taken = whole.take(np.array([3, 0]))
    assert taken.texts.tolist() == ["de", "at"]
    assert taken.keys.tolist() == whole.keys[[3, 0]].tolist()
    assert len(SliceValues.concat([])) == 0


def test_people_are_told_the_texts_of_the_slices_that_are_kept():
    """Two slices are kept of four values; their names come from the batch in which they were first seen."""
    slices = Slices(Prequential, slices_max=2)
    texts: dict[int, str] = {}
    for batch in (values("at", None, "at"), values("de", None, 3.0)):
        predictions, labels = np.full(len(batch), 0.5), np.ones(len(batch), np.float32)
        slices.update(0, predictions, labels, batch.keys)
        texts |= batch.texts_of(set(slices.values) - set(texts))
    assert texts == {int(value_key(COUNTRY, "at")): "at", MISSING_KEY: MISSING_TEXT}
    assert slices.total(VALUE, MISSING_KEY).records == 2
