"""Every bad JSON message becomes one dead letter with a sentence; every good one next to it is learnt."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cluster.config import FeaturesConfig
from cluster.decode.decoder import Decoder
from learning.batch import CATEGORY, NUMBER, ROLE_FIRST
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
    values = [f'{{"features":{{}},"label":{label}}}'.encode() for label in ("-12.5", "3.4e38", "1e39", '"5"')]
    decoded = decode(*values, label_min=-math.inf, label_max=math.inf)
    assert decoded.batch.labels.tolist() == [-12.5, np.float32(3.4e38)]
    assert [letter.reason for letter in decoded.dead] == [
        '"label" is 1e+39; send "label" as a number',
        '"label" is a text; send "label" as a number',
    ]


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ((1.0, 5.0), "as a number from 1 to 5"),
        ((0.0, math.inf), "as a number from 0 on"),
        ((-math.inf, 0.0), "as a number up to 0"),
    ],
)
def test_the_sentence_about_a_label_names_the_learners_range(limits, sentence):
    """Ratings of 1 to 5, counts, losses: the reason says what would have been taken."""
    decoded = decode(b'{"features":{},"label":null}', label_min=limits[0], label_max=limits[1])
    assert decoded.dead[0].reason == f'"label" is null; send "label" {sentence}'


def test_roles_are_categories_that_say_which_they_are():
    """A recommender's user and item, in any order and among other features: 17, 17.0 and "17" are one user."""
    batch = decode(
        b'{"features":{"user":17,"x":2,"item":"a"},"label":1}',
        b'{"features":{"item":"a","user":17.0},"label":1}',
        b'{"features":{"user":"17","item":"a"},"label":1}',
        roles=("user", "item"),
        features=FeaturesConfig(as_categorical=("user",)),
    ).batch
    user, item = value_key(name_key("user"), "17"), value_key(name_key("item"), "a")
    assert batch.keys.tolist() == [user, name_key("x"), item, item, user, user, item]
    assert batch.kinds.tolist() == [ROLE_FIRST, NUMBER, ROLE_FIRST + 1, 3, 2, 2, 3]
    assert batch.values.tolist() == [1, 2, 1, 1, 1, 1, 1]


def test_a_record_without_a_role_is_refused_by_name():
    """The item of a rating is not there, or null, or null the second time; an empty text is one."""
    sentence = "feature 'item' is missing, but the learner needs it; send it as a number or a text"
    for item in ("", '"item":null,', '"item":1,"item":null,'):
        value = f'{{"features":{{{item}"user":1}},"label":1}}'.encode()
        good = b'{"features":{"user":1,"item":""},"label":1}'
        decoded = decode(good, value, good, roles=("user", "item"))
        assert decoded.batch.positions.tolist() == [100, 102]
        assert [(letter.place, letter.reason) for letter in decoded.dead] == [("clicks[3]@101", sentence)]


def test_ids_beyond_a_double_are_the_double_next_to_them():
    """From 2^53 on a number is not exact: two neighbours are one user, and texts keep them apart."""
    ids = ("9007199254740992", "9007199254740993", '"9007199254740993"', '"9007199254740992.0"')
    values = [f'{{"features":{{"user":{user}}},"label":1}}'.encode() for user in ids]
    first, second, exact, rounded = decode(*values, roles=("user",)).batch.keys.tolist()
    assert first == second == rounded != exact


@pytest.mark.parametrize(
    ("features", "roles", "sentence"),
    [
        ({"ignore": ("user",)}, ("user",), "features.ignore names 'user', which the learner needs"),
        ({"as_numeric": ("item",)}, ("user", "item"), "features.as_numeric names 'item', which the learner"),
        ({}, ("id",), "cannot use a feature called 'id', because id, ts, label, weight are"),
        ({}, ("user", "user"), "names the feature 'user' for two of its roles"),
    ],
)
def test_roles_that_no_record_could_have_are_refused_at_once(features, roles, sentence):
    """Pipeline and learner contradict each other: a sentence, and not a topic full of dead letters."""
    with pytest.raises(ValueError, match=sentence):
        decode(features=FeaturesConfig(**features), roles=roles)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("land", "slices.feature names 'land', which features.ignore leaves out"),
        ("ts", "slices.feature names 'ts', but id, ts, label, weight are a record's own fields"),
    ],
)
def test_slices_by_what_is_no_feature_are_refused_at_once(name, sentence):
    """The pipeline leaves the feature out, or means a field."""
    with pytest.raises(ValueError, match=sentence):
        decode(features=FeaturesConfig(ignore=("land",)), slice_feature=name)


def test_an_empty_poll_is_an_empty_batch():
    """A stretch of the stream held nothing, or only bad records."""
    assert len(decode().batch) == 0
    assert decode(want_ids=True).batch.ids is not None
    decoded = decode(b"x", b"y", want_ids=True, want_features=True, slice_feature="land")
    assert (len(decoded.batch), decoded.records) == (0, 2)
    assert len(decoded.batch.features) == len(decoded.batch.slices) == 0
    assert decoded.batch.batch_id == (3, 100, 102)
