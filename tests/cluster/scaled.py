"""A live topic that is fed slowly while somebody scales the job that learns it, and then all at once."""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from kafka import KafkaProducer
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobResult, run_job
from cluster.scaling import ask_scale
from cluster.snapshots.errors import SnapshotError
from tests.cluster.topics import arrow_message

RECORDS = 200_000
ROWS = 50
"""Records of a message."""
_SLOWLY, _HELD_BACK_S = 0.9, 2.0
"""Of the last tenth comes a message now and then until there is hurry, so that the stream does not end before that."""


class Feed:
    """Sends `rows` in turn to the partitions of a topic, as Arrow messages; a context manager, begun by `start`."""

    def __init__(
        self, broker: Broker, topic: str, rows: list[dict[str, Any]], partitions: int, *, per_s: int = 3000
    ) -> None:
        self._broker, self._topic, self._partitions = broker, topic, partitions
        self._messages = [arrow_message(rows[at : at + ROWS]) for at in range(0, len(rows), ROWS)]
        self._pause_s = ROWS / per_s
        self._hurry, self._close = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.sent = 0
        broker.create_topic(topic, partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.set()
        self._hurry.set()
        if self._thread.ident is not None:
            self._thread.join(60)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def hurry(self) -> None:
        """Send the rest at once."""
        self._hurry.set()

    def _send(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._broker.bootstrap_servers, linger_ms=0)
        begun_s = time.monotonic()
        for n, message in enumerate(self._messages):
            if self._close.is_set():
                break
            producer.send(self._topic, message, partition=n % self._partitions)
            self.sent += ROWS
            held_back = n > _SLOWLY * len(self._messages)
            self._hurry.wait(
                _HELD_BACK_S if held_back else max(begun_s + n * self._pause_s - time.monotonic(), 0.0)
            )
        producer.flush(60)
        producer.close()


def pipeline_of(broker: Broker, folder: Path, topic: str, *overrides: str) -> Pipeline:
    """A live job that ends once all records are read."""
    values = {
        "name": "scaled", "run": "r1", "batch_records": 500, "records_max": RECORDS,
        "source": {"kind": "kafka", "topic": topic, "bootstrap_servers": broker.bootstrap_servers},
        "cluster": {"workers": 1, "shards": 2},
        "snapshots": {"path": str(folder), "interval_s": 5},
        "mlflow": {"enabled": False},
    }  # fmt: skip
    return build_pipeline(values, list(overrides), origin="test")


class Job:
    """A job with somebody who scales it: `steps` run beside it once it learns; what they raise, the test raises."""

    def __init__(self, pipeline: Pipeline, feed: Feed, steps: Callable[[Job], None]) -> None:
        self._pipeline, self._feed, self._steps = pipeline, feed, steps
        self._said = io.StringIO()
        self._error: BaseException | None = None
        self._asked: queue.Queue[Callable[[], Any]] = queue.Queue()
        self._done: queue.Queue[Any] = queue.Queue()
        self.answers: list[str] = []

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self._pipeline.snapshots.path) / "r1"

    @property
    def said(self) -> str:
        """What the job says."""
        return self._said.getvalue()

    def scale(self, **sizes: int) -> None:
        """Scale, and wait until that is done."""
        self.answers.append(ask_scale(str(self.folder), **sizes, say=print, timeout_s=300))

    def scaled(self, shards: int) -> None:
        """Scale, and ask again if that came to nothing because an actor died."""
        for _ in range(5):
            with suppress(SnapshotError):
                return self.scale(shards=shards)
        raise AssertionError(f"not scaled to {shards} shards:\n{self.said}")

    def in_main_thread(self, do: Callable[[], Any]) -> Any:
        """Have the test's thread do something: a raylet ends with the thread that has started it."""
        self._asked.put(do)
        return self._done.get(timeout=120)

    def _watch(self) -> None:
        with suppress(queue.Empty):
            self._done.put(self._asked.get_nowait()())

    def run(self) -> JobResult:
        """To the end."""
        thread = threading.Thread(target=self._scale, daemon=True)

        def begin() -> None:
            self._feed.start()
            thread.start()

        result = run_job(
            self._pipeline, Console(file=self._said, width=200), on_ready=begin, watch=self._watch
        )
        thread.join(60)
        print(self.said)
        if self._error is not None:
            raise self._error
        return result

    def _scale(self) -> None:
        try:
            self._steps(self)
        except BaseException as error:  # noqa: BLE001 - carried to the test's thread
            self._error = error
        finally:
            self._feed.hurry()
