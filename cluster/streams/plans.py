"""Plans: the batches of an earlier reading, in its order and with its cuts, that a stream is to be read by again.

A live stream's turns and short batches depend on when messages came, so a second reading would take others. A journal
of BatchIds says what the first one took; a source that is given it as its plan takes the same, and goes on in its
ordinary way behind it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from actors.ports import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from learning.batch import BatchId

__all__ = ["PlanWatch", "check_plan"]

_NEXT_STEP = "give the journal that belongs to the snapshot, or start from the snapshot without one"


def check_plan(
    topic: str,
    plan: Sequence[BatchId],
    bounds: Mapping[int, tuple[int, int | None]],
    ends: Mapping[int, int],
) -> None:
    """Raises SourceError unless each batch begins where its partition stands then, and none runs over its end.

    `ends` are the partitions' present ends: a plan that reaches beyond them would be waited for in vain.
    """
    stands = {partition: start for partition, (start, _) in bounds.items()}
    for batch_id in plan:
        place, stand = f"the plan's batch {topic}{batch_id}", stands.get(batch_id.partition)
        if stand is None:
            raise SourceError(
                f"{place} is of a partition that is not read here ({sorted(stands)} are); {_NEXT_STEP}"
            )
        if not stand == batch_id.first_offset < batch_id.next_offset:
            raise SourceError(
                f"{place} should begin at {stand}, where its partition stands then, and end behind it; {_NEXT_STEP}"
            )
        bound = bounds[batch_id.partition][1]
        end = ends[batch_id.partition] if bound is None else min(bound, ends[batch_id.partition])
        if batch_id.next_offset > end:
            raise SourceError(f"{place} runs over its partition's end at {end}; {_NEXT_STEP}")
        stands[batch_id.partition] = batch_id.next_offset


class PlanWatch:
    """Compares a stream that cannot be read in any other order (a file) with its plan."""

    def __init__(self, path: str, plan: Sequence[BatchId]) -> None:
        self._path = path
        self._left = deque(plan)

    def saw(self, batch_id: BatchId) -> None:
        """The stream's next batch. Raises SourceError if the plan has another one there."""
        if self._left and (planned := self._left.popleft()) != batch_id:
            raise self._error(f"has {self._path}{planned} where it now gives {self._path}{batch_id}")

    def ended(self) -> None:
        """The stream is at its end. Raises SourceError if the plan is not."""
        if self._left:
            raise self._error(f"has {len(self._left)} batches more than {self._path} now gives")

    def _error(self, difference: str) -> SourceError:
        return SourceError(
            f"the plan {difference}: the file, batch_records or the number of workers is not what it was; {_NEXT_STEP}"
        )
