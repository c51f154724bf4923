"""Files tell of which feature each entry is and what slices a record, as messages do."""

from __future__ import annotations

from typing import Any

import pytest

from actors.ports import SourceError
from cluster.streams.open import describe_source
from learning.keys import name_key, value_key
from tests.cluster.test_file_source import pipeline_of, read, table_file, write


def test_features_and_slices_mean_the_same_in_a_file_and_in_messages(tmp_path):
    """Whoever reads a file instead of a topic gets the same slices, and entries of the same features."""
    names = ("a.csv", "a.jsonl", "a.parquet")
    all_rows: Any = {0: (0, None)}
    wanted: Any = {"want_features": True, "slice_feature": "c"}
    batches = [
        read(pipeline_of(table_file(tmp_path / name, 4)), all_rows, **wanted)[0].batch for name in names
    ]
    features = [name_key(name) for name in "abc"]
    for batch in batches:
        assert batch.features is not None
        assert batch.slices is not None
        assert batch.features.tolist() == [*features, name_key("n"), *3 * features]
        assert batch.slices.texts.tolist() == ["v0", "v1", "v2", "v0"]
        assert batch.slices.keys.tolist() == batch.keys_of(name_key("c")).tolist()
    numbers = read(pipeline_of(tmp_path / "a.csv"), slice_feature="n")[0].batch.slices
    assert numbers is not None
    assert numbers.texts.tolist() == ["0", "", "", ""]
    assert numbers.keys.tolist() == [value_key(name_key("n"), "0"), 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "sections", "sentence"),
    [
        ("land", {}, "has no column 'land', which slices.feature names; did you mean 'island'?"),
        ("y", {}, "column 'y' of .* is a feature that slices.feature names, and was named as the label"),
        (
            "item",
            {"features": {"ignore": ["item"]}},
            "slices.feature names 'item', which features.ignore leaves out",
        ),
    ],
)
def test_a_file_without_the_feature_that_slices_is_refused_before_anything_starts(
    tmp_path, name, sections, sentence
):
    """The feature is called otherwise, or is none."""
    path = write(tmp_path / "a.csv", "island,item,y\n1,a,1\n")
    with pytest.raises(SourceError, match=sentence.replace("?", r"\?")):
        describe_source(pipeline_of(path, **sections), slice_feature=name)
