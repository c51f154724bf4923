"""The gate keeps its bound whatever happens in whatever order, and never locks workers out for good."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from learning.staleness import StalenessGate, StalenessHistogram

steps = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.booleans()), max_size=80)


@given(steps, st.integers(0, 120))
def test_no_push_is_staler_than_the_bound_and_all_get_their_turn(
    steps: list[tuple[int, int, bool]], bound: int
) -> None:
    """Workers pull up to two batches, or push, at will; what waits is let in once the others have pushed."""
    gate = StalenessGate(bound)
    opened: dict[int, list[tuple[int, int, int]]] = {worker: [] for worker in range(4)}
    pushed = [0] * 4

    def by_others(worker: int) -> int:
        return sum(pushed) - pushed[worker]

    def leave(worker: int) -> None:
        pull, records, before = opened[worker].pop(0)
        staleness = gate.leave(worker, pull)
        assert staleness == by_others(worker) - before <= bound
        pushed[worker] += records

    for number, (worker, records, wants_pull) in enumerate(steps):
        if wants_pull and len(opened[worker]) < 2:
            if gate.enter(worker, number, records):
                opened[worker].append((number, records, by_others(worker)))
        elif opened[worker]:
            leave(worker)
    for worker in range(4):
        while opened[worker]:
            leave(worker)
    left = set(range(4))
    for _ in range(4):  # who waits longest is let in first, so all have had their turn after four rounds
        for worker in sorted(left):
            if gate.enter(worker, -1, 10**6):
                assert gate.leave(worker, -1) == 0
                left.remove(worker)
    assert not left


def test_a_bound_of_zero_makes_workers_take_turns() -> None:
    """Then several workers learn as one does, one batch after the other."""
    gate = StalenessGate(0)
    assert gate.enter(0, "a", 10)
    assert gate.enter(0, "c", 10), "its own batches are not stale to a worker"
    assert not gate.enter(1, "b", 10)
    assert [gate.leave(0, "a"), gate.enter(1, "b", 10), gate.leave(0, "c"), gate.enter(1, "b", 10)] == [
        0, False, 0, True,
    ]  # fmt: skip
    assert (gate.denied, gate.staleness_max) == (2, 0)


def test_a_worker_that_pulls_ahead_leaves_room_for_one_that_waits() -> None:
    """It always has a pull open when it asks for the next; without an order of waiting the other would starve."""
    gate = StalenessGate(0)
    assert gate.enter(0, 0, 10)
    assert not gate.enter(1, 0, 10)
    assert not gate.enter(0, 1, 10), "somebody waits"
    gate.leave(0, 0)
    assert not gate.enter(0, 1, 10), "somebody waits longer"
    assert gate.enter(1, 0, 10)
    assert not gate.enter(0, 1, 10)
    gate.leave(1, 0)
    assert gate.enter(0, 1, 10)


def test_without_a_bound_staleness_is_only_measured() -> None:
    """Everybody is let in, and being let in twice is being let in once."""
    gate, histogram = StalenessGate(None), StalenessHistogram()
    assert all(gate.enter(worker, 0, 100) for worker in (0, 1, 0))
    for worker in (0, 1):
        histogram.add(gate.leave(worker, 0))
    assert (histogram.quantile(0.5), histogram.quantile(1.0)) == (0.0, 127.0)
    assert gate.staleness_max == 100
    assert math.isnan(StalenessHistogram().quantile(0.5))
