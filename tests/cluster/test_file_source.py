"""Files as streams: type inference, row numbers, dead letters, shares of workers, and sentences for errors."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.ports import Decoded, SourceError
from cluster.config import FeaturesConfig, Pipeline, build_pipeline
from cluster.decode.decoder import Decoder
from cluster.decode.messages import Messages
from cluster.streams.file_schema import infer_features, infer_schema
from cluster.streams.file_source import FileSource
from cluster.streams.open import describe_source, open_source
from learning.batch import NUMBER, ROLE_FIRST
from learning.keys import name_key, value_key


def pipeline_of(path: Path, *, workers: int = 1, batch_records: int = 4, **sections: Any) -> Pipeline:
    source = {"kind": "file", "path": str(path), **sections.pop("source", {})}
    values = {
        "name": "test",
        "source": source,
        "batch_records": batch_records,
        "cluster": {"workers": workers},
    }
    return build_pipeline({**values, **sections}, [], origin="test")


def read(
    pipeline: Pipeline, partitions: dict[int, tuple[int, int | None]] | None = None, **learner: Any
) -> list[Decoded]:
    source = open_source(pipeline, partitions or describe_source(pipeline, **learner), **learner)
    deadline_s = time.monotonic() + 30
    decoded = []
    while not source.exhausted and time.monotonic() < deadline_s:
        batch = source.poll(0.2)
        decoded += [] if batch is None else [batch]
    assert source.exhausted
    source.close()
    return decoded


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def csv_of(path: Path, rows: int) -> Path:
    lines = [f"{i},v{i % 5},{i % 2}" for i in range(rows)]
    return write(path, "\n".join(["a,c,y", *lines, ""]))


def ids_of(decoded: list[Decoded]) -> list[tuple[int, ...]]:
    return [tuple(each.batch.batch_id) for each in decoded]


@pytest.mark.parametrize(
    ("values", "numeric"),
    [
        (["1", "2.5", "-3e4", ".5", "+7", "0"], True),
        (["1", "", "NA", "nan", "null"], True),
        (["true", "False", "1"], True),
        (["1", "2", "x"], False),
        (["12345", "1e345", "00a3b"], False),
        (["12345", "01234"], False),
        (["1 ", "2"], False),
        (["inf", "1"], False),
        (["", "NA"], False),
    ],
)
def test_what_counts_as_a_numeric_column(tmp_path, values, numeric):
    """One column of a CSV file: numbers and booleans are numeric; ids, zip codes and columns without values are not."""
    path = write(tmp_path / "a.csv", "\n".join(["x,y", *(f"{value},1" for value in values), ""]))
    features = infer_features(path, "y")
    assert features.as_numeric == (("x",) if numeric else ())
    assert features.as_categorical == (() if numeric else ("x",))


def test_the_pipeline_outranks_the_inferred_kinds(tmp_path):
    """A numeric column is an id and an id column is a number: `as_categorical` and `as_numeric` say so."""
    path = write(tmp_path / "a.csv", "i,n,y\n1,x,1\n2,5,0\n")
    features = FeaturesConfig(as_numeric=("n",), as_categorical=("i",))
    assert infer_schema(path, label="y", features=features).numeric == frozenset({"n"})


def test_rows_become_records_in_file_order(tmp_path):
    """Ten rows in batches of four: offsets are row numbers, keys those that the same JSON record would have."""
    decoded = read(pipeline_of(csv_of(tmp_path / "a.csv", 10)))
    assert ids_of(decoded) == [(0, 0, 4), (0, 4, 8), (0, 8, 10)]
    batch = decoded[1].batch
    np.testing.assert_array_equal(batch.positions, [4, 5, 6, 7])
    np.testing.assert_array_equal(batch.labels, [0, 1, 0, 1])
    assert batch.keys[0] == name_key("a")
    assert batch.values[0] == 4.0
    assert batch.keys[1] == value_key(name_key("c"), "v4")
    assert np.all(np.isnan(batch.produced_s))


def test_workers_share_a_file_without_overlap(tmp_path):
    """Three workers read eleven blocks: block i belongs to partition i modulo 3, and together they are all rows."""
    pipeline = pipeline_of(csv_of(tmp_path / "a.csv", 42), workers=3)
    bounds = describe_source(pipeline)
    shares = [read(pipeline, {worker: bounds[worker]}) for worker in range(3)]
    assert [ids_of(share)[:2] for share in shares] == [
        [(0, 0, 4), (0, 12, 16)],
        [(1, 4, 8), (1, 16, 20)],
        [(2, 8, 12), (2, 20, 24)],
    ]
    positions = np.concatenate([each.batch.positions for share in shares for each in share])
    np.testing.assert_array_equal(np.sort(positions), np.arange(42))


def test_one_worker_with_all_partitions_reads_in_file_order(tmp_path):
    """The same three partitions in one process: the order is the file's."""
    decoded = read(pipeline_of(csv_of(tmp_path / "a.csv", 30), workers=3))
    np.testing.assert_array_equal(np.concatenate([each.batch.positions for each in decoded]), np.arange(30))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson.gz", "a.parquet"])
