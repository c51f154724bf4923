"""Arrow messages: the same bits as JSON, every row counted once, and nothing that a message holds can crash us."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import FeaturesConfig
from cluster.decode import arrow_messages
from cluster.decode.decoder import Decoder
from learning.batch import ROLE_FIRST
from tests.cluster.decode_strategies import assert_texts_are_of_keys, batch_bytes, messages

PLAIN = FeaturesConfig()
OVERRIDDEN = FeaturesConfig(as_numeric=("c0",), as_categorical=("c1", "c2"), ignore=("c3",))


def stream(table, rows_a_batch=None, compression=None):
    """The table as one IPC stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return sink.getvalue().to_pybytes()


def file(table):
    """The table as one IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def labelled(**columns):
    """A table of these columns under labels of 1."""
    size = len(next(iter(columns.values())))
    return pa.table({"label": pa.array([1] * size, pa.int8()), **columns})


def decode(*values, features=PLAIN, **options):
    """Decode messages with a decoder of their own."""
    return Decoder("t", features, **options).decode(messages(values))


columns = st.one_of(
    st.tuples(
        st.just(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=12, max_size=12)
    ),
    st.tuples(
        st.just(pa.uint64()), st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=12, max_size=12)
    ),
    st.tuples(st.just(pa.int8()), st.lists(st.none() | st.integers(-128, 127), min_size=12, max_size=12)),
    st.tuples(
        st.just(pa.float64()),
        st.lists(st.none() | st.floats(-3e38, 3e38) | st.just(1e39), min_size=12, max_size=12),
    ),
    st.tuples(
        st.just(pa.float32()),
        st.lists(
            st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=12, max_size=12
        ),
    ),
    st.tuples(st.just(pa.bool_()), st.lists(st.none() | st.booleans(), min_size=12, max_size=12)),
    st.tuples(
        st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]),
        st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=40), min_size=12, max_size=12),
    ),
)


@settings(max_examples=150)
@given(
    st.lists(columns, max_size=5),
    st.lists(st.sampled_from([0, 1, None, 0.25, 7]), min_size=12, max_size=12),
    st.lists(st.none() | st.floats(0.5, 2e9), min_size=12, max_size=12),
    st.lists(st.none() | st.text(st.characters(codec="utf-8")), min_size=12, max_size=12),
    st.sampled_from([PLAIN, OVERRIDDEN]),
    st.sampled_from([(), (), ("c1",), ("c4", "c1")]),
    st.sampled_from([None, "c0", "c1", "c2", "c4"]),
    st.booleans(),
)
def test_the_same_records_by_json_and_by_arrow_are_equal(
    chosen, labels, moments, ids, features, roles, slice_feature, split
):
    """A producer changes from JSON to Arrow in the middle of a topic: nothing that is learnt may change."""
    data = {f"c{j}": pa.array(values, kind) for j, (kind, values) in enumerate(chosen)}
    roles = tuple(name for name in roles if name in data)
    options = {"features": features, "roles": roles, "kept_roles": tuple(range(len(roles))), "want_ids": True}
    options |= {"want_features": True, "slice_feature": slice_feature}
    table = pa.table(
        {"id": ids, "ts": moments, **data, "label": pa.array(labels, pa.float64()), "weight": moments}
    )
    by_arrow = decode(
        *([stream(table.slice(0, 5)), stream(table.slice(5), 3)] if split else [stream(table, 4)]), **options
    )
    rows = [
        {"id": ids[i], "ts": moments[i], "label": labels[i] and float(labels[i]), "weight": moments[i], "features": {
            name: column[i].as_py() for name, column in data.items()
        }} for i in range(12)
    ]  # fmt: skip
    by_json = decode(*(json.dumps(row).encode() for row in rows), **options)
    ours, theirs = batch_bytes(by_arrow.batch), batch_bytes(by_json.batch)
    for place in ("positions", "produced_s"):  # a message of many rows is one place
        ours.pop(place), theirs.pop(place)
    assert ours == theirs
    assert_texts_are_of_keys(by_arrow.batch, roles)
    assert [letter.reason for letter in by_arrow.dead] == [letter.reason for letter in by_json.dead]
    assert by_arrow.records == by_json.records == 12


ROLE_COLUMNS = [
    pa.array([17, 17, None, -3], pa.int16()),
    pa.array([17, 2**53 - 1, 2**53 + 1, 2**63], pa.uint64()),
    pa.array([17.0, 0.5, -0.0, 1e15]),
    pa.array([17.0, 2.0**53, 1e30, None]),
    pa.array([Decimal("17.00"), None, Decimal("0.25"), Decimal(3)]),
    pa.array([True, False, None, True]),
    pa.array(["17", "", "007", None]),
    pa.array([17, None, 8, 17], pa.int64()).dictionary_encode(),
    pa.array(["17", None, "x", "17"]).dictionary_encode(),
    pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int32()), pa.array(["17", None])),
    pa.nulls(4),
]


@pytest.mark.parametrize("column", ROLE_COLUMNS, ids=lambda column: str(column.type))
def test_a_role_is_the_same_category_by_json_and_by_arrow(column):
    """Users come as integers, doubles, decimals, booleans or texts; where there is none, the row is refused."""
    table = labelled(x=[1.0, 2.0, 3.0, 4.0], user=column)
    values = [float(v) if isinstance(v, Decimal) else v for v in column.to_pylist()]
    rows = [{"features": {"x": i + 1.0, "user": value}, "label": 1} for i, value in enumerate(values)]
    options = {"roles": ("user",), "kept_roles": (0,), "want_features": True, "slice_feature": "user"}
    by_arrow = decode(stream(table, 3), **options)
    by_json = decode(*(json.dumps(row).encode() for row in rows), **options)
    for name in ("keys", "values", "kinds", "offsets", "features"):
        assert getattr(by_arrow.batch, name).tobytes() == getattr(by_json.batch, name).tobytes(), name
    assert by_arrow.batch.role_texts[0].tolist() == by_json.batch.role_texts[0].tolist()
    assert by_arrow.batch.slices.texts.tolist() == by_json.batch.role_texts[0].tolist()
    assert by_arrow.batch.slices.keys.tolist() == by_arrow.batch.keys[1::2].tolist()
    assert_texts_are_of_keys(by_arrow.batch, ("user",))
    assert set(by_arrow.batch.kinds[1::2].tolist()) <= {ROLE_FIRST}
    missing = [i for i, value in enumerate(values) if value is None]
    assert [letter.row for letter in by_arrow.dead] == missing
    assert [letter.reason for letter in by_arrow.dead] == [letter.reason for letter in by_json.dead]


@given(st.lists(st.decimals(-(10**15), 10**15, places=9), min_size=1))
def test_decimals_are_the_doubles_that_their_text_says(numbers):
    """Money comes as decimals; the JSON record of the same amount must give the same number."""
    table = labelled(amount=pa.array(numbers, pa.decimal128(38, 9)))
    by_json = [f'{{"features":{{"amount":{number:f}}},"label":1}}'.encode() for number in numbers]
    assert decode(stream(table)).batch.values.tobytes() == decode(*by_json).batch.values.tobytes()


def test_json_and_arrow_in_one_topic_keep_their_order():
    """A topic holds JSON, Arrow streams, Arrow files and rubbish in turn."""
    one = b'{"features":{"x":1},"label":0}'
    decoded = decode(
        one,
        stream(labelled(x=[2.0, 3.0])),
        b"",
        one,
        file(labelled(x=[4.0])),
        stream(labelled(y=[5.0])),
        b"ARROW1?",
        one,
    )
    assert decoded.batch.values.tolist() == [1, 2, 3, 1, 4, 5, 1]
    assert decoded.batch.positions.tolist() == [100, 101, 101, 103, 104, 105, 107]
    assert [(letter.offset, letter.row) for letter in decoded.dead] == [(102, None), (106, None)]
    assert decoded.batch.batch_id == (3, 100, 108)
    assert decoded.records == 9


def test_bad_rows_are_dead_letters_with_their_row_and_their_json():
    """A sensor sends NaN and a label is lost, in the second and third record batch of a message."""
    table = pa.table({
        "id": ["a", "b", "c", "d", "e"], "x": [1.0, 2.0, 3.0, math.nan, 5.0],
        "label": pa.array([1, 0, None, 1, 2], pa.int32()),
    })  # fmt: skip
    decoded = decode(stream(labelled(x=[0.0])), stream(table, 2), want_ids=True)
    assert decoded.batch.ids is not None
    assert decoded.batch.ids.tolist() == ["", "a", "b"]
    assert [(letter.offset, letter.row, letter.reason) for letter in decoded.dead] == [
        (101, 2, '"label" is null; send "label" as a number from 0 to 1'),
        (101, 3, "feature 'x' is nan, no finite 32-bit float; send null instead"),
        (101, 4, '"label" is 2; send "label" as a number from 0 to 1'),
    ]
    assert json.loads(decoded.dead[0].value) == {"id": "c", "label": None, "features": {"x": 3.0}}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (labelled(tags=[["a"]]), "the Arrow column 'tags' has the type list<item: string>; send numbers"),
        (labelled(at=[datetime(2026, 1, 1, tzinfo=UTC)]), "the Arrow column 'at' has the type timestamp"),
        (labelled(raw=[b"\x00"]), "the Arrow column 'raw' has the type binary"),
        (labelled(nested=[{"a": 1}]), "the Arrow column 'nested' has the type struct"),
        (
            pa.table({"label": [1], "usr": [1]}),
            "the Arrow message has no column 'user', which the learner needs, among its 2 ('label', 'usr', ...)",
        ),
        (pa.table({"lable": [1]}), "the Arrow message has no column \"label\" among its 1 ('lable'"),
        (
            pa.table({"label": ["1"]}),
            "the Arrow column 'label' has the type string; send numbers or booleans",
        ),
        (
            pa.table({"label": [1], "ts": ["now"]}),
            "the Arrow column 'ts' has the type string; send unix seconds",
        ),
        (
            pa.table({"label": [1], "id": [1.5]}),
            "the Arrow column 'id' has the type double; send texts or integers",
        ),
        (
            pa.table({"label": [1], "weight": [True]}),
            "the Arrow column 'weight' has the type bool; send numbers",
        ),
        (pa.table([[1], [2], [3]], names=["label", "x", "x"]), "the Arrow column 'x' comes twice"),
    ],
)
def test_a_column_that_cannot_be_read_kills_its_message_by_name(table, sentence):
    """A producer's new column is of a type that no learner takes."""
    roles = ("user",) if "usr" in table.column_names else ()
    (letter,) = decode(stream(table), roles=roles).dead
    assert letter.reason.startswith(sentence)
    assert letter.row is None


