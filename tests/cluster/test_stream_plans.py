"""Streams that are read again: by the journal of an earlier reading, or on from the offsets of any batch's end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.ports import Decoded, SourceError
from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.decode.messages import Messages
from cluster.streams.kafka_buffer import PartitionBuffer
from cluster.streams.kafka_chunks import Chunk
from cluster.streams.kafka_turns import Turns
from cluster.streams.open import describe_source, open_source
from learning.batch import BatchId
from tests.cluster.test_kafka_source import fill, ids_of, new_topic, read_all, read_records, record, rows

Bounds = dict[int, tuple[int, int | None]]


def journal_of(decoded: list[Decoded]) -> list[BatchId]:
    return [each.batch.batch_id for each in decoded]


def left_after(bounds: Bounds, journal: list[BatchId]) -> Bounds:
    """What is left of the partitions behind the batches of a journal."""
    left = dict(bounds)
    for batch_id in journal:
        left[batch_id.partition] = (batch_id.next_offset, left[batch_id.partition][1])
    return left


def assert_same(first: list[Decoded], second: list[Decoded]) -> None:
    assert ids_of(first) == ids_of(second)
    for one, other in zip(first, second, strict=True):
        for column in ("keys", "values", "kinds", "offsets", "labels", "positions"):
            np.testing.assert_array_equal(getattr(one.batch, column), getattr(other.batch, column), column)
        assert [letter.place for letter in one.dead] == [letter.place for letter in other.dead]


# Turns over buffers, without a broker: any log, any order of fetches and cuts.


@dataclass(frozen=True)
class Log:
    """One partition's record batches; messages have different sizes, and offsets have gaps."""

    chunks: list[Chunk]

    @property
    def end(self) -> int:
        return self.chunks[-1].next_offset if self.chunks else 0


@st.composite
def logs(draw: st.DrawFn) -> list[Log]:
    made = []
    for _ in range(draw(st.integers(1, 3))):
        offset, chunks = 0, []
        for sizes in draw(
            st.lists(st.lists(st.sampled_from([1, 9, 40]), min_size=1, max_size=6), max_size=8)
        ):
            gaps = [draw(st.sampled_from([0, 0, 0, 2])) for _ in sizes]
            offsets = offset + np.cumsum([gap + 1 for gap in gaps]) - 1
            offset = int(offsets[-1]) + 1 + draw(st.sampled_from([0, 0, 3]))
            values = [b"{" + b"x" * size for size in sizes]
            chunks.append(Chunk(offsets, np.zeros(len(sizes)), values, offset))
        made.append(Log(chunks))
    return made


Cut = tuple[BatchId, tuple[int, ...], tuple[bytes, ...]]


def cut_of(batch_id: BatchId, messages: Messages) -> Cut:
    return batch_id, tuple(messages.offsets.tolist()), tuple(messages.values)


def played(data: st.DataObject, made: list[Log], *, bounded: bool, plan: list[BatchId]) -> list[Cut]:
    """All cuts over logs whose record batches are fetched in any order, with cuts tried at any time in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluster.streams.kafka_buffer.BATCH_BYTES_MAX", 60)
        return _played(data, made, bounded=bounded, plan=plan)


def _played(data: st.DataObject, made: list[Log], *, bounded: bool, plan: list[BatchId]) -> list[Cut]:
    buffers = [PartitionBuffer(p, 0, log.end if bounded else None, 4) for p, log in enumerate(made)]
    turns = Turns(buffers, plan=plan)
    waiting = {p: list(log.chunks) for p, log in enumerate(made)}
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    cuts = []
    while any(waiting.values()):
        if rng.random() < 0.5:
            partition = int(rng.choice([p for p, chunks in waiting.items() if chunks]))
            buffers[partition].add([waiting[partition].pop(0)])
        elif (cut := turns.cut(short=rng.random() < 0.5)) is not None:
            cuts.append(cut_of(*cut))
    while (cut := turns.cut(short=True)) is not None:
        cuts.append(cut_of(*cut))
    assert turns.finished or not bounded
    return cuts


@settings(max_examples=100)
@given(logs(), st.data())
def test_a_plan_takes_the_very_same_batches_however_messages_arrive(made, data):
    """A live stream's journal holds short batches and batches that were full by bytes, in the turns of that day."""
    first = played(data, made, bounded=False, plan=[])
    journal = [batch_id for batch_id, _, _ in first]
    kept = data.draw(st.integers(0, len(journal)))
    second = played(data, made, bounded=False, plan=journal[:kept])
    assert second[:kept] == first[:kept]
    for cuts in (first, second):  # and behind the plan every message comes once
        for partition, log in enumerate(made):
            offsets = [o for batch_id, own, _ in cuts if batch_id.partition == partition for o in own]
            assert offsets == [o for chunk in log.chunks for o in chunk.offsets.tolist()]


