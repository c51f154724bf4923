"""One consumer group: its members, its generation, and the rounds in which they agree on an assignment.

    EMPTY -> JOINING -> SYNCING -> STABLE, and back to JOINING whenever a member comes, leaves, falls silent or changes.

JOINING: members are collected until all known ones have asked again, or the time is up. SYNCING: the leader, a
client, computes the assignment and hands it in. The broker never looks into metadata or assignments.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import Final

from cluster.broker.errors import ErrorCode, RequestError
from cluster.broker.limits import Limits
from cluster.broker.members import (
    GroupState,
    JoinAnswer,
    JoinAsk,
    Member,
    MemberIdRequiredError,
    check_ask,
    choose_protocol,
    rebalancing,
    unknown_member,
)

_WAKE_S_MAX: Final = 0.5  # a waiting request looks this often whether the broker stops


class Group:
    """State of one group; its methods block as the protocol demands. Thread-safe.

    Raises (all methods that a request calls):
        RequestError: with the code that the client's group protocol expects.
    """

    def __init__(self, group_id: str, limits: Limits, stopping: threading.Event) -> None:
        self.group_id = group_id
        self.state = GroupState.EMPTY
        self.protocol_type = ""
        self.protocol = ""
        self.generation = 0
        self.members: dict[str, Member] = {}
        self._limits = limits
        self._stopping = stopping
        self._changed = threading.Condition()
        self._leader_id = ""
        self._promised: dict[str, float] = {}  # ids given out, not yet used, and when they expire
        self._round_ends_s = 0.0
        self._round_starts_s = 0.0

    def join(self, ask: JoinAsk) -> JoinAnswer:
        """Join or join again; waits until the round is complete."""
        with self._changed:
            check_ask(ask, self.group_id, list(self.members.values()), self.protocol_type, self._limits)
            self.protocol_type = ask.protocol_type
            member = self._member_for(ask)
            if self._must_rejoin(member, ask):
                member.protocols = ask.protocols
                self._begin_round(
                    delay_s=self._limits.rebalance_delay_s if self.state is GroupState.EMPTY else 0.0
                )
            if self.state is GroupState.JOINING:
                self._wait_for_round(member)
            return self._join_answer(member)

    def sync(self, member_id: str, generation: int, assignments: dict[str, bytes]) -> bytes:
        """Hand in (leader) or wait for (others) the assignment; returns the member's own."""
        with self._changed:
            member = self._known(member_id, generation)
            if self.state is GroupState.SYNCING and member_id == self._leader_id:
                for other in self.members.values():
                    other.assignment = assignments.get(other.member_id, b"")
                    other.seen_s = time.monotonic()
                self.state = GroupState.STABLE
                self._changed.notify_all()
            self._wait_for_assignment(member, generation)
            return member.assignment

    def heartbeat(self, member_id: str, generation: int) -> None:
        """Note that a member lives; tells it by REBALANCE_IN_PROGRESS to join again."""
        with self._changed:
            self._known(member_id, generation)
            if self.state is GroupState.JOINING:
                raise rebalancing(self.group_id)

    def leave(self, member_id: str) -> None:
        """Remove a member at its own wish."""
        with self._changed:
            if self._promised.pop(member_id, None) is not None:
                return
            if member_id not in self.members:
                raise unknown_member(self.group_id, member_id)
            self._remove(member_id)

    def check_commit(self, member_id: str, generation: int) -> None:
        """Whether a commit is allowed: from a member of this generation, or from outside while there are no members."""
        with self._changed:
            if generation < 0 and not self.members:
                return
            self._known(member_id, generation)
            if self.state is GroupState.SYNCING:
                raise rebalancing(self.group_id)

    def expire(self) -> list[str]:
        """Remove members that have fallen silent and end rounds whose time is up; returns who was removed."""
        with self._changed:
            now_s = time.monotonic()
            self._promised = {name: end_s for name, end_s in self._promised.items() if end_s > now_s}
            silent = [name for name, member in self.members.items() if member.is_silent(now_s)]
            for member_id in silent:
                self._remove(member_id)
            self._finish_round_if_due()
            return silent

    def _member_for(self, ask: JoinAsk) -> Member:
        member = self.members.get(ask.member_id)
        if member is None:
            member = self._admit(ask)
        member.session_timeout_s = ask.session_timeout_ms / 1000
        rebalance_ms = ask.rebalance_timeout_ms if ask.rebalance_timeout_ms >= 0 else ask.session_timeout_ms
        member.rebalance_timeout_s = min(rebalance_ms, self._limits.rebalance_timeout_ms_max) / 1000
        member.seen_s = time.monotonic()
        return member

    def _admit(self, ask: JoinAsk) -> Member:
        if ask.member_id and self._promised.pop(ask.member_id, None) is None:
            raise unknown_member(self.group_id, ask.member_id)
        if len(self.members) + len(self._promised) >= self._limits.group_members_max:
            raise RequestError(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"a group has {self._limits.group_members_max} members at most.",
            )
        member_id = ask.member_id or f"{ask.client_id[:100]}-{uuid.uuid4()}"
        if not ask.member_id and ask.needs_known_id:
            self._promised[member_id] = time.monotonic() + ask.session_timeout_ms / 1000
            raise MemberIdRequiredError(member_id)
        member = Member(member_id, ask.client_id, ask.host, 0.0, 0.0, [], time.monotonic())
        self.members[member_id] = member
        return member

    def _must_rejoin(self, member: Member, ask: JoinAsk) -> bool:
        """Whether this request needs a (new) round; a follower that only repeats its request does not."""
        if self.state in (GroupState.EMPTY, GroupState.JOINING) or member.protocols != ask.protocols:
            return True
        return self.state is GroupState.STABLE and member.member_id == self._leader_id

    def _begin_round(self, delay_s: float = 0.0) -> None:
        if self.state is GroupState.JOINING:
            return
        now_s = time.monotonic()
        longest_s = max((member.rebalance_timeout_s for member in self.members.values()), default=0.0)
        self.state = GroupState.JOINING
        self._round_starts_s = now_s + delay_s
        self._round_ends_s = now_s + longest_s
        for member in self.members.values():
            member.joined = False
        self._changed.notify_all()

    def _wait_for_round(self, member: Member) -> None:
        member.joined = member.waiting = True
        generation = self.generation
        try:
            while self.state is GroupState.JOINING and self.generation == generation:
                self._finish_round_if_due()
                if self.state is not GroupState.JOINING:
                    break
                self._wait(self._round_starts_s - time.monotonic())
        finally:
            member.waiting = False
            member.seen_s = time.monotonic()

    def _finish_round_if_due(self) -> None:
        now_s = time.monotonic()
        if self.state is not GroupState.JOINING or now_s < self._round_starts_s:
            return
        if now_s < self._round_ends_s and not all(member.joined for member in self.members.values()):
            return
        self.members = {name: member for name, member in self.members.items() if member.joined}
        self.generation += 1
        if not self.members:
            self.state = GroupState.EMPTY
        else:
            self.state = GroupState.SYNCING
            if self._leader_id not in self.members:
                self._leader_id = next(iter(self.members))
            self.protocol = choose_protocol(self.members[self._leader_id], list(self.members.values()))
        for member in self.members.values():
            member.assignment = b""
            member.seen_s = now_s
        self._changed.notify_all()

    def _join_answer(self, member: Member) -> JoinAnswer:
        if self.members.get(member.member_id) is not member:
            raise unknown_member(self.group_id, member.member_id)
        if self.state is GroupState.JOINING:
            raise rebalancing(self.group_id)
        answer = JoinAnswer(self.generation, self.protocol, self._leader_id, member.member_id)
        if member.member_id == self._leader_id:
            everyone = self.members.values()
            answer.members.extend((other.member_id, other.metadata(self.protocol)) for other in everyone)
        return answer

    def _wait_for_assignment(self, member: Member, generation: int) -> None:
        member.waiting = True
        ends_s = time.monotonic() + member.rebalance_timeout_s
        try:
            while (
                self.state is GroupState.SYNCING
                and self.generation == generation
                and time.monotonic() < ends_s
            ):
                self._wait(ends_s - time.monotonic())
        finally:
            member.waiting = False
            member.seen_s = time.monotonic()
        if self.state is not GroupState.STABLE or self.generation != generation:
            raise rebalancing(self.group_id)

    def _wait(self, wait_s: float) -> None:
        if self._stopping.is_set():
            raise RequestError(ErrorCode.COORDINATOR_NOT_AVAILABLE, "the broker is stopping.")
        bounded_s = _WAKE_S_MAX if wait_s <= 0 else min(wait_s, _WAKE_S_MAX)
        self._changed.wait(bounded_s)

    def _known(self, member_id: str, generation: int) -> Member:
        member = self.members.get(member_id)
        if member is None:
            raise unknown_member(self.group_id, member_id)
        if generation != self.generation:
            raise RequestError(
                ErrorCode.ILLEGAL_GENERATION,
                f"group {self.group_id!r} is at generation {self.generation}, the member at {generation}; join again.",
            )
        member.seen_s = time.monotonic()
        return member

    def _remove(self, member_id: str) -> None:
        del self.members[member_id]
        if self.members:
            self._begin_round()
            self._finish_round_if_due()
        else:
            self.state = GroupState.EMPTY
            self.generation += 1
        self._changed.notify_all()
