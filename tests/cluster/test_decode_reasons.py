"""Every bad JSON message becomes one dead letter with a sentence; every good one next to it is learnt."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cluster.config import FeaturesConfig
from cluster.decode.decoder import Decoder
from learning.batch import CATEGORY, NUMBER
from learning.keys import name_key, value_key
from tests.cluster.decode_strategies import messages

PLAIN = FeaturesConfig()
GOOD = b'{"features":{"x":1},"label":1}'


def decode(*values, features=PLAIN, **options):
    """Decode messages with a decoder of their own."""
    return Decoder("clicks", features, **options).decode(messages(values))


def reason(value, features=PLAIN, **options):
    """The one reason for which the message is refused, between two neighbours that are not."""
    decoded = decode(GOOD, value, GOOD, features=features, **options)
    assert decoded.batch.positions.tolist() == [100, 102]
    (letter,) = decoded.dead
    assert (letter.place, letter.row, letter.value) == ("clicks[3]@101", None, value)
    assert "clicks" not in letter.reason
    return letter.reason


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"", 'the message is empty; expected {"features": {...}, "label": ...}'),
        (b"[1]", 'the message is a list; expected {"features": {...}, "label": ...}'),
        (b'{"features":', "the message is not JSON: unexpected end of data: line 1 column 13"),
        (b"\xef\xbb\xbf{}", "the message is not JSON: UTF-8 byte order mark"),
        (b'{"label":1}', "\"features\" is missing, the keys found are 'label'; expected"),
        (b"{}", '"features" is missing, the keys found are none; expected'),
        (b'{"features":[],"label":1}', '"features" is a list, the keys found are'),
        (
            b'{"features":{},"lable":1}',
            "\"label\" is missing, the keys found are 'features', 'lable'; send \"label\" as",
        ),
        (b'{"features":{},"label":null}', '"label" is null; send "label" as a number from 0 to 1'),
        (b'{"features":{},"label":"1"}', '"label" is a text; send'),
        (b'{"features":{},"label":1.5}', '"label" is 1.5; send "label" as a number from 0 to 1'),
        (b'{"features":{},"label":1,"label":-1}', '"label" is -1; send'),
        (
            b'{"features":{"a":[1]},"label":1}',
            "feature 'a' is a list; send a number, a text, true, false or null",
        ),
        (b'{"features":{"a":{}},"label":1}', "feature 'a' is an object; send"),
        (
            b'{"features":{"a":1e39},"label":1}',
            "feature 'a' is 1e+39, no finite 32-bit float; send null instead",
        ),
        (b'{"features":{"a":1e999},"label":1}', "feature 'a' is inf, no finite 32-bit float"),
        (b'{"features":{},"zz":1e999,"label":1}', "the message is not JSON: number is infinity"),
        (b'{"features":{},"label":1,"weight":0}', '"weight" is 0; send a finite 32-bit float above 0'),
        (b'{"features":{},"label":1,"weight":1e-50}', '"weight" is 1e-50; send'),
        (b'{"features":{},"label":1,"weight":true}', '"weight" is a boolean; send'),
        (b'{"features":{},"label":1,"id":1.5}', '"id" is a number (1.5); send a text or a 64-bit integer'),
        (
            b'{"features":{},"label":1,"id":18446744073709551616}',
            '"id" is a number (1.8446744073709552e+19); send',
        ),
        (b'{"features":{},"label":1,"ts":true}', '"ts" is a boolean (True); send unix seconds or'),
        (
            b'{"features":{},"label":1,"ts":"2026-02-30T00:00:00Z"}',
            "\"ts\" is the text '2026-02-30T00:00:00Z'; send",
        ),
    ],
)
def test_a_bad_message_says_what_is_wrong_with_it(value, sentence):
    """One producer is broken, in each of the ways that we have a sentence for."""
    assert reason(value).startswith(sentence)


def test_a_message_that_is_too_long_is_not_parsed():
    """Somebody sends a file as a message."""
    long = json.dumps({"features": {"x": "y" * 1000}, "label": 1}).encode()
    assert reason(long, message_bytes_max=500).startswith("the message has 1035 bytes, more than the 500 of")


def test_reasons_stay_short_however_long_the_value():
    """A feature value of a megabyte must not fill the dead-letter topic twice."""
    assert len(reason(json.dumps({"features": {}, "label": 1, "ts": "x" * 10**6}).encode())) < 250
    assert len(reason(json.dumps({f"k{i}" * 50: 1 for i in range(1000)}).encode())) < 1500


def test_text_in_a_numeric_feature_is_refused_by_name():
    """The pipeline says as_numeric and a producer sends text; null is still just missing."""
    features = FeaturesConfig(as_numeric=("price",))
    assert reason(b'{"features":{"price":"12"},"label":1}', features) == (
        "feature 'price' is the text '12', but as_numeric wants numbers"
    )
    assert decode(b'{"features":{"price":null},"label":1}', features=features).batch.entries == 0


def test_values_become_the_entries_that_the_format_promises():
    """One record with a value of each kind; keys are those of learning.keys."""
    batch = decode(
        b'{"features":{"n":2.5,"t":"a b","yes":true,"no":false,"gone":null},"label":true,"weight":2}'
    ).batch
    expected = [name_key("n"), value_key(name_key("t"), "a b"), name_key("yes"), name_key("no")]
    assert batch.keys.tolist() == [int(key) for key in expected]
    assert batch.values.tolist() == [2.5, 1.0, 1.0, 0.0]
    assert batch.kinds.tolist() == [NUMBER, CATEGORY, NUMBER, NUMBER]
    assert (batch.labels.tolist(), batch.weights.tolist()) == ([1.0], [2.0])
    assert np.isnan(batch.event_times_s[0])
    assert batch.ids is None


@pytest.mark.parametrize(
    ("written", "text"),
    [("3", "3"), ("3.0", "3"), ("0.5", "0.5"), ("-0", "0"), ("-0.0", "0"), ("1e2", "100"), ("true", "true")],
)
def test_numbers_used_as_categories_take_their_canonical_text(written, text):
    """Codes that look like numbers are named in as_categorical; 3 and 3.0 are one category."""
    value = f'{{"features":{{"code":{written}}},"label":1}}'.encode()
    batch = decode(value, features=FeaturesConfig(as_categorical=("code",))).batch
    assert batch.keys.tolist() == [int(value_key(name_key("code"), text))]
    assert batch.kinds.tolist() == [CATEGORY]


def test_ignored_features_leave_nothing():
    """The pipeline ignores a feature, which may then be anything."""
    features = FeaturesConfig(ignore=("a",))
    decoded = decode(
        b'{"features":{"a":[1],"b":1},"label":1}',
        b'{"features":{"a":1e39,"b":1},"label":1}',
        features=features,
    )
    assert decoded.batch.keys.tolist() == [int(name_key("b"))] * 2
    assert not decoded.dead


def test_ids_are_texts_and_only_made_where_they_are_wanted():
    """Predictions go out under the record's id: text, integer, none, or read by the judge."""
    values = [
        f'{{"id":{i},"features":{{}},"label":1}}'.encode() for i in ('"u1"', "-7", "null", '"\\u00e9"', '"é"')
    ]
    ids = decode(*values, GOOD, want_ids=True).batch.ids
    assert ids is not None
    assert ids.tolist() == ["u1", "-7", "", "é", "é", ""]


def test_labels_of_a_regression_may_have_any_range():
    """The learner's range of labels is the decoder's; infinities stay out even where no bound is set."""
    decoded = decode(
        b'{"features":{},"label":-12.5}',
        b'{"features":{},"label":1e39}',
        label_min=-math.inf,
        label_max=math.inf,
    )
    assert decoded.batch.labels.tolist() == [-12.5]
    assert decoded.dead[0].reason == '"label" is 1e+39; send "label" as a number from -inf to inf'


def test_an_empty_poll_is_an_empty_batch():
    """A stretch of the stream held nothing, or only bad records."""
    assert len(decode().batch) == 0
    assert decode(want_ids=True).batch.ids is not None
    decoded = decode(b"x", b"y", want_ids=True)
    assert (len(decoded.batch), decoded.records) == (0, 2)
    assert decoded.batch.batch_id == (3, 100, 102)
