"""Records per second from Kafka to learnt, against the loop that people write today, on the same topics.

    plain loop   kafka-python + json + river StandardScaler | LogisticRegression, one process
    bare poll    kafka-python poll() alone: nothing is decoded, nothing is learnt
    ours         the whole way (z-scores and bins, FTRL, prequential metrics, last snapshot), MLflow off:
                 one process over a LocalStore; 1 worker and 2 shards, 2 workers and 2 shards on Ray

Records have 13 numbers (about 290 bytes as JSON); Arrow messages hold 4096 of them. The broker is the embedded one,
in a process of its own on the same two cores. Starting up is not measured; contestants take turns.

    python -m benchmarks.pipeline [--repeats 5] [--only poll,plain,local,ray1,ray2]
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import orjson
import pyarrow as pa
import typer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from rich.console import Console
from river import linear_model, preprocessing

from benchmarks.measure import machine, median_of, spread
from cluster.broker.process import BrokerProcess
from cluster.config import build_pipeline
from cluster.job import run_job
from cluster.loopback import stay_on_loopback
from cluster.warm import warm_up
from learning.ftrl import Ftrl

if TYPE_CHECKING:
    from collections.abc import Iterator

FEATURES, PARTITIONS, ARROW_ROWS, PLAIN_RECORDS = 13, 4, 4096, 40_000
NAMES = [f"f{i}" for i in range(FEATURES)]


def columns(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers f64 (count, 13) and labels, from a seed."""
    rng = np.random.default_rng(7)
    numbers = rng.normal(size=(count, FEATURES)).round(6) * np.arange(1, FEATURES + 1)
    logit = numbers[:, 0] + 0.3 * numbers[:, 1] - 0.8
    return numbers, (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.int64)


def fill(servers: str, counts: dict[str, int]) -> None:
    """Send the records to topics `json` and `arrow`, in turn over the partitions."""
    producer = KafkaProducer(
        bootstrap_servers=servers, linger_ms=50, batch_size=2**20, max_request_size=2**23
    )
    for turn, message in enumerate(json_messages(counts["json"])):
        producer.send("json", message, partition=turn % PARTITIONS)
    for turn, message in enumerate(arrow_messages(counts["arrow"])):
        producer.send("arrow", message, partition=turn % PARTITIONS)
    producer.flush(120)
    producer.close()


def json_messages(count: int) -> Iterator[bytes]:
    """One record a message."""
    numbers, labels = columns(count)
    for i, (row, label) in enumerate(zip(numbers.tolist(), labels.tolist(), strict=True)):
        yield orjson.dumps({"id": i, "features": dict(zip(NAMES, row, strict=True)), "label": label})


def arrow_messages(count: int) -> Iterator[bytes]:
    """ARROW_ROWS records a message."""
    numbers, labels = columns(count)
    for first in range(0, count, ARROW_ROWS):
        part = slice(first, first + ARROW_ROWS)
        table = {"id": pa.array(range(first, min(first + ARROW_ROWS, count)))}
        table |= {name: pa.array(numbers[part, k]) for k, name in enumerate(NAMES)}
        batch, sink = pa.RecordBatch.from_pydict(table | {"label": pa.array(labels[part])}), io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield sink.getvalue()


def consumed(servers: str, topic: str) -> Iterator[list[bytes]]:
    """Values of one poll after the other, to the ends of the partitions."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 2**20, fetch_max_bytes=64 * 2**20, max_poll_records=10_000,
        receive_message_max_bytes=200 * 2**20,
    )  # fmt: skip
    partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    left = sum(consumer.end_offsets(partitions).values())
    while left:
        for messages in consumer.poll(200).values():
            left -= len(messages)
            yield [message.value for message in messages]
    consumer.close()


def poll(servers: str, topic: str, count: int) -> float:
    """Records per second of kafka-python alone."""
    started_s = time.perf_counter()
    for _ in consumed(servers, topic):
        pass
    return count / (time.perf_counter() - started_s)


def plain(servers: str, _topic: str, _count: int) -> float:
    """Records per second of the loop that people write today, over the first records of the JSON topic."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    done, started_s = 0, time.perf_counter()
    for values in consumed(servers, "json"):
        for value in values:
            record = json.loads(value)
            model.predict_proba_one(record["features"])
            model.learn_one(record["features"], record["label"])
        done += len(values)
        if done >= PLAIN_RECORDS:
            break
    return done / (time.perf_counter() - started_s)


def ours(servers: str, topic: str, count: int, workers: int) -> float:
    """Records per second of a whole job; `workers` 0 is one process without Ray."""
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "name": "bench",
            "source": {"kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": servers},
            "cluster": {"workers": max(workers, 1), "shards": 2},
            "snapshots": {"path": folder},
            "mlflow": {"enabled": False},
        }
        pipeline = build_pipeline(values, [], origin="benchmark")
        result = run_job(pipeline, Console(file=io.StringIO()), local=workers == 0)
    assert result.figures.status.metrics.records == count, "records were lost"
    return count / result.seconds


def contestants(only: set[str]) -> dict[tuple[str, str], tuple]:
    """(name, topic) -> function and its further arguments."""
    known = {"poll": (poll,), "local": (ours, 0), "ray1": (ours, 1), "ray2": (ours, 2)}
    made: dict[tuple[str, str], tuple] = {("plain", "json"): (plain,)}
    made |= {(name, topic): call for topic in ("json", "arrow") for name, call in known.items()}
    return {key: call for key, call in made.items() if not only or key[0] in only}


def main(
    records: Annotated[int, typer.Option(help="Records in the JSON topic.")] = 400_000,
    arrow_records: Annotated[int, typer.Option(help="Records in the Arrow topic.")] = 2_000_000,
    repeats: Annotated[int, typer.Option(min=5)] = 5,
    only: Annotated[str, typer.Option(help="Comma-separated names.")] = "",
) -> None:
    """Measure and print a table for RESULTS.md."""
    stay_on_loopback()
    import ray

    from cluster.ray_session import local_ray_options

    counts = {"json": records, "arrow": arrow_records}
    calls = contestants({name for name in only.split(",") if name})
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    warm_up(Ftrl())
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        topics = {"json": PARTITIONS, "arrow": PARTITIONS}
        with BrokerProcess(Path(folder) / "broker", topics=topics) as broker:
            fill(broker.bootstrap_servers, counts)
            ray.init(namespace="millrace", logging_level=logging.ERROR, **local_ray_options(8, folder))
            for _ in range(repeats):
                for (name, topic), (function, *further) in calls.items():
                    rates[name, topic].append(
                        function(broker.bootstrap_servers, topic, counts[topic], *further)
                    )
            ray.shutdown()
    report(rates, counts, repeats)


def report(rates: dict[tuple[str, str], list[float]], counts: dict[str, int], repeats: int) -> None:
    """The table: rate, ratio to the plain loop, share of the bare poll on the same topic."""
    sizes = f"{counts['json']:,} JSON and {counts['arrow']:,} Arrow records of {FEATURES} numbers"
    print(f"{machine()}; {sizes}, median of {repeats} (min to max)\n")
    print("| way | topic | records/s | against the plain loop | share of bare poll |\n|---|---|--:|--:|--:|")
    for (name, topic), values in rates.items():
        base, bare = rates.get(("plain", "json")), rates.get(("poll", topic))
        ratio = f"{median_of(values) / median_of(base):.1f}" if base else "-"
        share = f"{median_of(values) / median_of(bare):.0%}" if bare else "-"
        print(f"| {name} | {topic} | {spread(values)} | {ratio} | {share} |")


if __name__ == "__main__":
    typer.run(main)
