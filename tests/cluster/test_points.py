"""The points of a curve that wait for MLflow: a bounded queue that thins its past and keeps the present."""

from __future__ import annotations

from cluster.models.points import Point, PointQueue


def test_a_full_queue_thins_its_older_half_and_keeps_the_newest():
    """The server is away for hours; the curve stays whole but gets coarser the older it is."""
    queue = PointQueue(8)
    for step in range(1000):
        queue.put(Point(step, 0, {"loss": 1.0}))
        assert len(queue) <= 8
    steps = [point.records for point in queue.take(100)]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-4:] == [996, 997, 998, 999]
    assert queue.dropped == 1000 - len(steps)


def test_a_call_takes_as_many_points_as_mlflow_accepts_at_once():
    """After an outage thousands of points wait, and MLflow takes a thousand metrics a call."""
    queue = PointQueue(100)
    for step in range(10):
        queue.put(Point(step, 0, dict.fromkeys("abc", 1.0)))
    taken = queue.take(7)
    assert [point.records for point in taken] == [0, 1]
    queue.put_back(taken)
    assert [point.records for point in queue.take(1)] == [0]
