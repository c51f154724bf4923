"""Which requests the broker answers, in which versions, and how a request becomes an answer.

Versions end where Apache Kafka replaces topic names by ids or brings in what this broker does not have (static
membership, incremental fetch sessions): clients then use the older form by themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kafka.protocol import admin, consumer, producer
from kafka.protocol import metadata as meta

from cluster.broker import handlers_groups as groups
from cluster.broker import handlers_log as log
from cluster.broker import handlers_topics as topics
from cluster.broker.errors import ErrorCode, ProtocolError
from cluster.broker.services import Request, Services
from cluster.broker.wire import Part, Reader, RequestHead, read_head, read_produce

PRODUCE: Final = 0
FETCH: Final = 1
API_VERSIONS: Final = 18

Handler = Callable[[Services, Request, Any], Any]


@dataclass(frozen=True)
class Api:
    """A request type: its class, the versions offered, and who answers it (None: by hand below)."""

    request: Any
    version_min: int
    version_max: int
    handler: Handler | None


APIS: Final[dict[int, Api]] = {
    # Versions 0 to 2 of Produce carry formats that are refused; librdkafka takes their absence for a lack of codecs.
    PRODUCE: Api(producer.ProduceRequest, 0, 8, None),
    FETCH: Api(consumer.FetchRequest, 4, 11, None),
    2: Api(consumer.ListOffsetsRequest, 1, 5, log.list_offsets),
    3: Api(meta.MetadataRequest, 0, 8, topics.metadata),
    8: Api(consumer.OffsetCommitRequest, 2, 6, groups.offset_commit),
    9: Api(consumer.OffsetFetchRequest, 1, 7, groups.offset_fetch),
    10: Api(meta.FindCoordinatorRequest, 0, 3, groups.find_coordinator),
    11: Api(consumer.JoinGroupRequest, 0, 4, groups.join_group),
    12: Api(consumer.HeartbeatRequest, 0, 2, groups.heartbeat),
    13: Api(consumer.LeaveGroupRequest, 0, 2, groups.leave_group),
    14: Api(consumer.SyncGroupRequest, 0, 2, groups.sync_group),
    15: Api(admin.DescribeGroupsRequest, 0, 3, groups.describe_groups),
    16: Api(admin.ListGroupsRequest, 0, 3, groups.list_groups),
    API_VERSIONS: Api(meta.ApiVersionsRequest, 0, 3, None),
    19: Api(admin.CreateTopicsRequest, 2, 5, topics.create_topics),
    20: Api(admin.DeleteTopicsRequest, 1, 5, topics.delete_topics),
    21: Api(admin.DeleteRecordsRequest, 0, 2, log.delete_records),
    22: Api(producer.InitProducerIdRequest, 0, 2, log.init_producer_id),
    32: Api(admin.DescribeConfigsRequest, 1, 4, topics.describe_configs),
    37: Api(admin.CreatePartitionsRequest, 0, 2, topics.create_partitions),
    42: Api(admin.DeleteGroupsRequest, 0, 2, groups.delete_groups),
    60: Api(admin.DescribeClusterRequest, 0, 0, topics.describe_cluster),
}

# What kafka-python's decoder raises on bytes that are not what they should be.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    struct.error,
    MemoryError,
)


def check_prefix(api_key: int, api_version: int) -> Api:
    """The API of a request, from its first four bytes.

    Raises:
        ProtocolError: no such request, or not in that version (ApiVersions is answered in any version).
    """
    api = APIS.get(api_key)
    if api is None:
        raise ProtocolError(f"Expected a Kafka request that this broker knows, got type {api_key}.")
    if api_key != API_VERSIONS and not api.version_min <= api_version <= api.version_max:
        raise ProtocolError(
            f"Expected version {api.version_min} to {api.version_max} of {api.request.__name__}, got {api_version}."
        )
    return api


def answer(services: Services, frame: memoryview, client_host: str, local_host: str) -> list[Part]:
    """Carry out a request and return its answer; nothing for a producer that wants none.

    Raises:
        ProtocolError: the bytes are not a request.
    """
    api_key, api_version = struct.unpack_from(">hh", frame)
    api = check_prefix(api_key, api_version)
    version_known = api_version <= api.version_max
    reader = Reader(frame)
    head = read_head(reader, flexible=version_known and api.request.flexible_version_q(api_version))
    if api_key == API_VERSIONS:
        return _encode(
            _versions(ErrorCode.NONE if version_known else ErrorCode.UNSUPPORTED_VERSION),
            head,
            api_version if version_known else 0,
        )
    if api_key == PRODUCE:
        return _encode(log.produce(services, read_produce(reader, api_version)), head, api_version)
    request = Request(head, client_host, local_host)
    body = _decode(api, reader, api_version)
    if api.handler is None:
        return log.fetch(services, request, body)
    return _encode(api.handler(services, request, body), head, api_version)


def _decode(api: Api, reader: Reader, api_version: int) -> Any:
    name = f"{api.request.__name__} of version {api_version}"
    try:
        body = api.request.decode(reader.rest(), version=api_version)
    except _UNREADABLE as error:
        raise ProtocolError(f"Expected a {name}: {error!r}.") from error
    missing = next(_missing_fields(body, api_version), None)
    if missing is not None:
        raise ProtocolError(f"Expected a value for {missing} in a {name}, got null.")
    return body


def _missing_fields(body: Any, api_version: int) -> Iterator[str]:
    """Names of fields that are null and may not be: the decoder lets them pass, the handlers rely on them."""
    for field in body._struct._fields:  # noqa: SLF001  the schema has no public door
        if not field.for_version_q(api_version):
            continue
        value = getattr(body, field.name)
        if value is None and not field.nullable_for_version_q(api_version):
            yield field.name
        elif value and field.is_struct_array():
            for item in value:
                yield from _missing_fields(item, api_version)


def _encode(response: Any, head: RequestHead, api_version: int) -> list[Part]:
    if response is None:
        return []
    response.API_VERSION = api_version
    response.with_header(correlation_id=head.correlation_id)
    return [bytes(response.encode(header=True, framed=True))]


def _versions(code: ErrorCode) -> Any:
    offered = [
        meta.ApiVersionsResponse.ApiVersion(
            api_key=key, min_version=api.version_min, max_version=api.version_max
        )
        for key, api in APIS.items()
    ]
    return meta.ApiVersionsResponse(error_code=int(code), api_keys=offered, throttle_time_ms=0)
