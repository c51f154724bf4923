"""Where a generation of a job begins: a new run at the stream's start, any other at a snapshot, with its offsets.

An ordinary start, a start after a crash and a rollback are the same thing here, so each start tests them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from actors.ports import SourceError
from cluster.assembly import WorkerSpec, build_state, feature_names, watch_plan
from cluster.base_files import BaseError
from cluster.dealing import dealt_states
from cluster.first_look import FirstLook
from cluster.same_run import check_partitions, check_same
from cluster.sizes import Sizes, as_scaled
from cluster.snapshots.errors import SnapshotDamagedError
from cluster.snapshots.job_arrays import read_job
from cluster.teaching import teacher_of
from cluster.warm_start import write_base
from learning.coordination import assign
from learning.ensemble import Ensemble
from learning.job_state import JobPlan, JobState
from learning.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cluster.config import Pipeline
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore
    from cluster.streams.open import Bounds
    from learning.worker_state import Arrays

__all__ = ["Start", "Starter", "UnusableRunError"]


class UnusableRunError(Exception):
    """No snapshot of the run can be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Start:
    """All that a generation begins with.

    `tables`: the snapshot from which shards load their rows; 0: they begin empty. `ends`: where each partition's input
    ends; None where it goes on.
    """

    plan: JobPlan
    specs: list[WorkerSpec]
    run_url: str
    tables: int
    ends: dict[int, int | None]

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline with the numbers of shards and workers that are in force."""
        return self.specs[0].pipeline

    def records_total(self, pipeline: Pipeline) -> int | None:
        """How many records there will be, where that is known: offsets of a bounded topic, or `records_max`."""
        if pipeline.records_max is not None or pipeline.source.kind == "file":
            return pipeline.records_max
        spans = [bounds for spec in self.specs for bounds in spec.bounds.values()]
        left = sum(end - first for first, end in spans if end is not None)
        return self.plan.start.records + left if left else None


class Starter:
    """Makes the starts of one run. `folder`: where its workers put dead letters; `next_generation` counts them.

    `asked`: the numbers of actors in the pipeline file. Raises SnapshotError if those in force cannot be read.
    `teacher`: the snapshot that teaches; None: by the pipeline, looked up once.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: SnapshotStore,
        run_url: str,
        folder: Path,
        say: Callable[[str], None],
        *,
        local: bool,
        next_generation: Callable[[], int] | None = None,
        teacher: int | None = None,
    ) -> None:
        self.asked = Sizes.asked(pipeline)
        self._pipeline = pipeline if local else as_scaled(pipeline, run_url, say)
        self._store = store
        self._run_url = run_url
        self._say = say
        self._folder = folder
        self._workers = 1 if local else self._pipeline.cluster.workers
        self._look = FirstLook(pipeline, run_url)
        self._teacher = teacher
        self._next_generation = next_generation or store.next_generation

    def look(self) -> None:
        """Look at the stream. Raises SourceError."""
        self._look.first()

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline with the numbers of actors that generations from here on have."""
        return self._pipeline

    @property
    def sizes(self) -> Sizes:
        """The numbers of actors that generations from here on have."""
        return Sizes(self._workers, self._pipeline.cluster.shards)

    def check_workers(self, workers: int) -> None:
        """Look whether so many workers could share the stream from here on. Raises SourceError."""
        if self._pipeline.source.kind == "file":
            raise SourceError(
                "expected as many workers as the file's rows were dealt out to when the run began; scale shards, or "
                "begin another run (cluster.workers)"
            )
        partitions = self._look.again()
        if workers > partitions:
            raise SourceError(
                f"expected at most {partitions} workers, as the topic has {partitions} partitions and each is one "
                f"worker's, but {workers} were asked for; add partitions to the topic first, or ask for fewer"
            )

    def resize(self, sizes: Sizes) -> None:
        """Generations from here on have other numbers of actors."""
        self._workers = sizes.workers
        self._pipeline = sizes.of(self._pipeline)

    def begin(self, before: int | None = None) -> Start:
        """From the newest whole snapshot (older than `before`); anew if there never was one.

        Raises:
            UnusableRunError: there are snapshots, but none that can be used.
            SourceError, OtherRunError: the stream, or the pipeline, is not what it was.

        """
        while (manifest := self._store.newest(before)) is not None:
            try:
                return self.at(manifest)
            except SnapshotDamagedError as damaged:
                self._say(f"snapshot {manifest.number} is passed over: {damaged}")
                before = manifest.number
        if numbers := self._store.numbers():
            # To begin anew would have retention remove what somebody may still mend.
            raise UnusableRunError(
                f"the run has {len(numbers)} finished snapshot(s), and none can be used (the reasons are above); put "
                " the damaged files back, go on with the code that wrote them, or begin another run"
            )
        return self._anew()

    def at(self, manifest: SnapshotManifest, tables: SnapshotManifest | None = None) -> Start:
        """From a snapshot; with `tables`, from its place in the stream, but with the tables and workers of another."""
        source = tables or manifest
        state, workers = self._job(manifest), self._job(source).workers
        last = max(self._store.numbers())  # none is written twice, also after a return to an older one
        disk = self._disk(manifest) if source is manifest and manifest.number == last else (0, 0)
        return self._start(replace(state, number=last), self._bounds(manifest), workers, disk, source.number)

    def _disk(self, manifest: SnapshotManifest) -> tuple[int, int]:
        """The snapshot to which the next may be a difference, and how many are; (0, 0): policies are others now.

        They decide what is written of a row, and no chain may hold rows of two kinds.
        """
        chain = self._store.chain(manifest.number)
        policies = self._pipeline.model_dump(mode="json")["tables"]
        same = all(link.pipeline.get("tables") == policies for link in chain)
        return (manifest.number, len(chain) - 1) if same else (0, 0)

    def _job(self, manifest: SnapshotManifest) -> JobState:
        check_same(self._pipeline, manifest)
        state = read_job(self._store, manifest)
        try:
            for own in state.workers.values():
                build_state(self._pipeline).restore(own)
        except ValueError as error:
            raise SnapshotDamagedError(
                f"what a worker knows in snapshot {manifest.number}: {error}"
            ) from error
        return self._watched(state)

    def _watched(self, state: JobState) -> JobState:
        """The state, without what is known about drift if it is watched otherwise now."""
        plan = watch_plan(self._pipeline)
        try:
            if plan is not None:
                Watching(plan, state.watch, 1)
        except ValueError:
            self._say("drift is watched otherwise than before: what was known about it begins anew")
            return replace(state, watch={})
        return state

    def _anew(self) -> Start:
        bounds = self._look.first()
        # All of them, those without a record yet too: a run that begins at the end must not begin there again.
        offsets = {partition: first for partition, (first, _) in bounds.items()}
        if self._pipeline.base.path is not None:
            ends = {partition: end for partition, (_, end) in bounds.items()}
            try:
                base = write_base(self._pipeline, self._store, offsets, ends, self._next_generation())
            except BaseError as error:
                raise UnusableRunError(str(error)) from error
            return self.at(base)
        metrics = self._pipeline.learner.build().metrics()
        return self._start(JobState(0, offsets, 0, 0, metrics), bounds, {}, (0, 0), 0)

    def _bounds(self, manifest: SnapshotManifest) -> dict[int, Bounds]:
        bounds = self._look.behind(manifest)
        check_partitions(self._pipeline, manifest, set(bounds))
        return bounds

    def _start(
        self,
        state: JobState,
        bounds: dict[int, Bounds],
        workers: dict[int, Arrays],
        disk: tuple[int, int],
        tables: int,
    ) -> Start:
        pipeline, learner = self._pipeline, self._pipeline.learner.build()
        if self._teacher is None:
            self._teacher = teacher_of(pipeline, self._store, self._run_url)
        shares = assign(list(bounds), self._workers)
        same = len(workers) == len(shares)
        dealt = dealt_states(pipeline, workers, len(shares))
        plan = JobPlan(
            shares, replace(state, workers=dealt), self._next_generation(), *disk, pipeline.snapshots.interval_records,
            pipeline.snapshots.deltas_max, pipeline.records_max, watch_plan(pipeline), feature_names(pipeline),
            learner if isinstance(learner, Ensemble) else None,
        )  # fmt: skip
        specs = [
            WorkerSpec(
                worker=worker,
                pipeline=pipeline,
                run_folder=str(self._folder),
                bounds={partition: bounds[partition] for partition in share},
                moment=plan.moment,
                state=dealt.get(worker),
                turn=state.turns.get(worker) if same else None,
                teacher=(self._run_url, self._teacher) if self._teacher else None,
            )
            for worker, share in enumerate(shares)
        ]
        ends = {partition: end for partition, (_, end) in bounds.items()}
        return Start(plan, specs, self._run_url, tables, ends)
