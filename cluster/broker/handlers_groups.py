"""Requests of consumer groups: coordinator, membership, committed offsets."""

from __future__ import annotations

from typing import Any, Final

from kafka.protocol.admin import DeleteGroupsResponse, DescribeGroupsResponse, ListGroupsResponse
from kafka.protocol.consumer import (
    HeartbeatResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    SyncGroupResponse,
)
from kafka.protocol.metadata import FindCoordinatorResponse

from cluster.broker.errors import ErrorCode, RequestError
from cluster.broker.members import JoinAnswer, JoinAsk, MemberIdRequiredError
from cluster.broker.offset_store import METADATA_BYTES_MAX, Committed
from cluster.broker.services import NODE_ID, Request, Services

_KNOWN_ID_VERSION: Final = 4  # from here on a new member is told its id before it joins

_JoinedMember = JoinGroupResponse.JoinGroupResponseMember
_CommitTopic = OffsetCommitResponse.OffsetCommitResponseTopic
_CommitPartition = _CommitTopic.OffsetCommitResponsePartition
_FetchTopic = OffsetFetchResponse.OffsetFetchResponseTopic
_FetchPartition = _FetchTopic.OffsetFetchResponsePartition
_Described = DescribeGroupsResponse.DescribedGroup
_DescribedMember = _Described.DescribedGroupMember


def find_coordinator(services: Services, request: Request, body: Any) -> Any:
    """This broker; also for transactions, so that their producer goes on to be refused for good."""
    host, port = services.advertise(request.local_host)
    return FindCoordinatorResponse(
        throttle_time_ms=0, error_code=0, error_message=None, node_id=NODE_ID, host=host, port=port
    )


def join_group(services: Services, request: Request, body: Any) -> Any:
    """Join; the answer comes when the group's round is complete."""
    ask = JoinAsk(
        member_id=body.member_id,
        client_id=request.head.client_id,
        host=request.client_host,
        session_timeout_ms=body.session_timeout_ms,
        rebalance_timeout_ms=body.rebalance_timeout_ms if request.head.api_version >= 1 else -1,
        protocol_type=body.protocol_type,
        protocols=[(item.name, bytes(item.metadata)) for item in body.protocols],
        needs_known_id=request.head.api_version >= _KNOWN_ID_VERSION,
    )
    try:
        return _joined(ErrorCode.NONE, services.groups.obtain(body.group_id).join(ask))
    except MemberIdRequiredError as error:
        return _joined(error.code, JoinAnswer(-1, "", "", error.member_id))
    except RequestError as error:
        return _joined(error.code, JoinAnswer(-1, "", "", body.member_id))


def _joined(code: ErrorCode, answer: JoinAnswer) -> Any:
    return JoinGroupResponse(
        throttle_time_ms=0,
        error_code=int(code),
        generation_id=answer.generation,
        protocol_name=answer.protocol,
        leader=answer.leader_id,
        member_id=answer.member_id,
        members=[_JoinedMember(member_id=name, metadata=metadata) for name, metadata in answer.members],
    )


def sync_group(services: Services, request: Request, body: Any) -> Any:
    """Hand in or collect the assignment."""
    assignments = {item.member_id: bytes(item.assignment) for item in body.assignments}
    try:
        own = services.groups.obtain(body.group_id).sync(body.member_id, body.generation_id, assignments)
    except RequestError as error:
        return SyncGroupResponse(throttle_time_ms=0, error_code=int(error.code), assignment=b"")
    return SyncGroupResponse(throttle_time_ms=0, error_code=0, assignment=own)


def heartbeat(services: Services, request: Request, body: Any) -> Any:
    """Keep a member alive."""
    code = ErrorCode.NONE
    try:
        services.groups.obtain(body.group_id).heartbeat(body.member_id, body.generation_id)
    except RequestError as error:
        code = error.code
    return HeartbeatResponse(throttle_time_ms=0, error_code=int(code))


def leave_group(services: Services, request: Request, body: Any) -> Any:
    """Let a member go."""
    code = ErrorCode.NONE
    try:
        services.groups.obtain(body.group_id).leave(body.member_id)
    except RequestError as error:
        code = error.code
    return LeaveGroupResponse(throttle_time_ms=0, error_code=int(code))


