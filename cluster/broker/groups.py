"""All consumer groups of a broker, and their committed offsets."""

from __future__ import annotations

import logging
import threading

from cluster.broker.errors import ErrorCode, RequestError
from cluster.broker.group import Group
from cluster.broker.limits import Limits
from cluster.broker.offset_store import Committed, OffsetStore

logger = logging.getLogger("millrace.broker")


class Groups:
    """Finds, makes and forgets groups. Members live in memory only: after a restart they join again by themselves.

    Args:
        offsets: durable committed offsets.
        limits: bounds on groups and members.
        stopping: set when the broker stops, so that waiting requests end.
    """

    def __init__(self, offsets: OffsetStore, limits: Limits, stopping: threading.Event) -> None:
        self.offsets = offsets
        self._limits = limits
        self._stopping = stopping
        self._lock = threading.Lock()
        self._groups: dict[str, Group] = {}

    def obtain(self, group_id: str) -> Group:
        """The group, made if it is new.

        Raises:
            RequestError: INVALID_GROUP_ID for an empty name; INVALID_REQUEST beyond the number of groups.
        """
        if not group_id:
            raise RequestError(ErrorCode.INVALID_GROUP_ID, "a group needs a name, got an empty one.")
        with self._lock:
            group = self._groups.get(group_id)
            if group is None:
                if len(self._groups) >= self._limits.groups_max:
                    self._drop_empty()
                if len(self._groups) >= self._limits.groups_max:
                    raise RequestError(
                        ErrorCode.INVALID_REQUEST,
                        f"the broker holds {self._limits.groups_max} groups with members at most.",
                    )
                group = self._groups[group_id] = Group(group_id, self._limits, self._stopping)
            return group

    def find(self, group_id: str) -> Group | None:
        """The group, or None."""
        with self._lock:
            return self._groups.get(group_id)

    def names(self) -> list[str]:
        """Groups that have, or had, members, or have committed."""
        with self._lock:
            return sorted({*self._groups, *self.offsets.groups()})

    def commit(
        self, group_id: str, member_id: str, generation: int, offsets: dict[tuple[str, int], Committed]
    ) -> None:
        """Store offsets.

        Raises:
            RequestError: from a stranger while the group has members, or of an old generation.
        """
        self.obtain(group_id).check_commit(member_id, generation)
        self.offsets.commit(group_id, offsets)

    def delete(self, group_id: str) -> None:
        """Forget a group without members, with its offsets.

        Raises:
            RequestError: it has members, or there is none.
        """
        with self._lock:
            group = self._groups.get(group_id)
            if group is not None and group.members:
                raise RequestError(
                    ErrorCode.NON_EMPTY_GROUP, f"group {group_id!r} has members; stop them first."
                )
            known = self._groups.pop(group_id, None) is not None
        if not self.offsets.forget(group_id) and not known:
            raise RequestError(ErrorCode.GROUP_ID_NOT_FOUND, f"there is no group {group_id!r}.")

    def expire(self) -> None:
        """Remove silent members; called about twice a second."""
        with self._lock:
            groups = list(self._groups.values())
        for group in groups:
            for member_id in group.expire():
                logger.info("Member %s of group %r fell silent and was removed.", member_id, group.group_id)

    def _drop_empty(self) -> None:
        self._groups = {name: group for name, group in self._groups.items() if group.members}
