"""Builds learners, encoders and workers from a pipeline: the same pieces for a local run and for Ray actors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.worker import REPORT_INTERVAL_S, Worker, World
from cluster.streams.open import open_source
from cluster.streams.sinks import open_dead_letters, open_predictions
from cluster.teaching import load_teacher
from learning.batch import BatchId
from learning.encoding import NumericEncoder
from learning.ensemble import Ensemble
from learning.ensemble_state import EnsembleState
from learning.exchange import Moment
from learning.feature_stats import FeatureStats
from learning.keys import name_key
from learning.learner import experts_of, forgetting_tables
from learning.losses import loss_max_of
from learning.observing import Observer, series_of
from learning.rehearsal import Rehearsal
from learning.slices import Slices, kind_of_slices
from learning.watching import WatchPlan
from learning.worker_state import WorkerState

if TYPE_CHECKING:
    from actors.ports import CoordinatorPort, ParameterStore
    from cluster.config import Pipeline
    from learning.worker_state import Arrays

__all__ = ["WorkerSpec", "build_state", "build_worker", "feature_names", "wanted_records", "watch_plan"]

_LAG_BATCHES = 4


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
    teacher: tuple[str, int] | None = None
    """The home of the run, and the snapshot in it, whose model teaches (cluster/teaching.py)."""


def wanted_records(pipeline: Pipeline) -> dict[str, Any]:
    """What a pipeline demands of every record, as sources take it."""
    learner = pipeline.learner.build()
    label_min, label_max = learner.label_range
    return {
        "label_min": label_min,
        "label_max": label_max,
        "roles": learner.roles,
        "slice_feature": pipeline.slices.feature,
    }


def watch_plan(pipeline: Pipeline) -> WatchPlan | None:
    """How a job of the pipeline watches drift; None: not at all."""
    drift, learner = pipeline.drift, pipeline.learner.build()
    if not drift.enabled:
        return None
    return WatchPlan(
        drift.detector.build(),
        series_of(drift.features),
        drift.settings(loss_max_of(learner)),
        drift.lag_records or _LAG_BATCHES * pipeline.batch_records,
        drift.reactions_on("drift"),
        drift.reactions_on("warning"),
        forgetting_tables(learner),
        experts_of(learner),
    )


def feature_names(pipeline: Pipeline) -> dict[int, str]:
    """Names by key of the features that the pipeline names; of a file these are all. Messages bring theirs
    (cluster/decode/naming.py).
    """
    features = pipeline.features
    named = [*features.as_numeric, *features.as_categorical, *pipeline.drift.features]
    return {int(name_key(name)): name for name in (*named, *pipeline.learner.build().roles)}


def build_state(pipeline: Pipeline, worker: int = 0) -> WorkerState:
    """What a worker of the pipeline knows by itself before it has seen a record.

    Its encoder is none to speak of where the learner wants none.
    """
    learner, numeric = pipeline.learner.build(), pipeline.features.numeric
    encoder = NumericEncoder(**numeric.model_dump())
    if not learner.encodes:
        encoder = NumericEncoder(standardize=False, bins_per_sd=0.0)
    wanted, kept = pipeline.slices, pipeline.statistics
    slices = None
    implicit = getattr(learner, "feedback", "explicit") == "implicit"  # a choice has no label of its own
    if (wanted.partitions or wanted.feature is not None) and not implicit:
        kind: Any = type(learner.metrics())
        slices = Slices(kind_of_slices(kind), wanted.values_max, wanted.window_records)
    statistics = FeatureStats(kept.features_max) if kept.enabled else None
    ensemble = EnsembleState(learner, worker) if isinstance(learner, Ensemble) else None
    again = pipeline.rehearsal
    rehearsal = Rehearsal(again.records, again.share, again.weight) if again.records else None
    return WorkerState(encoder, statistics, slices, ensemble, rehearsal)


def build_worker(spec: WorkerSpec, store: ParameterStore, coordinator: CoordinatorPort) -> Worker:
    """Open the worker's streams and put it together. Raises SourceError, SnapshotError if the stream, or the
    teacher, cannot be read.
    """
    pipeline = spec.pipeline
    learner = pipeline.learner.build()
    state = build_state(pipeline, spec.worker)
    if spec.state is not None:
        state.restore(spec.state)
    if spec.teacher is not None:
        state.teacher = load_teacher(*spec.teacher, pipeline.distillation.weight)
    drift, watch = pipeline.drift, watch_plan(pipeline)
    world = World(
        source=open_source(
            pipeline,
            spec.bounds,
            kept_roles=tuple(learner.named.values()),
            want_features=pipeline.statistics.enabled or bool(drift.enabled and drift.features),
            names_max=pipeline.statistics.features_max if pipeline.statistics.enabled else 0,
            after_partition=spec.turn,
            plan=spec.batches,
            **wanted_records(pipeline),
        ),
        store=store,
        coordinator=coordinator,
        dead_letters=open_dead_letters(pipeline, Path(spec.run_folder) / "dead_letters", spec.worker),
        predictions=open_predictions(pipeline),
        clock_s=time.time,
        sleep=time.sleep,
    )
    return Worker(
        spec.worker,
        learner,
        state,
        world,
        spec.moment,
        observer=Observer(learner, drift.features) if watch is not None else None,
        lag_records=watch.lag_records if watch is not None and watch.paced else None,
        pulls_in_flight_max=pipeline.cluster.pulls_in_flight_max,
        # Where records are counted to an end, who counts them hears of each batch: a fast worker would be far beyond.
        report_interval_s=REPORT_INTERVAL_S if pipeline.records_max is None else 0.0,
    )