def offset_commit(services: Services, request: Request, body: Any) -> Any:
    """Store offsets durably; offsets of unknown partitions are refused one by one."""
    codes: dict[tuple[str, int], ErrorCode] = {}
    offsets: dict[tuple[str, int], Committed] = {}
    for topic in body.topics:
        for item in topic.partitions:
            key = (topic.name, item.partition_index)
            codes[key] = _commit_code(services, key, item)
            if codes[key] is ErrorCode.NONE:
                epoch = item.committed_leader_epoch if request.head.api_version >= 6 else -1
                offsets[key] = Committed(item.committed_offset, epoch, item.committed_metadata or "")
    try:
        services.groups.commit(body.group_id, body.member_id, body.generation_id_or_member_epoch, offsets)
    except RequestError as error:
        codes = dict.fromkeys(codes, error.code)
    topics = []
    for topic in body.topics:
        keys = [(topic.name, item.partition_index) for item in topic.partitions]
        parts = [_CommitPartition(partition_index=key[1], error_code=int(codes[key])) for key in keys]
        topics.append(_CommitTopic(name=topic.name, partitions=parts))
    return OffsetCommitResponse(throttle_time_ms=0, topics=topics)


def _commit_code(services: Services, key: tuple[str, int], item: Any) -> ErrorCode:
    try:
        services.topics.partition(*key)
    except RequestError as error:
        return error.code
    if item.committed_offset < 0 or len(item.committed_metadata or "") > METADATA_BYTES_MAX:
        return ErrorCode.INVALID_REQUEST
    return ErrorCode.NONE


def offset_fetch(services: Services, request: Request, body: Any) -> Any:
    """Committed offsets, -1 where there is none; of all partitions if no topics are named."""
    stored = services.groups.offsets.fetch(body.group_id)
    if body.topics is None:
        asked: dict[str, list[int]] = {}
        for topic, partition in stored:
            asked.setdefault(topic, []).append(partition)
    else:
        asked = {item.name: list(item.partition_indexes) for item in body.topics}
    topics = [
        _FetchTopic(
            name=topic, partitions=[_fetched(index, stored.get((topic, index))) for index in partitions]
        )
        for topic, partitions in asked.items()
    ]
    return OffsetFetchResponse(throttle_time_ms=0, topics=topics, error_code=0)


def _fetched(partition: int, committed: Committed | None) -> Any:
    found = committed or Committed(-1, -1, "")
    return _FetchPartition(
        partition_index=partition,
        committed_offset=found.offset,
        committed_leader_epoch=found.leader_epoch,
        metadata=found.metadata,
        error_code=0,
    )


def list_groups(services: Services, request: Request, body: Any) -> Any:
    """All groups."""
    groups = []
    for name in services.groups.names():
        group = services.groups.find(name)
        kind, state = (group.protocol_type, group.state.value) if group else ("consumer", "Empty")
        groups.append(ListGroupsResponse.ListedGroup(group_id=name, protocol_type=kind, group_state=state))
    return ListGroupsResponse(throttle_time_ms=0, error_code=0, groups=groups)


def describe_groups(services: Services, request: Request, body: Any) -> Any:
    """State and members of groups; a group that is not known is Dead, as in Apache Kafka."""
    return DescribeGroupsResponse(
        throttle_time_ms=0, groups=[_describe(services, name) for name in body.groups]
    )


def _describe(services: Services, name: str) -> Any:
    group = services.groups.find(name)
    state = "Empty" if name in services.groups.offsets.groups() else "Dead"
    members = list(group.members.values()) if group else []
    return _Described(
        error_code=0,
        group_id=name,
        group_state=group.state.value if group else state,
        protocol_type=group.protocol_type if group else "consumer",
        protocol_data=group.protocol if group else "",
        members=[
            _DescribedMember(
                member_id=member.member_id,
                client_id=member.client_id,
                client_host=member.host,
                member_metadata=member.metadata(group.protocol if group else ""),
                member_assignment=member.assignment,
            )
            for member in members
        ],
    )


def delete_groups(services: Services, request: Request, body: Any) -> Any:
    """Forget groups without members."""
    results = []
    for name in body.groups_names:
        code = ErrorCode.NONE
        try:
            services.groups.delete(name)
        except RequestError as error:
            code = error.code
        results.append(DeleteGroupsResponse.DeletableGroupResult(group_id=name, error_code=int(code)))
    return DeleteGroupsResponse(throttle_time_ms=0, results=results)
