"""A job's actors as the driver sees them: on Ray (launch.py), or as plain objects of this process (local.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection

    from actors.status import Status
    from cluster.config import Pipeline
    from cluster.snapshots.file_entry import PartFiles
    from cluster.starts import Start
    from learning.exchange import Moment
    from learning.job_messages import Command

__all__ = ["ClusterPort", "CoordinatorControl", "ElasticPort", "ReservePort"]


class CoordinatorControl(Protocol):
    """The coordinator as the supervisor sees it."""

    def commands(self) -> list[Command]:
        """Commands that have come up since the last call."""

    def tell(self, event: Any) -> None:
        """Something has happened, or is wanted."""

    def status(self) -> Status:
        """Progress since the start."""

    def records(self) -> int:
        """Records read since the run began."""


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


class ReservePort(Protocol):
    """Actors that are made beside those that learn, for a generation to come."""

    def ready(self) -> bool:
        """Whether all have done what they were asked to. Raises StoreError, SnapshotError."""

    def preload(self, run_url: str, tables: int) -> None:
        """Have new shards load a snapshot."""

    def switch(self, snapshot: int) -> None:
        """The next generation, which begins at a snapshot that shards hold already, is theirs."""

    def discard(self) -> None:
        """They are not needed."""


@runtime_checkable
class ElasticPort(Protocol):
    """A cluster whose actors can be others while it learns."""

    def prepare(self, pipeline: Pipeline, workers: int, leave: Collection[str]) -> ReservePort:
        """Make what a generation needs beside the present actors, of which none on the nodes `leave` stays."""

    def draining(self) -> set[str]:
        """Nodes that are about to go and have an actor of this job."""
