"""KafkaSource against the embedded broker: cuts, order, ends, gaps, expired offsets and a broker that goes away."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from kafka import TopicPartition

from actors.ports import Decoded, Source, SourceError, StreamUnavailableError
from cluster.broker import Broker, BrokerProcess
from cluster.config import FeaturesConfig, KafkaSourceConfig, Pipeline, build_pipeline
from cluster.decode.decoder import Decoder
from cluster.streams.file_source import encode_arrow
from cluster.streams.kafka_chunks import read_in_chunks
from cluster.streams.kafka_client import connect_consumer, connect_producer, expanded
from cluster.streams.kafka_source import KafkaSource
from cluster.streams.open import describe_source, end_offsets, offsets_at, open_source
from learning.batch import ROLE_FIRST

TOPICS = (f"kafka-source-{i}" for i in itertools.count())


def pipeline_of(servers: str, topic: str, *, batch_records: int = 10, **source: Any) -> Pipeline:
    source = {"kind": "kafka", "topic": topic, "bootstrap_servers": servers, **source}
    return build_pipeline(
        {"name": "test", "source": source, "batch_records": batch_records}, [], origin="test"
    )


def kafka_of(pipeline: Pipeline) -> KafkaSourceConfig:
    assert isinstance(pipeline.source, KafkaSourceConfig)
    return pipeline.source


def topic_of(pipeline: Pipeline) -> str:
    return kafka_of(pipeline).topic


def record(i: int) -> bytes:
    return orjson.dumps({"id": str(i), "features": {"a": i, "c": f"v{i % 3}"}, "label": i % 2})


def rows(first: int, count: int) -> bytes:
    numbers = np.arange(first, first + count)
    columns = {"a": numbers.astype(np.float64), "label": (numbers % 2).astype(np.float64)}
    return encode_arrow(pa.RecordBatch.from_pydict(columns))


def fill(pipeline: Pipeline, messages: dict[int, list[bytes]], **send: Any) -> None:
    producer = connect_producer(kafka_of(pipeline))
    for partition, values in messages.items():
        for value in values:
            producer.send(topic_of(pipeline), value, partition=partition, **send)
    producer.flush(30)
    producer.close()


def new_topic(broker: Broker, messages: dict[int, list[bytes]], **pipeline: Any) -> Pipeline:
    topic = next(TOPICS)
    broker.create_topic(topic, len(messages))
    made = pipeline_of(broker.bootstrap_servers, topic, **pipeline)
    fill(made, messages)
    return made


def read_all(source: Source, within_s: float = 30.0) -> list[Decoded]:
    deadline_s = time.monotonic() + within_s
    decoded = []
    while not source.exhausted and time.monotonic() < deadline_s:
        batch = source.poll(0.2)
        decoded += [] if batch is None else [batch]
    assert source.exhausted
    source.close()
    return decoded


def read_records(source: Source, count: int, within_s: float = 30.0) -> list[Decoded]:
    deadline_s = time.monotonic() + within_s
    decoded: list[Decoded] = []
    while sum(each.records for each in decoded) < count and time.monotonic() < deadline_s:
        batch = source.poll(0.2)
        decoded += [] if batch is None else [batch]
    return decoded


def ids_of(decoded: list[Decoded]) -> list[tuple[int, ...]]:
    return [tuple(each.batch.batch_id) for each in decoded]


def test_bounded_stream_is_cut_on_a_grid_and_read_in_turn(broker):
    """A topic is read to its end: ten records a batch, partitions in turn, the last batch of each one short."""
    pipeline = new_topic(
        broker, {0: [record(i) for i in range(25)], 1: [record(i) for i in range(12)]}, until="end"
    )
    decoded = read_all(open_source(pipeline, describe_source(pipeline)))
    assert ids_of(decoded) == [(0, 0, 10), (1, 0, 10), (0, 10, 20), (1, 10, 12), (0, 20, 25)]
    assert [len(each.batch) for each in decoded] == [10, 10, 10, 2, 5]
    np.testing.assert_array_equal(decoded[0].batch.positions, np.arange(10))
    assert np.all(np.abs(decoded[0].batch.produced_s - time.time()) < 60)


def test_bounded_order_does_not_depend_on_who_was_produced_last(broker):
    """The second partition is filled long before the first one: the order of batches stays the same."""
    pipeline = new_topic(broker, {0: [], 1: [record(i) for i in range(40)]})
    source = open_source(pipeline, {0: (0, 20), 1: (0, 40)})
    assert source.poll(0.5) is None
    fill(pipeline, {0: [record(i) for i in range(30)]})
    decoded = read_all(source)
    assert ids_of(decoded)[:4] == [(0, 0, 10), (1, 0, 10), (0, 10, 20), (1, 10, 20)]
    assert sum(len(each.batch) for each in decoded) == 60


def test_a_live_stream_gives_what_is_there_without_waiting_for_idle_partitions(broker):
    """Three records arrive on one of two partitions: they come at once, in a short batch."""
    pipeline = new_topic(broker, {0: [record(i) for i in range(3)], 1: []})
    source = open_source(pipeline, describe_source(pipeline))
    first = read_records(source, 3)
    assert sum(each.records for each in first) == 3
    assert not source.exhausted
    fill(pipeline, {1: [record(9)]})
    (second,) = read_records(source, 1)
    assert tuple(second.batch.batch_id) == (1, 0, 1)
    source.close()


def test_messages_with_many_rows_are_never_split(broker):
    """Arrow messages of four rows and batches of ten records: three messages each, as two would be too few."""
    pipeline = new_topic(broker, {0: [rows(4 * i, 4) for i in range(7)]}, until="end")
    decoded = read_all(open_source(pipeline, describe_source(pipeline)))
    assert ids_of(decoded) == [(0, 0, 3), (0, 3, 6), (0, 6, 7)]
    assert [len(each.batch) for each in decoded] == [12, 12, 4]


def test_bad_messages_count_as_one_record_and_keep_their_place(broker):
    """Text that is no JSON, an empty message and a torn Arrow message lie between good ones."""
    messages = [record(0), b"{oops", b"", rows(0, 4)[:40], *[record(i) for i in range(4, 12)]]
    pipeline = new_topic(broker, {0: messages}, until="end")
    decoded = read_all(open_source(pipeline, describe_source(pipeline)))
    assert ids_of(decoded) == [(0, 0, 10), (0, 10, 12)]
    assert [letter.offset for letter in decoded[0].dead] == [1, 2, 3]
    assert decoded[0].dead[0].place == f"{topic_of(pipeline)}[0]@1"
    assert len(decoded[0].batch) == 7


def test_start_latest_skips_what_was_there(broker):
    """`start: latest` begins at the ends of the partitions at the time of the start."""
    pipeline = new_topic(broker, {0: [record(i) for i in range(5)]}, start="latest")
    source = open_source(pipeline, describe_source(pipeline))
    fill(pipeline, {0: [record(5)]})
    (decoded,) = read_records(source, 1)
    assert decoded.batch.batch_id.first_offset == 5
    source.close()


def test_lag_is_what_has_not_been_polled(broker):
    """A live topic of 25 records: the lag falls with each batch polled, down to zero."""
    pipeline = new_topic(broker, {0: [record(i) for i in range(25)]})
    source = open_source(pipeline, describe_source(pipeline))
    first = source.poll(10.0)
    assert first is not None
    assert source.lags() == {0: 25 - first.records}
    read_records(source, 25 - first.records)
    assert source.lags() == {0: 0}
    source.close()


def test_full_buffers_pause_and_nothing_is_lost(broker):
    """Far more is in the topic than may be buffered, and the caller is slow: every record comes once, in order."""
    values = [record(i) for i in range(3000)]
    pipeline = new_topic(broker, {0: values, 1: values}, until="end", buffered_batches_max=1)
    source = open_source(pipeline, describe_source(pipeline))
    time.sleep(0.5)
    decoded = read_all(source)
    for partition in (0, 1):
        positions = [each.batch.positions for each in decoded if each.batch.batch_id.partition == partition]
        np.testing.assert_array_equal(np.concatenate(positions), np.arange(3000))


def test_records_without_a_role_are_dead_letters_with_their_place(broker):
    """Ratings come as JSON and as Arrow; one of each has no user, and the pipeline may not ignore it."""
    ratings = [{"features": {"user": user, "item": "m"}, "label": 4.5} for user in (429, None)]
    columns = pa.RecordBatch.from_pydict({"user": [None, 429], "item": ["m", "m"], "label": [4.0, 3.5]})
    values = [*map(orjson.dumps, ratings), encode_arrow(columns)]
    pipeline = new_topic(broker, {0: values}, until="end")
    learner: Any = {"label_min": -np.inf, "label_max": np.inf, "roles": ("user", "item")}
    bounds = describe_source(pipeline, **learner)
    (decoded,) = read_all(open_source(pipeline, bounds, **learner))
    assert decoded.batch.labels.tolist() == [4.5, 3.5]
    assert decoded.batch.kinds.tolist() == [ROLE_FIRST, ROLE_FIRST + 1] * 2
    assert decoded.batch.keys[0] == decoded.batch.keys[2]
    topic = topic_of(pipeline)
    reason = "feature 'user' is missing, but the learner needs it; send it as a number or a text"
    assert [(letter.place, letter.row) for letter in decoded.dead] == [
        (f"{topic}[0]@1", None),
        (f"{topic}[0]@2 row 0", 0),
    ]
    assert {letter.reason for letter in decoded.dead} == {reason}
    ignoring = pipeline.model_copy(update={"features": FeaturesConfig(ignore=("user",))})
    with pytest.raises(SourceError, match=r"features\.ignore names 'user'"):
        describe_source(ignoring, **learner)


def test_an_expired_offset_is_refused_before_anything_is_read(broker):
    """A snapshot's offset lies behind the end of a topic that was made anew: a sentence, not another offset."""
    pipeline = new_topic(broker, {0: [record(0)]})
    with pytest.raises(SourceError, match=rf"{topic_of(pipeline)}\[0\]@99 \(it has 0 to 1\)"):
        open_source(pipeline, {0: (99, None)})