def test_reading_on_from_a_row_gives_the_same_batches(tmp_path, name):
    """A worker comes back with the offset of its last batch, whatever the format of the file: the rest is the same."""
    path = table_file(tmp_path / name, 30)
    pipeline = pipeline_of(path)
    whole = read(pipeline)
    assert ids_of(whole)[-1] == (0, 28, 30)
    rest = read(pipeline, {0: (12, 27)})
    assert ids_of(rest) == [(0, 12, 16), (0, 16, 20), (0, 20, 24), (0, 24, 27)]
    for first, second in zip(whole[3:6], rest[:3], strict=True):
        np.testing.assert_array_equal(first.batch.keys, second.batch.keys)
        np.testing.assert_array_equal(first.batch.values, second.batch.values)


def table_file(path: Path, rows: int) -> Path:
    records = [
        {"a": i / 4, "b": i % 2 == 0, "c": f"v{i % 3}", "n": None if i % 4 else i, "y": i % 2}
        for i in range(rows)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=7)
        return path
    if "json" in path.name:
        data = b"".join(orjson.dumps(record) + b"\n" for record in records)
    else:
        lines = [",".join("" if v is None else str(v) for v in record.values()) for record in records]
        data = "\n".join(["a,b,c,n,y", *lines, ""]).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_all_formats_and_json_messages_agree(tmp_path):
    """The same table as CSV, JSON lines, Parquet and as Kafka messages in JSON: the same bits."""
    names = ("a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet")
    batches = [read(pipeline_of(table_file(tmp_path / name, 4)))[0].batch for name in names]
    messages = [
        orjson.dumps({"features": {k: v for k, v in record.items() if k != "y"}, "label": record["y"]})
        for record in map(orjson.loads, (tmp_path / "a.jsonl").read_bytes().splitlines())
    ]
    decoder = Decoder("t", FeaturesConfig())
    batches.append(decoder.decode(Messages(0, np.arange(4), messages, np.zeros(4), 4)).batch)
    for batch in batches[1:]:
        for column in ("keys", "values", "kinds", "offsets", "labels"):
            np.testing.assert_array_equal(getattr(batch, column), getattr(batches[0], column), err_msg=column)


RATINGS: Any = {"label_min": -np.inf, "label_max": np.inf, "roles": ("user", "item")}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_ratings_mean_the_same_in_every_format(tmp_path, name):
    """Users are integers, items texts, labels go to 5: in each format what the JSON messages mean, roles and all."""
    rows = [{"user": 429 + i % 3, "x": i / 2, "item": f"m{i % 2}", "y": 1 + i % 5} for i in range(10)]
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    else:
        data = "\n".join(["user,x,item,y", *(",".join(map(str, row.values())) for row in rows)]).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    (decoded,) = read(pipeline_of(path, batch_records=100), **RATINGS)
    messages = [orjson.dumps({"label": row.pop("y"), "features": row}) for row in rows]
    decoder = Decoder("t", FeaturesConfig(), **RATINGS)
    expected = decoder.decode(Messages(0, np.arange(10), messages, np.zeros(10), 10)).batch
    assert decoded.batch.kinds[:3].tolist() == [ROLE_FIRST, NUMBER, ROLE_FIRST + 1]
    for column in ("keys", "values", "kinds", "offsets", "labels"):
        np.testing.assert_array_equal(
            getattr(decoded.batch, column), getattr(expected, column), err_msg=column
        )


def test_leading_zeros_of_an_id_are_kept_in_csv(tmp_path):
    """Users 7 and 007 are two, wherever in the file the zeros first come, and although as_numeric would be inferred."""
    path = write(tmp_path / "a.csv", "user,item,y\n7,1,5\n" + "7,1,4\n" * 12_000 + "007,1,3\n")
    (decoded,) = read(pipeline_of(path, batch_records=20_000), **RATINGS)
    users = decoded.batch.keys[decoded.batch.kinds == ROLE_FIRST]
    assert [users[0], users[-1]] == [value_key(name_key("user"), text) for text in ("7", "007")]
    assert not decoded.dead


