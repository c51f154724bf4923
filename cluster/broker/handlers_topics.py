"""ApiVersions excepted, all that describes or changes the cluster: Metadata, topics, partitions, settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from kafka.protocol.admin import (
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteTopicsResponse,
    DescribeClusterResponse,
    DescribeConfigsResponse,
)
from kafka.protocol.metadata import MetadataResponse

from cluster.broker.batch import LEADER_EPOCH
from cluster.broker.errors import ErrorCode, RequestError
from cluster.broker.limits import KAFKA_NAMES, LogConfig, with_kafka_settings
from cluster.broker.services import NODE_ID, Request, Services
from cluster.broker.topics import Topic

logger = logging.getLogger("millrace.broker")

_Broker = MetadataResponse.MetadataResponseBroker
_Topic = MetadataResponse.MetadataResponseTopic
_Partition = _Topic.MetadataResponsePartition
_Created = CreateTopicsResponse.CreatableTopicResult
_Deleted = DeleteTopicsResponse.DeletableTopicResult
_Grown = CreatePartitionsResponse.CreatePartitionsTopicResult
_Described = DescribeConfigsResponse.DescribeConfigsResult
_Setting = _Described.DescribeConfigsResourceResult

_TOPIC_RESOURCE, _BROKER_RESOURCE = 2, 4
_DEFAULT_SOURCE, _STATIC_BROKER_SOURCE, _TOPIC_SOURCE = 5, 4, 1
_LONG_TYPE = 5


def metadata(services: Services, request: Request, body: Any) -> Any:
    """The one broker and the topics asked for (all, if none are named)."""
    host, port = services.advertise(request.local_host)
    wants_all = body.topics is None or (request.head.api_version == 0 and not body.topics)
    names = services.topics.names() if wants_all else [topic.name for topic in body.topics]
    may_create = bool(services.auto_create_partitions) and (
        request.head.api_version < 4 or body.allow_auto_topic_creation
    )
    return MetadataResponse(
        throttle_time_ms=0,
        brokers=[_Broker(node_id=NODE_ID, host=host, port=port, rack=None)],
        cluster_id=services.cluster_id,
        controller_id=NODE_ID,
        topics=[_describe(services, name, may_create=may_create) for name in names],
    )


def _describe(services: Services, name: str, *, may_create: bool) -> Any:
    topic = services.topics.get(name)
    if topic is None and may_create:
        try:
            topic = services.auto_create(name)
        except RequestError as error:
            if error.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                return _Topic(error_code=int(error.code), name=name, is_internal=False, partitions=[])
            topic = services.topics.get(name)
    if topic is None:
        return _Topic(
            error_code=int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), name=name, is_internal=False, partitions=[]
        )
    partitions = [_partition(index) for index in range(len(topic.partitions))]
    return _Topic(error_code=0, name=name, is_internal=False, partitions=partitions)


def _partition(index: int) -> Any:
    return _Partition(
        error_code=0,
        partition_index=index,
        leader_id=NODE_ID,
        leader_epoch=LEADER_EPOCH,
        replica_nodes=[NODE_ID],
        isr_nodes=[NODE_ID],
        offline_replicas=[],
    )


def describe_cluster(services: Services, request: Request, body: Any) -> Any:
    """The cluster's id and its one broker."""
    host, port = services.advertise(request.local_host)
    broker = DescribeClusterResponse.DescribeClusterBroker(broker_id=NODE_ID, host=host, port=port, rack=None)
    return DescribeClusterResponse(
        throttle_time_ms=0,
        error_code=0,
        error_message=None,
        cluster_id=services.cluster_id,
        controller_id=NODE_ID,
        brokers=[broker],
    )


def _outcome(action: Callable[..., object], *arguments: Any) -> tuple[int, str | None]:
    """Error code and message of carrying something out."""
    try:
        action(*arguments)
    except RequestError as error:
        return int(error.code), error.message
    except OSError as error:
        logger.exception("Could not change a topic on disk.")
        return int(ErrorCode.KAFKA_STORAGE_ERROR), f"the broker could not change the topic on disk: {error}."
    return 0, None


