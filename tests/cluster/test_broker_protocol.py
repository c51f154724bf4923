"""The port of the broker: garbage, half requests, too many of everything; and the protocol on the wire."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import socket
import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse
from kafka.protocol.producer import ProduceRequest, ProduceResponse
from kafka.record.default_records import DefaultRecordBatchBuilder

from cluster.broker import Broker, BrokerProcess, Limits
from cluster.broker.api import APIS
from cluster.broker.errors import ErrorCode, ProtocolError
from cluster.broker.wire import Reader, read_head, read_produce

QUIET = Limits(frame_s_max=1.0, connections_max=40)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def no_leftovers():
    """kafka-python leaves sockets to the garbage collector: collect them where that is ignored."""
    yield
    gc.collect()


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path, limits=QUIET) as broker:
        broker.create_topic("t")
        yield broker


def connect(broker):
    return socket.create_connection(("127.0.0.1", broker.port), timeout=10)


def closed_by_peer(sock):
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def receive(sock):
    """One answer without its length and correlation id."""
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack_from(">i", data)[0]:
        more = sock.recv(65536)
        assert more
        data += more
    return data[8:]


def ask(sock, request, version, response):
    request.API_VERSION = version
    request.with_header(correlation_id=7, client_id="test")
    sock.sendall(request.encode(framed=True, header=True))
    return response.decode(receive(sock), version=version)


def batch(value=b"x", producer=-1, sequence=-1):
    builder = DefaultRecordBatchBuilder(2, 0, False, producer, 0 if producer >= 0 else -1, sequence, 1 << 20)
    builder.append(0, 1, None, value, [])
    return bytes(builder.build())


def produce_request(*batches, acks=-1, topic="t"):
    topic_class = ProduceRequest.TopicProduceData
    parts = [topic_class.PartitionProduceData(index=index, records=records) for index, records in batches]
    data = [topic_class(name=topic, partition_data=parts)]
    return ProduceRequest(transactional_id=None, acks=acks, timeout_ms=1000, topic_data=data)


GARBAGE = [
    ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500),
    ("a length of 2 GiB", struct.pack(">ihhi", 2**31 - 1, 0, 7, 1)),
    ("a negative length", struct.pack(">ihhi", -5, 0, 7, 1)),
    ("a length of zero", struct.pack(">ihhi", 0, 0, 0, 0)),
    ("an unknown request", struct.pack(">ihhi", 20, 999, 0, 1) + b"x" * 20),
    ("an unknown version", struct.pack(">ihhi", 20, 3, 99, 1) + b"x" * 20),
    ("a control request of 50 MB", struct.pack(">ihhi", 50_000_000, 3, 5, 1)),
    ("metadata with 2^31 topics", struct.pack(">ihhihi", 14, 3, 5, 1, 0, 2**31 - 1)),
    ("a fetch cut short", struct.pack(">ihhih", 10, 1, 11, 1, 0)),
    ("a join group with nonsense", struct.pack(">ihhih", 40, 11, 4, 1, 0) + b"\xff" * 30),
    ("a client name that is no text", struct.pack(">ihhih", 14, 3, 5, 1, 4) + b"\xff\xfe\xfd\xfc"),
]


@pytest.mark.parametrize("data", [data for _, data in GARBAGE], ids=[name for name, _ in GARBAGE])
def test_garbage_closes_its_connection_only(broker, caplog, data):
    """Something that is no Kafka client connects: its connection is closed with a line in the log, others go on."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    with caplog.at_level(logging.WARNING, "millrace.broker"), connect(broker) as sock:
        sock.sendall(data)
        assert closed_by_peer(sock)
    assert any("Closed the connection of 127.0.0.1" in message for message in caplog.messages)
    assert not [record for record in caplog.records if record.exc_info]
    assert producer.send("t", b"x").get(10).offset == 0
    producer.close()


def test_half_a_request_is_given_up(broker, caplog):
    """A client stops in the middle of a request: after frame_s_max the connection is closed; a slow one is served."""
    with connect(broker) as sock, caplog.at_level(logging.WARNING, "millrace.broker"):
        sock.sendall(struct.pack(">ihhi", 1000, 3, 5, 1))
        assert closed_by_peer(sock)
        assert "within 1 s" in caplog.text
    with connect(broker) as sock:
        request = ApiVersionsRequest(client_software_name="x", client_software_version="1")
        request.API_VERSION = 3
        request.with_header(correlation_id=1, client_id="slow")
        for byte in request.encode(framed=True, header=True):
            sock.sendall(bytes([byte]))
            time.sleep(0.002)
        assert ApiVersionsResponse.decode(receive(sock), version=3).error_code == 0


