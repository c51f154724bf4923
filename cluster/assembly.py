"""Builds learners, encoders and workers from a pipeline: the same pieces for a local run and for Ray actors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.worker import Worker, World
from cluster.streams.open import open_source
from cluster.streams.sinks import open_dead_letters, open_predictions
from learning.batch import BatchId
from learning.encoding import NumericEncoder
from learning.exchange import Moment
from learning.worker_state import WorkerState

if TYPE_CHECKING:
    from actors.ports import CoordinatorPort, ParameterStore
    from cluster.config import Pipeline
    from learning.learner import Learner
    from learning.worker_state import Arrays

__all__ = ["WorkerSpec", "build_state", "build_worker", "wanted_records"]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that one worker is built from; travels to the worker's process.

    `bounds` gives each of the worker's partitions its first offset and its end offset (None: the stream goes on).
    `state` is what it knows by itself already, `turn` the partition of its last batch before this generation.
    """

    worker: int
    pipeline: Pipeline
    run_folder: str
    bounds: dict[int, tuple[int, int | None]]
    moment: Moment
    state: Arrays | None = None
    turn: int | None = None
    batches: tuple[BatchId, ...] = ()
    """What a replay begins with: these batches, in this order."""


def wanted_records(learner: Learner) -> dict[str, Any]:
    """What a learner demands of every record, as sources take it."""
    label_min, label_max = learner.label_range
    return {"label_min": label_min, "label_max": label_max, "roles": learner.roles}


def build_state(pipeline: Pipeline) -> WorkerState:
    """What a worker of the pipeline knows by itself before it has seen a record.

    Its encoder is none to speak of where the learner wants none.
    """
    if not pipeline.learner.build().encodes:
        return WorkerState(NumericEncoder(standardize=False, bins_per_sd=0.0))
    return WorkerState(NumericEncoder(**pipeline.features.numeric.model_dump()))


def build_worker(spec: WorkerSpec, store: ParameterStore, coordinator: CoordinatorPort) -> Worker:
    """Open the worker's streams and put it together. Raises SourceError if the stream cannot be read."""
    pipeline = spec.pipeline
    learner = pipeline.learner.build()
    kept = tuple(learner.named.values())
    world = World(
        source=open_source(
            pipeline,
            spec.bounds,
            kept_roles=kept,
            after_partition=spec.turn,
            plan=spec.batches,
            **wanted_records(learner),
        ),
        store=store,
        coordinator=coordinator,
        dead_letters=open_dead_letters(pipeline, Path(spec.run_folder) / "dead_letters", spec.worker),
        predictions=open_predictions(pipeline),
        clock_s=time.time,
        sleep=time.sleep,
    )
    state = build_state(pipeline)
    if spec.state is not None:
        state.restore(spec.state)
    return Worker(
        spec.worker,
        learner,
        state,
        world,
        spec.moment,
        pulls_in_flight_max=pipeline.cluster.pulls_in_flight_max,
    )
