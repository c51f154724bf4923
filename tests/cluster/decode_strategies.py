"""What the decoding tests share: messages, an independent reading of a batch, and random records."""

from __future__ import annotations

import json
import string

import numpy as np
from hypothesis import strategies as st

from cluster.decode.messages import Messages
from learning.batch import ROLE_FIRST
from learning.keys import name_key, value_key

FEATURE_NAMES = [
    "a",
    "b",
    "price",
    "país",
    "x1",
    "x2",
    "forced_text",
    "forced_number",
    "ignored",
    "",
    "a b",
    'quote"d',
]


def messages(values, first_offset=100):
    """Consecutive messages of partition 3, a second apart."""
    n = len(values)
    offsets = np.arange(first_offset, first_offset + n, dtype=np.int64)
    return Messages(3, offsets, list(values), offsets + 0.5, first_offset + n)


def batch_bytes(batch):
    """All arrays of a batch, as bytes: equal only if every bit is."""
    names = (
        "keys",
        "values",
        "kinds",
        "offsets",
        "labels",
        "weights",
        "event_times_s",
        "produced_s",
        "positions",
    )
    arrays = {name: (getattr(batch, name).dtype.str, getattr(batch, name).tobytes()) for name in names}
    if batch.ids is not None:
        arrays["ids"] = batch.ids.tolist()
    if batch.features is not None:
        arrays["features"] = (batch.features.dtype.str, batch.features.tobytes())
    if batch.slices is not None:
        arrays["slices"] = batch.slices.keys.tobytes(), batch.slices.texts.tolist()
    for role, texts in (batch.role_texts or {}).items():
        arrays[f"role {role}"] = texts.tolist()
    return arrays


def assert_texts_are_of_keys(batch, roles):
    """A role's text is the one that its key was hashed from, in every record."""
    for role, texts in (batch.role_texts or {}).items():
        named = name_key(roles[role])
        keys = batch.keys[batch.kinds == ROLE_FIRST + role]
        assert [value_key(named, text) for text in texts.tolist()] == keys.tolist()


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.text(string.ascii_lowercase, max_size=40)

# As JSON text, because what matters is how a number is written: digits, exponents, zeros, signs.
written_numbers = st.one_of(
    st.integers(-100, 100).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.integers(2**53 - 4, 2**53 + 4).map(str),
    st.integers(2**63 - 2, 2**63 + 2).map(str),
    st.integers(2**64 - 2, 2**64 + 2).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1, 1).map(repr),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.floats(0, 2e9).map(lambda x: f"{x:.17e}"),
    st.floats(-1000, 1000).map(lambda x: f"{x:.20f}"),
    st.integers(-1000, 1000).map(lambda x: f"{x}.0"),
    st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        ["-0", "-0.0", "0e5", "1e999", "1e39", "3.4028235677973366e38", "3.4028235677973362e38", "1e-46"]
    ),
    st.sampled_from(
        ["7.006492321624085e-46", "16777217", "9007199254740993", "9007199254740993.0", "1e-400"]
    ),
)

written_texts = st.builds(json.dumps, texts, ensure_ascii=st.booleans())
literals = st.sampled_from(["true", "false", "null"])
written_values = written_numbers | written_texts | literals
nested = st.sampled_from(["[]", "[1]", "{}", '{"a":1}', '{"a":[{"b":null}]}'])
spaces = st.sampled_from(["", "", "", " ", "  ", "\n", "\t \r\n"])
names = st.sampled_from(FEATURE_NAMES).map(lambda name: json.dumps(name, ensure_ascii=False)) | written_texts

moments = st.one_of(
    written_numbers,
    st.datetimes().map(lambda moment: json.dumps(moment.isoformat())),
    st.datetimes(timezones=st.timezones()).map(lambda moment: json.dumps(moment.isoformat())),
    st.from_regex(
        r'"[0-2][0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]'
        r'(\.[0-9]{0,9})?(Z|[+-][0-2][0-9]:?[0-6][0-9])?"',
        fullmatch=True,
    ),
)


@st.composite
def objects(draw, keys, values, roles=()):
    """JSON text of an object, with white space, perhaps repeated keys, and mostly with the keys in `roles`."""
    space = draw(spaces)
    pairs = draw(st.lists(st.tuples(keys, values), max_size=6))
    pairs += [(json.dumps(name), draw(written_values)) for name in roles if draw(st.integers(0, 9))]
    pairs = draw(st.permutations(pairs))
    body = f"{space},{space}".join(f"{key}{space}:{space}{value}" for key, value in pairs)
    return f"{{{space}{body}{space}}}"


@st.composite
def records(draw, roles=()):
    """JSON text of something like a record: mostly learnable, sometimes not; mostly with features named `roles`."""
    values = draw(st.sampled_from([written_values | nested, written_values, written_numbers]))
    label = st.sampled_from(["0", "1", "0.5", "true", "1.0", "0e0", "-1", "2"])
    label = draw(st.sampled_from([label, label, label, written_values]))
    fields = [("features", draw(objects(names, values, roles))), ("label", draw(label))]
    usual = {
        "id": written_texts | st.integers(-(10**18), 10**18).map(str),
        "ts": moments,
        "weight": st.just("0.5"),
    }
    any_of = {
        "id": written_values,
        "ts": moments | written_values | nested,
        "weight": written_numbers | literals,
    }
    for name, values in usual.items():
        given = draw(st.sampled_from([st.none(), values, values, any_of[name]]))
        fields.append((name, draw(given)))
    fields = [(name, value) for name, value in fields if value is not None]
    fields += draw(
        st.lists(
            st.tuples(st.sampled_from(["lable", "zz", "label", "id"]), written_values | nested), max_size=1
        )
    )
    space, after = draw(spaces), draw(spaces)
    body = f",{space}".join(
        f'{space}"{name}"{space}:{after}{value}' for name, value in draw(st.permutations(fields))
    )
    return f"{space}{{{body}{after}}}{space}".encode()


@st.composite
def damaged(draw):
    """A record's bytes, cut off, or with one byte or a stretch replaced."""
    whole = draw(records())
    cut = draw(st.integers(0, len(whole)))
    if draw(st.booleans()):
        return whole[:cut]
    return whole[:cut] + draw(st.binary(max_size=3)) + whole[cut + draw(st.integers(0, 3)) :]
