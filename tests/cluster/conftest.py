"""A real broker and a real local Ray, one of each for the whole test run, on 127.0.0.1 with folders of their own."""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.broker import Broker
from cluster.loopback import stay_on_loopback
from cluster.snapshots.store import SnapshotStore
from tests.cluster.snapshot_runs import key_of, write_snapshot

stay_on_loopback()  # before a test file imports Ray


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The embedded broker in this process; every test makes topics of its own."""
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray as RayCluster starts it, kept for all tests because a start takes seconds."""
    assert stay_on_loopback(), "Ray was imported before this file"
    import ray

    from cluster.ray_session import local_ray_options

    folder = tempfile.mkdtemp(prefix="millrace-ray-")  # not tmp_path: Ray's socket paths must be short
    ray.init(namespace="millrace", logging_level=logging.ERROR, **local_ray_options(16, folder))
    yield
    ray.shutdown()
    shutil.rmtree(Path(folder), ignore_errors=True)


@pytest.fixture
def said() -> list[str]:
    """What a snapshot store says."""
    return []


@pytest.fixture(params=["disk", "memory"])
def run_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run's place: a folder, and a URL."""
    return str(tmp_path / "run") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture
def anywhere(run_url: str, said: list[str]) -> SnapshotStore:
    """The snapshots of a run in a folder, and of one behind a URL."""
    return SnapshotStore(run_url, said.append)


@pytest.fixture
def local(tmp_path: Path, said: list[str]) -> SnapshotStore:
    """The snapshots of a run in a folder."""
    return SnapshotStore(str(tmp_path / "run"), said.append)


@pytest.fixture
def chain(local: SnapshotStore, tmp_path: Path) -> Path:
    """A base and a difference to it; returns the folder of the run's snapshots."""
    write_snapshot(local, 1, {key_of(n): n for n in range(1, 5)})
    write_snapshot(local, 2, {key_of(2): 22, key_of(9): 9}, parent=1)
    return tmp_path / "run" / "snapshots"
