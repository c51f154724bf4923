"""SnapshotWriter: writes the snapshots that the coordinator commands, one at a time, in a thread of its own."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from cluster.models.model_files import code_version
from cluster.snapshots.errors import SnapshotError, SupersededError
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.job_arrays import arrays_of_job
from cluster.snapshots.manifest import SnapshotManifest
from cluster.snapshots.part_files import write_arrays
from learning.job_messages import SnapshotFailed, SnapshotWritten

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cluster.config import Pipeline
    from cluster.snapshots.store import SnapshotStore
    from cluster.starts import Start
    from learning.exchange import Moment
    from learning.job_messages import TakeSnapshot

__all__ = ["SnapshotWriter"]

_ABANDON_TIMEOUT_S = 20.0


class _Shards(Protocol):
    def write(self, moment: Moment, folder: str) -> list[PartFiles]:
        """Have every shard write its part."""


class SnapshotWriter:
    """Writes into `store`; `pinned` says which snapshots must stay, besides the newest `snapshots.keep`."""

    def __init__(
        self,
        shards: _Shards,
        store: SnapshotStore,
        pipeline: Pipeline,
        say: Callable[[str], None],
        pinned: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self._shards = shards
        self._store = store
        self._pipeline = pipeline
        self._say = say
        self._pinned = pinned
        self._threads = _thread()
        self._writing: Future[SnapshotManifest] | None = None
        self.newest: SnapshotManifest | None = None
        self.seconds = 0.0
        self._kept = False

    def begin(self, start: Start, command: TakeSnapshot, note: dict[str, Any]) -> None:
        """Begin to write; the one before has settled."""
        assert self._writing is None, "a snapshot is being written already"
        self._writing = self._threads.submit(self._write, start, command, note)

    def settled(self) -> SnapshotWritten | SnapshotFailed | None:
        """How the snapshot that was begun has ended, once; None if it has not, or there is none.

        Raises:
            StoreError: a shard has died; whatever else is no failure of the disk.
            SupersededError: another job learns the run now; this one is to end.

        """
        if self._writing is None or not self._writing.done():
            return None
        writing, self._writing = self._writing, None
        try:
            self.newest = writing.result()
        except _FailedError as error:
            self._say(
                f"snapshot {error.number} was not written: {error}; learning goes on, and the next one is whole"
            )
            return SnapshotFailed(error.number)
        self.seconds = self.newest.created_s - self._began_s
        size = sum(entry.size_bytes for part in self.newest.all_parts() for entry in part.files)
        return SnapshotWritten(self.newest.number, size)

    def abandon(self) -> None:
        """Wait until nothing is being written: what it wrote is whole, or not there. Raises SupersededError.

        A shard that hangs is not waited for: `commit` refuses what it may still write, once another generation began.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            error = writing.exception(_ABANDON_TIMEOUT_S)
        except TimeoutError:
            self._threads.shutdown(wait=False)
            self._threads = _thread()
            return
        if isinstance(error, SupersededError):
            raise error

    def close(self) -> None:
        """Wait for the last one."""
        self._threads.shutdown()

    def _write(self, start: Start, command: TakeSnapshot, note: dict[str, Any]) -> SnapshotManifest:
        self._began_s = time.time()
        moment, state = command.moment, command.state
        try:
            folder = self._store.folder(moment.snapshot)
            parts = self._shards.write(moment, folder)
            prefix = f"job_g{moment.generation}"
            job = PartFiles.of(prefix, write_arrays(folder, prefix, arrays_of_job(state)))
            manifest = SnapshotManifest(
                number=moment.snapshot, generation=moment.generation, parent=moment.since or None,
                shards=len(parts), pipeline=start.pipeline.model_dump(mode="json"), offsets=state.offsets,
                ends=start.ends, records=state.records, dead=state.dead, turns=state.turns,
                metrics=state.metrics.summary(), parts=tuple(parts), job=job, code_version=code_version(),
                created_s=time.time(), note=note,
            )  # fmt: skip
            self._store.commit(manifest)
        except SupersededError:
            raise
        except SnapshotError as error:
            raise _FailedError(moment.snapshot, str(error)) from error
        self._retain()
        return manifest

    def _retain(self) -> None:
        """Remove what is not needed; a place where that is forbidden has its snapshots all the same."""
        try:
            self._store.retain(self._pipeline.snapshots.keep, self._pinned())
        except SnapshotError as error:
            if not self._kept:
                self._say(f"snapshots that are not needed any more stay: {error}")
            self._kept = True
        else:
            self._kept = False


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="millrace-snapshot")


class _FailedError(Exception):
    """Snapshot `number` could not be written."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number