def create_topics(services: Services, request: Request, body: Any) -> Any:
    """Create topics, each by itself; replication factor 1 (or -1, the default) only."""
    results = []
    for asked in body.topics:
        code, message = _outcome(_create, services, asked, body.validate_only)
        topic = services.topics.get(asked.name) if code == 0 else None
        results.append(
            _Created(
                name=asked.name,
                error_code=code,
                error_message=message,
                num_partitions=len(topic.partitions) if topic else -1,
                replication_factor=1 if topic else -1,
                configs=[],
            )
        )
    return CreateTopicsResponse(throttle_time_ms=0, topics=results)


def _create(services: Services, asked: Any, validate_only: Any) -> None:
    partitions = asked.num_partitions
    if asked.assignments:
        if any(list(item.broker_ids) != [NODE_ID] for item in asked.assignments):
            raise RequestError(
                ErrorCode.INVALID_REPLICATION_FACTOR, f"there is only broker {NODE_ID} to assign to."
            )
        partitions = len(asked.assignments)
    elif asked.replication_factor not in (-1, 1):
        raise RequestError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"the development broker is alone: replication factor 1, got {asked.replication_factor}.",
        )
    partitions = 1 if partitions == -1 else partitions
    config = with_kafka_settings(services.log_config, {item.name: item.value for item in asked.configs})
    if validate_only:
        services.topics.check_new(asked.name, partitions)
    else:
        services.topics.create(asked.name, partitions, config)


def delete_topics(services: Services, request: Request, body: Any) -> Any:
    """Delete topics with their records and committed offsets."""
    results = []
    for name in body.topic_names:
        code, message = _outcome(services.delete_topic, name)
        results.append(_Deleted(name=name, error_code=code, error_message=message))
    return DeleteTopicsResponse(throttle_time_ms=0, responses=results)


def create_partitions(services: Services, request: Request, body: Any) -> Any:
    """Let topics grow."""
    results = []
    for asked in body.topics:
        code, message = _outcome(_grow, services, asked, body.validate_only)
        results.append(_Grown(name=asked.name, error_code=code, error_message=message))
    return CreatePartitionsResponse(throttle_time_ms=0, results=results)


def _grow(services: Services, asked: Any, validate_only: Any) -> None:
    if validate_only:
        raise RequestError(
            ErrorCode.INVALID_REQUEST, "the development broker cannot only validate new partitions."
        )
    services.topics.grow(asked.name, asked.count)


def describe_configs(services: Services, request: Request, body: Any) -> Any:
    """Settings of topics and of the broker: those that it carries out."""
    results = [_describe_resource(services, resource) for resource in body.resources]
    return DescribeConfigsResponse(throttle_time_ms=0, results=results)


def _describe_resource(services: Services, resource: Any) -> Any:
    code, message, settings = ErrorCode.NONE, None, []
    topic = services.topics.get(resource.resource_name)
    if resource.resource_type == _BROKER_RESOURCE:
        settings = _settings(services.log_config, None, "log.")
    elif resource.resource_type != _TOPIC_RESOURCE:
        code, message = ErrorCode.INVALID_REQUEST, "only topics and the broker have settings here."
    elif topic is None:
        code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {resource.resource_name!r}."
    else:
        settings = _settings(services.log_config, topic, "")
    wanted = resource.configuration_keys
    return _Described(
        error_code=int(code),
        error_message=message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=[setting for setting in settings if not wanted or setting.name in wanted],
    )


def _settings(defaults: LogConfig, topic: Topic | None, prefix: str) -> list[Any]:
    settings = []
    for kafka_name, name in KAFKA_NAMES.items():
        value = getattr(topic.config if topic else defaults, name)
        own_source = _TOPIC_SOURCE if topic else _STATIC_BROKER_SOURCE
        is_default = value == getattr(defaults if topic else LogConfig(), name)
        settings.append(
            _setting(prefix + kafka_name, str(value), _DEFAULT_SOURCE if is_default else own_source)
        )
    if topic is not None:
        settings.append(_setting("cleanup.policy", "delete", _DEFAULT_SOURCE))
    return settings


def _setting(name: str, value: str, source: int) -> Any:
    return _Setting(
        name=name,
        value=value,
        read_only=True,
        config_source=source,
        is_default=source == _DEFAULT_SOURCE,
        is_sensitive=False,
        synonyms=[],
        config_type=_LONG_TYPE,
        documentation=None,
    )