def test_a_healthy_client_works_beside_a_thousand_bad_ones(tmp_path):
    """Random bytes, broken lengths and dropped connections pour in while a client writes and reads."""
    stop, chance = threading.Event(), random.Random(3)
    with BrokerProcess(tmp_path, topics={"t": 1}) as broker:

        def disturb():
            while not stop.is_set():
                size_bytes = chance.randrange(1, 200)
                head = struct.pack(
                    ">ihh", chance.choice([size_bytes, 2**30, -1]), chance.choice(list(APIS)), 3
                )
                try:
                    with connect(broker) as sock:
                        sock.sendall(chance.choice([b"", head]) + os.urandom(size_bytes))
                except OSError:
                    continue

        threads = [threading.Thread(target=disturb) for _ in range(3)]
        for thread in threads:
            thread.start()
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=5)
        futures = [producer.send("t", b"%d" % index) for index in range(5_000)]
        assert [future.get(20).offset for future in futures] == list(range(5_000))
        producer.close()
        reader = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, group_id=None)
        reader.assign([TopicPartition("t", 0)])
        reader.seek_to_beginning()
        values: list[bytes] = []
        deadline_s = time.monotonic() + 10
        while len(values) < 5_000 and time.monotonic() < deadline_s:
            values += [record.value for records in reader.poll(200).values() for record in records]
        reader.close()
        stop.set()
        for thread in threads:
            thread.join()
        assert values == [b"%d" % index for index in range(5_000)]
        assert not [line for line in broker.output if "the broker failed" in line]


def test_too_many_connections_are_refused(tmp_path, caplog):
    """More clients connect than connections_max allows: the surplus is closed, and there is room again afterwards."""
    with Broker(tmp_path, limits=Limits(connections_max=3)) as broker:
        socks = [connect(broker) for _ in range(3)]
        with connect(broker) as surplus:
            assert closed_by_peer(surplus)
        for sock in socks:
            sock.close()
        deadline_s, response = time.monotonic() + 5, None
        while response is None and time.monotonic() < deadline_s:
            try:
                with connect(broker) as sock:
                    response = ask(sock, ApiVersionsRequest(), 0, ApiVersionsResponse)
            except (AssertionError, OSError):
                time.sleep(0.05)
        assert response is not None
        assert response.error_code == 0


def test_an_idle_connection_is_closed(tmp_path):
    """A client says nothing for connection_idle_s_max: its thread is freed."""
    with Broker(tmp_path, limits=Limits(connection_idle_s_max=0.5)) as broker, connect(broker) as sock:
        assert closed_by_peer(sock)


def test_a_newer_client_is_told_the_versions(broker):
    """A client asks for ApiVersions in a version of the future: it gets the list and can ask again."""
    with connect(broker) as sock:
        sock.sendall(struct.pack(">ihhih", 10, 18, 99, 7, 0))
        response = ApiVersionsResponse.decode(receive(sock), version=0)
        assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
        assert {key.api_key for key in response.api_keys} == set(APIS)
        assert ask(sock, ApiVersionsRequest(), 3, ApiVersionsResponse).error_code == 0


def test_every_version_offered_is_understood(broker):
    """Whatever version of Metadata, Produce or Fetch a client chooses, the answer is in that version."""
    with connect(broker) as sock:
        for version in range(3, APIS[0].version_max + 1):
            answer = ask(sock, produce_request((0, batch())), version, ProduceResponse)
            assert answer.responses[0].partition_responses[0].error_code == 0
        for version in range(APIS[1].version_min, APIS[1].version_max + 1):
            answer = ask(sock, fetch_request(0), version, FetchResponse)
            assert answer.responses[0].partitions[0].high_watermark == 6
            assert len(answer.responses[0].partitions[0].records) == 6 * len(batch())
        for version in range(APIS[3].version_max + 1):
            topics = [MetadataRequest.MetadataRequestTopic(name="t")]
            answer = ask(sock, MetadataRequest(topics=topics), version, MetadataResponse)
            assert [topic.name for topic in answer.topics] == ["t"]


def fetch_request(offset, partition_max_bytes=1 << 20, max_bytes=1 << 20, wait_ms=0, min_bytes=1, topic="t"):
    topic_class = FetchRequest.FetchTopic
    part = topic_class.FetchPartition(
        partition=0, fetch_offset=offset, partition_max_bytes=partition_max_bytes
    )
    topics = [topic_class(topic=topic, partitions=[part])]
    return FetchRequest(max_wait_ms=wait_ms, min_bytes=min_bytes, max_bytes=max_bytes, topics=topics)


def fetched(broker, *arguments, **options):
    with connect(broker) as sock:
        return ask(sock, fetch_request(*arguments, **options), 11, FetchResponse).responses[0].partitions[0]


