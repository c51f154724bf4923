"""Opens what a pipeline reads from: which partitions there are, and a worker's share of them as a Source.

The bounds of a partition are its first offset and its end offset; an end of None means that the stream goes on, or,
for a file, that its end is only known by reading it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kafka import TopicPartition, errors
from kafka.admin import OffsetSpec
from kafka.protocol.consumer import IsolationLevel

from actors.ports import SourceError
from cluster.config import FileSourceConfig
from cluster.decode.decoder import Decoder
from cluster.decode.naming import NamingDecoder
from cluster.streams.file_schema import check_named
from cluster.streams.file_source import FileSource, schema_of
from cluster.streams.kafka_client import connect_admin
from cluster.streams.kafka_errors import expired_offset, explain_kafka_error, kafka_errors
from cluster.streams.kafka_source import KafkaSource
from cluster.streams.plans import check_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kafka import KafkaAdminClient

    from actors.ports import Source
    from cluster.config import KafkaSourceConfig, Pipeline
    from learning.batch import BatchId

__all__ = ["Bounds", "describe_source", "end_offsets", "offsets_at", "open_source"]

Bounds = tuple[int, int | None]

DESCRIBE_TIMEOUT_S = 10.0


def describe_source(
    pipeline: Pipeline,
    *,
    label_min: float = 0.0,
    label_max: float = 1.0,
    roles: tuple[str, ...] = (),
    slice_feature: str | None = None,
) -> dict[int, Bounds]:
    """All partitions and where a new run begins and ends in them; a file has one a worker. Raises SourceError.

    What cannot be learnt from the stream as a whole is said here, before any worker starts: labels and the features
    that somebody needs by name (`roles`, `slice_feature`) are looked for in a file, and in the pipeline's `features`.
    """
    source = pipeline.source
    if isinstance(source, FileSourceConfig):
        schema_of(
            source,
            pipeline.features,
            roles=roles,
            slice_feature=slice_feature,
            label_min=label_min,
            label_max=label_max,
        )
        return dict.fromkeys(range(pipeline.cluster.workers), (0, None))
    check_named(pipeline.features, roles, slice_feature)
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
    want_features: bool = False,
    names_max: int = 0,
    slice_feature: str | None = None,
    after_partition: int | None = None,
    plan: Sequence[BatchId] = (),
) -> Source:
    """The share of a pipeline's stream that `bounds` describes. Raises SourceError.

    Records with labels outside of the range, or without one of the features in `roles`, are dead letters. Batches bring
    the texts of `kept_roles`, by number, with `want_features` the feature of each entry, and of a `slice_feature` each
    record's value. Those of a topic tell the names of its first `names_max` features; a file's are in the pipeline.

    A stream whose partitions all have an end is read in an order that depends on the input alone: round robin.
    `after_partition`, the partition of the last batch before an interruption, lets the round go on behind it.

    `plan`, the journal of an earlier reading from the same offsets, is followed first, in its order and with its cuts;
    behind it the stream goes on in its ordinary way, the round behind the plan's last partition. A topic's plan is
    checked here. A file has one order and one way to be cut, so its plan is compared batch by batch while it is read,
    and `after_partition` says nothing.
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
            want_features=want_features,
            slice_feature=slice_feature,
            plan=plan,
        )
    check_plan(source.topic, plan, bounds, _check_bounds(source, bounds))
    decoder = Decoder(
        source.topic,
        pipeline.features,
        label_min=label_min,
        label_max=label_max,
        roles=roles,
        kept_roles=kept_roles,
        want_ids=want_ids,
        want_features=want_features,
        slice_feature=slice_feature,
        message_bytes_max=source.message_bytes_max,
    )
    return KafkaSource(
        source,
        NamingDecoder(decoder, names_max) if want_features and names_max else decoder,
        pipeline.batch_records,
        bounds,
        after_partition=after_partition,
        plan=plan,
        batch_wait_s=pipeline.batch_wait_s,
    )


