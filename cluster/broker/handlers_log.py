"""Produce, Fetch, ListOffsets, DeleteRecords, InitProducerId."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from kafka.protocol.admin import DeleteRecordsResponse
from kafka.protocol.consumer import ListOffsetsResponse
from kafka.protocol.producer import InitProducerIdResponse, ProduceResponse

from cluster.broker.batch import LEADER_EPOCH
from cluster.broker.errors import ErrorCode, RequestError
from cluster.broker.partition_log import PartitionLog
from cluster.broker.services import Request, Services
from cluster.broker.wire import FetchedPartition, Part, ProduceBody, ProducedBatch, fetch_response

logger = logging.getLogger("millrace.broker")

EARLIEST: Final = -2
LATEST: Final = -1
_WAKE_S_MAX: Final = 0.5  # a waiting fetch looks this often whether the broker stops

_ProducedTopic = ProduceResponse.TopicProduceResponse
_ProducedPartition = _ProducedTopic.PartitionProduceResponse
_ListedTopic = ListOffsetsResponse.ListOffsetsTopicResponse
_ListedPartition = _ListedTopic.ListOffsetsPartitionResponse
_DeletedTopic = DeleteRecordsResponse.DeleteRecordsTopicResult
_DeletedPartition = _DeletedTopic.DeleteRecordsPartitionResult


def produce(services: Services, body: ProduceBody) -> Any:
    """Store each partition's batch; None if the client wants no answer (acks=0)."""
    topics: dict[str, list[Any]] = {}
    for batch in body.batches:
        topics.setdefault(batch.topic, []).append(_produce_one(services, body, batch))
    if body.acks == 0:
        return None
    responses = [_ProducedTopic(name=name, partition_responses=parts) for name, parts in topics.items()]
    return ProduceResponse(responses=responses, throttle_time_ms=0)


def _produce_one(services: Services, body: ProduceBody, batch: ProducedBatch) -> Any:
    try:
        if body.acks not in (-1, 0, 1):
            raise RequestError(ErrorCode.INVALID_REQUIRED_ACKS, f"acks is -1 (all), 0 or 1, got {body.acks}.")
        log = services.topics.partition(batch.topic, batch.partition)
        if batch.records is None:
            raise RequestError(ErrorCode.INVALID_RECORD, "expected a record batch, got none.")
        appended = log.append(batch.records)
    except RequestError as error:
        logger.warning("Refused records for %s[%d]: %s", batch.topic, batch.partition, error)
        return _produced(batch.partition, error.code, -1, -1, error.message)
    return _produced(batch.partition, ErrorCode.NONE, appended.base_offset, appended.start_offset, None)


def _produced(
    partition: int, code: ErrorCode, base_offset: int, start_offset: int, message: str | None
) -> Any:
    return _ProducedPartition(
        index=partition,
        error_code=int(code),
        base_offset=base_offset,
        log_append_time_ms=-1,
        log_start_offset=start_offset,
        record_errors=[],
        error_message=message,
    )


def fetch(services: Services, request: Request, body: Any) -> list[Part]:
    """Answer with records as soon as there are `min_bytes`, or after `max_wait_ms` with what there is."""
    wait_ms = min(max(body.max_wait_ms, 0), services.limits.fetch_wait_ms_max)
    ends_s = time.monotonic() + wait_ms / 1000
    topics, enough = _gather(services, body)
    if not enough and wait_ms:
        topics = _wait_for_records(services, body, ends_s)
    return fetch_response(request.head.correlation_id, request.head.api_version, topics)


_Fetched = list[tuple[str, list[FetchedPartition]]]


def _wait_for_records(services: Services, body: Any, ends_s: float) -> _Fetched:
    appended = threading.Event()
    logs = [log for topic in body.topics for log in _logs_of(services, topic)]
    for log in logs:
        log.watch(appended)
    try:
        while True:
            topics, enough = _gather(services, body)
            left_s = ends_s - time.monotonic()
            if enough or left_s <= 0 or services.stopping.is_set():
                return topics
            appended.wait(min(left_s, _WAKE_S_MAX))
            appended.clear()
    finally:
        for log in logs:
            log.unwatch(appended)


def _logs_of(services: Services, topic: Any) -> list[PartitionLog]:
    """Logs of the partitions asked for; one deleted meanwhile is left out, and found missing when it is read."""
    found = services.topics.get(topic.topic)
    logs = found.partitions if found is not None else []
    return [logs[item.partition] for item in topic.partitions if 0 <= item.partition < len(logs)]


