"""What a message brings out is what went in, whatever is missing from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learning.batch import BatchId
from learning.exchange import Moment, Named, Pull, Push, Rows, Wait
from learning.texts import TextColumn
from learning.wire import pack_answer, pack_call, unpack_answer, unpack_call

sizes = st.integers(0, 5)
seeds = st.integers(0, 2**32 - 1)
ids = st.builds(BatchId, st.integers(0, 9), st.integers(0, 2**62), st.integers(0, 2**62))


def drawn(seed: int, size: int, dtype: Any) -> np.ndarray:
    """Any bits at all, NaN and infinities among them."""
    raw = np.random.default_rng(seed).bytes(size * np.dtype(dtype).itemsize)
    return np.frombuffer(raw, dtype)


@st.composite
def pushes(draw: Any) -> Push:
    """With and without names."""
    seed, size = draw(seeds), draw(sizes)
    texts = TextColumn.from_list([f"item {i} é" for i in range(size)])
    names = Named(drawn(seed, size, np.int32), texts) if draw(st.booleans()) else None
    return Push(draw(ids), drawn(seed, 2 * size, np.float32), draw(st.floats(allow_nan=False)), names)


@st.composite
def pulls(draw: Any) -> Pull:
    """Of no to three tables, with and without carried keys and sights."""
    seed, of_tables = draw(seeds), draw(st.lists(sizes, max_size=3))
    carries = tuple(draw(st.integers(0, size)) for size in of_tables)
    total = sum(of_tables)
    sights = drawn(seed, total, np.uint8) if draw(st.booleans()) else None
    return Pull(
        draw(ids), draw(st.integers(0, 2**40)), draw(st.floats()), tuple(of_tables), carries,
        drawn(seed, total, np.uint64), drawn(seed, sum(carries), np.int32), sights,
    )  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, in every part."""
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.tobytes() == b.tobytes())
    if isinstance(a, TextColumn):
        return same(a.data, b.data) and same(a.offsets, b.offsets)
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return same(np.array(a), np.array(b))
    return bool(type(a) is type(b) and a == b)


changes = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 100), st.floats(-1, 1)), max_size=3).map(
    tuple
)
moments = st.builds(Moment, *[st.integers(0, 2**40)] * 3, changes)


@given(st.integers(0, 1000), moments, st.none() | pushes(), st.none() | pulls())
def test_a_call_arrives_as_it_was_sent(
    worker: int, moment: Moment, push: Push | None, pull: Pull | None
) -> None:
    """A push, a pull, both or neither, of any moment and any sizes, down to the last bit of NaN."""
    assert same(unpack_call(pack_call(worker, moment, push, pull)), (worker, moment, push, pull))


@given(sizes, seeds, st.none() | st.lists(sizes, max_size=3), st.none() | sizes)
def test_an_answer_arrives_as_it_was_given(
    size: int, seed: int, absent: list[int] | None, nameless: int | None
) -> None:
    """Rows, with and without absent and nameless ones; or that the pull has to wait."""
    rows = Rows(
        drawn(seed, size, np.float32),
        None if absent is None else tuple(drawn(seed, n, np.int32) for n in absent),
        None if nameless is None else drawn(seed, nameless, np.int32),
    )
    assert same(unpack_answer(pack_answer(rows)), rows)
    assert unpack_answer(pack_answer(Wait(seed))) == Wait(seed)
