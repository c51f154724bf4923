"""The compiled JSON parser and the judge say the same of every message, bit for bit."""

from __future__ import annotations

import json
import math
import random

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.config import FeaturesConfig
from cluster.decode.decoder import Decoder
from cluster.decode.json_records import read_record
from cluster.decode.json_rows import _parsed, overrides_of
from cluster.decode.record_rules import BadRecord, Rules
from learning.batch import NUMBER, Batch, BatchId
from learning.keys import name_key, value_key
from learning.slice_values import MISSING_KEY, SliceValues
from learning.texts import TextColumn
from tests.cluster.decode_strategies import (
    assert_texts_are_of_keys,
    batch_bytes,
    damaged,
    messages,
    records,
    written_numbers,
)

PLAIN = FeaturesConfig()
OVERRIDDEN = FeaturesConfig(
    as_numeric=("forced_number", "b"),
    as_categorical=("forced_text", "país", "x2"),
    ignore=("ignored", 'quote"d'),
)
LABELS_MIN, LABELS_MAX = -1.0, 2.0
ROLES = ("a", "país")
SLICED = (None, "a", "b", "país", "x1", "x2", "forced_text", "forced_number", "", "absent")


def value_of(record, name):
    """Key and text of a record's value of a feature, told from the judge's entries."""
    key = name_key(name)
    for entry in record.entries:
        if entry.feature == key:
            number = np.float32(entry.value)
            text = entry.text
            if entry.kind == NUMBER:
                text = str(int(number)) if abs(number) < 2**53 and number == np.floor(number) else str(number)
            return value_key(key, text), text
    return np.uint64(MISSING_KEY), ""


def slices_of(good, name):
    """The records' values of a feature."""
    values = [value_of(record, name) for record in good]
    keys = np.array([key for key, _ in values], np.uint64)
    return SliceValues(keys, TextColumn.from_list([text for _, text in values]))


def judged(values, features, roles=(), slice_feature=None):
    """The batch of a stream, built from the judge's records alone, and the reasons of the refused by index."""
    rules = Rules.of(features, LABELS_MIN, LABELS_MAX, roles)
    good, refused = {}, {}
    for i, value in enumerate(values):
        try:
            good[i] = read_record(value, rules)
        except BadRecord as reason:
            refused[i] = str(reason)
    source = messages(values)
    kept = np.array(list(good), np.int64)
    entries = [entry for record in good.values() for entry in record.entries]
    return Batch(
        batch_id=BatchId(3, 100, source.next_offset),
        keys=np.array([entry.key for entry in entries], np.uint64),
        values=np.array([entry.value for entry in entries], np.float32),
        kinds=np.array([entry.kind for entry in entries], np.uint8),
        offsets=np.cumsum([0, *(len(record.entries) for record in good.values())], dtype=np.int64),
        labels=np.array([record.label for record in good.values()], np.float32),
        weights=np.array([record.weight for record in good.values()], np.float32),
        event_times_s=np.array([record.time_s for record in good.values()], np.float64),
        produced_s=source.produced_s[kept],
        positions=source.offsets[kept],
        ids=TextColumn.from_list([record.identity for record in good.values()]),
        role_texts={
            role: TextColumn.from_list([record.text_of(role) for record in good.values()])
            for role in range(len(roles))
        },
        features=np.array([entry.feature for entry in entries], np.uint64),
        slices=None if slice_feature is None else slices_of(good.values(), slice_feature),
    ), refused


def assert_equal(values, features, roles=(), slice_feature=None):
    """Decode `values` both ways and compare everything."""
    options = {"label_min": LABELS_MIN, "label_max": LABELS_MAX, "roles": roles, "want_ids": True}
    more = {"want_features": True, "slice_feature": slice_feature}
    kept = tuple(range(len(roles)))
    decoded = Decoder("t", features, **options, **more, kept_roles=kept).decode(messages(values))
    expected, refused = judged(values, features, roles, slice_feature)
    assert batch_bytes(decoded.batch) == batch_bytes(expected)
    assert_texts_are_of_keys(decoded.batch, roles)
    one = Decoder("t", features, **options, kept_roles=(1,) if roles else ()).decode(messages(values))
    assert (one.batch.role_texts or {}).keys() == ({1} if roles else set())
    assert (one.batch.features, one.batch.slices) == (None, None)
    assert {letter.offset - 100: letter.reason for letter in decoded.dead} == refused
    assert [letter.value for letter in decoded.dead] == [values[i] for i in refused]


