"""The model in a snapshot: what scores, asks and is registered; without what only a job needs to go on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.models.model_files import MANIFEST, ModelState, read_model
from cluster.models.model_layout import arrays_of, layout_of, learner_of
from cluster.snapshots.store import SnapshotStore
from learning.table_state import TableState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cluster.snapshots.replay import TableSides

__all__ = ["load_model", "model_of", "tables_of_snapshot"]

log = logging.getLogger("millrace.snapshots")


def load_model(folder: str | Path) -> ModelState:
    """The model in a folder: RUN/snapshots/NUMBER, or one that was made for MLflow.

    Raises:
        ModelFilesError, SnapshotError: there is no whole one.

    """
    folder = str(folder)
    run, found, number = folder.rstrip("/").rpartition("/snapshots/")
    if found and number.isdecimal() and _is_snapshot(folder):
        return model_of(SnapshotStore(run, log.warning), int(number))
    return read_model(folder)


def _is_snapshot(folder: str) -> bool:
    """False for a folder that was made for MLflow, whatever it is called."""
    path = Path(folder) / MANIFEST
    if "://" in folder or not path.is_file():
        return True
    try:
        return bool(json.loads(path.read_bytes()).get("format") != 1)
    except (ValueError, AttributeError, RecursionError):
        return True


def model_of(store: SnapshotStore, number: int) -> ModelState:
    """The model as of a snapshot. Raises SnapshotDamagedError."""
    manifest = store.manifest(number)
    tables = tables_of_snapshot(store, number)
    learner = learner_of(manifest.pipeline)
    arrays: dict[str, NDArray[Any]] = {}
    for spec in learner.specs():
        arrays |= arrays_of(spec.name, tables[spec.name])
    job = store.job_arrays(manifest)
    arrays |= {name: job[name] for name in layout_of(learner) if name in job}
    return ModelState(manifest.pipeline, arrays, manifest.offsets, manifest.records, manifest.metrics)


def tables_of_snapshot(store: SnapshotStore, number: int) -> dict[str, TableState]:
    """The tables as of a snapshot, without rows that nobody has asked for since they were too old.

    A shard drops those when it comes by, and at once when it begins at a snapshot, of which no later one tells: they
    are rows of no state. Each shard has a clock of its own. Raises SnapshotDamagedError.
    """
    shards = store.manifest(number).shards
    parts = [_young_tables(*store.load_shard(number, shard, shards)) for shard in range(shards)]
    return {name: TableState.join([part[name] for part in parts]) for name in parts[0]}


def _young_tables(tables: dict[str, TableState], sides: TableSides) -> dict[str, TableState]:
    return {name: _young(state, [part.get(name, {}) for part in sides]) for name, state in tables.items()}


def _young(state: TableState, sides: list[dict[str, NDArray[Any]]]) -> TableState:
    ages = [side["age"] for side in sides if "age" in side]
    if state.used is None or not ages:
        return state
    return state.take((state.used > int(ages[0][0, 1])) | (state.used < 0))
