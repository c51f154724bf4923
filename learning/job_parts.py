"""Parts of the coordinator's brain: what each worker has done, and what lies on disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learning.ensemble_state import Sharing
    from learning.job_messages import Arrived

__all__ = ["Disk", "WorkerShare"]


@dataclass(slots=True)
class WorkerShare:
    """What one worker has done in this generation; `arrived` is its latest barrier message."""

    partitions: tuple[int, ...]
    records: int = 0
    dead: int = 0
    batches: int = 0
    lags: dict[int, int] = field(default_factory=dict)
    """Records not yet read of each partition, where that is known."""
    arrived: Arrived | None = None

    @property
    def lag(self) -> int:
        """Records not yet read, as far as that is known."""
        return sum(self.lags.values())

    @property
    def finished(self) -> bool:
        """True once it has sent its last message."""
        return self.arrived is not None and self.arrived.finished

    def renew(self, sharing: Sharing, experts: Sequence[str]) -> None:
        """Have experts begin afresh in what it keeps, if it has finished; any other does it itself as it goes on."""
        if experts and self.arrived is not None and self.arrived.finished:
            state = sharing.renewed_state(self.arrived.state, experts)
            self.arrived = replace(self.arrived, state=state)


@dataclass(slots=True)
class Disk:
    """What lies on disk, as far as it decides whether a snapshot is whole or a difference."""

    since: int
    deltas: int
    whole_bytes: int = 0
    delta_bytes: int = 0

    def written(self, number: int, since: int, size_bytes: int) -> None:
        """Snapshot `number` is there, as the difference to `since` (0: whole)."""
        if since:
            self.deltas, self.delta_bytes = self.deltas + 1, self.delta_bytes + size_bytes
        else:
            self.deltas, self.whole_bytes, self.delta_bytes = 0, size_bytes, 0
        self.since = number

    def next_since(self, deltas_max: int) -> int:
        """The snapshot to which the next one is a difference; 0: it is whole, so that the chain stays short."""
        longer = self.whole_bytes and self.delta_bytes > self.whole_bytes
        return 0 if self.deltas >= deltas_max or longer else self.since
