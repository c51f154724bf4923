"""Batches by size or time: a stream that is slow is learnt in batches, each record within the time that was set."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import orjson
import pytest
from kafka import KafkaProducer
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import run_job
from cluster.snapshots.job_arrays import read_job
from cluster.snapshots.store import SnapshotStore
from cluster.streams.open import describe_source, open_source
from tests.cluster.topics import produce, records

RECORDS, PAUSE_S, WAIT_S = 12, 1.0 / 3.0, 1.5
SLACK_S = 1.5
"""For a poll, a step, a push and its acknowledgement on a machine that does other things as well."""


def pipeline_of(broker: Broker, topic: str, folder: Path, wait_s: float, until: str = "forever") -> Pipeline:
    """A torch learner on mini-batches of 512 records."""
    values = {
        "name": "slow", "run": "slow", "batch_records": 512, "batch_wait_s": wait_s,
        "source": {
            "kind": "kafka", "topic": topic, "bootstrap_servers": broker.bootstrap_servers, "until": until,
        },
        "learner": {"kind": "deep", "hidden": [8], "embedding": 4},
        "snapshots": {"path": str(folder)}, "mlflow": {"enabled": False},
    }  # fmt: skip
    return build_pipeline(values, ["records_max=12"] if until == "forever" else [], origin="test")


def trickle(broker: Broker, topic: str) -> None:
    """Three records a second."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    for row in records(RECORDS):
        producer.send(topic, orjson.dumps(row), partition=0)
        producer.flush(30)
        time.sleep(PAUSE_S)
    producer.close()


@pytest.mark.slow
def test_three_records_a_second_are_learnt_within_the_time_that_was_set(
    broker: Broker, tmp_path: Path
) -> None:
    """Batches of 512 would take three minutes to fill: no record waits for that, and few are learnt alone."""
    topic = "slow-stream"
    broker.create_topic(topic, 1)
    pipeline = pipeline_of(broker, topic, tmp_path, WAIT_S)
    sender = threading.Thread(target=trickle, args=(broker, topic), daemon=True)
    done = run_job(pipeline, Console(file=io.StringIO()), local=True, on_ready=sender.start)
    sender.join(30)
    status = done.figures.status
    assert status.records == RECORDS
    assert status.delays.quantile_s(1.0) <= WAIT_S + SLACK_S
    assert status.delays.quantile_s(1.0) >= WAIT_S / 2, "the first record of a batch waits for the others"
    store = SnapshotStore(done.snapshot.rpartition("/snapshots/")[0], print)
    newest = store.newest()
    assert newest is not None
    batches = len(read_job(store, newest).journal)
    assert batches <= RECORDS / 2


def test_a_full_batch_and_a_bounded_stream_wait_for_nobody(broker: Broker, tmp_path: Path) -> None:
    """The time is a bound for the tail of a live stream; what is full, or is known to be the end, goes at once."""
    topic = "full-stream"
    produce(broker, topic, records(600), 1)
    for until, sizes in (("forever", [512]), ("end", [512, 88])):
        pipeline = pipeline_of(broker, topic, tmp_path, 3600.0, until)
        source = open_source(pipeline, describe_source(pipeline))
        found: list[int] = []
        try:
            while len(found) < len(sizes) and (decoded := source.poll(20.0)) is not None:
                found.append(len(decoded.batch))
            assert found == sizes
            assert until == "end" or source.poll(0.5) is None, "the tail waits"
        finally:
            source.close()
