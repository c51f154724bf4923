"""jobs.produce: a file or a river data set becomes messages that a KafkaSource reads back as the same records."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from kafka import TopicPartition
from typer.testing import CliRunner

from actors.ports import Decoded, SourceError
from cluster.config import KafkaConnection, build_pipeline
from cluster.streams.kafka_client import connect_consumer
from cluster.streams.open import describe_source, open_source
from cluster.streams.produce import ProducePlan, produce
from learning.batch import NUMBER, ROLE_FIRST
from learning.keys import name_key, value_key

TOPICS = (f"produce-{i}" for i in itertools.count())


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    lines = [f"{i / 2},v{i % 5},{'' if i % 3 else i},{i % 2},{60 * i},r{i}" for i in range(100)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["a,c,n,y,ts,who", *lines, ""]))
    return path


def plan_of(broker, origin: Path | str, **options: Any) -> ProducePlan:
    connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
    return ProducePlan(str(origin), next(TOPICS), connection, **options)


def read_back(broker, topic: str, **learner: Any) -> list[Decoded]:
    source = {"kind": "kafka", "topic": topic, "bootstrap_servers": broker.bootstrap_servers, "until": "end"}
    values = {"name": "test", "source": source, "batch_records": 50, "predictions": {"topic": "unused"}}
    pipeline = build_pipeline(values, [], origin="test")
    return read(open_source(pipeline, describe_source(pipeline, **learner), **learner))


def read(source) -> list[Decoded]:
    decoded = []
    deadline_s = time.monotonic() + 30
    while not source.exhausted and time.monotonic() < deadline_s:
        batch = source.poll(0.2)
        decoded += [] if batch is None else [batch]
    assert source.exhausted
    source.close()
    return decoded


@pytest.mark.parametrize("format_", ["json", "arrow"])
def test_a_file_by_kafka_equals_the_file_itself(broker, csv, format_):
    """The same CSV read directly and through a topic of one partition: the same keys, values, labels and times."""
    plan = plan_of(broker, csv, format=format_, id="who", records_per_message=7)
    produced = produce(plan)
    assert produced.records == 100
    assert produced.messages == (100 if format_ == "json" else 15)
    source = {"kind": "file", "path": str(csv), "id": "who"}
    values = {"name": "test", "source": source, "batch_records": 1000, "cluster": {"workers": 1}}
    pipeline = build_pipeline(values, [], origin="test")
    (direct,) = read(open_source(pipeline, describe_source(pipeline)))
    by_kafka = [each.batch for each in read_back(broker, plan.topic)]
    for column in ("keys", "values", "kinds", "labels", "weights", "event_times_s"):
        joined = np.concatenate([getattr(batch, column) for batch in by_kafka])
        np.testing.assert_array_equal(joined, getattr(direct.batch, column), err_msg=column)
    assert [each for batch in by_kafka if batch.ids for each in batch.ids.tolist()] == [
        f"r{i}" for i in range(100)
    ]


def test_records_go_round_robin_and_have_their_row_as_id(broker, csv):
    """Three partitions and no key: each gets every third record; without an id column the row number is the id."""
    plan = plan_of(broker, csv, partitions=3)
    produce(plan)
    batches = [each.batch for each in read_back(broker, plan.topic)]
    assert sorted(len(batch) for batch in batches) == [33, 33, 34]
    first = next(batch for batch in batches if batch.batch_id.partition == 1)
    assert first.ids is not None
    assert first.ids.tolist()[:3] == ["1", "4", "7"]


def test_a_key_keeps_its_records_in_one_partition(broker, csv):
    """Keyed by a column of five values: each value's records lie in one partition, in order."""
    plan = plan_of(broker, csv, partitions=3, key="c")
    produce(plan)
    homes: dict[str, set[int]] = {}
    for each in read_back(broker, plan.topic):
        assert each.batch.ids is not None
        for identity in each.batch.ids.tolist():
            homes.setdefault(f"v{int(identity) % 5}", set()).add(each.batch.batch_id.partition)
    assert len(homes) == 5
    assert all(len(partitions) == 1 for partitions in homes.values())


def test_ratings_are_keyed_by_their_user(broker, tmp_path):
    """A ratings file: labels go to 5, and one partition has all of a user's records; a key is the id itself."""
    users = [429, 12345678901, 7, 429]
    rows = [f"{users[i % 4]},m{i % 3},{1 + i % 9 / 2},{60 * i}" for i in range(20)]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["user,item,rating,ts", *rows]))
    plan = plan_of(broker, path, label="rating", key="user", partitions=3)
    assert produce(plan).records == 20
    homes: dict[bytes, set[int]] = {}
    for message in messages_in(broker, plan.topic):
        assert str(int(orjson.loads(message.value)["features"]["user"])).encode() == message.key
        homes.setdefault(message.key, set()).add(message.partition)
    assert homes.keys() == {b"429", b"12345678901", b"7"}
    assert all(len(partitions) == 1 for partitions in homes.values())
    back = read_back(broker, plan.topic, label_min=-np.inf, label_max=np.inf, roles=("user", "item"))
    assert sum(len(each.batch) for each in back) == 20
    assert max(each.batch.labels.max() for each in back) == 5.0
    found = np.concatenate([each.batch.keys[each.batch.kinds == ROLE_FIRST] for each in back])
    assert set(found.tolist()) == {value_key(name_key("user"), key.decode()) for key in homes}


