"""What workers know by themselves, dealt to another number of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.assembly import build_state
from learning.ensemble_state import of_all_workers

if TYPE_CHECKING:
    from cluster.config import Pipeline
    from learning.worker_state import Arrays

__all__ = ["dealt_states"]


def dealt_states(pipeline: Pipeline, before: dict[int, Arrays], workers: int) -> dict[int, Arrays]:
    """What each of `workers` goes on with: its own, or where there were others, what some of those knew, merged.

    Together they know what all knew, so that nothing is counted twice; a worker that gets nothing begins anew, but for
    an ensemble's mixer, which is one for all, and its models, of which each takes the one that has learnt most.
    """
    if len(before) == workers:
        return before
    parts = {w: [of for old, of in sorted(before.items()) if old % workers == w] for w in range(workers)}
    dealt = {worker: _merged(pipeline, of) for worker, of in parts.items() if of}
    if not (shared := of_all_workers(of for _, of in sorted(before.items()))):
        return dealt
    return {w: dealt.get(w, build_state(pipeline, w).arrays()) | shared for w in range(workers)}


def _merged(pipeline: Pipeline, parts: list[Arrays]) -> Arrays:
    states = [build_state(pipeline) for _ in parts]
    for state, arrays in zip(states, parts, strict=True):
        state.restore(arrays)
    states[0].merge(states[1:])
    return states[0].arrays()
