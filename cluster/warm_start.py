"""Warm start: a new run's first snapshot, made of a base that was trained elsewhere or by another run.

The base is read once, before anything is learnt; it becomes snapshot 1 of the run, of no records, and the job begins
there as it begins at any snapshot. So shards load it as they load any rows, a crash needs the base no more, and a
rollback can go back to it. Learners know of no file.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.base_files import BaseError, read_tensors, read_weights
from cluster.local_store import LocalStore
from cluster.models.mlflow_run import tracking_uri_of
from cluster.models.model_files import MANIFEST, ModelFilesError, ModelState, code_version
from cluster.models.model_layout import learner_of, tables_of
from cluster.parts import write_shard
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.job_arrays import arrays_of_job
from cluster.snapshots.manifest import SnapshotManifest
from cluster.snapshots.model import load_model
from cluster.snapshots.part_files import write_arrays
from learning.deep import Deep
from learning.exchange import Moment
from learning.ftrl import Ftrl
from learning.job_state import JobState
from learning.warm_start import deep_tables, ftrl_tables

if TYPE_CHECKING:
    from cluster.config import Pipeline
    from cluster.snapshots.store import SnapshotStore
    from learning.learner import Learner
    from learning.table_state import TableState
    from learning.worker_state import Arrays

__all__ = ["read_base", "write_base"]

log = logging.getLogger("millrace.snapshots")

_TENSORS = (".safetensors", ".pt", ".pth", ".bin")


def write_base(
    pipeline: Pipeline,
    store: SnapshotStore,
    offsets: dict[int, int],
    ends: dict[int, int | None],
    generation: int,
) -> SnapshotManifest:
    """Write snapshot 1 of a new run, which begins at `offsets`, from its base. Raises BaseError, SnapshotError."""
    learner = pipeline.learner.build()
    tables, encoder = read_base(pipeline, learner)
    held = LocalStore(learner)
    held.restore(tables)
    moment = Moment(generation, 1)
    folder, prefix = store.folder(1), f"job_g{generation}"
    state = JobState(1, offsets, 0, 0, learner.metrics(), workers={0: encoder} if encoder else {})
    manifest = SnapshotManifest(
        number=1, generation=generation, parent=None, shards=1, pipeline=pipeline.model_dump(mode="json"),
        offsets=offsets, ends=ends, records=0, dead=0, turns={}, metrics={},
        parts=(write_shard(held, 0, moment, folder),),
        job=PartFiles.of(prefix, write_arrays(folder, prefix, arrays_of_job(state))),
        code_version=code_version(), created_s=time.time(), note={"base": pipeline.base.path},
    )  # fmt: skip
    store.commit(manifest)
    return manifest


def read_base(pipeline: Pipeline, learner: Learner) -> tuple[dict[str, TableState], Arrays]:
    """The tables that the pipeline's base makes, and what its encoder knew, if it has one. Raises BaseError."""
    path, confidence = str(pipeline.base.path), pipeline.base.confidence
    try:
        if path.endswith(".json"):
            if not isinstance(learner, Ftrl):
                raise BaseError(f"weights as JSON are for the learner ftrl, and this one is {learner.kind}")
            return ftrl_tables(learner, *read_weights(Path(path)), confidence), {}
        if path.endswith(_TENSORS):
            if not isinstance(learner, Deep):
                raise BaseError(f"tensors by name are for the learner deep, and this one is {learner.kind}")
            return deep_tables(learner, read_tensors(Path(path))), {}
        return _of_model(_model(pipeline, path), learner)
    except (ValueError, ModelFilesError, SnapshotError) as error:
        raise BaseError(f"base.path {path} cannot be begun with: {error}") from error


def _model(pipeline: Pipeline, path: str) -> ModelState:
    """A model folder, a snapshot's folder, or a version in MLflow (models:/name/3, models:/name@champion)."""
    if not path.startswith(("models:/", "runs:/")):
        return load_model(path)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    uri = tracking_uri_of(pipeline.model_dump(mode="json"))
    with tempfile.TemporaryDirectory(prefix="millrace-base-") as scratch:
        try:
            local = download_artifacts(path, dst_path=scratch, tracking_uri=uri, registry_uri=uri)
        except (MlflowException, OSError) as error:
            raise BaseError(f"base.path {path} cannot be fetched from MLflow: {error}") from error
        folders = sorted(found.parent for found in Path(local).rglob(MANIFEST))
        if not folders:
            raise BaseError(f"base.path {path} is no model that Millrace registered: it has no {MANIFEST}")
        return load_model(folders[0])


def _of_model(state: ModelState, learner: Learner) -> tuple[dict[str, TableState], Arrays]:
    """The tables of a model of the same form, with all that its optimiser knew."""
    theirs = learner_of(state.pipeline)
    form, wanted = ([(spec.name, spec.width) for spec in of.specs()] for of in (theirs, learner))
    if theirs.kind != learner.kind or form != wanted:
        raise BaseError(
            f"the base is of the learner {theirs.kind} with tables {form}, and the pipeline's is {learner.kind} with "
            f"{wanted}; give a base of the same form"
        )
    tables: dict[str, Any] = tables_of(theirs, state.arrays)
    if isinstance(theirs, Deep) and isinstance(learner, Deep):
        tables["dense"] = _dense(theirs, learner, tables["dense"])
    return tables, {name: state.arrays[name] for name in ("encoder.keys", "encoder.stats")}


def _dense(theirs: Deep, learner: Deep, held: TableState) -> TableState:
    """Dense rows as they are where both lay their parameters alike; else the parameters by name, without moments."""
    from learning.deep_layout import layout_of

    before, now = layout_of(theirs), layout_of(learner)
    place = {int(key): i for i, key in enumerate(held.keys.tolist())}
    at = np.array([place[key] for key in before.keys.tolist()], np.int64)
    if before.groups == now.groups:
        return held.take(at)
    return deep_tables(learner, before.unpack(held.rows[at]))["dense"]
