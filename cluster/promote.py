"""Promoter: makes model versions of snapshots, which then are kept; one at a time, and without stopping training."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING

from cluster.models.mlflow_versions import model_name
from cluster.models.model_files import write_model
from cluster.models.redaction import without_secrets
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.model import model_of
from cluster.versions import Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from cluster.config import Pipeline
    from cluster.models.registry import RunLog
    from cluster.runs import Run
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore
    from cluster.versions import VersionBook

__all__ = ["Promoter"]

_REGISTER_TIMEOUT_S = 120.0


class Promoter:
    """Registers snapshots of `store` in MLflow through `log`, and notes them in `book`.

    `mlflow.version_interval_s` after the one before, the newest snapshot becomes a version in a thread of its own; the
    last one of a job does at its end. While MLflow is away one version waits for it, and no other is begun.
    """

    def __init__(
        self,
        store: SnapshotStore,
        log: RunLog,
        run: Run,
        book: VersionBook,
        pipeline: Pipeline,
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._log = log
        self._run = run
        self._book = book
        self._folder = run.folder / "versions"
        self._mlflow = pipeline.mlflow
        self._say = say
        self._thread: threading.Thread | None = None
        self._promoted, self._promoted_s = 0, time.monotonic()
        self.model = model_name(pipeline.model_dump(mode="json"))

    def promote_when_due(self, newest: SnapshotManifest | None) -> None:
        """Begin to make a version of the newest snapshot, if it is time; returns at once."""
        interval_s = self._mlflow.version_interval_s
        if newest is None or not interval_s or not self._mlflow.enabled or self._busy:
            return
        if newest.number > self._promoted and time.monotonic() - self._promoted_s >= interval_s:
            self._promoted_s = time.monotonic()
            # Decided here, in the thread that rolls back too: what is rolled back from meanwhile is no champion.
            self._thread = threading.Thread(
                target=self._promote_aloud,
                args=(newest, self._log.decide()),
                name="millrace-version",
                daemon=True,
            )
            self._thread.start()

    def promote_and_wait(self, manifest: SnapshotManifest) -> int | None:
        """The version that the last snapshot became; None, with the reason said, if it became none."""
        if not self._mlflow.enabled:
            return None
        until_s = time.monotonic() + _REGISTER_TIMEOUT_S
        if self._thread is not None:
            self._thread.join(_REGISTER_TIMEOUT_S)
        if (version := self._book.version_of(manifest.number)) is not None:
            return version  # it became one a moment ago, or at the end of the job before
        return self._promote_aloud(manifest, self._log.decide(), max(0.0, until_s - time.monotonic()))

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _promote_aloud(
        self, manifest: SnapshotManifest, decided: int, timeout_s: float | None = None
    ) -> int | None:
        """Make a version and wait for it; what goes wrong is said and costs nothing else."""
        try:
            version = self._promote(manifest, decided).result(timeout_s)
            self._book.put(Version(manifest.number, self.model, version))  # whoever waits for us must find it
            return version
        except (SnapshotError, Exception) as error:  # noqa: BLE001 - whatever MLflow's server or disk gave: the model is on disk
            reason = (
                f"MLflow did not answer within {timeout_s or 0:.0f} s"
                if isinstance(error, TimeoutError)
                else error
            )
            self._say(
                f"the model was not registered ({reason}); it is in "
                f"{without_secrets(self._store.folder(manifest.number))}"
            )
            return None

    def _promote(self, manifest: SnapshotManifest, decided: int) -> Future[int]:
        """Write a version's files and queue it; the future gives its number. Raises SnapshotError."""
        number, folder = manifest.number, self._folder / f"{manifest.number:06d}"
        parent = self._book.last(self.model)
        self._book.put(
            Version(number, self.model, None)
        )  # before it is read, so that it is not removed meanwhile
        self._promoted = max(self._promoted, number)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            write_model(folder, model_of(self._store, number))
        except BaseException:
            self._book.drop(number)
            raise
        tags = {
            "run": self._run.name,
            "snapshot": str(number),
            "generation": str(manifest.generation),
            "run_folder": without_secrets(self._run.url),
            **({} if parent is None else {"parent_version": str(parent)}),
        }
        version = self._log.register(folder, manifest.metrics, tags, decided)
        version.add_done_callback(lambda done: self._note(number, done))
        version.add_done_callback(lambda _: shutil.rmtree(folder, ignore_errors=True))
        return version

    def _note(self, number: int, done: Future[int]) -> None:
        try:
            if done.exception() is None:
                self._book.put(Version(number, self.model, done.result()))
            else:
                self._book.drop(number)
        except SnapshotError as error:
            self._say(f"version {number} could not be noted: {error}")
