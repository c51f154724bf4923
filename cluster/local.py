"""LocalCluster: one worker over the tables in a thread of this process, behind the interface of RayCluster."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from actors.coordinator import Coordinator
from cluster.assembly import build_worker
from cluster.local_store import DirectShards, LocalStore
from cluster.parts import load_part, load_store, write_shard
from cluster.store import ShardedStore
from learning.job_messages import StopAsked

if TYPE_CHECKING:
    from types import TracebackType

    from actors.shard import ParameterShard
    from actors.worker import Worker
    from cluster.config import Pipeline
    from cluster.snapshots.file_entry import PartFiles
    from cluster.starts import Start
    from learning.exchange import Moment

__all__ = ["LocalCluster"]

_JOIN_TIMEOUT_S = 60.0


class LocalCluster:
    """The actors of one job as plain objects: no Ray, one worker, and no shard, or one where tables have policies."""

    def __init__(self, pipeline: Pipeline) -> None:
        # One shard, whatever the pipeline asks for on a cluster.
        cluster = pipeline.cluster.model_copy(update={"shards": 1, "workers": 1})
        self._pipeline = pipeline.model_copy(update={"cluster": cluster})
        self._worker: Worker | None = None
        self._thread = threading.Thread(target=self._run, name="millrace-worker", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, start: Start) -> None:
        """Load the tables and open the streams. Raises SnapshotError, SourceError."""
        self._end_generation()
        pipeline, moment = self._pipeline, start.plan.moment
        place = (moment, start.run_url, start.tables, start.plan.start.records)
        store: LocalStore | ShardedStore
        self._holder: LocalStore | ParameterShard
        if all(policy.keeps_all for policy in pipeline.policies().values()):
            self._holder = store = load_store(pipeline, *place)
        else:
            self._holder = load_part(pipeline, 0, *place)
            store = ShardedStore(
                0, DirectShards.of([self._holder]), pipeline.learner.build(), has_policies=True
            )
        self.coordinator = Coordinator(start.plan)
        self._worker = build_worker(start.specs[0], store, self.coordinator)
        self._error = None
        self._thread = threading.Thread(target=self._run, name="millrace-worker", daemon=True)

    def _run(self) -> None:
        assert self._worker is not None, "begin comes before start"
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

    def write(self, moment: Moment, folder: str) -> list[PartFiles]:
        """Write the tables as they were at the moment. Raises SnapshotError."""
        return [write_shard(self._holder, 0, moment, folder)]

    def shard_status(self) -> list[dict[str, Any]]:
        """Counters of the table."""
        return [self._holder.status()]

    def close(self) -> None:
        """Ask the worker to end and wait for it; may be called twice."""
        self._end_generation()

    def _end_generation(self) -> None:
        if self._worker is None:
            return
        if self._thread.is_alive():
            self.coordinator.tell(StopAsked())
            self._thread.join(_JOIN_TIMEOUT_S)
        else:
            self._worker.close()
        self._worker = None
