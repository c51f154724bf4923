"""Runs by name: a run's folder on this machine, and the path or URL where its snapshots have their home."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.snapshots.places import os_errors_told

if TYPE_CHECKING:
    from cluster.config import Pipeline

__all__ = ["Run", "run_of"]


class Run(NamedTuple):
    """`folder` is on this machine (dead letters); `url` has the snapshots: the same folder, or an fsspec URL."""

    name: str
    folder: Path
    url: str

    @property
    def advice(self) -> str:
        """How the run goes on after its job ended early; empty if it has not come to a snapshot."""
        begun = "://" in self.url or (self.folder / "snapshots").is_dir()
        return f"to go on from its last snapshot, start it again with --run {self.name}" if begun else ""

    def unmake(self) -> None:
        """Remove the folder of a run that never began, and the one above it if nothing else is there."""
        if not (self.folder / "begin.json").exists() and not (self.folder / "snapshots").exists():
            with suppress(OSError):  # what is not empty stays
                for name in ("lock", "status.json"):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
                self.folder.parent.rmdir()


def run_of(pipeline: Pipeline) -> Run:
    """The run that a pipeline names, or a new one, named by the time; its folder is made."""
    place = pipeline.snapshots.path
    base = Path("runs") if "://" in place else Path(place)
    name = pipeline.run
    if name is None:
        name = stamp = f"{pipeline.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        others = 1
        while (base / name).exists():  # another one that began in this very second
            others += 1
            name = f"{stamp}-{others}"
    folder = (base / name).resolve()
    with os_errors_told("making the run's folder", folder):
        folder.mkdir(parents=True, exist_ok=pipeline.run is not None)
    return Run(name, folder, f"{place.rstrip('/')}/{name}" if "://" in place else str(folder))
