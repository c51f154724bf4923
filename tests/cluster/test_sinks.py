"""Dead letters to a file or a topic, and predictions to a topic: what is written, bounds, and delivery errors."""

from __future__ import annotations

import base64
import itertools
import threading
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition, errors

from actors.ports import DeadLetter, SourceError, StreamUnavailableError
from cluster.broker import Broker, BrokerProcess
from cluster.config import build_pipeline
from cluster.streams.kafka_client import connect_consumer
from cluster.streams.kafka_errors import explain_kafka_error
from cluster.streams.kafka_sender import DeliveryError, KafkaSender, ensure_topic
from cluster.streams.open import open_source
from cluster.streams.prediction_messages import encode_predictions, places_of
from cluster.streams.sinks import (
    PredictionSink,
    encode_dead_letter,
    open_dead_letters,
    open_predictions,
)
from learning.batch import Batch, BatchId
from learning.mixer import Mixed
from learning.texts import TextColumn

TOPICS = (f"sinks-{i}" for i in itertools.count())


def letter(value: bytes = b"{oops", offset: int = 7, row: int | None = None) -> DeadLetter:
    return DeadLetter("clicks", 3, offset, row, "the message is not JSON", value)


def batch_of(ids: list[str] | None, count: int = 3) -> Batch:
    empty = Batch.empty(BatchId(3, 10, 10 + count))
    fields = {name: getattr(empty, name) for name in empty.__slots__}
    fields |= {"labels": np.zeros(count, np.float32), "positions": np.arange(10, 10 + count)}
    fields["ids"] = None if ids is None else TextColumn.from_list(ids)
    return Batch(**fields)


def pipeline_of(servers: str, **sections: Any):
    source = {"kind": "kafka", "topic": "clicks", "bootstrap_servers": servers}
    return build_pipeline({"name": "test", "source": source, **sections}, [], origin="test")


def messages_in(connection, topic: str) -> list[tuple[bytes | None, dict[str, Any]]]:
    return [(each.key, orjson.loads(each.value)) for each in polled(connection, topic)]


def values_in(connection, topic: str) -> list[bytes]:
    return [each.value for each in polled(connection, topic)]


def polled(connection, topic: str) -> list[Any]:
    consumer = connect_consumer(connection)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    end = consumer.end_offsets([partition])[partition]
    found: list[Any] = []
    deadline_s = time.monotonic() + 20
    while len(found) < end and time.monotonic() < deadline_s:
        found += consumer.poll(timeout_ms=200).get(partition, [])
    consumer.close()
    return found


def test_a_letter_says_where_it_was_and_why():
    """One bad JSON message: its place, its reason and its text."""
    assert orjson.loads(encode_dead_letter(letter(row=2), 100)) == {
        "place": "clicks[3]@7 row 2",
        "source": "clicks",
        "partition": 3,
        "offset": 7,
        "row": 2,
        "reason": "the message is not JSON",
        "value": "{oops",
        "encoding": "utf-8",
        "value_bytes": 5,
    }


def test_bytes_that_are_no_text_go_as_base64():
    """A torn Arrow message cannot be written as text."""
    fields = orjson.loads(encode_dead_letter(letter(b"\xff\xff\x00"), 100))
    assert fields["encoding"] == "base64"
    assert base64.b64decode(fields["value"]) == b"\xff\xff\x00"


def test_a_long_value_is_cut_and_its_length_kept():
    """A message of a megabyte: the letter holds its beginning; a character that the cut goes through is left out."""
    fields = orjson.loads(encode_dead_letter(letter("ab\u00fc".encode() * 1000), 3))
    assert (fields["value"], fields["encoding"], fields["value_bytes"]) == ("ab", "utf-8", 4000)