def test_a_partition_that_was_read_to_its_end_may_have_expired(broker):
    """A bounded run is taken up again when retention has removed all of a partition that it had finished."""
    pipeline = new_topic(broker, {0: [record(0)], 1: [record(0)]})
    decoded = read_all(open_source(pipeline, {0: (0, 1), 1: (99, 99)}))
    assert ids_of(decoded) == [(0, 0, 1)]


def test_an_offset_that_expires_while_it_is_read_is_a_sentence(broker):
    """Retention deletes messages between the check at the start and the first fetch."""
    pipeline = new_topic(broker, {0: [record(0)]})
    decoder = Decoder("t", FeaturesConfig())
    source = KafkaSource(kafka_of(pipeline), decoder, 10, {0: (99, None)})
    with pytest.raises(
        SourceError, match=rf"no longer has the offset to go on from at {topic_of(pipeline)}\[0\]@99"
    ):
        source.poll(10.0)
    source.close()


def test_an_empty_bounded_stream_is_exhausted_at_once(broker):
    """`until: end` of a topic that nobody has written to yet."""
    pipeline = new_topic(broker, {0: [], 1: []}, until="end")
    assert read_all(open_source(pipeline, describe_source(pipeline))) == []


def test_an_unknown_topic_is_a_sentence(broker):
    """The pipeline misspells its topic: the error names it and how to fill it, and the topic is not created."""
    pipeline = pipeline_of(broker.bootstrap_servers, "no-such-topic")
    for _ in range(2):
        with pytest.raises(SourceError, match=r"no topic 'no-such-topic'.*jobs\.produce") as raised:
            describe_source(pipeline)
        assert not isinstance(raised.value, StreamUnavailableError)


