"""JSON messages to rows: the compiled parser first, the judge for what it leaves over, and both put in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cluster.decode.decoded_rows import Refusal, Rows, numbers_of
from cluster.decode.json_features import Names, Overrides
from cluster.decode.json_kernel import Columns, parse
from cluster.decode.json_records import read_record
from cluster.decode.record_rules import BadRecord, Record, Rules
from learning.keys import name_key
from learning.slice_values import SliceValues
from learning.texts import TextColumn, gather

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["overrides_of", "read_json"]

_PADDING = bytes(16)
_ENTRY_BYTES_MIN = 5  # `"":0,`: room for more entries than can come; memory that is not written is not taken


def overrides_of(rules: Rules) -> Overrides:
    """The rules as the kernel wants them."""
    reads = sorted((int(name_key(name)), how) for name, how in rules.reads.items())
    keys = np.array([key for key, _ in reads], np.uint64)
    hows = np.array([how for _, how in reads], np.uint8)
    return Overrides(
        keys,
        hows,
        len(keys),
        len(rules.roles),
        rules.texts,
        rules.slice_key,
        rules.want_features,
        float(rules.label_min),
        float(rules.label_max),
    )


def read_json(
    messages: Sequence[bytes], rules: Rules, overrides: Overrides, *, want_ids: bool
) -> tuple[Rows, list[Refusal]]:
    """Read messages of one JSON record each."""
    data, columns = _parsed(messages, overrides)
    kept, judged, refused = _judge(messages, columns, rules)
    if judged:
        columns, data = _spliced(columns, judged, data, rules)
    counts = np.diff(columns.ends, prepend=0)
    offsets = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(counts[kept], out=offsets[1:])
    last = int(offsets[-1])
    keys, values, kinds = columns.keys[:last], columns.values[:last], columns.kinds[:last]
    slices = None
    if rules.slice_feature is not None:
        numbers = numbers_of(rules.slice_key, keys, values, kinds, offsets)
        slices = _slices(columns, data, kept, rules, numbers)
    return Rows(
        keys=keys,
        values=values,
        kinds=kinds,
        offsets=offsets,
        labels=columns.labels[kept].astype(np.float32),
        weights=columns.weights[kept].astype(np.float32),
        times_s=columns.times_s[kept],
        message=kept,
        ids=TextColumn.between(data, columns.id_starts[kept], columns.id_ends[kept]) if want_ids else None,
        role_texts={role: _texts(columns, data, kept, role, rules) for role in rules.kept_roles} or None,
        features=columns.features[:last] if rules.want_features else None,
        slices=slices,
    ), refused


def _texts(
    columns: Columns, data: NDArray[np.uint8], kept: NDArray[np.int64], number: int, rules: Rules
) -> TextColumn:
    """The noted texts of one number."""
    at = kept * rules.texts + number
    return TextColumn.between(data, columns.text_starts[at], columns.text_ends[at])


def _slices(
    columns: Columns,
    data: NDArray[np.uint8],
    kept: NDArray[np.int64],
    rules: Rules,
    numbers: NDArray[np.float32],
) -> SliceValues:
    texts = _texts(columns, data, kept, rules.slice_place, rules)
    there = columns.text_ends[kept * rules.texts + rules.slice_place] > 0
    return SliceValues.of(rules.slice_key, texts, there, numbers)


def _parsed(messages: Sequence[bytes], overrides: Overrides) -> tuple[NDArray[np.uint8], Columns]:
    n = len(messages)
    joined = b"\0".join([*messages, _PADDING])
    sizes = np.fromiter(map(len, messages), np.int64, n)
    starts = np.zeros(n, np.int64)
    np.cumsum(sizes[:-1] + 1, out=starts[1:])
    columns = _room(n, len(joined), max(sizes.max(initial=0), 1), overrides)
    data = np.frombuffer(joined, np.uint8)
    parse(data, starts, sizes, columns, Names.empty(), overrides)
    if unescaped := int(columns.filled[0] - columns.filled[1]):
        data = np.concatenate([data, columns.unescaped[:unescaped]])
    return data, columns


def _room(records: int, size_bytes: int, message_bytes_max: int, overrides: Overrides) -> Columns:
    entries, texts = size_bytes // _ENTRY_BYTES_MIN, records * overrides.texts
    return Columns(
        keys=np.empty(entries, np.uint64),
        values=np.empty(entries, np.float32),
        kinds=np.empty(entries, np.uint8),
        features=np.empty(entries if overrides.wants_features else 0, np.uint64),
        ends=np.empty(records, np.int64),
        labels=np.empty(records, np.float64),
        weights=np.empty(records, np.float64),
        times_s=np.empty(records, np.float64),
        id_starts=np.empty(records, np.int64),
        id_ends=np.empty(records, np.int64),
        text_starts=np.zeros(texts, np.int64),
        text_ends=np.zeros(texts, np.int64),
        slow=np.empty(records, np.uint8),
        scratch=np.empty(message_bytes_max, np.uint8),
        unescaped=np.empty(size_bytes if overrides.texts else 0, np.uint8),
        filled=np.full(2, size_bytes, np.int64),
    )


def _judge(
    messages: Sequence[bytes], columns: Columns, rules: Rules
) -> tuple[NDArray[np.int64], dict[int, Record], list[Refusal]]:
    """Let the judge read what the kernel left over: (indices of good messages, its records, what it refused)."""
    judged: dict[int, Record] = {}
    refused = []
    for i in np.flatnonzero(columns.slow).tolist():
        try:
            judged[i] = read_record(messages[i], rules)
        except BadRecord as reason:
            refused.append(Refusal(i, None, str(reason), messages[i]))
    good = np.ones(len(messages), np.bool_)
    good[[refusal.message for refusal in refused]] = False
    return np.flatnonzero(good), judged, refused


def _spliced(
    columns: Columns, judged: dict[int, Record], data: NDArray[np.uint8], rules: Rules
) -> tuple[Columns, NDArray[np.uint8]]:
    """Put the judge's records in their places among the kernel's."""
    places = np.fromiter(judged, np.int64, len(judged))
    records = list(judged.values())
    entries = [entry for record in records for entry in record.entries]
    total = int(columns.ends[-1])
    starts, counts = _inserted(columns, places, [len(record.entries) for record in records])
    taken, offsets = gather(starts, counts)
    for array, name in ((columns.labels, "label"), (columns.weights, "weight"), (columns.times_s, "time_s")):
        array[places] = [getattr(record, name) for record in records]
    data = _with_texts(columns.id_starts, columns.id_ends, places, [r.identity for r in records], data)
    data = _with_noted_texts(columns, places, records, data, rules)
    fields = {"keys": "key", "values": "value", "kinds": "kind"}
    if rules.want_features:
        fields["features"] = "feature"
    for name, field in fields.items():
        column = getattr(columns, name)
        judges = np.array([getattr(entry, field) for entry in entries], column.dtype)
        columns = columns._replace(**{name: np.concatenate([column[:total], judges])[taken]})
    return columns._replace(ends=offsets[1:]), data


def _with_noted_texts(
    columns: Columns, places: NDArray[np.int64], records: list[Record], data: NDArray[np.uint8], rules: Rules
) -> NDArray[np.uint8]:
    for role in rules.kept_roles:
        at = places * rules.texts + role
        texts = [record.text_of(role) for record in records]
        data = _with_texts(columns.text_starts, columns.text_ends, at, texts, data)
    if rules.slice_feature is not None:
        found = [record.category_of(int(rules.slice_key)) for record in records]
        at = places * rules.texts + rules.slice_place
        texts = [text or "" for text in found]
        data = _with_texts(columns.text_starts, columns.text_ends, at, texts, data)
        # What the kernel noted before it gave the record up is no value of it.
        none = at[[text is None for text in found]]
        columns.text_starts[none] = columns.text_ends[none] = 0
    return data


def _with_texts(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    at: NDArray[np.int64],
    texts: list[str],
    data: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """The data with texts behind it, whose places go to starts[at] and ends[at]."""
    column = TextColumn.from_list(texts)
    starts[at], ends[at] = column.offsets[:-1] + len(data), column.offsets[1:] + len(data)
    return np.concatenate([data, column.data])


def _inserted(
    columns: Columns, places: NDArray[np.int64], sizes: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each record's entries start and how many they are, with the judge's entries behind the kernel's."""
    counts = np.diff(columns.ends, prepend=0)
    starts = columns.ends - counts
    counts[places] = sizes
    starts[places] = columns.ends[-1] + np.cumsum([0, *sizes[:-1]])
    return starts, counts