def test_the_file_appears_with_the_first_letter(tmp_path):
    """A run without bad records leaves no empty file; one with some has a line for each, in order."""
    sink = open_dead_letters(pipeline_of("127.0.0.1:1"), tmp_path / "dead", 4)
    sink.write([])
    sink.flush()
    assert not (tmp_path / "dead").exists()
    sink.write([letter(offset=1), letter(offset=2)])
    sink.flush()
    lines = (tmp_path / "dead" / "worker-4.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["offset"] for line in lines] == [1, 2]
    sink.close()
    sink.close()


def test_a_second_run_appends(tmp_path):
    """After a crash the worker writes on in the same file."""
    for offset in (1, 2):
        sink = open_dead_letters(pipeline_of("127.0.0.1:1"), tmp_path, 0)
        sink.write([letter(offset=offset)])
        sink.close()
    assert len((tmp_path / "worker-0.jsonl").read_bytes().splitlines()) == 2


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    """The run's folder is a file."""
    (tmp_path / "dead").write_text("x")
    with pytest.raises(SourceError, match=r"dead letters cannot be written to .*worker-0.jsonl"):
        open_dead_letters(pipeline_of("127.0.0.1:1"), tmp_path / "dead", 0).write([letter()])


def test_letters_go_to_a_topic(broker, tmp_path):
    """`dead_letters.topic` names a topic that does not exist yet: it is created, and letters are keyed by place."""
    topic = next(TOPICS)
    pipeline = pipeline_of(broker.bootstrap_servers, dead_letters={"topic": topic})
    sink = open_dead_letters(pipeline, tmp_path, 0)
    sink.write([letter(), letter(offset=8)])
    sink.close()
    found = messages_in(pipeline.source, topic)
    assert [key for key, _ in found] == [b"clicks[3]@7", b"clicks[3]@8"]
    assert found[0][1]["reason"] == "the message is not JSON"


def test_predictions_are_keyed_by_id_or_place():
    """Of three records one has no id: it is known by partition and offset."""
    encoded = encode_predictions(
        batch_of(["a", "", '"c'], 3), Mixed(np.array([0.25, 0.5, 0.75])), "7", "clicks"
    )
    assert [key for key, _ in encoded] == [b"a", b"3:11", b'"c']
    assert orjson.loads(encoded[2][1]) == {
        "id": '"c',
        "prediction": 0.75,
        "version": "7",
        "place": "clicks[3]@12",
        "batch": "[3]@10..13",
    }
    assert [key for key, _ in encode_predictions(batch_of(None), Mixed(np.zeros(3)), "7", "clicks")] == [
        b"3:10",
        b"3:11",
        b"3:12",
    ]


@pytest.mark.parametrize(
    ("offsets", "places"),
    [
        ([4, 5, 9], ["4", "5", "9"]),
        ([4, 4, 4, 5, 9, 9], ["4#0", "4#1", "4#2", "5", "9#0", "9#1"]),
        ([7, 7], ["7#0", "7#1"]),
        ([7], ["7"]),
        ([], []),
    ],
)
def test_a_record_is_known_by_its_place(offsets, places):
    """Messages with one record and Arrow messages with several lie in one batch: a number only where it is needed."""
    batch = replace(batch_of(None, len(offsets)), positions=np.array(offsets, np.int64))
    assert places_of(batch, "clicks") == [f"clicks[3]@{place}" for place in places]


def test_a_choice_among_experts_is_told_with_its_propensity() -> None:
    """A bandit chose: which expert predicted, by name, and how likely that was; without it no such fields."""
    mixed = Mixed(np.array([0.25, 0.5, 0.5]), np.array([1, 0, 1]), np.array([0.9, 0.05, 1.0]))
    encoded = encode_predictions(batch_of(["a", "b", "c"]), mixed, "7", "clicks", ("slow", "fast"))
    fields = [orjson.loads(value) for _, value in encoded]
    assert [(each["expert"], each["propensity"]) for each in fields] == [
        ("fast", 0.9),
        ("slow", 0.05),
        ("fast", 1.0),
    ]
    plain = encode_predictions(batch_of(["a", "b", "c"]), Mixed(np.zeros(3)), "7", "clicks", ("slow", "fast"))
    assert "expert" not in orjson.loads(plain[0][1])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.data())
def test_a_place_does_not_depend_on_how_the_stream_was_cut(rows, data):
    """A live stream is read again after a crash and cut otherwise, between any messages: repeats are recognised."""
    offsets = np.repeat(np.arange(len(rows)), rows)
    whole = replace(batch_of(None, len(offsets)), positions=offsets)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)))) | {0, len(rows)})
    edges = np.searchsorted(offsets, cuts).tolist()
    parts = [
        replace(batch_of(None, end - start), positions=offsets[start:end]) for start, end in pairwise(edges)
    ]
    places = places_of(whole, "clicks")
    assert [place for part in parts for place in places_of(part, "clicks")] == places
    assert len(set(places)) == len(offsets)


def test_predictions_go_to_a_topic(broker):
    """A pipeline with `predictions.topic`; without it there is no sink."""
    topic = next(TOPICS)
    pipeline = pipeline_of(broker.bootstrap_servers, predictions={"topic": topic})
    sink = open_predictions(pipeline)
    assert sink is not None
    sink.write(batch_of(["a", "b", "c"]), Mixed(np.array([0.1, 0.2, 0.3])), "1")
    sink.flush()
    found = [fields for _, fields in messages_in(pipeline.source, topic)]
    assert [fields["prediction"] for fields in found] == [0.1, 0.2, 0.3]
    assert [fields["place"] for fields in found] == ["clicks[3]@10", "clicks[3]@11", "clicks[3]@12"]
    sink.close()
    sink.close()
    assert open_predictions(pipeline_of(broker.bootstrap_servers)) is None


def test_a_topic_is_never_its_own_sink(broker):
    """Dead letters into the topic they come from would be read again for ever."""
    with pytest.raises(SourceError, match="also the source's topic"):
        open_predictions(pipeline_of(broker.bootstrap_servers, predictions={"topic": "clicks"}))


def test_what_is_under_way_is_bounded(broker):
    """Many more bytes than may be under way: the sender waits for confirmations and everything arrives."""
    topic = next(TOPICS)
    connection = pipeline_of(broker.bootstrap_servers).source
    ensure_topic(connection, topic)
    sender = KafkaSender(connection, topic, under_way_bytes_max=20_000)
    for i in range(200):
        sender.send(orjson.dumps({"i": i, "pad": "x" * 1000}))
        assert sender._bytes <= 20_000
    sender.close()
    assert [fields["i"] for _, fields in messages_in(connection, topic)] == list(range(200))