def is_fast(*values, roles=(), slice_feature=None):
    """Whether the compiled parser alone reads all these messages."""
    kept = tuple(range(len(roles)))
    overridden = OVERRIDDEN if slice_feature is None else PLAIN
    rules = Rules.of(overridden, LABELS_MIN, LABELS_MAX, roles, kept, slice_feature, want_features=True)
    return not _parsed(values, overrides_of(rules))[1].slow.any()


@settings(max_examples=300)
@given(
    st.lists(records(), min_size=1, max_size=6), st.sampled_from([PLAIN, OVERRIDDEN]), st.sampled_from(SLICED)
)
def test_random_records_read_fast_or_by_the_judge_are_equal(values, features, slice_feature):
    """A producer sends anything that a JSON writer can write: unicode, escapes, big integers, long decimals."""
    assert_equal(values, features, slice_feature=slice_feature)


@settings(max_examples=300)
@given(
    st.lists(records(ROLES), min_size=1, max_size=6),
    st.sampled_from([PLAIN, OVERRIDDEN]),
    st.sampled_from(SLICED),
)
def test_random_records_with_roles_are_equal(values, features, slice_feature):
    """A learner needs two features, which come as anything, twice, as null or not at all; one may slice, too."""
    assert_equal(values, features, ROLES, slice_feature)


@settings(max_examples=300)
@given(st.lists(damaged() | st.binary(max_size=30), min_size=1, max_size=6))
def test_damaged_messages_are_read_the_same_or_refused_by_both(values):
    """A producer sends truncated and overwritten records, whose neighbours must not notice."""
    values = [value for value in values if not value.startswith((b"\xff\xff\xff\xff", b"ARROW1"))]
    assert_equal(values, OVERRIDDEN)


@settings(max_examples=400)
@given(st.lists(written_numbers, min_size=1, max_size=20))
@example(["9007199254740993", "9007199254740993e1", "90071992547409930001e-4"])
def test_numbers_are_the_doubles_that_python_reads(numbers):
    """Event times keep the full double, so a time that differs in its last bit shows up."""
    values = [f'{{"features":{{}},"label":1,"ts":{number}}}'.encode() for number in numbers]
    decoded = Decoder("t", PLAIN).decode(messages(values))
    finite = [float(number) for number in numbers if math.isfinite(float(number))]
    assert decoded.batch.event_times_s.tolist() == finite


@given(st.integers(0, 2**32))
def test_numbers_as_programs_print_them_are_read_fast(seed):
    """Speed depends on it: what repr and str print of ordinary numbers never goes the slow way."""
    rng = random.Random(seed)
    numbers = [
        rng.random() * 10.0 ** rng.randint(-9, 9),
        rng.gauss(0, 1),
        rng.randint(-(2**62), 2**62),
        1.7e9 + rng.random(),
    ]
    fields = {f"f{i}": number for i, number in enumerate(numbers)}
    assert is_fast(json.dumps({"id": "a", "ts": numbers[3], "features": fields, "label": 1}).encode())


def test_ordinary_records_are_read_fast():
    """What the usual writers produce (with spaces or without, nulls, ISO times, unicode) never goes the slow way."""
    assert is_fast(
        b'{"id": "u1", "ts": 1753000000.1234567, "features": {"a": 1, "b": 0.5, "c": "x", "d": null}, "label": 1}',
        b'{"id":7,"ts":"2026-07-01T09:30:00.123456Z","features":{"forced_text":3.0,"x2":true},"label":true,"zz":null}',
        b'{"label":0,"features":{"pa\xc3\xads":"M\xc3\xa9xico","ignored":1e39},"weight":2.5,"ts":"2026-07-01 09:30:00"}',  # noqa: E501
        b' {"features" : {} , "label" : 0 , "id" : null , "weight" : null , "ts" : null} \n',
    )


