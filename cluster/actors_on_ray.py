"""What runs inside Ray's processes: shards and workers with their files and connections, which cannot travel there."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.ports import LaunchError
from actors.shard import ParameterShard
from cluster.assembly import WorkerSpec, build_worker
from cluster.logs import log_context, set_up_logs
from cluster.parts import Preloaded, load_part, preload_part, write_shard
from cluster.remote import RayShards, RemoteCoordinator
from cluster.store import ShardedStore
from cluster.warm import warm_up

if TYPE_CHECKING:
    from cluster.config import Pipeline
    from cluster.snapshots.file_entry import PartFiles
    from learning.exchange import Moment
    from learning.questions import Question

__all__ = ["ShardActor", "WorkerActor"]


class ShardActor:
    """One shard's process. Exchanges come one at a time; a snapshot is written beside them, in a thread of its own."""

    def __init__(self, shard: int, pipeline: Pipeline) -> None:
        set_up_logs()
        log_context(shard=shard)
        self._number = shard
        self._pipeline = pipeline
        self._shard: ParameterShard | None = None
        self._ahead: Preloaded | None = None
        self._is_warm = False

    def ping(self) -> None:
        """Say that this process lives."""

    def refuse(self, moment: Moment) -> None:
        """Refuse what belongs to the generations before; `begin` follows."""
        if self._shard is not None:
            self._shard.begin(moment)

    def warm(self) -> None:
        """Have all kernels."""
        if not self._is_warm:
            warm_up(self._pipeline.learner.build(), self._pipeline.policies().values())
        self._is_warm = True

    def preload(self, run_url: str, tables: int) -> None:
        """Load a snapshot before the generation begins, which will begin at a later one."""
        _check_shared(run_url)
        self._ahead = preload_part(self._pipeline, self._number, run_url, tables)

    def begin(self, moment: Moment, run_url: str, tables: int, pushed: int, held: bool) -> None:  # noqa: FBT001 - Ray's calls
        """Begin a generation with the rows of snapshot `tables` (0: none), which are here already if `held`."""
        if held:
            self._held.resume(moment, pushed)
            return
        _check_shared(run_url)
        self.warm()
        self._shard, ahead = None, self._ahead  # its memory is wanted for what is loaded
        self._ahead = None
        self._shard = load_part(self._pipeline, self._number, moment, run_url, tables, pushed, ahead)

    def exchange_packed(self, message: bytes) -> bytes:
        """A worker's push and pull."""
        return self._held.exchange_packed(message)

    def ask(self, question: Question) -> Any:
        """A question about the rows as they are now."""
        return self._held.ask(question)

    def status(self) -> dict[str, Any]:
        """Counters."""
        return self._held.status()

    def write(self, moment: Moment, folder: str) -> PartFiles:
        """Write this shard's part of the moment's snapshot."""
        return write_shard(self._held, self._number, moment, folder)

    @property
    def _held(self) -> ParameterShard:
        assert self._shard is not None, f"shard {self._number} has not begun"
        return self._shard


def _check_shared(run_url: str) -> None:
    """Refuse a run's folder that this node does not see: what a shard writes there, nobody would find."""
    if "://" not in run_url and not Path(run_url).is_dir():
        raise LaunchError(
            f"expected the run's folder {run_url} on node {platform.node()}, where a shard runs, but it is not there; "
            "snapshots.path must be a folder that all nodes share, or a URL such as s3://bucket/runs"
        )


class WorkerActor:
    """One worker's process; it outlives the generations of a job."""

    def __init__(self) -> None:
        set_up_logs()
        self._is_warm = False

    def ping(self) -> None:
        """Say that this process lives."""

    def idle(self) -> None:
        """Say that `run` has ended: calls come one at a time."""

    def warm(self, pipeline: Pipeline) -> None:
        """Have all kernels."""
        if not self._is_warm:
            warm_up(pipeline.learner.build(), pipeline.policies().values())
        self._is_warm = True

    def open(self, spec: WorkerSpec, shards: list[Any], coordinator: Any) -> None:
        """Load kernels and open streams. Not in the constructor, whose errors Ray reports without their type."""
        pipeline = spec.pipeline
        log_context(worker=spec.worker)
        self.warm(pipeline)
        timeout_s = pipeline.cluster.call_timeout_s
        store = ShardedStore(
            spec.worker,
            RayShards(shards, timeout_s),
            pipeline.learner.build(),
            has_policies=not all(policy.keeps_all for policy in pipeline.policies().values()),
            wait_timeout_s=timeout_s,
        )
        self._worker = build_worker(spec, store, RemoteCoordinator(coordinator, timeout_s, spec.moment))

    def run(self) -> None:
        """Learn to the end, and release what was opened, whatever happens."""
        try:
            self._worker.run()
        finally:
            self._worker.close()