@settings(max_examples=60)
@given(logs(), st.data())
def test_a_bounded_stream_goes_on_round_robin_behind_its_plan(made, data):
    """The plan is the beginning of an undisturbed reading: the rest is the undisturbed reading's rest."""
    whole = played(data, made, bounded=True, plan=[])
    journal = [batch_id for batch_id, _, _ in whole]
    kept = data.draw(st.integers(0, len(journal)))
    assert played(data, made, bounded=True, plan=journal[:kept]) == whole


def test_a_planned_batch_whose_messages_were_compacted_away_is_empty():
    """All messages of a planned batch are gone, and those behind it are there: its place in the order stays."""
    buffer = PartitionBuffer(0, 0, None, 4)
    turns = Turns([buffer], plan=[BatchId(0, 0, 5)])
    assert turns.waits_for(buffer)
    assert turns.cut(short=True) is None
    buffer.add([Chunk(np.array([7]), np.zeros(1), [b"{}"], 8)])
    cut = turns.cut(short=False)
    assert cut is not None
    assert cut_of(*cut) == (BatchId(0, 0, 5), (), ())
    assert buffer.rows == 1


def test_a_plan_that_asks_for_more_than_any_batch_has_is_a_sentence(monkeypatch):
    """A journal of another topic: waiting for its batch would fill the memory."""
    monkeypatch.setattr("cluster.streams.kafka_turns.PLANNED_BYTES_MAX", 100)
    buffer = PartitionBuffer(0, 0, None, 4)
    turns = Turns([buffer], plan=[BatchId(0, 0, 50)])
    buffer.add([Chunk(np.arange(30), np.zeros(30), [b"1234"] * 30, 30)])
    with pytest.raises(SourceError, match=r"\[0\]@0\.\.50 has more than 100 bytes"):
        turns.waits_for(buffer)


# The same over a broker.


def test_a_live_journal_is_followed_and_the_stream_goes_on(broker):
    """Records arrive in spurts on two partitions, JSON and Arrow; a second reading repeats it and then stays live."""
    pipeline = new_topic(broker, {0: [], 1: []})
    bounds: Bounds = {0: (0, None), 1: (0, None)}
    source = open_source(pipeline, bounds)
    first: list[Decoded] = []
    for spurt in range(4):
        fill(pipeline, {0: [record(i) for i in range(3 + spurt)], 1: [rows(0, 4), b"{oops"]})
        first += read_records(source, 8 + spurt)
    source.close()
    again = open_source(pipeline, bounds, plan=journal_of(first))
    assert_same(first, read_records(again, sum(each.records for each in first)))
    fill(pipeline, {0: [record(99)]})
    (last,) = read_records(again, 1)
    assert len(last.batch) == 1
    again.close()


def test_a_planned_batch_larger_than_the_buffer_is_read(broker):
    """batch_records was lowered since: a planned batch does not fit into the buffer that is full by the new number."""
    pipeline = new_topic(broker, {0: [record(i) for i in range(2000)]}, until="end", buffered_batches_max=1)
    source = open_source(pipeline, describe_source(pipeline), plan=[BatchId(0, 0, 1900)])
    decoded = read_all(source)
    assert ids_of(decoded)[0] == (0, 0, 1900)
    assert sum(len(each.batch) for each in decoded) == 2000


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ([(0, 1, 5)], r"\[0\]@1\.\.5 should begin at 0, where its partition stands"),
        ([(0, 0, 5), (0, 7, 9)], r"\[0\]@7\.\.9 should begin at 5"),
        ([(0, 0, 0)], r"and end behind it"),
        ([(0, 0, 13)], r"\[0\]@0\.\.13 runs over its partition's end at 12; give the journal that belongs"),
        ([(3, 0, 5)], r"\[3\]@0\.\.5 is of a partition that is not read here \(\[0\] are\)"),
    ],
)
@pytest.mark.parametrize("end", [None, 12])
def test_a_plan_that_does_not_fit_is_a_sentence(broker, plan, sentence, end):
    """The journal belongs to another snapshot, or to a topic of the same name that was made anew."""
    pipeline = new_topic(broker, {0: [record(i) for i in range(12)]})
    with pytest.raises(SourceError, match=sentence):
        open_source(pipeline, {0: (0, end)}, plan=[BatchId(*each) for each in plan])