def test_rows_without_a_role_are_dead_letters_with_their_row(tmp_path):
    """The user's field is empty in one row, the item's in the next; the rows around them are learnt."""
    path = write(tmp_path / "a.csv", "user,item,y\n1,a,5\n,a,4\n2,,3\n2,b,3\n")
    (decoded,) = read(pipeline_of(path), **RATINGS)
    np.testing.assert_array_equal(decoded.batch.positions, [0, 3])
    assert [(letter.place, letter.reason) for letter in decoded.dead] == [
        (
            f"{path}[0]@{row}",
            f"feature '{name}' is missing, but the learner needs it; send it as a number or a text",
        )
        for row, name in ((1, "user"), (2, "item"))
    ]


@pytest.mark.parametrize(
    ("header", "sections", "sentence"),
    [
        ("userid,item", {}, "has no column 'user', which the learner needs; did you mean 'userid'?"),
        ("user,item", {"source": {"id": "user"}}, "column 'user' of .* was named as the id; name another"),
        (
            "user,item",
            {"features": {"ignore": ["item"]}},
            "features.ignore names 'item', which the learner needs",
        ),
        ("user,item", {"features": {"as_numeric": ["user"]}}, "features.as_numeric names 'user'"),
    ],
)
def test_a_file_without_a_role_is_refused_before_anything_starts(tmp_path, header, sections, sentence):
    """A column is called otherwise, or the pipeline uses it for something else."""
    path = write(tmp_path / "a.csv", f"{header},y\n1,a,5\n")
    with pytest.raises(SourceError, match=sentence.replace("?", r"\?")):
        describe_source(pipeline_of(path, **sections), **RATINGS)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ((0.0, 1.0), "numbers from 0 to 1, or"),
        ((-np.inf, np.inf), "numbers, or"),
        ((1, 5), "numbers from 1 to 5, or"),
    ],
)
def test_the_sentence_about_labels_names_the_learners_range(tmp_path, limits, sentence):
    """The label's column holds words; what is asked for is what this learner takes."""
    path = write(tmp_path / "a.csv", "x,y\n1,good\n")
    with pytest.raises(SourceError, match=f"should be {sentence} true and false"):
        describe_source(pipeline_of(path), label_min=limits[0], label_max=limits[1])


def test_values_that_contradict_their_column_are_dead_letters(tmp_path):
    """Far into the file a numeric column holds text, a label is missing, and lines have too many or too few columns."""
    rows = ["1,a,0"] * 10 + ["oops,a,1", "2,a,", "3,a,7", "4,a", "5,a,1,9", "6,a,1", "7,a,maybe"]
    path = write(tmp_path / "a.csv", "\n".join(["x,c,y", *rows, ""]))
    (only,) = read(pipeline_of(path, batch_records=100, features={"as_numeric": ["x"]}))
    assert tuple(only.batch.batch_id) == (0, 0, 17)
    assert [letter.offset for letter in only.dead] == [10, 11, 12, 13, 14, 16]
    np.testing.assert_array_equal(only.batch.positions, [*range(10), 15])
    first = only.dead[0]
    assert first.reason == "column 'x' is numeric, but holds the text 'oops'"
    assert first.place == f"{path}[0]@10"
    assert orjson.loads(first.value) == {"x": "oops", "c": "a", "y": "1"}
    assert "the line has 4 columns, but the header has 3" in only.dead[4].reason
    assert only.records == 17


def test_a_block_of_bad_rows_is_still_a_batch(tmp_path):
    """Four rows without a label fill a whole block: an empty batch says that they have been read."""
    path = write(tmp_path / "a.csv", "x,y\n" + "1,0\n" * 4 + "1,\n" * 4 + "1,1\n")
    decoded = read(pipeline_of(path))
    assert ids_of(decoded) == [(0, 0, 4), (0, 4, 8), (0, 8, 9)]
    assert [each.records for each in decoded] == [4, 4, 1]
    assert len(decoded[1].batch) == 0


def test_quotes_newlines_and_blank_lines(tmp_path):
    """A quoted value holds a comma and a line break, and a blank line lies between rows: neither moves a row number."""
    path = write(tmp_path / "a.csv", 'c,y\n"a,\nb",1\n\nd,0\n')
    (decoded,) = read(pipeline_of(path))
    np.testing.assert_array_equal(decoded.batch.positions, [0, 1])
    assert decoded.batch.keys[0] == value_key(name_key("c"), "a,\nb")


