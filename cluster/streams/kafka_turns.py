"""Which partition gives the next batch, and where it is cut: by a plan first, then round robin or by what is there.

Pure: it knows the buffers but neither client nor clock, so a given order of calls always takes the same batches.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from actors.ports import SourceError
from cluster.streams.kafka_buffer import BATCH_BYTES_MAX
from learning.batch import BatchId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.decode.messages import Messages
    from cluster.streams.kafka_buffer import PartitionBuffer

__all__ = ["Turns"]

PLANNED_BYTES_MAX = 5 * BATCH_BYTES_MAX
"""More than any batch can hold: one is full at BATCH_BYTES_MAX, and its last message came in a fetch of 200 MiB."""


class Turns:
    """The order of batches over a worker's partitions.

    Parameters
    ----------
    buffers:
        of the partitions, ascending.
    after_partition:
        the partition that gave the last batch before an interruption; None begins with the lowest.
    plan:
        the batches to begin with; each must begin where its partition stands then (see plans.check_plan).

    """

    def __init__(
        self,
        buffers: Sequence[PartitionBuffer],
        after_partition: int | None = None,
        plan: Sequence[BatchId] = (),
    ) -> None:
        self._buffers = list(buffers)
        self._by_partition = {buffer.partition: buffer for buffer in buffers}
        self._bounded = all(buffer.end_offset is not None for buffer in buffers)
        self._turn = sum(1 for b in buffers if after_partition is not None and b.partition <= after_partition)
        self._plan = deque(plan)

    @property
    def planned(self) -> bool:
        """True while the plan has batches left."""
        return bool(self._plan)

    @property
    def finished(self) -> bool:
        """True once a bounded stream has been cut to its end."""
        return not self._plan and all(buffer.done for buffer in self._buffers)

    def can_cut(self, *, short: bool, came_by_s: float = math.inf) -> bool:
        """True if `cut` would give a batch."""
        return self._next_buffer(came_by_s if short else -math.inf) is not None

    def cut(self, *, short: bool, came_by_s: float = math.inf) -> tuple[BatchId, Messages] | None:
        """The next batch, if it is there.

        `short` lets a live stream's batch be cut where the data ends, if its first message came by `came_by_s`.
        """
        buffer = self._next_buffer(came_by_s if short else -math.inf)
        if buffer is None:
            return None
        first_offset = buffer.next_offset
        messages = buffer.cut_until(self._plan.popleft().next_offset) if self._plan else buffer.cut()
        self._turn = (self._buffers.index(buffer) + 1) % len(self._buffers)
        return BatchId(buffer.partition, first_offset, buffer.next_offset), messages

    def waits_for(self, buffer: PartitionBuffer) -> bool:
        """True if the plan's next batch needs more of this partition, however full its buffer is.

        Raises SourceError if that would be more than a batch can have held.
        """
        if not self._plan or self._plan[0].partition != buffer.partition:
            return False
        waits = not buffer.holds_until(self._plan[0].next_offset)
        if waits and buffer.bytes > PLANNED_BYTES_MAX:
            raise SourceError(
                f"the plan's batch {self._plan[0]} has more than {PLANNED_BYTES_MAX} bytes, which no batch has; "
                "the plan belongs to another topic: start from the snapshot without it"
            )
        return waits

    def _next_buffer(self, came_by_s: float) -> PartitionBuffer | None:
        if self._plan:
            planned = self._by_partition[self._plan[0].partition]
            return planned if planned.holds_until(self._plan[0].next_offset) else None
        in_turn = [self._buffers[(self._turn + i) % len(self._buffers)] for i in range(len(self._buffers))]
        if self._bounded:
            first = next((buffer for buffer in in_turn if not buffer.done), None)
            return first if first is not None and first.holds_batch else None
        return next((b for b in in_turn if b.holds_batch), None) or next(
            (b for b in in_turn if b.holds_any and b.oldest_s <= came_by_s), None
        )
