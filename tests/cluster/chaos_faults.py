"""What goes wrong in a world: each fault strikes once a job learns, at a time that the seed chooses."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.chaos_world import World

_STRIKE_TIMEOUT_S = 30.0
_FILE_BYTES = 1500
"""What a file may grow to on a full disk: less than any part of a snapshot that has rows."""


@dataclass
class Scene:
    """A job that is about to be struck."""

    world: World
    run: str
    rng: random.Random
    driver: int | None = None
    struck: bool = False

    @property
    def snapshots(self) -> Path:
        """Where the run writes its snapshots."""
        return self.world.run_folder(self.run) / "snapshots"

    def kill(self, actor: str) -> None:
        """kill -9 one of the job's processes."""
        pids = self.world.pids(actor)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(pids), signal.SIGKILL)
                self.struck = True


def wait_until(happened: Callable[[], bool]) -> bool:
    """Wait (bounded) until something is so; False if it does not come."""
    ends_s = time.monotonic() + _STRIKE_TIMEOUT_S
    while not happened():
        if time.monotonic() > ends_s:
            return False
        time.sleep(0.001)
    return True


def kill_shard(scene: Scene) -> None:
    """kill -9 a shard."""
    scene.kill("ShardActor")


def kill_worker(scene: Scene) -> None:
    """kill -9 a worker."""
    scene.kill("WorkerActor")


def kill_coordinator(scene: Scene) -> None:
    """kill -9 the coordinator."""
    scene.kill("Coordinator")


def kill_driver(scene: Scene) -> None:
    """kill -9 the driver; whoever looks on starts the same command again."""
    assert scene.driver is not None, "only a job in a process of its own has a driver to kill"
    os.kill(scene.driver, signal.SIGKILL)
    scene.struck = True


def kill_node(scene: Scene) -> None:
    """kill -9 a second raylet; a new node comes a little later, as an autoscaler would bring one."""
    scene.world.kill_node()
    scene.struck = True
    time.sleep(scene.rng.uniform(0.0, 1.0))
    scene.world.add_node()


def restart_broker(scene: Scene) -> None:
    """Stop the broker, and start it again."""
    scene.world.restart_broker(scene.rng.uniform(0.1, 2.0))
    scene.struck = True


def fill_disk(scene: Scene) -> None:
    """Have every file of a snapshot end after some bytes, in all shards, and then not any more."""
    pids = scene.world.pids("ShardActor")
    limits = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
    for pid, (_, hard) in zip(pids, limits, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (_FILE_BYTES, hard))
    time.sleep(scene.rng.uniform(0.3, 1.5))
    for pid, limit in zip(pids, limits, strict=True):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
            scene.struck = True


def kill_in_snapshot(scene: Scene) -> None:
    """kill -9 a shard while a snapshot is written, of which some files lie there and no manifest."""
    if wait_until(lambda: any(not (f / "manifest.json").exists() for f in scene.snapshots.glob("[0-9]*"))):
        scene.kill("ShardActor")


def kill_in_recovery(scene: Scene) -> None:
    """kill -9 a shard, and once the job is coming back, whatever lives first."""
    generation = scene.world.run_folder(scene.run) / "generation.json"
    before = generation.read_bytes()
    scene.kill("ShardActor")
    if wait_until(lambda: generation.read_bytes() != before):
        time.sleep(scene.rng.uniform(0.0, 1.5))
        scene.kill(scene.rng.choice(["ShardActor", "WorkerActor", "Coordinator"]))


FAULTS: dict[str, Callable[[Scene], None]] = {
    "shard": kill_shard,
    "worker": kill_worker,
    "coordinator": kill_coordinator,
    "driver": kill_driver,
    "node": kill_node,
    "broker": restart_broker,
    "disk": fill_disk,
    "in-snapshot": kill_in_snapshot,
    "in-recovery": kill_in_recovery,
}
