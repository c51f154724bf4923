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

if TYPE_CHECKING:
    from actors.ports import CoordinatorPort, ParameterStore
    from cluster.config import Pipeline
    from learning.job_state import EncoderState
    from learning.learner import Learner

__all__ = ["WorkerSpec", "build_encoder", "build_worker", "wanted_records"]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that one worker is built from; travels to the worker's process.

    `bounds` gives each of the worker's partitions its first offset and its end offset (None: the stream goes on).
    `encoder` is what it knows about numbers already, `turn` the partition of its last batch before this generation.
    """

    worker: int
    pipeline: Pipeline
    run_folder: str
    bounds: dict[int, tuple[int, int | None]]
    moment: Moment
    encoder: EncoderState | None = None
    turn: int | None = None
    batches: tuple[BatchId, ...] = ()
    """What a replay begins with: these batches, in this order."""


def wanted_records(learner: Learner) -> dict[str, Any]:
    """What a learner demands of every record, as sources take it."""
    label_min, label_max = learner.label_range
    return {"label_min": label_min, "label_max": label_max, "roles": learner.roles}


def build_encoder(pipeline: Pipeline) -> NumericEncoder:
    """The encoder of numeric features that a pipeline describes; none to speak of where the learner wants none."""
    if not pipeline.learner.build().encodes:
        return NumericEncoder(standardize=False, bins_per_sd=0.0)
    numeric = pipeline.features.numeric
    return NumericEncoder(**numeric.model_dump())


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
    encoder = build_encoder(pipeline)
    if spec.encoder is not None:
        encoder.restore(*spec.encoder)
    return Worker(
        spec.worker,
        learner,
        encoder,
        world,
        spec.moment,
        pulls_in_flight_max=pipeline.cluster.pulls_in_flight_max,
    )