def test_an_ignored_column_may_have_any_type():
    """The pipeline names the list column in features.ignore."""
    decoded = decode(stream(labelled(tags=[["a"]], x=[1.0])), features=FeaturesConfig(ignore=("tags",)))
    assert decoded.batch.values.tolist() == [1.0]
    assert not decoded.dead


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit_are_unix_seconds(unit):
    """The event time is an Arrow timestamp, and one is missing."""
    moments = pa.array([datetime(2026, 7, 1, 9, 30, 2, tzinfo=UTC), None], pa.timestamp(unit, "UTC"))
    times_s = decode(stream(labelled(ts=moments))).batch.event_times_s
    assert times_s[0] == datetime(2026, 7, 1, 9, 30, 2, tzinfo=UTC).timestamp()
    assert np.isnan(times_s[1])


def test_nulls_half_floats_and_dictionaries_of_numbers_are_read():
    """Rare column types, each with something missing; a dictionary may itself hold a null."""
    table = labelled(
        nothing=pa.nulls(3),
        half=pa.array([1.5, None, 2.0], pa.float16()),
        coded=pa.array([7, None, 8], pa.int64()).dictionary_encode(),
        text=pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), pa.array(["u", None])),
        price=pa.array([Decimal("1.25"), None, None]),
    )
    decoded = decode(stream(table))
    assert decoded.batch.values.tolist() == [1.5, 7.0, 1.0, 1.25, 2.0, 8.0]
    assert decoded.batch.offsets.tolist() == [0, 4, 4, 6]


