"""Real clients against the embedded broker: kafka-python and, as an independent implementation, librdkafka."""

from __future__ import annotations

import gc
import threading
import time
import uuid
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import ConfigResource as ConfluentResource  # type: ignore[attr-defined]
from confluent_kafka.admin import NewTopic as ConfluentTopic  # type: ignore[attr-defined]
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from cluster.broker import Broker, LogConfig, TopicError

READER = {"group_id": None, "enable_auto_commit": False, "fetch_max_wait_ms": 100}

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def no_leftovers():
    """kafka-python leaves sockets to the garbage collector: collect them where that is ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def topic(broker):
    name = f"topic-{uuid.uuid4().hex[:8]}"
    broker.create_topic(name, partitions=2)
    return name


def python_producer(broker, **options):
    return KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **options)


def python_reader(broker, *partitions, **options):
    reader = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, **{**READER, **options})
    reader.assign([TopicPartition(*partition) for partition in partitions])
    reader.seek_to_beginning()
    return reader


def python_read(reader, count, timeout_s=10.0):
    ends_s = time.monotonic() + timeout_s
    records: list[Any] = []
    while len(records) < count and time.monotonic() < ends_s:
        for batch in reader.poll(200).values():
            records += batch
    return records


def confluent_producer(broker, **options):
    return confluent_kafka.Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0, **options}
    )


def confluent_consumer(broker, **options):
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": uuid.uuid4().hex, "log_level": 0}
    return confluent_kafka.Consumer({**settings, "auto.offset.reset": "earliest", **options})


def confluent_read(consumer, count, timeout_s=10.0):
    ends_s = time.monotonic() + timeout_s
    messages: list[Any] = []
    while len(messages) < count and time.monotonic() < ends_s:
        for message in consumer.consume(count - len(messages), 0.2):
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_kafka_python_reads_what_it_wrote(broker, topic, compression):
    """A producer writes keys, values, headers and times, compressed or not: all come back, in order."""
    producer = python_producer(broker, compression_type=compression)
    for index in range(200):
        producer.send(topic, b"v%d" % index, b"k", [("h", b"x")], partition=1, timestamp_ms=1000 + index)
    producer.close()
    reader = python_reader(broker, (topic, 1))
    records = python_read(reader, 200)
    reader.close()
    assert [(r.offset, r.value, r.timestamp) for r in records] == [
        (i, b"v%d" % i, 1000 + i) for i in range(200)
    ]
    assert (records[0].key, list(records[0].headers)) == (b"k", [("h", b"x")])


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_librdkafka_reads_what_it_wrote(broker, topic, compression):
    """The same with an independent client, idempotent, in every codec."""
    producer = confluent_producer(broker, **{"compression.type": compression, "enable.idempotence": True})
    for index in range(200):
        producer.produce(
            topic, b"v%d" % index, b"k", partition=0, timestamp=1000 + index, headers=[("h", b"x")]
        )
    assert producer.flush(10) == 0
    consumer = confluent_consumer(broker)
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    messages = confluent_read(consumer, 200)
    consumer.close()
    assert [(m.offset(), m.value()) for m in messages] == [(i, b"v%d" % i) for i in range(200)]
    assert (messages[7].timestamp()[1], messages[7].headers()) == (1007, [("h", b"x")])


def test_clients_read_each_other(broker, topic):
    """One client writes, the other reads, both ways."""
    producer = confluent_producer(broker)
    producer.produce(topic, b"from librdkafka", partition=0)
    assert producer.flush(10) == 0
    other = python_producer(broker, acks=1, enable_idempotence=False)
    assert other.send(topic, b"from kafka-python", partition=0).get(10).offset == 1
    other.close()
    reader = python_reader(broker, (topic, 0))
    assert [record.value for record in python_read(reader, 2)] == [b"from librdkafka", b"from kafka-python"]
    reader.close()
    consumer = confluent_consumer(broker)
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    assert [m.value() for m in confluent_read(consumer, 2)] == [b"from librdkafka", b"from kafka-python"]
    consumer.close()


def test_a_group_of_kafka_python_goes_on_where_it_committed(broker, topic):
    """A consumer commits and closes; the next of its group begins there; end offsets give the lag."""
    producer = python_producer(broker)
    for index in range(20):
        producer.send(topic, b"%d" % index, partition=index % 2)
    producer.flush()
    settings = {
        "bootstrap_servers": broker.bootstrap_servers,
        "group_id": "g",
        "auto_offset_reset": "earliest",
    }
    first = KafkaConsumer(topic, enable_auto_commit=False, **settings)
    assert len(python_read(first, 20)) == 20
    first.commit()
    parts = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    assert [first.committed(part) for part in parts] == [10, 10]
    first.close()
    producer.send(topic, b"new", partition=0).get(10)
    producer.close()
    second = KafkaConsumer(topic, enable_auto_commit=False, **settings)
    assert [record.value for record in python_read(second, 1)] == [b"new"]
    assert second.end_offsets(parts) == {parts[0]: 11, parts[1]: 10}
    second.close()


def test_a_group_of_librdkafka_shares_partitions_and_rebalances(broker, topic):
    """Two members get a partition each; when one leaves, the other takes over both."""
    options = {"group.id": f"r-{topic}", "session.timeout.ms": 6000, "heartbeat.interval.ms": 100}
    first, second = confluent_consumer(broker, **options), confluent_consumer(broker, **options)
    first.subscribe([topic])
    second.subscribe([topic])

    def settle(done):
        ends_s = time.monotonic() + 15
        while time.monotonic() < ends_s and not done():
            first.poll(0.05)
            if second is not None:
                second.poll(0.05)

    settle(lambda: [len(first.assignment()), len(second.assignment())] == [1, 1])
    assert {part.partition for part in first.assignment() + second.assignment()} == {0, 1}
    second.close()
    second = None
    settle(lambda: len(first.assignment()) == 2)
    assert len(first.assignment()) == 2
    first.close()


def test_librdkafka_commits_and_sees_its_commits(broker, topic):
    """A member commits by hand; another client of the group reads the commit, by API and by beginning there."""
    producer = confluent_producer(broker)
    for index in range(6):
        producer.produce(topic, b"%d" % index, partition=0)
    assert producer.flush(10) == 0
    group = {"group.id": f"c-{topic}", "enable.auto.commit": False}
    first = confluent_consumer(broker, **group)
    first.subscribe([topic])
    messages = confluent_read(first, 6)
    first.commit(messages[3], asynchronous=False)
    first.close()
    second = confluent_consumer(broker, **group)
    part = confluent_kafka.TopicPartition(topic, 0)
    assert second.committed([part], 10)[0].offset == 4
    second.subscribe([topic])
    assert [message.value() for message in confluent_read(second, 2)] == [b"4", b"5"]
    second.close()


def test_a_silent_member_is_replaced(broker, topic):
    """A member dies without leaving: after its session timeout the next one gets the partitions."""
    options = {"group.id": f"s-{topic}", "session.timeout.ms": 1000, "heartbeat.interval.ms": 100}
    dead = confluent_consumer(broker, **options, **{"client.id": "dead"})
    dead.subscribe([topic])
    ends_s = time.monotonic() + 10
    while not dead.assignment() and time.monotonic() < ends_s:
        dead.poll(0.1)
    assert len(dead.assignment()) == 2
    group = broker._running().groups.find(options["group.id"])
    with group._changed:
        member = next(iter(group.members.values()))
        member.session_timeout_s = -1.0  # as if its heartbeats had stopped
    deadline_s = time.monotonic() + 5
    while member.member_id in group.members and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert member.member_id not in group.members
    dead.close()


def test_offsets_by_time(broker, topic):
    """Readers start at a time: both clients find the same first offset, or none after the last record."""
    producer = python_producer(broker)
    for index in range(10):
        producer.send(topic, b"x", partition=0, timestamp_ms=1000 + 100 * index)
    producer.close()
    reader = python_reader(broker, (topic, 0))
    part = TopicPartition(topic, 0)
    found = reader.offsets_for_times({part: 1250})[part]
    assert (found.offset, found.timestamp) == (3, 1300)
    assert reader.offsets_for_times({part: 5000})[part] is None
    assert (reader.beginning_offsets([part])[part], reader.end_offsets([part])[part]) == (0, 10)
    reader.close()
    consumer = confluent_consumer(broker)
    asked = confluent_kafka.TopicPartition(topic, 0, 1250)
    assert consumer.offsets_for_times([asked], 10)[0].offset == 3
    assert consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), 10) == (0, 10)
    consumer.close()


def test_topics_are_made_listed_grown_and_deleted(broker):
    """An operator manages topics with either client's admin tools."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    settings = {"retention.ms": "1000"}
    admin.create_topics([NewTopic("made", num_partitions=3, replication_factor=1, topic_configs=settings)])
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics([NewTopic("made", num_partitions=3, replication_factor=1)])
    admin.create_partitions({"made": NewPartitions(5)})
    assert "made" in admin.list_topics()
    other = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    metadata = other.list_topics(timeout=10)
    assert len(metadata.topics["made"].partitions) == 5
    resource = ConfluentResource("topic", "made")
    assert other.describe_configs([resource])[resource].result(10)["retention.ms"].value == "1000"
    assert other.describe_cluster().result(10).controller.id == 0
    other.delete_topics(["made"])["made"].result(10)
    other.create_topics([ConfluentTopic("again", 1)])["again"].result(10)
    assert "made" not in admin.list_topics()
    admin.delete_topics(["again"])
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.delete_topics(["again"])
    admin.close()