def test_records_with_roles_are_read_fast():
    """A rating: users and items as integers, whole doubles or texts, before and after other features."""
    values = [
        f'{{"features":{{"x":0.5,"a":{user},"pa\u00eds":{item},"b":1}},"label":1}}'.encode()
        for user, item in (("17", '"u"'), ("17.0", "-3"), ('"17"', '"\\u00e9"'), ("9007199254740991", "true"))
    ]
    assert is_fast(*values, roles=ROLES)
    assert_equal(values, PLAIN, ROLES)
    assert not is_fast(b'{"features":{"a":1},"label":1}', roles=ROLES)
    assert not is_fast(b'{"features":{},"label":1}', roles=ROLES)


def test_slices_are_read_fast_whatever_their_values_are():
    """The feature by which is sliced is text, number, truth, null or not there, and no text outlives its record."""
    written = ('"at"', '"M\\u00e9xico"', '""', "7", "7.0", "0.1", "1e20", "true", "null")
    values = [f'{{"features":{{"x":0.5,"b":{value}}},"label":1}}'.encode() for value in written]
    values.append(b'{"features":{"x":1},"label":0}')
    assert is_fast(*values, slice_feature="b")
    assert_equal(values, PLAIN, slice_feature="b")
    slices = Decoder("t", PLAIN, slice_feature="b").decode(messages(values)).batch.slices
    assert slices is not None
    assert slices.texts.tolist() == ["at", "México", "", "7", "7", "0.1", "1e+20", "1", "", ""]
    assert slices.keys[2] == value_key(name_key("b"), "")
    assert slices.keys[8:].tolist() == [MISSING_KEY, MISSING_KEY]
    # The kernel notes "at", finds the name again, and leaves the record to the judge.
    assert_equal([values[0], b'{"features":{"b":"at","b":null},"label":1}'], PLAIN, slice_feature="b")


def test_escaped_texts_are_read_fast():
    """Python's json.dumps escapes all that is not ASCII; such texts are ordinary in most languages."""
    for text in (
        "M\u00e9xico",
        "\u6771\u4eac",
        "\U0001f600",
        'a "quote" \\ / \b\f\n\r\t \x00 \x7f \ud7ff\ue000',
    ):
        record = json.dumps({"features": {"a": text, text: text}, "label": 1}).encode()
        assert is_fast(record)
        assert_equal(
            [record, json.dumps({"features": {"a": text}, "label": 1}, ensure_ascii=False).encode()], PLAIN
        )


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ["\\", "u", "\\u", "\\ud83d", "\\ude00", "\\uD7FF", "00e9", "n", "/", '"', "\xe9", "0", "x"]
        )
    )
)
def test_backslashes_in_any_order_are_read_the_same(pieces):
    """Escapes that are cut off, half pairs, or none at all."""
    text = "".join(pieces)
    assert_equal([f'{{"features":{{"a":"{text}","{text}":1,"\\u0061":2}},"label":1}}'.encode()], PLAIN)


def test_records_of_changing_shapes_do_not_see_each_others_names():
    """The parser remembers the last record's names; records that share only a part of them must not be confused."""
    shapes = [
        ["a", "b"],
        ["a", "b", "c"],
        ["b", "a"],
        ["a"],
        [],
        ["a", "b", "c"],
        ["ab", "c"],
        ["a", "bc"],
        ["a", "a"],
    ]
    rng = random.Random(7)
    chosen = [rng.choice(shapes) for _ in range(300)]
    values = [
        f'{{"features":{{{",".join(f"{json.dumps(n)}:{j}" for j, n in enumerate(names))}}},"label":1}}'.encode()
        for names in chosen
    ]
    assert_equal(values, PLAIN)


def test_a_record_with_thousands_of_features_is_read_whole():
    """A bag of words may have more features than the parser keeps apart; the judge reads it then."""
    for count in (4095, 4096, 4097, 5000):
        record = {"features": {f"w{i}": i for i in range(count)}, "label": 1}
        assert_equal([json.dumps(record).encode()], PLAIN)


def test_names_that_differ_only_behind_the_end_of_the_buffer_are_safe():
    """The last message is short and the remembered name long: comparing them must not leave the buffer."""
    long = json.dumps({"features": {"n" * 100_000: 1}, "label": 1}).encode()
    assert_equal(
        [long, b'{"label":1,"features":{"n', b'{"label":1,"features":{"nn":2}}', long, b'{"features":{"nnnn'],
        PLAIN,
    )
