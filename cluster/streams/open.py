"""Opens what a pipeline reads from: which partitions there are, and a worker's share of them as a Source.

The bounds of a partition are its first offset and its end offset; an end of None means that the stream goes on, or,
for a file, that its end is only known by reading it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka import TopicPartition, errors
from kafka.admin import OffsetSpec
from kafka.protocol.consumer import IsolationLevel

from actors.ports import SourceError
from cluster.config import FileSourceConfig
from cluster.decode.decoder import Decoder
from cluster.streams.file_schema import check_roles
from cluster.streams.file_source import FileSource, schema_of
from cluster.streams.kafka_client import connect_admin
from cluster.streams.kafka_errors import expired_offset, explain_kafka_error, kafka_errors
from cluster.streams.kafka_source import KafkaSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kafka import KafkaAdminClient

    from actors.ports import Source
    from cluster.config import KafkaSourceConfig, Pipeline

__all__ = ["Bounds", "describe_source", "open_source"]

Bounds = tuple[int, int | None]

DESCRIBE_TIMEOUT_S = 10.0


def describe_source(
    pipeline: Pipeline, *, label_min: float = 0.0, label_max: float = 1.0, roles: tuple[str, ...] = ()
) -> dict[int, Bounds]:
    """All partitions and where a new run begins and ends in them; a file has one a worker. Raises SourceError.

    What cannot be learnt from the stream as a whole is said here, before any worker starts: labels and the features
    that the learner needs by name (`roles`) are looked for in a file, and in the pipeline's `features`.
    """
    source = pipeline.source
    if isinstance(source, FileSourceConfig):
        schema_of(source, pipeline.features, roles=roles, label_min=label_min, label_max=label_max)
        return dict.fromkeys(range(pipeline.cluster.workers), (0, None))
    check_roles(pipeline.features, roles)
    first, end = _describe_topic(source)
    starts = first if source.start == "earliest" else end
    return {p: (starts[p], end[p] if source.until == "end" else None) for p in sorted(first)}


def open_source(
    pipeline: Pipeline,
    bounds: Mapping[int, Bounds],
    *,
    label_min: float = 0.0,
    label_max: float = 1.0,
    roles: tuple[str, ...] = (),
    kept_roles: tuple[int, ...] = (),
    after_partition: int | None = None,
) -> Source:
    """The share of a pipeline's stream that `bounds` describes. Raises SourceError.

    Records with labels outside of the range, or without one of the features in `roles`, are dead letters. Batches bring
    the texts of `kept_roles`, by number.

    A stream whose partitions all have an end is read in an order that depends on the input alone: round robin.
    `after_partition`, the partition of the last batch before an interruption, lets the round go on behind it.
    """
    source = pipeline.source
    want_ids = pipeline.predictions.topic is not None
    if isinstance(source, FileSourceConfig):
        return FileSource(
            source,
            pipeline.features,
            pipeline.batch_records,
            bounds,
            pipeline.cluster.workers,
            label_min=label_min,
            label_max=label_max,
            roles=roles,
            kept_roles=kept_roles,
            want_ids=want_ids,
        )
    _check_bounds(source, bounds)
    decoder = Decoder(
        source.topic,
        pipeline.features,
        label_min=label_min,
        label_max=label_max,
        roles=roles,
        kept_roles=kept_roles,
        want_ids=want_ids,
        message_bytes_max=source.message_bytes_max,
    )
    return KafkaSource(source, decoder, pipeline.batch_records, bounds, after_partition=after_partition)


def _check_bounds(source: KafkaSourceConfig, bounds: Mapping[int, Bounds]) -> None:
    """Unknown partitions and expired offsets are found before the first record is learnt, and all at once."""
    first, end = _describe_topic(source)
    unknown = sorted(set(bounds) - set(first))
    if unknown:
        have = f"has partitions 0 to {max(first)}"
        raise SourceError(f"topic {source.topic!r} {have}, but {unknown} were asked for; was it made anew?")
    expired = [
        f"{source.topic}[{p}]@{start} (it has {first[p]} to {end[p]})"
        for p, (start, _) in sorted(bounds.items())
        if not first[p] <= start <= end[p]
    ]
    if expired:
        raise expired_offset(", ".join(expired))


def _describe_topic(source: KafkaSourceConfig) -> tuple[dict[int, int], dict[int, int]]:
    """First and end offset of each partition."""
    admin = connect_admin(source, DESCRIBE_TIMEOUT_S)
    try:
        with kafka_errors(source, source.topic):
            return _topic_offsets(admin, source)
    finally:
        admin.close()


def _topic_offsets(
    admin: KafkaAdminClient, source: KafkaSourceConfig
) -> tuple[dict[int, int], dict[int, int]]:
    (topic,) = admin.describe_topics([source.topic])
    if topic["error_code"]:
        raise explain_kafka_error(errors.for_code(topic["error_code"])(), source, source.topic)
    partitions = [TopicPartition(source.topic, part["partition_index"]) for part in topic["partitions"]]
    first, end = (
        # Read committed: an open transaction is not read before it ends, so it is not part of the stream yet.
        admin.list_partition_offsets(
            dict.fromkeys(partitions, spec),
            isolation_level=IsolationLevel.READ_COMMITTED,
            timeout_ms=int(DESCRIBE_TIMEOUT_S * 1000),
        )
        for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
    )
    return {tp.partition: at.offset for tp, at in first.items()}, {
        tp.partition: at.offset for tp, at in end.items()
    }
