"""Rebuilds the state of a run as of any moment, in a run of its own: the work behind `python -m jobs.replay`.

One process reads the stream from an older snapshot's offsets to those of the moment. It takes the batches that the run
took, in their order, where the run's later snapshots still have them; else the order of a bounded stream, which depends
on the offsets alone. So two replays are the same to the bit, and the replay of one worker with its journals is the run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config import build_pipeline
from cluster.local import LocalCluster
from cluster.models.redaction import without_secrets
from cluster.replay_plan import Journal, journal_of, offsets_meant
from cluster.roll_back import OpenedRun, opened_run
from cluster.runs import Run
from cluster.snapshots.digest import state_digest
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.store import SnapshotStore
from cluster.snapshots.writing import SnapshotWriter
from cluster.starts import Starter
from cluster.teaching import recorded_teacher
from cluster.versions import snapshot_meant
from learning.job_messages import EndJob, SnapshotFailed, TakeSnapshot
from learning.job_state import JobPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.config import Pipeline
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.starts import Start

__all__ = ["Replayed", "replay_run"]

_LOOP_S = 0.02
_APART = (
    "records_max=null", "predictions.topic=null", "dead_letters.topic=null", "mlflow.enabled=false",
    "rollback.automatic=false", "snapshots.interval_s=0", "snapshots.interval_records=0",
)  # fmt: skip
"""A replay ends where it is told to, and tells nobody anything but in its own folder."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished replay. `order`: in words, by which order of batches; `digest`: see snapshots/digest.py."""

    name: str
    snapshot: str
    manifest: SnapshotManifest
    order: str
    digest: str


def replay_run(
    place: str,
    start_at: str,
    until: str,
    say: Callable[[str], None],
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
) -> Replayed:
    """Replay the run at `place` from a version or snapshot until offsets, a snapshot or a time.

    Raises:
        PipelineError, SnapshotError, SourceError, OtherRunError: with what to do.

    """
    run = opened_run(place, say)
    old = run.store.manifest(snapshot_meant(start_at, run.book, run.store))
    pipeline = build_pipeline(
        _without_run(old.pipeline), [*overrides, *_APART], origin=f"the pipeline of {place}"
    )
    url = _new_url(run, name)
    folder = Path("runs", url.rpartition("/")[2]).resolve() if "://" in url else Path(url)
    store, made = SnapshotStore(url, say), Run(url.rpartition("/")[2], folder, url)
    try:
        with store.exclusive():
            if store.numbers():
                raise SnapshotError(f"{url} holds snapshots already; give the replay a --run of its own")
            # A file that says otherwise than the run did means it; else the teacher is the run's.
            told = any(text.startswith("distillation") for text in overrides)
            starter = Starter(
                pipeline, run.store, run.url, folder, say, local=True, next_generation=lambda: 1,
                teacher=None if told else recorded_teacher(run.store, old.number),
            )  # fmt: skip
            start, journal = _planned(starter.at(old), run, old, pipeline, until)
            note = {"replay_of": without_secrets(run.url), "from": old.number, "until": until}
            manifest = _learnt(pipeline, start, store, url, note, say)
    finally:
        made.unmake()  # nothing of a replay that has not begun
    digest = state_digest(store, manifest.number)
    return Replayed(made.name, store.folder(manifest.number), manifest, _told(journal), digest)


def _without_run(pipeline: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pipeline.items() if key != "run"}


def _new_url(run: OpenedRun, name: str | None) -> str:
    """The new run's home, beside the one that is replayed."""
    chosen = name or f"{run.name}-replay-{time.strftime('%Y%m%d-%H%M%S')}"
    if "/" in chosen or chosen.startswith("."):
        raise SnapshotError(
            f"expected a name for the new run, but came {chosen!r}; it has no / and begins with no dot"
        )
    return f"{run.url.rpartition('/')[0]}/{chosen}"


def _planned(
    start: Start, run: OpenedRun, old: SnapshotManifest, pipeline: Pipeline, until: str
) -> tuple[Start, Journal]:
    """The start of a replay: the tables of the old snapshot, numbers that begin anew, and an end."""
    (spec,) = start.specs
    first = {partition: begins for partition, (begins, _) in spec.bounds.items()}
    ends = offsets_meant(until, run, pipeline, first)
    journal = journal_of(run, old, first, ends)
    plan = JobPlan(
        start.plan.partitions, replace(start.plan.start, number=0), watch=start.plan.watch,
        ensemble=start.plan.ensemble,
    )  # fmt: skip
    spec = replace(
        spec, moment=plan.moment, batches=journal.batches,
        bounds={partition: (begins, ends[partition]) for partition, begins in first.items()},
    )  # fmt: skip
    return replace(start, plan=plan, specs=[spec], ends=dict.fromkeys(ends)), journal


def _learnt(
    pipeline: Pipeline,
    start: Start,
    store: SnapshotStore,
    url: str,
    note: dict[str, Any],
    say: Callable[[str], None],
) -> SnapshotManifest:
    """Learn from `start` to its end, and write the one snapshot."""
    with LocalCluster(pipeline) as cluster:
        cluster.begin(start)
        writer = SnapshotWriter(cluster, store, pipeline, say)
        cluster.start()
        while True:
            for command in cluster.coordinator.commands():
                match command:
                    case TakeSnapshot():
                        writer.begin(replace(start, run_url=url), command, note)
                    case EndJob():
                        writer.close()
                        assert writer.newest is not None, "the end comes after the last snapshot"
                        return writer.newest
            settled = writer.settled()
            if isinstance(settled, SnapshotFailed):
                raise SnapshotError("the replayed state could not be written; make room, and replay it again")
            if settled is not None:
                cluster.coordinator.tell(settled)
            cluster.check()
            time.sleep(_LOOP_S)


def _told(journal: Journal) -> str:
    order = f"that of the run, {len(journal.batches):,} batches"
    if journal.workers > 1:
        order += f", one after the other where {journal.workers} workers learnt at the same time"
    return order if journal.whole else f"{order}, then that of a bounded stream, for no journals lead further"