def test_what_the_broker_cannot_do_is_refused_when_a_topic_is_made(broker):
    """Somebody asks for compaction, three replicas, no partitions or a strange name: each is refused with words."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for asked, words in [
        (ConfluentTopic("c", 1, config={"cleanup.policy": "compact"}), "does not carry out"),
        (ConfluentTopic("c", 1, config={"retention.ms": "soon"}), "whole number"),
        (ConfluentTopic("c", 1, replication_factor=3), "replication factor 1"),
        (ConfluentTopic("c", 100_000), "1 to 1024 partitions"),
        (ConfluentTopic("a/../b", 1), "letters, digits"),
    ]:
        with pytest.raises(confluent_kafka.KafkaException, match=words):
            admin.create_topics([asked])[asked.topic].result(10)
    with pytest.raises(TopicError, match="letters, digits"):
        broker.create_topic("..")


def test_groups_are_listed_described_and_deleted(broker, topic):
    """An operator looks at the groups and removes one that is not used any more."""
    group = f"d-{topic}"
    consumer = KafkaConsumer(topic, bootstrap_servers=broker.bootstrap_servers, group_id=group)
    python_read(consumer, 1, timeout_s=1.5)
    consumer.commit()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    assert group in {found.group_id for found in admin.list_consumer_groups().result(10).valid}
    described = admin.describe_consumer_groups([group])[group].result(10)
    assert (described.state.name, len(described.members)) == ("STABLE", 1)
    with pytest.raises(confluent_kafka.KafkaException, match=r"NON_EMPTY_GROUP|not empty"):
        admin.delete_consumer_groups([group])[group].result(10)
    consumer.close()
    admin.delete_consumer_groups([group])[group].result(10)
    assert group not in {found.group_id for found in admin.list_consumer_groups().result(10).valid}


def test_an_unknown_topic_is_a_clear_error(broker):
    """A name is misspelt: by default nothing is created, and both clients say that there is no such topic."""
    found = confluent_producer(broker).list_topics("no-such-topic", 10).topics["no-such-topic"]
    assert found.error.code() == confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
    with pytest.raises(KafkaError):
        python_producer(broker, max_block_ms=500).send("no-such-topic", b"x").get(2)
    with pytest.raises(TopicError, match="no partition"):
        broker.partition("no-such-topic", 0)


def test_topics_appear_when_the_broker_is_told_so(tmp_path):
    """With auto_create_partitions a first write creates the topic."""
    with Broker(tmp_path, auto_create_partitions=3) as broker:
        producer = python_producer(broker)
        assert producer.send("new", b"x", partition=2).get(10).offset == 0
        assert len(producer.partitions_for("new")) == 3
        producer.close()


def test_a_long_poll_ends_when_a_record_arrives(broker, topic):
    """A reader waits up to 20 s at the end of the log: a record wakes it at once, not when the time is up."""
    reader = python_reader(broker, (topic, 0), fetch_max_wait_ms=20_000)
    reader.poll(300)
    producer = python_producer(broker)
    threading.Timer(0.5, lambda: producer.send(topic, b"x", partition=0)).start()
    began_s = time.monotonic()
    assert len(reader.poll(15_000)) == 1
    assert time.monotonic() - began_s < 3
    producer.close()
    reader.close()


def test_a_waiting_reader_costs_nothing(broker, topic):
    """Nothing is written for a while: the fetch returns empty after its time, and the reader's position stands."""
    reader = python_reader(broker, (topic, 0))
    assert reader.poll(400) == {}
    assert reader.position(TopicPartition(topic, 0)) == 0
    reader.close()