def test_a_few_bytes_cannot_claim_a_world_of_rows():
    """A column of nulls takes no bytes, however many rows it claims; dead letters for all would fill the memory."""
    rows = arrow_messages.ROWS_MAX + 1
    (letter,) = decode(stream(pa.table({"label": pa.nulls(rows)}))).dead
    assert letter.reason.startswith("the Arrow message is longer than 1000000 rows")
    column = pa.nulls(1 + arrow_messages.CELLS_MAX // 1000)
    (letter,) = decode(stream(pa.table({f"n{j}": column for j in range(1000)} | {"label": column}))).dead
    assert letter.reason.startswith("the Arrow message is longer than")


def test_compressed_messages_are_read():
    """The producer compresses record batches, as Arrow allows."""
    table = labelled(x=[float(i) for i in range(1000)])
    for compression in ("lz4", "zstd"):
        assert decode(stream(table, compression=compression)).batch.values.tolist() == list(range(1000))


FUZZ = """
import random, sys
from tests.cluster.test_decode_arrow import decode, file, labelled, stream
import pyarrow as pa
coded = pa.array(["u", "v", None]).dictionary_encode()
table = labelled(x=[1.0, None, 3.0], s=["a", None, "text"], d=coded, b=[True, None, False], id=["1", "2", None])
whole = [stream(table, 2), file(table), stream(table, compression="zstd")]
rng = random.Random(int(sys.argv[1]))
for _ in range(3000):
    damaged = bytearray(rng.choice(whole))
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(damaged))
        damaged[at] = rng.choice([0, 255, 128, damaged[at] ^ (1 << rng.randrange(8)), rng.randrange(256)])
    if rng.random() < 0.2:
        damaged = damaged[: rng.randrange(len(damaged))]
    decoded = decode(bytes(damaged), b'{"features":{"x":1},"label":1}', want_ids=True)
    batch = decoded.batch
    assert batch.offsets[-1] == len(batch.keys) and len(batch) >= 1 and batch.positions[-1] == 101
    batch.ids.tolist()
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_flipped_bytes_never_crash_and_never_touch_the_neighbour(seed):
    """Damage on the wire: thousands of messages with flipped bytes, in a process of their own, which a crash ends."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(seed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_random_bytes_behind_the_marker_are_one_dead_letter():
    """Something that is no Arrow begins like it."""
    rng = random.Random(3)
    for _ in range(200):
        for marker in (b"\xff\xff\xff\xff", b"ARROW1", b"ARROW1\0\0"):
            decoded = decode(marker + rng.randbytes(rng.randrange(60)))
            assert decoded.records in (0, 1)
            assert len(decoded.batch) == 0