@pytest.fixture(scope="module", params=["json", "arrow", "both"])
def undisturbed(request, broker: Broker) -> tuple[Pipeline, Bounds, list[Decoded]]:
    """Four partitions of different lengths, one of them empty, with bad messages in them; and all their batches."""
    texts = {p: [record(i) for i in range(9 * p)] for p in range(4)}
    arrows = {p: [rows(10 * i, 3 + (i + p) % 4) for i in range(4 * p)] for p in range(4)}
    made = {"json": texts, "arrow": arrows, "both": {p: texts[p] + arrows[p] for p in range(4)}}[
        request.param
    ]
    messages = {p: [value for one in values for value in (one, b"{oops")] for p, values in made.items()}
    pipeline = new_topic(broker, messages, until="end")
    bounds = describe_source(pipeline)
    return pipeline, bounds, read_all(open_source(pipeline, bounds))


@settings(max_examples=12)
@given(st.data())
def test_a_topic_is_read_on_from_any_boundary(undisturbed, data):
    """A worker comes back after a crash with a snapshot's offsets and last partition, wherever that was taken.

    Some partitions may be at their ends already. With a journal of what came behind the snapshot it is the same.
    """
    pipeline, bounds, whole = undisturbed
    cut = data.draw(st.integers(0, len(whole)))
    journal = journal_of(whole)
    after = journal[cut - 1].partition if cut else None
    plan = journal[cut : data.draw(st.integers(cut, len(whole)))]
    left = left_after(bounds, journal[:cut])
    rest = read_all(open_source(pipeline, left, after_partition=after, plan=plan))
    assert_same(whole[cut:], rest)


def table(path: Path, count: int) -> Path:
    lines = [f"{i},v{i % 5},{i % 2 if i % 9 else 7}" for i in range(count)]  # a label of 7 is a dead letter
    path.write_text("\n".join(["a,c,y", *lines, ""]))
    return path


def file_pipeline(path: Path, workers: int, batch_records: int = 4) -> Pipeline:
    source = {"kind": "file", "path": str(path)}
    values = {"name": "test", "source": source, "batch_records": batch_records}
    return build_pipeline({**values, "cluster": {"workers": workers}}, [], origin="test")


@pytest.fixture(scope="module")
def file_of_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("files") / "a.csv", 42)


@settings(max_examples=25)
@given(st.sampled_from([1, 3]), st.booleans(), st.data())
def test_a_file_is_read_on_from_any_boundary(file_of_rows, workers, together, data):
    """Workers come back to a file, some with their shares finished; or one takes all shares, in the file's order."""
    pipeline = file_pipeline(file_of_rows, workers)
    bounds = describe_source(pipeline)
    for own in [bounds] if together else [{p: bounds[p]} for p in bounds]:
        whole = read_all(open_source(pipeline, own))
        cut = data.draw(st.integers(0, len(whole)))
        journal = journal_of(whole)
        plan = journal[cut : data.draw(st.integers(cut, len(whole)))]
        rest = read_all(open_source(pipeline, left_after(own, journal[:cut]), plan=plan))
        assert_same(whole[cut:], rest)


def test_a_file_that_is_not_what_it_was_is_a_sentence(tmp_path):
    """Rows were added behind a short last batch, rows were removed, or batch_records is another: no other batches."""
    path = table(tmp_path / "a.csv", 10)
    plan = journal_of(read_all(open_source(file_pipeline(path, 1), {0: (0, None)})))
    with pytest.raises(
        SourceError, match=r"has .*a\.csv\[0\]@0\.\.4 where it now gives .*a\.csv\[0\]@0\.\.5"
    ):
        read_all(open_source(file_pipeline(path, 1, batch_records=5), {0: (0, None)}, plan=plan))
    table(path, 12)
    with pytest.raises(
        SourceError, match=r"@8\.\.10 where it now gives .*@8\.\.12: the file, batch_records or"
    ):
        read_all(open_source(file_pipeline(path, 1), {0: (0, None)}, plan=plan))
    table(path, 8)
    with pytest.raises(SourceError, match=r"has 1 batches more than .*a\.csv now gives"):
        read_all(open_source(file_pipeline(path, 1), {0: (0, None)}, plan=plan))
