"""Where bad records and predictions go: dead letters to a file or topic, predictions to a topic.

Guaranteed: at least once. A worker flushes both before its offsets go into a snapshot, so of what a snapshot contains
none is missing. After a crash the stream is read again from the last snapshot, and what lies behind it is written a
second time. Repeats are told by `place`, which a record has once and for all and in every reading: a dead letter's, or
a prediction's. Its `batch` is no such name, for a live stream may be cut otherwise; nor need a repeat's value be equal.
"""

from __future__ import annotations

import base64
import os
from typing import IO, TYPE_CHECKING, Any, Protocol

import orjson

from actors.ports import SourceError
from cluster.streams.kafka_sender import KafkaSender, ensure_topic
from cluster.streams.prediction_messages import encode_predictions
from learning.ensemble import Ensemble

if TYPE_CHECKING:
    from pathlib import Path

    from actors.ports import DeadLetter
    from cluster.config import Pipeline
    from learning.batch import Batch
    from learning.mixer import Mixed

__all__ = [
    "DeadLetterSink",
    "FileDeadLetters",
    "KafkaDeadLetters",
    "PredictionSink",
    "encode_dead_letter",
    "open_dead_letters",
    "open_predictions",
]


class DeadLetterSink(Protocol):
    """Takes bad records; they are durable after `flush`."""

    def write(self, letters: list[DeadLetter]) -> None:
        """Accept letters."""

    def flush(self) -> None:
        """Return when everything written is durable."""

    def close(self) -> None:
        """Flush and release; may be called twice."""


def open_dead_letters(pipeline: Pipeline, folder: Path, worker: int) -> DeadLetterSink:
    """The sink that a pipeline names: a topic of its Kafka, or `folder`/worker-N.jsonl, which is made when needed."""
    config = pipeline.dead_letters
    if config.topic is None:
        return FileDeadLetters(folder / f"worker-{worker}.jsonl", config.value_bytes_max)
    return KafkaDeadLetters(_sender(pipeline, config.topic, "dead_letters.topic"), config.value_bytes_max)


def open_predictions(pipeline: Pipeline) -> PredictionSink | None:
    """The topic for predictions, if the pipeline names one."""
    topic = pipeline.predictions.topic
    if topic is None:
        return None
    sender = _sender(pipeline, topic, "predictions.topic")
    assert pipeline.source.kind == "kafka"  # else there is no sender
    learner = pipeline.learner.build()
    names = learner.names if isinstance(learner, Ensemble) else ()
    return PredictionSink(sender, pipeline.source.topic, names)


def _sender(pipeline: Pipeline, topic: str, key: str) -> KafkaSender:
    source = pipeline.source
    if source.kind != "kafka":
        msg = f"{key} is {topic!r}, but the source is a file, so there is no Kafka to write to; remove {key}"
        raise SourceError(msg)
    if topic == source.topic:
        raise SourceError(f"{key} is {topic!r}, which is also the source's topic; name another one")
    ensure_topic(source, topic)
    return KafkaSender(source, topic)


class FileDeadLetters:
    """Appends JSON lines to a file that exists only if there was something to write."""

    def __init__(self, path: Path, value_bytes_max: int) -> None:
        self._path = path
        self._value_bytes_max = value_bytes_max
        self._file: IO[bytes] | None = None

    def write(self, letters: list[DeadLetter]) -> None:
        """Append letters; they reach the disk with `flush`. Raises SourceError."""
        if not letters:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = self._file = self._path.open("ab+")
                if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                    file.write(b"\n")  # behind half a line of a job that was killed
            lines = [encode_dead_letter(letter, self._value_bytes_max) for letter in letters]
            self._file.write(b"\n".join([*lines, b""]))
        except OSError as error:
            raise self._error(error) from error

    def flush(self) -> None:
        """Return when all lines are on the disk. Raises SourceError."""
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Flush and close; may be called twice."""
        if self._file is None:
            return
        try:
            self.flush()
        finally:
            self._file.close()
            self._file = None

    def _error(self, error: OSError) -> SourceError:
        return SourceError(
            f"dead letters cannot be written to {self._path}: {error.strerror}; make room or give another run folder"
        )


class KafkaDeadLetters:
    """Sends each letter as one JSON message, keyed by its place."""

    def __init__(self, sender: KafkaSender, value_bytes_max: int) -> None:
        self._sender = sender
        self._value_bytes_max = value_bytes_max

    def write(self, letters: list[DeadLetter]) -> None:
        """Send letters. Raises DeliveryError if earlier ones could not be delivered."""
        for letter in letters:
            self._sender.send(encode_dead_letter(letter, self._value_bytes_max), key=letter.place.encode())

    def flush(self) -> None:
        """Return when all letters are confirmed. Raises DeliveryError."""
        self._sender.flush()

    def close(self) -> None:
        """Flush and release; may be called twice."""
        self._sender.close()


class PredictionSink:
    """Sends {"id", "prediction", "version", "place", "batch"} for each record, keyed by id.

    A record without an id is called partition:offset. `place` is topic[partition]@offset of its message, with #k behind
    it for the k-th learnable record, from 0, of a message with several. A message is never split over batches and is
    decoded the same each time, so a record has the same place in every reading. `batch` is how it was cut in this one.
    Where a bandit chose, `expert` is the one of `experts` that predicted, with `propensity`.
    """

    def __init__(self, sender: KafkaSender, source_topic: str, experts: tuple[str, ...] = ()) -> None:
        self._sender = sender
        self._source_topic = source_topic
        self._experts = experts

    def write(self, batch: Batch, mixed: Mixed, version: str) -> None:
        """Send a batch's predictions. Raises DeliveryError if earlier ones could not be delivered."""
        for key, value in encode_predictions(batch, mixed, version, self._source_topic, self._experts):
            self._sender.send(value, key=key)

    def flush(self) -> None:
        """Return when all predictions are confirmed. Raises DeliveryError."""
        self._sender.flush()

    def close(self) -> None:
        """Flush and release; may be called twice."""
        self._sender.close()


def encode_dead_letter(letter: DeadLetter, value_bytes_max: int) -> bytes:
    """One JSON object; a value that is not UTF-8 goes as base64, a long one is cut and its full length kept."""
    text, encoding = _as_text(letter.value[:value_bytes_max], whole=len(letter.value) <= value_bytes_max)
    fields: dict[str, Any] = {
        "place": letter.place,
        "source": letter.source,
        "partition": letter.partition,
        "offset": letter.offset,
        "row": letter.row,
        "reason": letter.reason.encode("utf-8", "replace").decode(),
        "value": text,
        "encoding": encoding,
        "value_bytes": len(letter.value),
    }
    return orjson.dumps(fields)


def _as_text(value: bytes, *, whole: bool) -> tuple[str, str]:
    try:
        return value.decode(), "utf-8"
    except UnicodeDecodeError as error:
        if not whole and len(value) - error.start < 4 and error.reason == "unexpected end of data":
            return value[: error.start].decode(), "utf-8"  # only the cut itself went through a character
        return base64.b64encode(value).decode(), "base64"
