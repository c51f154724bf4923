"""A job's actors as the driver sees them: on Ray (launch.py), or as plain objects of this process (local.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from actors.coordinator import Status
    from cluster.snapshots.file_entry import PartFiles
    from cluster.starts import Start
    from learning.exchange import Moment
    from learning.job_messages import Command

__all__ = ["ClusterPort", "CoordinatorControl"]


class CoordinatorControl(Protocol):
    """The coordinator as the supervisor sees it."""

    def commands(self) -> list[Command]:
        """Commands that have come up since the last call."""

    def tell(self, event: Any) -> None:
        """Something has happened, or is wanted."""

    def status(self) -> Status:
        """Progress since the start."""


class ClusterPort(Protocol):
    """A running job's actors, on Ray or in this process."""

    @property
    def coordinator(self) -> CoordinatorControl:
        """The job's coordinator."""

    def begin(self, start: Start) -> None:
        """Have every actor begin `start`."""

    def start(self) -> None:
        """Let the workers learn."""

    def check(self) -> None:
        """Raise the error of an actor that has failed."""

    def write(self, moment: Moment, folder: str) -> list[PartFiles]:
        """Have every shard write its part of a snapshot."""

    def shard_status(self) -> list[dict[str, Any]]:
        """Counters of each shard."""