def test_an_unknown_partition_is_a_sentence(broker):
    """A snapshot knows more partitions than the topic has now."""
    pipeline = new_topic(broker, {0: []})
    with pytest.raises(SourceError, match=r"partitions 0 to 0, but \[4\]"):
        open_source(pipeline, {0: (0, None), 4: (0, None)})


def test_no_broker_is_a_sentence_within_bounded_time(monkeypatch):
    """Nobody listens at the address: the error says how to start a broker, and no thread is left behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipeline = pipeline_of(f"127.0.0.1:{port}", "t")
    monkeypatch.setattr("cluster.streams.open.DESCRIBE_TIMEOUT_S", 1.0)
    started_s = time.monotonic()
    with pytest.raises(
        StreamUnavailableError, match=rf"127.0.0.1:{port} within 1 s; start one with `python -m jobs.broker`"
    ):
        describe_source(pipeline)
    assert time.monotonic() - started_s < 5
    assert not [thread for thread in threading.enumerate() if "kafka" in thread.name.lower()]


def test_a_broker_that_accepts_but_never_answers_is_an_outage(monkeypatch):
    """The broker's machine hangs: connections come about, and no request is answered."""
    monkeypatch.setattr("cluster.streams.open.DESCRIBE_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        pipeline = pipeline_of(f"127.0.0.1:{deaf.getsockname()[1]}", "t")
        for ask in (describe_source, end_offsets, lambda p: open_source(p, {0: (0, None)})):
            with pytest.raises(StreamUnavailableError, match="no Kafka broker answered"):
                ask(pipeline)


def test_offsets_at_a_time_are_those_of_the_first_messages_from_then_on(broker):
    """One partition has messages before and after the moment, one only before, one none."""
    base_ms = 1_700_000_000_123
    pipeline = new_topic(broker, {0: [], 1: [], 2: []})
    for i in range(6):
        fill(pipeline, {0: [record(i)]}, timestamp_ms=base_ms + 10 * i)
    fill(pipeline, {1: [record(0), record(1)]}, timestamp_ms=base_ms)
    assert end_offsets(pipeline) == {0: 6, 1: 2, 2: 0}
    assert offsets_at(pipeline, base_ms / 1000) == {0: 0, 1: 0, 2: 0}
    assert offsets_at(pipeline, base_ms / 1000 + 0.0005) == {0: 1, 1: 2, 2: 0}
    assert offsets_at(pipeline, (base_ms + 30) / 1000) == {0: 3, 1: 2, 2: 0}
    assert offsets_at(pipeline, (base_ms + 51) / 1000) == {0: 6, 1: 2, 2: 0}
    assert offsets_at(pipeline, -1.0) == {0: 0, 1: 0, 2: 0}
    with pytest.raises(SourceError, match="is no time"):
        offsets_at(pipeline, float("nan"))


def test_secrets_are_expanded_and_never_shown(monkeypatch):
    """A password comes from the environment; where it is missing the error names the variable only."""
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    assert expanded("${KAFKA_PASSWORD}!") == "hunter2!"
    with pytest.raises(SourceError, match="no such variable; set KAFKA_NOPE"):
        expanded("x${KAFKA_NOPE}")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_id": "g"}, "source.options.group_id cannot be set"),
        ({"sasl_mechanims": "PLAIN"}, "did you mean sasl_mechanism?"),
        (
            {"ssl_cafile": "/nowhere/ca.pem"},
            "source.options.ssl_cafile names /nowhere/ca.pem, which is no file",
        ),
    ],
)
def test_options_that_break_the_stream_are_refused(options, sentence):
    """An option that exactness rests on, a misspelt one, a certificate that is not there: a sentence at once."""
    pipeline = pipeline_of("127.0.0.1:1", "t", options=options)
    with pytest.raises(SourceError, match=sentence.replace("?", r"\?")):
        describe_source(pipeline)


