"""Reads a worker's partitions of a Kafka topic and cuts them into batches.

One thread owns the client: it polls ahead into bounded buffers (a full partition is paused), cuts and decodes. So
fetching, decoding and the caller's learning overlap; the kernels of all three release the GIL.

Order. A bounded stream (each partition has an end offset) is cut on a fixed grid of `batch_records` and read round
robin over the partitions in ascending order, whatever the timing of polls; `after_partition` continues a round that
was interrupted. A live stream gives what is there: a short batch is only cut while the caller has nothing else to do,
and once its first message has waited `batch_wait_s` for others.
Its cuts and turns would be others in a second run, unless that is given those of the first as its plan.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from kafka import TopicPartition, errors

from actors.ports import Decoded, SourceError
from cluster.streams.kafka_buffer import BATCH_BYTES_MAX, PartitionBuffer
from cluster.streams.kafka_chunks import read_in_chunks
from cluster.streams.kafka_client import BrokerWatch, connect_consumer
from cluster.streams.kafka_errors import expired_offset, explain_kafka_error
from cluster.streams.kafka_turns import Turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.config import KafkaSourceConfig
    from cluster.decode.decoder import Decoder
    from cluster.decode.naming import NamingDecoder
    from learning.batch import BatchId

__all__ = ["KafkaSource"]

log = logging.getLogger("millrace.stream")

READY_BATCHES_MAX = 2
BUFFER_BYTES_MAX = 2 * BATCH_BYTES_MAX
BUFFER_RESUME_FILL = 0.5
WAIT_FOR_ROOM_S = 0.02
CLOSE_TIMEOUT_S = 5.0


class KafkaSource:
    """A worker's fixed share of a topic (implements cluster.decode.messages.Source).

    Parameters
    ----------
    config:
        the topic and how to reach it; `buffered_batches_max` bounds what is fetched ahead of each partition.
    decoder:
        used by the reader thread alone.
    bounds:
        first and end offset of each partition of this worker; an end of None reads for ever.
    after_partition:
        the partition that gave the last batch before the interruption; None begins with the lowest.
    plan:
        batches of an earlier reading: taken first, in their order and with their cuts (checked by plans.check_plan).
    batch_wait_s:
        how long a live stream's messages wait here for a batch to be full.

    """

    def __init__(
        self,
        config: KafkaSourceConfig,
        decoder: Decoder | NamingDecoder,
        batch_records: int,
        bounds: Mapping[int, tuple[int, int | None]],
        *,
        after_partition: int | None = None,
        plan: Sequence[BatchId] = (),
        batch_wait_s: float = 0.0,
    ) -> None:
        self._config = config
        self._batch_wait_s = batch_wait_s
        self._decoder = decoder
        self._buffers = [PartitionBuffer(p, *bounds[p], batch_records) for p in sorted(bounds)]
        self._by_partition = {buffer.partition: buffer for buffer in self._buffers}
        self._rows_max = max(2, config.buffered_batches_max) * batch_records
        self._topic_partitions = {p: TopicPartition(config.topic, p) for p in bounds}
        self._turns = Turns(self._buffers, after_partition, plan)
        self._polled = {p: start for p, (start, _) in bounds.items()}
        self._highwaters: dict[int, int] = {}
        self._ready: deque[Decoded] = deque()
        self._changed = threading.Condition()
        self._closed = self._finished = False
        self._error: SourceError | None = None
        self._consumer = read_in_chunks(connect_consumer(config))
        self._watch = BrokerWatch(self._consumer, config.bootstrap_servers)
        self._thread = threading.Thread(target=self._read, name=f"kafka-{config.topic}", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float) -> Decoded | None:
        """The next batch, or None if there is none within `timeout_s`. Raises SourceError."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ready or self._error or self._finished or self._closed, timeout_s
            )
            if self._ready:
                decoded = self._ready.popleft()
                self._polled[decoded.batch.batch_id.partition] = decoded.batch.batch_id.next_offset
                self._changed.notify_all()
                return decoded
            if self._error is not None:
                raise self._error
            return None

    @property
    def exhausted(self) -> bool:
        """True once a bounded stream has given its last batch."""
        with self._changed:
            return self._finished and not self._ready

    def lags(self) -> dict[int, int]:
        """Offsets between what was polled and the partitions' ends as the last fetches told them."""
        highwaters = dict(self._highwaters)
        return {p: max(0, highwaters[p] - self._polled[p]) for p in highwaters}

    def close(self) -> None:
        """Stop the reader thread and release the connections; takes at most some seconds, and may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning(
                "the reader of topic %r did not stop within %g s; it is left",
                self._config.topic,
                CLOSE_TIMEOUT_S,
            )

    def _read(self) -> None:
        try:
            self._seek()
            while not self._closed and not self._turns.finished:
                self._decode_ahead()
                self._fetch()
        except SourceError as error:
            self._stop(error)
        except errors.KafkaError as error:
            self._stop(self._explain(error))
        except Exception as error:
            self._stop(
                SourceError(
                    f"the reader of topic {self._config.topic!r} failed: {type(error).__name__}: {error}"
                )
            )
            log.exception("the reader of topic %r failed", self._config.topic)
        else:
            self._stop(None)
        finally:
            self._consumer.close(timeout_ms=1000)

    def _stop(self, error: SourceError | None) -> None:
        with self._changed:
            self._error = error
            self._finished = error is None and not self._closed
            self._changed.notify_all()

    def _seek(self) -> None:
        if not self._buffers:
            return
        self._consumer.assign(list(self._topic_partitions.values()))
        for buffer in self._buffers:
            self._consumer.seek(self._topic_partitions[buffer.partition], buffer.next_offset)

    def _decode_ahead(self) -> None:
        """Cut and decode while there is room; a live stream's short batch only if nothing else is waiting."""
        while not self._closed and len(self._ready) < READY_BATCHES_MAX:
            cut = self._turns.cut(short=not self._ready, came_by_s=self._came_by_s())
            if cut is None:
                return
            batch_id, messages = cut
            decoded = self._decoder.decode(messages)
            with self._changed:
                self._ready.append(replace(decoded, batch=replace(decoded.batch, batch_id=batch_id)))
                self._changed.notify_all()

    def _fetch(self) -> None:
        """One poll; it does not wait while there is something to cut as soon as the caller takes a batch."""
        could_cut = self._turns.can_cut(short=True, came_by_s=self._came_by_s())
        paused = self._pause_full()
        if paused < len(self._buffers):
            fetched = self._consumer.poll(timeout_ms=0 if could_cut else int(self._patience_s() * 1000))
            for topic_partition, chunks in fetched.items():
                self._by_partition[topic_partition.partition].add(chunks, time.monotonic())
            self._note_positions()
            self._watch.look(answered=bool(fetched))
            if fetched:
                return
        if could_cut:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._can_cut(), WAIT_FOR_ROOM_S)

    def _can_cut(self) -> bool:
        room = len(self._ready) < READY_BATCHES_MAX
        return room and self._turns.can_cut(short=not self._ready, came_by_s=self._came_by_s())

    def _patience_s(self) -> float:
        """How long a poll may take: until the first message that waits has waited long enough."""
        left_s = min(buffer.oldest_s for buffer in self._buffers) - self._came_by_s()
        return min(self._config.poll_timeout_s, max(left_s, 0.001))

    def _came_by_s(self) -> float:
        """Messages that came by now have waited long enough for others."""
        return time.monotonic() - self._batch_wait_s

    def _pause_full(self) -> int:
        """Pause partitions that are full or fetched to their end, resume the half empty; returns how many pause."""
        paused = {topic_partition.partition for topic_partition in self._consumer.paused()}
        for buffer in self._buffers:
            topic_partition = self._topic_partitions[buffer.partition]
            fill = max(buffer.rows / self._rows_max, buffer.bytes / BUFFER_BYTES_MAX)
            if self._turns.waits_for(buffer):
                fill = 0.0
            if buffer.partition not in paused and (buffer.fetched or fill >= 1.0):
                self._consumer.pause(topic_partition)
                paused.add(buffer.partition)
            elif buffer.partition in paused and not buffer.fetched and fill < BUFFER_RESUME_FILL:
                self._consumer.resume(topic_partition)
                paused.discard(buffer.partition)
        return len(paused)

    def _note_positions(self) -> None:
        """Positions move without messages where a transaction ends, and what has an end to wait for must notice."""
        for buffer in self._buffers:
            topic_partition = self._topic_partitions[buffer.partition]
            highwater = self._consumer.highwater(topic_partition)
            if highwater is not None:
                end = buffer.end_offset
                self._highwaters[buffer.partition] = highwater if end is None else min(highwater, end)
            if (buffer.end_offset is not None or self._turns.planned) and not buffer.fetched:
                buffer.position = max(
                    buffer.position, self._consumer.position(topic_partition, timeout_ms=0) or 0
                )

    def _explain(self, error: errors.KafkaError) -> SourceError:
        topic = self._config.topic
        if not isinstance(error, errors.OffsetOutOfRangeError):
            return explain_kafka_error(error, self._config, topic)
        places = ", ".join(f"{topic}[{tp.partition}]@{offset}" for tp, offset in error.args[0].items())
        return expired_offset(places)
