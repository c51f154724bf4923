"""What Ray's actors do not answer, or answer too late, as the driver is told it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Never

import numpy as np
import pytest
import ray

from actors.ports import LaunchError, StoreError
from cluster import make_actors
from cluster.config import build_pipeline
from cluster.launch import RayCluster
from cluster.placement import Demand
from cluster.remote import RemoteCoordinator
from cluster.snapshots.errors import SnapshotError
from learning.exchange import Moment
from learning.ftrl import Ftrl
from learning.job_messages import Arrived, TakeSnapshot
from tests.direct import coordinator_for


def cluster_of() -> RayCluster:
    """One whose snapshots may take 7 s, and its actors' start 3 s; nothing is begun."""
    settings = {"snapshots": {"write_timeout_s": 7}, "cluster": {"actor_start_timeout_s": 3}}
    values = {"name": "p", "source": {"kind": "kafka", "topic": "t"}, **settings}
    return RayCluster(build_pipeline(values, [], origin="a test"))


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (ray.exceptions.GetTimeoutError("late"), SnapshotError, r"raise snapshots\.write_timeout_s"),
        (ray.exceptions.ActorDiedError(), StoreError, "has died"),
    ],
)
def test_a_slow_disk_fails_a_snapshot_and_a_dead_shard_the_generation(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, kind: type[Exception], reason: str
) -> None:
    """A disk that is slow today would be slow again: to go back for it would end the job, for nothing."""

    def fail(_: Any, timeout: float) -> Never:
        assert timeout == 7
        raise failure

    monkeypatch.setattr(ray, "get", fail)
    cluster = cluster_of()
    remote = SimpleNamespace(remote=lambda *_: None)
    cluster.crew.shards = [SimpleNamespace(write=SimpleNamespace(options=lambda **_: remote))]
    with pytest.raises(kind, match=reason):
        cluster.write(Moment(1, 1), "run")


def test_ctrl_c_loses_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the answer is on its way, in which the last snapshot is commanded; which is commanded once."""
    coordinator = coordinator_for(Ftrl())
    handle = SimpleNamespace(commands=SimpleNamespace(remote=coordinator.commands))
    moment = coordinator.directive().moment
    remote = RemoteCoordinator(handle, 1.0, moment)
    interrupted = [True]

    def get(answer: Any, **_: float) -> Any:
        if interrupted and interrupted.pop():
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(ray, "get", get)
    state = {"encoder.keys": np.empty(0, np.uint64), "encoder.stats": np.empty((0, 3))}
    coordinator.arrive(Arrived(0, moment.generation, coordinator.directive().barrier, state, finished=True))
    with pytest.raises(KeyboardInterrupt):
        remote.commands()
    assert [type(command) for command in remote.commands()] == [TakeSnapshot]
    assert remote.commands() == []


@pytest.mark.parametrize(
    ("tables", "started", "timeouts", "reason"),
    [
        (4, True, [3, 10], r"and snapshot 4, within 10 s, but 1 have not; .* or snapshots\.write_timeout_s"),
        (0, True, [3, 3], r"kernels and streams within 3 s"),
        (4, False, [3], "ask for CPU 4 \\(there 0, free 2\\); ask for fewer"),
    ],
)
def test_a_large_snapshot_takes_its_time_to_load_and_a_full_cluster_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tables: int, *, started: bool, timeouts: list[float], reason: str
) -> None:
    """More nodes would not help whoever waits for a disk."""
    asked: list[float] = []

    def wait(references: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert num_returns == len(references)
        asked.append(timeout)
        late = references == ["begun"] or not started
        return ([], references) if late else (references, [])

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", lambda *_, **__: None)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(make_actors, "draining_nodes", set)
    cluster = cluster_of()
    cluster._maker._demands = [Demand("shard", {"CPU": 1})] * 4
    monkeypatch.setattr(cluster, "_control", lambda *_: "ping")
    cluster.crew.coordinator = "made"
    with pytest.raises(LaunchError, match=reason):
        cluster._await_start(["begun"], tables)
    assert asked == timeouts
