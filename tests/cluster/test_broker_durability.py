"""What survives: kill -9 under load, restarts, commits; and what does not stay behind: processes and locks."""

from __future__ import annotations

import gc
import io
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from cluster.broker import Broker, BrokerProcess, BrokerStartError, DataDirLockedError, LogConfig
from cluster.broker.offset_store import Committed

ROOT = Path(__file__).resolve().parents[2]
KILLS = 5

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def no_leftovers():
    """kafka-python leaves sockets to the garbage collector: collect them where that is ignored."""
    yield
    gc.collect()


def read_all(bootstrap_servers, topic, partition=0):
    reader = KafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False)
    part = TopicPartition(topic, partition)
    reader.assign([part])
    reader.seek_to_beginning()
    end, values = reader.end_offsets([part])[part], []
    deadline_s = time.monotonic() + 15
    while reader.position(part) < end and time.monotonic() < deadline_s:
        for batch in reader.poll(200).values():
            values += [record.value for record in batch]
    reader.close()
    return values


def kill_and_restart(broker, seed, acknowledged, done):
    """Kill the broker `KILLS` times, each time after some more records have been acknowledged; then set `done`."""
    chance = random.Random(seed)
    for _ in range(KILLS):
        before, deadline_s = acknowledged(), time.monotonic() + 10
        while acknowledged() < before + 200 and time.monotonic() < deadline_s:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        broker.kill()
        time.sleep(chance.uniform(0, 0.1))
        broker.start()
    done.set()


def test_kill_9_under_load_of_kafka_python(tmp_path):
    """The broker dies five times while an idempotent producer writes: all acknowledged records are there once."""
    done, sent = threading.Event(), 0
    acknowledged: list[tuple[Any, Any]] = []
    with BrokerProcess(tmp_path, topics={"t": 1}) as broker:
        producer = KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=1,
            batch_size=2_000,
            delivery_timeout_ms=60_000,
            request_timeout_ms=5_000,
            reconnect_backoff_ms=20,
            reconnect_backoff_max_ms=100,
            retry_backoff_ms=20,
        )
        killer = threading.Thread(target=kill_and_restart, args=(broker, 1, lambda: len(acknowledged), done))
        killer.start()
        while not done.is_set():
            producer.send("t", b"%08d" % sent).add_callback(
                lambda meta, n=sent: acknowledged.append((meta.offset, n))
            )
            sent += 1
            if sent % 20 == 0:
                time.sleep(0.002)
        killer.join()
        producer.flush(30)
        producer.close()
        values = [int(value) for value in read_all(broker.bootstrap_servers, "t")]
    assert len(acknowledged) == sent > 5 * 200
    assert values == list(range(sent))
    assert sorted(acknowledged) == [(offset, offset) for offset in range(sent)]


def test_kill_9_under_load_of_librdkafka(tmp_path):
    """The same with the independent client, five batches in flight, on two partitions."""
    done, sent = threading.Event(), 0
    acknowledged: list[tuple[Any, Any]] = []
    with BrokerProcess(tmp_path, topics={"t": 2}) as broker:
        settings = {"enable.idempotence": True, "linger.ms": 1, "batch.num.messages": 50, "log_level": 0}
        settings |= {
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 50,
        }
        producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap_servers, **settings})
        killer = threading.Thread(target=kill_and_restart, args=(broker, 2, lambda: len(acknowledged), done))
        killer.start()
        while not done.is_set():
            producer.produce(
                "t",
                b"%08d" % sent,
                partition=sent % 2,
                on_delivery=lambda error, message: acknowledged.append((error, message.offset())),
            )
            sent += 1
            if sent % 20 == 0:
                producer.poll(0.002)
        killer.join()
        assert producer.flush(30) == 0
        values = [[int(value) for value in read_all(broker.bootstrap_servers, "t", part)] for part in (0, 1)]
    assert [error for error, _ in acknowledged if error is not None] == []
    assert values == [list(range(0, sent, 2)), list(range(1, sent, 2))]


def test_a_torn_tail_is_cut_off_and_writing_goes_on(tmp_path):
    """The broker was killed in the middle of a write: half a batch at the end is cut off, the rest is as it was."""
    with Broker(tmp_path) as broker:
        broker.create_topic("t")
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        for index in range(5):
            producer.send("t", b"%d" % index).get(10)
    path = next((tmp_path / "topics" / "t" / "0").glob("*.log"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 5 - 3])
    with Broker(tmp_path, port=broker.port) as broker:
        assert path.read_bytes() == whole
        assert producer.send("t", b"5").get(10).offset == 5
        assert read_all(broker.bootstrap_servers, "t") == [b"%d" % index for index in range(6)]
    producer.close(timeout=1)