def messages_in(broker, topic: str) -> list[Any]:
    consumer = connect_consumer(KafkaConnection(bootstrap_servers=broker.bootstrap_servers))
    partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    count = sum(consumer.end_offsets(partitions).values())
    found: list[Any] = []
    deadline_s = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline_s:
        found += [message for batch in consumer.poll(timeout_ms=200).values() for message in batch]
    consumer.close()
    return found


def test_a_file_whose_labels_are_words_is_refused_without_a_range(broker, tmp_path):
    """Whoever fills a topic does not know the learner: numbers are asked for, of any size."""
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,good\n")
    with pytest.raises(
        SourceError, match="should be numbers, or true and false, but these values were seen: 'good'"
    ):
        produce(plan_of(broker, path))


@pytest.mark.parametrize("format_", ["json", "arrow"])
def test_a_rate_is_kept(broker, csv, format_):
    """A hundred records at 200 a second take half a second, in many small messages."""
    produced = produce(plan_of(broker, csv, format=format_, rate=200.0))
    assert 0.4 < produced.seconds < 3.0
    assert produced.messages >= 5


def test_limit_and_ignored_columns(broker, csv):
    """Only the first ten records, without one of the columns."""
    plan = plan_of(broker, csv, limit=10, ignore=("c", "who"))
    seen: list[int] = []
    produced = produce(plan, seen.append)
    assert produced.records == 10
    assert seen[-1] == 10
    (decoded,) = read_back(broker, plan.topic)
    assert len(decoded.batch) == 10
    assert (decoded.batch.kinds == NUMBER).all()


def test_bad_rows_are_left_out_and_counted(broker, tmp_path):
    """A line with a column too many is no record; the rest is sent, and the first bad row is told."""
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,0\n1,0,9\n2,1\n")
    produced = produce(plan_of(broker, path))
    assert (produced.records, produced.skipped) == (2, 1)
    assert produced.first_skipped is not None
    assert produced.first_skipped.row == 1


def test_a_bundled_river_data_set(broker):
    """river:Phishing needs no network; its labels are its own."""
    plan = plan_of(broker, "river:Phishing", limit=200)
    assert produce(plan).records == 200
    labels = np.concatenate([each.batch.labels for each in read_back(broker, plan.topic)])
    assert set(labels.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("origin", "options", "sentence"),
    [
        ("river:CreditCard", {}, "no bundled data set.*Bananas, Phishing, Shuttle"),
        ("river:Shutle", {}, "did you mean Shuttle?"),
        ("river:TrumpApproval", {}, "no bundled data set for binary classification"),
        ("no-such.csv", {}, "there is no file"),
        ("river:Phishing", {"key": "nope"}, "--key names the column 'nope'"),
        ("river:Phishing", {"key": "x", "format": "arrow"}, "--key needs --format json"),
    ],
)
def test_what_cannot_be_sent_is_a_sentence(broker, origin, options, sentence):
    """A data set that would be downloaded, a misspelt name, a column that is not there."""
    with pytest.raises(SourceError, match=sentence):
        produce(plan_of(broker, origin, **options))


def test_other_partitions_than_the_topic_has_are_refused(broker, csv):
    """--partitions is meant for a new topic; an old one keeps its own."""
    plan = plan_of(broker, csv)
    broker.create_topic(plan.topic, 2)
    with pytest.raises(SourceError, match="exists with 2 partitions, not 3"):
        produce(ProducePlan(plan.origin, plan.topic, plan.connection, partitions=3))


def test_the_job_prints_what_it_sent(broker, csv):
    """The command line as the user types it: one closing line, exit code 0; and a sentence with exit code 1."""
    from jobs.produce import main

    topic = next(TOPICS)
    application = _application(main)
    result = CliRunner().invoke(
        application, [str(csv), topic, "--bootstrap-servers", broker.bootstrap_servers]
    )
    assert result.exit_code == 0, result.output
    assert f"sent 100 records in 100 messages (0.0 MB) to {topic}" in result.output
    failed = CliRunner().invoke(
        application, ["nope.csv", topic, "--bootstrap-servers", broker.bootstrap_servers]
    )
    assert failed.exit_code == 1
    assert "there is no file nope.csv" in failed.output


def _application(main):
    import typer

    application = typer.Typer()
    application.command()(main)
    return application


def test_json_messages_have_the_documented_shape():
    """Missing features are left out; times are unix seconds."""
    import pyarrow as pa

    from cluster.streams.produce import encode_json

    columns = pa.RecordBatch.from_pydict(
        {
            "a": pa.array([1.5, None]),
            "label": pa.array([1.0, 0.0]),
            "ts": pa.array([60_000, None], pa.timestamp("ms")),
            "id": pa.array(["k", "l"]),
        }
    )
    assert [orjson.loads(message) for message in encode_json(columns)] == [
        {"id": "k", "ts": 60.0, "label": 1.0, "features": {"a": 1.5}},
        {"id": "l", "label": 0.0, "features": {}},
    ]
