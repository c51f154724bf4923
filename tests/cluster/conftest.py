"""A real broker and a real local Ray, one of each for the whole test run, on 127.0.0.1 with folders of their own."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.broker import Broker
from cluster.loopback import stay_on_loopback

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