def test_a_fetch_has_bounds_and_errors(broker):
    """Whole batches up to the bytes asked for, at least one; out of range and unknown topics have their codes."""
    log = broker.partition("t", 0)
    for _ in range(10):
        log.append(memoryview(batch()))
    size_bytes = len(batch())
    assert len(fetched(broker, 0, 3 * size_bytes).records) == 3 * size_bytes
    assert len(fetched(broker, 0, 3 * size_bytes + 5).records) == 3 * size_bytes
    assert len(fetched(broker, 0, 1, 1).records) == size_bytes
    assert len(fetched(broker, 9).records) == size_bytes
    assert not fetched(broker, 10).records
    out = fetched(broker, 11, wait_ms=5000)
    assert (out.error_code, out.log_start_offset, out.high_watermark) == (
        ErrorCode.OFFSET_OUT_OF_RANGE,
        0,
        10,
    )
    assert fetched(broker, 0, topic="x").error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_fetch_waits_for_its_minimum(broker):
    """A reader wants at least three batches within 5 s: two do not wake it, the third does."""
    log, size_bytes = broker.partition("t", 0), len(batch())

    def write():
        for _ in range(3):
            time.sleep(0.1)
            log.append(memoryview(batch()))

    thread = threading.Thread(target=write)
    thread.start()
    began_s = time.monotonic()
    assert len(fetched(broker, 0, wait_ms=5000, min_bytes=3 * size_bytes).records) == 3 * size_bytes
    assert 0.25 < time.monotonic() - began_s < 2
    thread.join()
    began_s = time.monotonic()
    assert not fetched(broker, 3, wait_ms=200).records
    assert 0.15 < time.monotonic() - began_s < 2


def test_a_produce_request_answers_partition_by_partition(broker):
    """One partition is unknown, one batch is spoilt, one is good: each gets its code, the good one is stored."""
    with connect(broker) as sock:
        answer = ask(
            sock, produce_request((5, batch()), (0, batch()[:-1] + b"?"), (0, batch())), 8, ProduceResponse
        )
        parts = answer.responses[0].partition_responses
        assert [part.error_code for part in parts] == [3, ErrorCode.CORRUPT_MESSAGE, 0]
        assert "checksum" in parts[1].error_message
        assert [part.base_offset for part in parts] == [-1, -1, 0]
        bad_acks = ask(sock, produce_request((0, batch()), acks=3), 8, ProduceResponse)
        assert bad_acks.responses[0].partition_responses[0].error_code == ErrorCode.INVALID_REQUIRED_ACKS


def test_acks_0_gets_no_answer(broker):
    """A producer wants no answer: none is sent, and the next request on the connection is answered as usual."""
    with connect(broker) as sock:
        request = produce_request((0, batch()), acks=0)
        request.API_VERSION = 7
        request.with_header(correlation_id=1, client_id="x")
        sock.sendall(request.encode(framed=True, header=True))
        answer = ask(sock, produce_request((0, batch())), 7, ProduceResponse)
        assert answer.responses[0].partition_responses[0].base_offset == 1


def test_requests_in_flight_are_answered_in_order(broker):
    """A client sends a hundred requests before it reads: the answers come in the order of the requests."""
    with connect(broker) as sock:
        for number in range(100):
            request = produce_request((0, batch()))
            request.API_VERSION = 7
            request.with_header(correlation_id=number, client_id="x")
            sock.sendall(request.encode(framed=True, header=True))
        offsets = [
            ProduceResponse.decode(receive_one(sock), version=7)
            .responses[0]
            .partition_responses[0]
            .base_offset
            for _ in range(100)
        ]
    assert offsets == list(range(100))


def receive_one(sock):
    """One answer when several may be waiting."""
    size_bytes = struct.unpack(">i", sock.recv(4, socket.MSG_WAITALL))[0]
    return sock.recv(size_bytes, socket.MSG_WAITALL)[4:]


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 8))
def test_reading_by_hand_only_ever_says_protocol_error(data, version):
    """Random bytes reach the hand-written readers: they read them or raise ProtocolError, nothing else."""
    with contextlib.suppress(ProtocolError):
        read_head(Reader(memoryview(data)), flexible=True)
    with contextlib.suppress(ProtocolError):
        read_produce(Reader(memoryview(data)), version)


def test_a_stopping_broker_waits_for_nobody(tmp_path):
    """Stop while readers wait in long polls: all threads end within a second or two."""
    others = set(threading.enumerate())  # another broker may serve the whole test run
    broker = Broker(tmp_path).start()
    broker.create_topic("t")
    socks = [connect(broker) for _ in range(5)]
    for sock in socks:
        request = fetch_request(0, wait_ms=30_000)
        request.API_VERSION = 11
        request.with_header(correlation_id=1, client_id="x")
        sock.sendall(request.encode(framed=True, header=True))
    time.sleep(0.2)
    began_s = time.monotonic()
    broker.stop()
    assert time.monotonic() - began_s < 2
    left = set(threading.enumerate()) - others
    assert not [thread.name for thread in left if thread.name.startswith("broker-")]
    for sock in socks:
        sock.close()
