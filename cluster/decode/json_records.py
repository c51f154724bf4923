"""The judge of JSON records: one plain Python function that says what a message means, or why it is refused.

It is the definition of the format, written to be read; json_kernel.py is the same thing made fast and gives
anything that is not plain to this module. Rows of Arrow messages that cannot be learnt get their reason here too.

A record is `{"id": ..., "ts": ..., "features": {...}, "label": ..., "weight": ...}`; other top-level keys are ignored.
A number (f64, then f32) is a numeric entry under K(name); text is a categorical entry of value 1 under K(name, text);
true and false are the numbers 1 and 0; null means that the feature is missing. Of a key that is repeated the last
value counts, at the first one's place.

A feature that is one of the learner's roles (its user, its item) is a category that every record must have, and null
is none. Numbers are categories by their canonical text: user 17, 17.0 and "17" are one user. From 2^53 on a number is
the double next to it, as everywhere, so that 9007199254740993 is ...992.0 by JSON and by Arrow alike: ids that long
have to be sent as texts.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from cluster.decode.record_rules import (
    AS_CATEGORICAL,
    AS_FOUND,
    AS_NUMERIC,
    AS_ROLE,
    FLOAT32_ABOVE_0,
    FLOAT32_BOUND,
    IGNORED,
    BadRecord,
    Entry,
    Record,
    Rules,
    category_kind,
    range_text,
)
from learning.batch import NUMBER
from learning.keys import name_key, number_text, value_key

__all__ = ["judge", "read_record"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHAPE = 'expected {"features": {...}, "label": ...}'
_SHOWN_CHARS_MAX = 80
_KEYS_SHOWN_MAX = 8


def read_record(message: bytes, rules: Rules) -> Record:
    """Read one JSON message. Raises BadRecord."""
    if not message:
        raise BadRecord(f"the message is empty; {_SHAPE}")
    try:
        document = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise BadRecord(_syntax_reason(message, error, rules)) from None
    if not isinstance(document, dict):
        raise BadRecord(f"the message is {_kind(document)}; {_SHAPE}")
    return judge(document, rules)


def judge(document: dict[str, Any], rules: Rules) -> Record:
    """What a parsed record means. Raises BadRecord."""
    features = document.get("features")
    if not isinstance(features, dict):
        found = "missing" if "features" not in document else _kind(features)
        raise BadRecord(f'"features" is {found}, the keys found are {_listed(document)}; {_SHAPE}')
    return Record(
        label=_label(document, rules),
        weight=_weight(document.get("weight")),
        time_s=_time_s(document.get("ts")),
        identity=_identity(document.get("id")),
        entries=_entries(
            features, rules
        ),  # last, because it takes longest: where all labels are bad, all come here
    )


def _entries(features: dict[str, Any], rules: Rules) -> list[Entry]:
    for name in rules.roles:
        if features.get(name) is None:
            raise BadRecord(
                f"feature {_shown(name)} is missing, but the learner needs it; send it as a number or a text"
            )
    names: dict[int, str] = {}
    entries = []
    for name, value in features.items():
        how = rules.reads.get(name, AS_FOUND)
        if how == IGNORED:
            continue
        key = _name_key(name)
        if key in names:
            raise BadRecord(
                f"features {_shown(names[key])} and {_shown(name)} have the same 64-bit key; rename one"
            )
        names[key] = name
        if value is not None:
            entries.append(_entry(name, key, value, how))
    return entries


@lru_cache(maxsize=65536)
def _name_key(name: str) -> int:
    return int(name_key(name))


def _entry(name: str, key: int, value: Any, how: int) -> Entry:
    if isinstance(value, str):
        if how == AS_NUMERIC:
            raise BadRecord(
                f"feature {_shown(name)} is the text {_shown(value)}, but as_numeric wants numbers"
            )
        return _category(key, value, how)
    if not isinstance(value, (bool, int, float)):
        raise BadRecord(
            f"feature {_shown(name)} is {_kind(value)}; send a number, a text, true, false or null"
        )
    if isinstance(value, bool):
        return _category(key, str(value).lower(), how) if how >= AS_CATEGORICAL else _number(key, value)
    if not abs(value) < FLOAT32_BOUND:
        instead = "null" if how < AS_ROLE else "it as a text"
        raise BadRecord(
            f"feature {_shown(name)} is {_shown(value)}, no finite 32-bit float; send {instead} instead"
        )
    return _category(key, number_text(value), how) if how >= AS_CATEGORICAL else _number(key, value)


def _number(key: int, value: float) -> Entry:
    return Entry(key, float(value), NUMBER, key)


def _category(key: int, text: str, how: int) -> Entry:
    return Entry(int(value_key(np.uint64(key), text)), 1.0, category_kind(how), key, text)


def _label(document: dict[str, Any], rules: Rules) -> float:
    wanted = f'send "label" as a number{range_text(rules.label_min, rules.label_max)}'
    if "label" not in document:
        raise BadRecord(f'"label" is missing, the keys found are {_listed(document)}; {wanted}')
    label = document["label"]
    if not isinstance(label, (bool, int, float)):
        raise BadRecord(f'"label" is {_kind(label)}; {wanted}')
    if not (rules.label_min <= float(label) <= rules.label_max and abs(label) < FLOAT32_BOUND):
        raise BadRecord(f'"label" is {_shown(label)}; {wanted}')
    return float(label)


def _weight(weight: Any) -> float:
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise BadRecord(f'"weight" is {_kind(weight)}; send a number above 0, or leave it out')
    if not FLOAT32_ABOVE_0 < weight < FLOAT32_BOUND:
        raise BadRecord(f'"weight" is {_shown(weight)}; send a finite 32-bit float above 0, or leave it out')
    return float(weight)


def _identity(identity: Any) -> str:
    if identity is None:
        return ""
    if isinstance(identity, str):
        return identity
    if isinstance(identity, bool) or not isinstance(identity, int):
        raise BadRecord(f'"id" is {_kind(identity)} ({_shown(identity)}); send a text or a 64-bit integer')
    return str(identity)


def _time_s(moment: Any) -> float:
    if moment is None:
        return math.nan
    if isinstance(moment, str):
        return _iso_time_s(moment)
    if isinstance(moment, bool) or not isinstance(moment, (int, float)) or not math.isfinite(moment):
        raise BadRecord(f'"ts" is {_kind(moment)} ({_shown(moment)}); send unix seconds or an ISO 8601 text')
    return float(moment)


def _iso_time_s(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRecord(
            f'"ts" is the text {_shown(text)}; send unix seconds or an ISO 8601 text like "2026-07-01T09:30:00Z"'
        ) from None
    # A time without offset is UTC; the machine's own zone must not change what is learnt.
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH).total_seconds()


def _syntax_reason(message: bytes, error: orjson.JSONDecodeError, rules: Rules) -> str:
    """Why orjson refused the message; for a number beyond float64 the judge can still name its feature."""
    reason = f"the message is not JSON: {error}"
    if "infinity" not in str(error):
        return reason
    try:
        # json reads such a number as infinity, which the judge refuses by name.
        document = json.loads(message, parse_int=float)
        if isinstance(document, dict):
            judge(document, rules)
    except BadRecord as better:
        return str(better)
    except (ValueError, RecursionError):
        return reason
    return reason


def _kind(value: Any) -> str:
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else kinds.get(type(value), f"of type {type(value).__name__}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}... ({len(text)} characters)"


def _listed(document: dict[str, Any]) -> str:
    names = [_shown(name) for name in document]
    more = f" and {len(names) - _KEYS_SHOWN_MAX} more" if len(names) > _KEYS_SHOWN_MAX else ""
    return (", ".join(names[:_KEYS_SHOWN_MAX]) or "none") + more