def test_bytes_that_are_no_text_are_a_dead_letter(tmp_path):
    """One value is Latin-1 in a UTF-8 file."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"c,y\nok,1\nM\xfcnchen,0\n")
    (decoded,) = read(pipeline_of(path))
    assert [letter.offset for letter in decoded.dead] == [1]
    assert "no UTF-8" in decoded.dead[0].reason


def test_json_lines_with_bad_and_mixed_lines(tmp_path):
    """A torn line, a list, a text in a numeric column and a number in a text column, all in one block."""
    good = [orjson.dumps({"a": i, "c": "v", "y": 1}).decode() for i in range(3)]
    odd = [
        '{"a": 1, "c"',
        "[1]",
        '{"a": "x", "c": "v", "y": 1}',
        '{"a": 1, "c": 3.0, "y": true}',
        '{"y": 0, "z": 5}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join([*good, "", *odd]))
    features = {"as_numeric": ["a"], "as_categorical": ["c"], "ignore": ["z"]}
    (decoded,) = read(pipeline_of(path, batch_records=100, features=features))
    assert [letter.offset for letter in decoded.dead] == [3, 4, 5]
    np.testing.assert_array_equal(decoded.batch.positions, [0, 1, 2, 6, 7])
    assert decoded.batch.keys[7] == value_key(name_key("c"), "3")
    assert decoded.batch.offsets[-1] == decoded.batch.offsets[-2]


def test_times_weights_and_ids_have_their_columns(tmp_path):
    """Event times as ISO texts, weights and ids under their own names; an odd time is a dead letter."""
    path = write(
        tmp_path / "a.csv", "x,y,when,w,who\n1,0,1970-01-01 00:01:00,2,k\n1,1,1970-01-02,1,l\n1,1,soon,1,m\n"
    )
    source = {"time": "when", "weight": "w", "id": "who"}
    (decoded,) = read(pipeline_of(path, source=source))
    np.testing.assert_array_equal(decoded.batch.event_times_s, [60.0, 86400.0])
    np.testing.assert_array_equal(decoded.batch.weights, [2.0, 1.0])
    assert [letter.offset for letter in decoded.dead] == [2]


def test_not_a_number_is_missing_in_parquet(tmp_path):
    """Pandas writes missing numbers as NaN."""
    pq.write_table(pa.table({"a": [1.0, float("nan")], "y": [0, 1]}), tmp_path / "a.parquet")
    (decoded,) = read(pipeline_of(tmp_path / "a.parquet"))
    np.testing.assert_array_equal(decoded.batch.offsets, [0, 1, 1])
    assert decoded.dead == []


def test_labels_spelt_true_and_false(tmp_path):
    """Labels as words for booleans."""
    path = write(tmp_path / "a.csv", "x,y\n1,true\n2,False\n")
    (decoded,) = read(pipeline_of(path))
    np.testing.assert_array_equal(decoded.batch.labels, [1.0, 0.0])


@pytest.mark.parametrize(
    ("name", "text", "source", "sentence"),
    [
        ("a.csv", "x,clicked\n1,1\n", {"label": "click"}, "no column 'click'.*did you mean 'clicked'"),
        ("a.csv", "x,y\n1,yes\n2,no\n", {}, "these values were seen: 'yes', 'no'"),
        ("a.csv", "x,y\n1,\n", {}, "holds no value"),
        ("a.csv", "x,y\n", {}, "holds no rows"),
        ("a.csv", "", {}, "is empty"),
        ("a.csv", "x,x,y\n1,2,1\n", {}, "more than one column named x"),
        ("a.csv", "label,y\n1,1\n", {}, "add label to the ignored features"),
        ("a.xlsx", "", {}, "has none of: .csv"),
        ("a.csv.gz", "x,y\n1,1\n", {}, "no whole gzip file"),
        ("a.parquet", "x", {}, "cannot be read"),
    ],
)
def test_files_that_cannot_be_learnt_are_refused_in_a_sentence(tmp_path, name, text, source, sentence):
    """What can be wrong with a file as a whole: each is said before anything is learnt."""
    path = write(tmp_path / name, text)
    with pytest.raises(SourceError, match=sentence):
        open_source(pipeline_of(path, source=source), {0: (0, None)})


def test_no_such_file_is_a_sentence(tmp_path):
    """A path is misspelt."""
    with pytest.raises(SourceError, match=r"there is no file .*nope\.csv"):
        describe_source(pipeline_of(tmp_path / "nope.csv"))


def test_a_torn_gzip_file_ends_with_a_sentence(tmp_path):
    """A download stopped half way: what was whole is read, then an error instead of a silent end."""
    path = csv_of(tmp_path / "a.csv", 300_000)
    torn = tmp_path / "a.csv.gz"
    torn.write_bytes(gzip.compress(path.read_bytes(), 1)[:-200_000])
    with pytest.raises(SourceError, match="no whole gzip file"):
        read(pipeline_of(torn, batch_records=4096))


def test_closing_early_leaves_no_thread(tmp_path):
    """The job stops after the first batch of a long file."""
    source = open_source(pipeline_of(csv_of(tmp_path / "a.csv", 50_000)), {0: (0, None)})
    assert source.poll(10.0) is not None
    source.close()
    source.close()
    assert isinstance(source, FileSource)
    assert not source._thread.is_alive()
