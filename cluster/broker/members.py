"""Members of a consumer group, what they ask and what they are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cluster.broker.errors import ErrorCode, RequestError
from cluster.broker.limits import Limits


class GroupState(Enum):
    """Kafka's names of the states, as clients see them."""

    EMPTY = "Empty"
    JOINING = "PreparingRebalance"
    SYNCING = "CompletingRebalance"
    STABLE = "Stable"


@dataclass
class Member:
    """A consumer in a group. Times are in seconds of the monotonic clock."""

    member_id: str
    client_id: str
    host: str
    session_timeout_s: float
    rebalance_timeout_s: float
    protocols: list[tuple[str, bytes]]
    seen_s: float
    joined: bool = False
    waiting: bool = False  # its request is held by the broker, so it is alive
    assignment: bytes = b""

    def metadata(self, protocol: str) -> bytes:
        """What the member said under the protocol that was chosen."""
        return dict(self.protocols).get(protocol, b"")

    def is_silent(self, now_s: float) -> bool:
        """Whether it has said nothing for longer than its session may last."""
        return not self.waiting and now_s - self.seen_s > self.session_timeout_s


@dataclass(frozen=True)
class JoinAsk:
    """A JoinGroup request."""

    member_id: str
    client_id: str
    host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: list[tuple[str, bytes]]
    needs_known_id: bool  # from version 4 on a new member is first told its id


@dataclass(frozen=True)
class JoinAnswer:
    """The generation that a member has joined; `members` is for the leader only."""

    generation: int
    protocol: str
    leader_id: str
    member_id: str
    members: list[tuple[str, bytes]] = field(default_factory=list)


class MemberIdRequiredError(RequestError):
    """A new member must join again under the id that it is told here."""

    def __init__(self, member_id: str) -> None:
        super().__init__(ErrorCode.MEMBER_ID_REQUIRED, f"join again as member {member_id!r}.")
        self.member_id = member_id

    def __reduce__(self) -> tuple[type[MemberIdRequiredError], tuple[str]]:
        return type(self), (self.member_id,)


def unknown_member(group_id: str, member_id: str) -> RequestError:
    """The answer to a stranger."""
    return RequestError(
        ErrorCode.UNKNOWN_MEMBER_ID,
        f"group {group_id!r} has no member {member_id[:200]!r}; join again without an id.",
    )


def rebalancing(group_id: str) -> RequestError:
    """The answer that makes a member join again."""
    return RequestError(ErrorCode.REBALANCE_IN_PROGRESS, f"group {group_id!r} is rebalancing; join again.")


def common_protocols(members: list[Member], names: set[str]) -> set[str]:
    """Those of `names` that all members know."""
    return names.intersection(*({name for name, _ in member.protocols} for member in members))


def choose_protocol(leader: Member, members: list[Member]) -> str:
    """The first choice of the leader that all members know; there is one, or they would not have been admitted."""
    common = common_protocols(members, {name for name, _ in leader.protocols})
    return next(name for name, _ in leader.protocols if name in common)


def check_ask(ask: JoinAsk, group_id: str, members: list[Member], protocol_type: str, limits: Limits) -> None:
    """Check that a member can be in the group as it is.

    Raises:
        RequestError: its session timeout is out of bounds, or it shares no protocol with the others.
    """
    least, most = limits.session_timeout_ms_min, limits.session_timeout_ms_max
    if not least <= ask.session_timeout_ms <= most:
        raise RequestError(
            ErrorCode.INVALID_SESSION_TIMEOUT,
            f"a session timeout has {least} to {most} ms, got {ask.session_timeout_ms}.",
        )
    others = [member for member in members if member.member_id != ask.member_id]
    names = {name for name, _ in ask.protocols}
    if not common_protocols(others, names) or (others and ask.protocol_type != protocol_type):
        raise RequestError(
            ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
            f"the members of group {group_id!r} share no assignment strategy with {sorted(names)}.",
        )