def test_without_the_compiled_checksum_nothing_starts(monkeypatch):
    """kafka-python was installed without its crc32c extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r"pip install 'kafka-python\[crc32c\]'"):
        connect_consumer(kafka_of(pipeline_of("127.0.0.1:1", "t")))


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_chunks_equal_plain_polling(broker, compression):
    """Messages with and without keys, headers and values, compressed or not: split by us as by kafka-python."""
    pipeline = new_topic(broker, {0: []})
    options = {} if compression is None else {"compression_type": compression}
    source = kafka_of(pipeline).model_copy(update={"options": options})
    producer = connect_producer(source)
    for i in range(500):
        headers = [("h", b"x" * (i % 5))] if i % 3 == 0 else None
        key = b"k" * (i % 130) if i % 2 else None
        value = None if key and i % 50 == 1 else record(i) * (i % 4)
        producer.send(source.topic, value, key=key, headers=headers, timestamp_ms=1_700_000_000_000 + 7 * i)
    producer.flush(30)
    producer.close()
    plain = _polled(connect_consumer(source), source.topic, 500)
    chunked = _polled(read_in_chunks(connect_consumer(source)), source.topic, 500)
    expected = [(each.offset, each.timestamp / 1000, each.value or b"") for each in plain]
    found = [
        m for c in chunked for m in zip(c.offsets.tolist(), c.produced_s.tolist(), c.values, strict=True)
    ]
    assert found == expected


def _polled(consumer: Any, topic: str, messages: int) -> list[Any]:
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    found: list[Any] = []
    deadline_s = time.monotonic() + 30
    while consumer.position(partition) < messages and time.monotonic() < deadline_s:
        found += consumer.poll(timeout_ms=200).get(partition, [])
    consumer.close()
    return found


@pytest.mark.slow
def test_a_broker_that_goes_away_and_comes_back(tmp_path, caplog):
    """kill -9 of the broker while a live stream is read: said once, and reading goes on when it is back."""
    with BrokerProcess(tmp_path, topics={"t": 1}) as process:
        pipeline = pipeline_of(process.bootstrap_servers, "t")
        fill(pipeline, {0: [record(i) for i in range(10)]})
        source = open_source(pipeline, describe_source(pipeline))
        assert len(read_records(source, 10)) > 0
        with caplog.at_level(logging.WARNING):
            process.kill()
            deadline_s = time.monotonic() + 20
            while not caplog.messages and time.monotonic() < deadline_s:
                assert source.poll(0.2) is None
            process.start()
            fill(pipeline, {0: [record(i) for i in range(10, 20)]})
            decoded = read_records(source, 10)
        assert sum(each.records for each in decoded) == 10
        assert [message for message in caplog.messages if "does not answer any more" in message] != []
        assert len([message for message in caplog.messages if "is back" in message]) == 1
        source.close()