def test_a_message_that_is_too_large_is_a_sentence(broker):
    """A prediction or a batch beyond the producer's limit."""
    topic = next(TOPICS)
    connection = pipeline_of(broker.bootstrap_servers).source
    ensure_topic(connection, topic)
    sender = KafkaSender(connection, topic, message_bytes_max=1000)
    with pytest.raises(DeliveryError, match="larger than 1000 bytes; send fewer records"):
        sender.send(b"x" * 200_000)
    sender.abandon()


@pytest.mark.parametrize(
    ("error", "is_outage"),
    [
        (errors.NotLeaderForPartitionError(), True),
        (errors.NotEnoughReplicasError(), True),
        (errors.RequestTimedOutError(), True),
        (ConnectionResetError(), True),
        (errors.UnknownTopicOrPartitionError(), False),
        (errors.SaslAuthenticationFailedError(), False),
        (errors.TopicAuthorizationFailedError(), False),
        (errors.CorruptRecordError(), False),
        (FileNotFoundError("ca.pem"), False),
    ],
)
def test_an_outage_is_told_from_what_would_fail_again(error, is_outage):
    """A broker without a leader is worth another try; a refused login or a missing certificate is not."""
    explained = explain_kafka_error(error, pipeline_of("b:9092").source, "t")
    assert isinstance(explained, StreamUnavailableError) == is_outage
    assert "b:9092" in str(explained)


def test_an_outage_loses_nothing_and_stores_nothing_twice(tmp_path):
    """The broker restarts twice while a worker sends predictions and another reads them, each time for a second."""
    with Broker(tmp_path) as broker:
        broker.create_topic("clicks", 1)
        pipeline = pipeline_of(broker.bootstrap_servers)
        source = open_source(pipeline, {0: (0, None)})
        sender = KafkaSender(pipeline.source, "clicks")
        thread = threading.Thread(target=send_for_a_while, args=(sender, 1000))
        thread.start()
        places: list[int] = []
        for _ in range(2):
            places += offsets_polled(source, for_s=0.5)
            broker.stop()
            places += offsets_polled(source, for_s=1.0)
            broker.start()
        thread.join(30.0)
        assert not thread.is_alive()
        assert sender.failed == 0
        deadline_s = time.monotonic() + 20
        while len(places) < 1000 and time.monotonic() < deadline_s:
            places += offsets_polled(source, for_s=0.2)
        source.close()
        sent = [orjson.loads(each)["n"] for each in values_in(pipeline.source, "clicks")]
    assert sent == list(range(1000))
    assert places == list(range(1000))


def send_many(sender: KafkaSender, count: int) -> None:
    for _ in range(count):
        sender.send(b"x" * 100)


def send_for_a_while(sender: KafkaSender, count: int) -> None:
    for i in range(count):
        sender.send(orjson.dumps({"n": i, "features": {"a": i}, "label": 1}))
        time.sleep(0.003)
    sender.close(60.0)


def offsets_polled(source, for_s: float) -> list[int]:
    deadline_s = time.monotonic() + for_s
    found: list[int] = []
    while time.monotonic() < deadline_s:
        decoded = source.poll(0.1)
        found += [] if decoded is None else decoded.batch.positions.tolist()
    return found


def test_an_outage_that_lasts_too_long_is_said_to_be_one(tmp_path):
    """The broker stays away longer than the sender waits: an error that tells whoever supervises to try again."""
    with Broker(tmp_path) as broker:
        broker.create_topic("t", 1)
        pipeline = pipeline_of(broker.bootstrap_servers)
        sender = KafkaSender(pipeline.source, "t", under_way_bytes_max=10_000, timeout_s=0.5)
        sender.send(b"x")
        sender.flush()
        broker.stop()
        with pytest.raises(StreamUnavailableError, match="not delivered: the broker did not confirm in time"):
            send_many(sender, 1000)
        assert sender.sent < 1000
        sender.abandon()


@pytest.mark.slow
def test_a_broker_that_is_gone_is_a_sentence_within_bounded_time(tmp_path):
    """kill -9 of the broker before the flush: how many messages were not delivered, and to which topic."""
    with BrokerProcess(tmp_path, topics={"t": 1}) as process:
        sender = KafkaSender(pipeline_of(process.bootstrap_servers).source, "t")
        sink = PredictionSink(sender, "clicks")
        sink.write(batch_of(["a", "b", "c"]), Mixed(np.zeros(3)), "1")
        sink.flush()
        process.kill()
        sink.write(batch_of(["a", "b", "c"]), Mixed(np.zeros(3)), "1")
        started_s = time.monotonic()
        with pytest.raises(DeliveryError, match=r"3 of 6 messages to topic 't' at .* were not delivered"):
            sender.close(2.0)
        assert time.monotonic() - started_s < 10
