"""Promoter: makes model versions of snapshots, which then are kept."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cluster.models.model_files import write_model
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.model import model_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from cluster.config import Pipeline
    from cluster.models.registry import RunLog
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore

__all__ = ["Promoter"]

_REGISTER_TIMEOUT_S = 120.0


class Promoter:
    """Registers snapshots of `store` in MLflow through `log`; `folder` is where a version lies until it is uploaded."""

    def __init__(
        self,
        store: SnapshotStore,
        log: RunLog,
        run: str,
        folder: Path,
        pipeline: Pipeline,
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._log = log
        self._run = run
        self._folder = folder / "versions"
        self._pipeline = pipeline
        self._say = say
        self._pinned: set[int] = set()
        self.model = pipeline.mlflow.model or pipeline.name

    def pinned(self) -> set[int]:
        """Numbers of the snapshots that are versions."""
        return self._pinned

    def promote(self, manifest: SnapshotManifest) -> Future[int]:
        """Make a version of a snapshot; the future gives its number. Raises SnapshotError."""
        folder = self._folder / f"{manifest.number:06d}"
        shutil.rmtree(folder, ignore_errors=True)
        write_model(folder, model_of(self._store, manifest.number))
        tags = {
            "run": self._run,
            "snapshot": str(manifest.number),
            "generation": str(manifest.generation),
            "run_folder": self._store.folder(manifest.number).rpartition("/snapshots/")[0],
        }
        self._pinned.add(manifest.number)
        version = self._log.register(folder, manifest.metrics, tags)
        version.add_done_callback(lambda _: shutil.rmtree(folder, ignore_errors=True))
        return version

    def promote_and_wait(self, manifest: SnapshotManifest) -> int | None:
        """The version that a snapshot became; None, with the reason said, if it became none."""
        if not self._pipeline.mlflow.enabled:
            return None
        try:
            return self.promote(manifest).result(_REGISTER_TIMEOUT_S)
        except (SnapshotError, Exception) as error:  # noqa: BLE001 - whatever MLflow's server or disk gave: the model is on disk
            self._say(
                f"the model was not registered ({error}); it is in {self._store.folder(manifest.number)}"
            )
            return None
