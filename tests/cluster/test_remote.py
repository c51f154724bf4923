"""What Ray's actors do not answer, or answer too late, as the driver is told it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Never

import pytest
import ray

from actors.ports import StoreError
from cluster.config import build_pipeline
from cluster.launch import RayCluster
from cluster.snapshots.errors import SnapshotError
from learning.exchange import Moment


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
    cluster = RayCluster(
        build_pipeline(
            {"name": "p", "source": {"kind": "kafka", "topic": "t"}, "snapshots": {"write_timeout_s": 7}},
            [],
            origin="a test",
        )
    )
    remote = SimpleNamespace(remote=lambda *_: None)
    cluster.shards = [SimpleNamespace(write=SimpleNamespace(options=lambda **_: remote))]
    with pytest.raises(kind, match=reason):
        cluster.write(Moment(1, 1), "run")