def _gather(services: Services, body: Any) -> tuple[_Fetched, bool]:
    """What can be read now, and whether that is worth an answer: enough bytes, or an error to tell."""
    budget_bytes = left_bytes = min(max(body.max_bytes, 1), services.limits.fetch_bytes_max)
    failed = not body.topics
    topics = []
    for topic in body.topics:
        partitions = []
        for partition in topic.partitions:
            fetched = _read_one(services, topic.topic, partition, left_bytes)
            if fetched.records is not None:
                left_bytes -= fetched.records.size_bytes
            failed = failed or fetched.error_code != ErrorCode.NONE
            partitions.append(fetched)
        topics.append((topic.topic, partitions))
    read_bytes = budget_bytes - left_bytes
    return topics, failed or left_bytes <= 0 or read_bytes >= max(body.min_bytes, 0)


def _read_one(services: Services, topic: str, partition: Any, left_bytes: int) -> FetchedPartition:
    """Records of one partition: at least one batch, however long, as long as the answer has room at all."""
    index = partition.partition
    try:
        log = services.topics.partition(topic, index)
    except RequestError as error:
        return FetchedPartition(index, error.code, -1, -1, None)
    try:
        bytes_max = min(max(partition.partition_max_bytes, 1), left_bytes)
        records = log.read(partition.fetch_offset, bytes_max) if left_bytes > 0 else None
    except RequestError as error:
        return FetchedPartition(index, error.code, log.end_offset, log.start_offset, None)
    return FetchedPartition(index, ErrorCode.NONE, log.end_offset, log.start_offset, records)


def list_offsets(services: Services, request: Request, body: Any) -> Any:
    """First, last, or first offset at or after a time, per partition."""
    topics = [
        _ListedTopic(
            name=topic.name, partitions=[_list_one(services, topic.name, item) for item in topic.partitions]
        )
        for topic in body.topics
    ]
    return ListOffsetsResponse(throttle_time_ms=0, topics=topics)


def _list_one(services: Services, topic: str, item: Any) -> Any:
    code, offset, timestamp_ms = ErrorCode.NONE, -1, -1
    try:
        log = services.topics.partition(topic, item.partition_index)
        if item.timestamp == EARLIEST:
            offset = log.start_offset
        elif item.timestamp == LATEST:
            offset = log.end_offset
        elif item.timestamp >= 0:
            offset, timestamp_ms = log.offset_at_time(item.timestamp) or (-1, -1)
        else:
            code = ErrorCode.INVALID_REQUEST
    except RequestError as error:
        code = error.code
    return _ListedPartition(
        partition_index=item.partition_index,
        error_code=int(code),
        timestamp=timestamp_ms,
        offset=offset,
        leader_epoch=LEADER_EPOCH if offset >= 0 else -1,
    )


def delete_records(services: Services, request: Request, body: Any) -> Any:
    """Delete what lies below an offset."""
    topics = [
        _DeletedTopic(
            name=topic.name, partitions=[_delete_one(services, topic.name, item) for item in topic.partitions]
        )
        for topic in body.topics
    ]
    return DeleteRecordsResponse(throttle_time_ms=0, topics=topics)


def _delete_one(services: Services, topic: str, item: Any) -> Any:
    code, start_offset = ErrorCode.NONE, -1
    try:
        start_offset = services.topics.partition(topic, item.partition_index).delete_before(item.offset)
    except RequestError as error:
        code = error.code
    return _DeletedPartition(
        partition_index=item.partition_index, low_watermark=start_offset, error_code=int(code)
    )


def init_producer_id(services: Services, request: Request, body: Any) -> Any:
    """Give out a new producer id; transactional producers are refused, for good."""
    if body.transactional_id is not None:
        logger.warning(
            "Refused transactional producer %r from %s: the development broker has no transactions. Use an idempotent "
            "producer, or Apache Kafka.",
            body.transactional_id[:200],
            request.client_host,
        )
        # Of the codes that clients know here, this one is fatal in all of them: they stop instead of trying again.
        code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return InitProducerIdResponse(
            throttle_time_ms=0, error_code=int(code), producer_id=-1, producer_epoch=-1
        )
    producer_id = services.producer_ids.allocate()
    return InitProducerIdResponse(throttle_time_ms=0, error_code=0, producer_id=producer_id, producer_epoch=0)
