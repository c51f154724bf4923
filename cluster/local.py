"""LocalCluster: one worker over the tables in a thread of this process, behind the interface of RayCluster."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from actors.coordinator import Coordinator
from actors.shard import ParameterShard
from cluster.assembly import WorkerSpec, build_worker
from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore

if TYPE_CHECKING:
    from types import TracebackType

    from actors.ports import Tables
    from cluster.config import Pipeline

__all__ = ["LocalCluster"]

_JOIN_TIMEOUT_S = 60.0


class LocalCluster:
    """The actors of one job as plain objects: no Ray, one worker, and no shard, or one where tables have policies."""

    def __init__(self, pipeline: Pipeline, spec: WorkerSpec) -> None:
        learner, policies = pipeline.learner.build(), pipeline.policies()
        store: LocalStore | ShardedStore
        self._holder: LocalStore | ParameterShard
        if all(policy.keeps_all for policy in policies.values()):
            self._holder = store = LocalStore(learner)
        else:
            shards = DirectShards(1, learner, policies)
            self._holder, store = shards.shards[0], ShardedStore(0, shards, learner, has_policies=True)
        self.coordinator = Coordinator(
            [tuple(spec.bounds)], learner.metrics(), pipeline.snapshots.interval_records, pipeline.records_max
        )
        self._worker = build_worker(spec, store, self.coordinator)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="millrace-worker", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:  # noqa: BLE001 - carried to the supervisor's thread, which raises it
            self._error = error
        finally:
            self._worker.close()

    def start(self) -> None:
        """Let the worker learn; returns at once."""
        self._thread.start()

    def check(self) -> None:
        """Raise the worker's error, if it has failed."""
        if self._error is not None:
            raise self._error

    def snapshot(self) -> list[Any]:
        """Copy the table."""
        return [self._holder.snapshot()]

    def fetch(self, copies: list[Any]) -> list[Tables]:
        """The copies themselves."""
        return copies

    def restore(self, tables: Tables) -> None:
        """Put a snapshot's tables in place of the present ones; before `start`."""
        self._holder.restore(tables)

    def shard_status(self) -> list[dict[str, Any]]:
        """Counters of the table."""
        return [self._holder.status()]

    def close(self) -> None:
        """Ask the worker to end and wait for it; may be called twice."""
        self.coordinator.stop()
        if self._thread.is_alive():
            self._thread.join(_JOIN_TIMEOUT_S)