def test_commits_and_settings_survive_kill_9(tmp_path):
    """A group commits, the broker is killed: committed offset, partitions and deleted records are as they were."""
    part = TopicPartition("t", 2)
    with BrokerProcess(tmp_path, topics={"t": 3}) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        for index in range(10):
            producer.send("t", b"%d" % index, partition=2)
        producer.close()
        for expected in (None, 4):
            consumer = KafkaConsumer(
                bootstrap_servers=broker.bootstrap_servers,
                group_id="g",
                auto_offset_reset="earliest",
                max_poll_records=4,
                enable_auto_commit=False,
            )
            consumer.assign([part])
            assert consumer.committed(part) == expected
            deadline_s = time.monotonic() + 10
            while not consumer.poll(500) and time.monotonic() < deadline_s:
                continue
            consumer.commit()
            assert consumer.partitions_for_topic("t") == {0, 1, 2}
            consumer.close()
            broker.kill()
            broker.start()


def test_retention_runs_by_itself_and_survives_a_restart(tmp_path):
    """A topic keeps some 20 KB: old files disappear while the broker runs, and the start offset stands afterwards."""
    config = LogConfig(segment_bytes=5_000, retention_bytes=20_000)
    with Broker(tmp_path, log_config=config, retention_check_s=0.1) as broker:
        broker.create_topic("t")
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, batch_size=0)
        for _ in range(100):
            producer.send("t", b"x" * 1_000)
        producer.flush()
        log = broker.partition("t", 0)
        deadline_s = time.monotonic() + 5
        while log.size_bytes > 26_000 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        producer.close()
        start, size_bytes = log.start_offset, log.size_bytes
    assert start > 0
    assert 20_000 <= size_bytes <= 26_000
    with Broker(tmp_path, log_config=config) as broker:
        assert broker.partition("t", 0).start_offset == start


def test_fsync_brokers_work_the_same(tmp_path):
    """A broker that waits for the disk: the same answers, slower."""
    with Broker(tmp_path, fsync=True) as broker:
        broker.create_topic("t")
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        assert [producer.send("t", b"x").get(10).offset for _ in range(3)] == [0, 1, 2]
        producer.close()


def test_one_broker_a_data_directory(tmp_path):
    """A second broker is started on the same directory: it says so and ends; after the first stops, it may."""
    with Broker(tmp_path):
        with pytest.raises(DataDirLockedError, match="Another broker uses"):
            Broker(tmp_path).start()
        with pytest.raises(BrokerStartError, match=r"code 1 .*Another broker uses"):
            BrokerProcess(tmp_path).start()
    with Broker(tmp_path) as broker:
        broker.stop()
        broker.stop()


def run_broker(*options):
    command = [sys.executable, "-m", "jobs.broker", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


def test_mistakes_on_the_command_line_are_one_sentence(tmp_path):
    """A taken port, a file where the data directory should be, a topic without partitions: a sentence and code 1."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with Broker(tmp_path / "a") as broker:
        cases = [
            (("--port", broker.port, "--data-dir", tmp_path / "b"), "Cannot listen on 127.0.0.1"),
            (("--port", 0, "--data-dir", blocked / "x"), "Cannot use the data directory"),
            (
                ("--port", 0, "--data-dir", tmp_path / "c", "--topic", "clicks"),
                "Expected --topic NAME:PARTITIONS",
            ),
        ]
        for options, words in cases:
            result = run_broker(*options)
            assert result.returncode == 1
            assert words in result.stderr
            assert len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_broker_in_order(tmp_path, number):
    """Ctrl-C or SIGTERM while a client is connected: the process ends with code 0 and says nothing bad."""
    with BrokerProcess(tmp_path, topics={"t": 1}) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        producer.send("t", b"x").get(10)
        process, pid = broker._process, broker.pid
        assert process is not None
        assert pid is not None
        os.kill(pid, number)
        assert process.wait(10) == 0
        assert len(broker.output) == 1, broker.output
        producer.close(timeout=0)


def test_the_broker_ends_when_its_parent_is_killed(tmp_path):
    """The job that started a broker process is killed with -9: the broker ends by itself and frees its directory."""
    script = f"""
        import time
        from cluster.broker import BrokerProcess
        broker = BrokerProcess({str(tmp_path)!r}).start()
        print(broker.pid, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with parent:
        child = int((parent.stdout or io.StringIO()).readline())
        parent.kill()
    deadline_s = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not _alive(child)
    with Broker(tmp_path):
        assert True


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_broker_process_keeps_its_port(tmp_path):
    """It is stopped, killed and started again: clients find it where it was; stopping twice does no harm."""
    broker = BrokerProcess(tmp_path)
    with broker:
        port = broker.port
        broker.kill()
        assert broker.pid is None
        broker.start()
        assert broker.port == port
    broker.stop()
    broker.kill()
    assert broker.pid is None


def test_a_deleted_topic_starts_afresh(tmp_path):
    """A topic is deleted and made again: offsets begin at 0, and its groups have forgotten theirs, for good."""
    with Broker(tmp_path) as broker:
        for _ in range(2):
            broker.create_topic("t")
            producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
            assert producer.send("t", b"x").get(10).offset == 0
            producer.close()
            services = broker._running()
            assert services.groups.offsets.fetch("g") == {}
            services.groups.commit("g", "", -1, {("t", 0): Committed(1, -1, "")})
            services.delete_topic("t")
    with Broker(tmp_path) as broker:
        assert broker._running().groups.offsets.fetch("g") == {}
        assert broker._running().topics.names() == []