def test_large_messages_and_small_fetches(broker, topic):
    """Messages of 3 MB and a reader that asks for 1000 bytes: it gets them one by one, whole."""
    producer = python_producer(broker, max_request_size=8 << 20, batch_size=1 << 20)
    for index in range(4):
        producer.send(topic, bytes([index]) * 3_000_000, partition=0)
    producer.close()
    reader = python_reader(broker, (topic, 0), max_partition_fetch_bytes=1000, fetch_max_bytes=1000)
    records = python_read(reader, 4)
    reader.close()
    assert [(len(record.value), record.value[0]) for record in records] == [(3_000_000, i) for i in range(4)]


def test_a_message_beyond_the_bound_is_refused(tmp_path):
    """A producer allows itself more than the topic does: it is told so, and goes on with the next message."""
    with Broker(tmp_path, log_config=LogConfig(message_bytes_max=10_000)) as broker:
        broker.create_topic("t")
        producer = python_producer(broker)
        with pytest.raises(KafkaError, match="MessageSizeTooLarge"):
            producer.send("t", b"x" * 20_000).get(10)
        producer.close()
        other = python_producer(broker)
        assert other.send("t", b"x").get(10).offset == 0
        other.close()


def test_deleted_records_are_out_of_range(broker, topic):
    """An operator deletes the first records: readers below hear so, new ones begin behind."""
    producer = python_producer(broker)
    for index in range(10):
        producer.send(topic, b"%d" % index, partition=0)
    producer.close()
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    admin.delete_records({TopicPartition(topic, 0): 6})
    admin.close()
    reader = python_reader(broker, (topic, 0), auto_offset_reset="none")
    assert [record.value for record in python_read(reader, 4)] == [b"6", b"7", b"8", b"9"]
    reader.seek(TopicPartition(topic, 0), 2)
    with pytest.raises(KafkaError, match="OffsetOutOfRange"):
        python_read(reader, 1)
    reader.close()


def test_transactions_are_refused_for_good(broker, topic):
    """Somebody configures a transactional producer: both clients fail at once with a fatal error, they do not hang."""
    producer = confluent_producer(broker, **{"transactional.id": "tx"})
    with pytest.raises(confluent_kafka.KafkaException) as caught:
        producer.init_transactions(10)
    assert caught.value.args[0].code() == confluent_kafka.KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    other = python_producer(broker, transactional_id="tx")
    with pytest.raises(KafkaError, match=r"(?i)transactional"):
        other.init_transactions()
    other.close(timeout=1)