def end_offsets(pipeline: Pipeline) -> dict[int, int]:
    """Each partition's end now, as a committed reader sees it. Raises SourceError, for a file too."""
    return _describe_topic(_topic_of(pipeline))[1]


def offsets_at(pipeline: Pipeline, time_s: float) -> dict[int, int]:
    """For each partition the first offset whose message is of `time_s` (unix s) or later; its end if there is none.

    A message's time is what its producer wrote, or the broker, where the topic says so. Raises SourceError.
    """
    source = _topic_of(pipeline)
    if not math.isfinite(time_s):
        raise SourceError(f"the time to start from is {time_s}, which is no time; give unix seconds")
    # Kafka's times are whole milliseconds; a float's rounding must not move one that is meant exactly to the next.
    time_ms = max(0, math.ceil(round(time_s * 1000, 3)))
    admin = connect_admin(source, DESCRIBE_TIMEOUT_S)
    try:
        with kafka_errors(source, source.topic):
            partitions = _partitions(admin, source)
            found = _offsets(admin, partitions, time_ms)
            ends = _offsets(admin, partitions, OffsetSpec.LATEST)
    finally:
        admin.close()
    return {partition: at if at >= 0 else ends[partition] for partition, at in found.items()}


def _topic_of(pipeline: Pipeline) -> KafkaSourceConfig:
    source = pipeline.source
    if isinstance(source, FileSourceConfig):
        msg = (
            f"{source.path} is a file, which has no offsets to look up; name a topic as the pipeline's source"
        )
        raise SourceError(msg)
    return source


def _check_bounds(source: KafkaSourceConfig, bounds: Mapping[int, Bounds]) -> dict[int, int]:
    """Finds unknown partitions and expired offsets before the first record is learnt, and all at once; the ends now."""
    first, end = _describe_topic(source)
    unknown = sorted(set(bounds) - set(first))
    if unknown:
        have = f"has partitions 0 to {max(first)}"
        raise SourceError(f"topic {source.topic!r} {have}, but {unknown} were asked for; was it made anew?")
    expired = [
        f"{source.topic}[{p}]@{start} (it has {first[p]} to {end[p]})"
        for p, (start, stop) in sorted(bounds.items())
        # A partition that was read to its end is not read again, and may well have expired.
        if start != stop and not first[p] <= start <= end[p]
    ]
    if expired:
        raise expired_offset(", ".join(expired))
    return end


def _describe_topic(source: KafkaSourceConfig) -> tuple[dict[int, int], dict[int, int]]:
    """First and end offset of each partition."""
    admin = connect_admin(source, DESCRIBE_TIMEOUT_S)
    try:
        with kafka_errors(source, source.topic):
            partitions = _partitions(admin, source)
            first, end = (
                _offsets(admin, partitions, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
            )
            return first, end
    finally:
        admin.close()


def _partitions(admin: KafkaAdminClient, source: KafkaSourceConfig) -> list[TopicPartition]:
    (topic,) = admin.describe_topics([source.topic])
    if topic["error_code"]:
        raise explain_kafka_error(errors.for_code(topic["error_code"])(), source, source.topic)
    return [TopicPartition(source.topic, part["partition_index"]) for part in topic["partitions"]]


def _offsets(
    admin: KafkaAdminClient, partitions: list[TopicPartition], spec: OffsetSpec | int
) -> dict[int, int]:
    """What the broker answers for one specification (a time in ms is one): by partition; -1 where there is none."""
    found = admin.list_partition_offsets(
        dict.fromkeys(partitions, spec),
        # Read committed: an open transaction is not read before it ends, so it is not part of the stream yet.
        isolation_level=IsolationLevel.READ_COMMITTED,
        timeout_ms=int(DESCRIBE_TIMEOUT_S * 1000),
    )
    return {partition.partition: at.offset for partition, at in found.items()}
