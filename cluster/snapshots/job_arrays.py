"""The coordinator's half of a snapshot as arrays, and back.

encoder.keys encoder.stats          what all workers' encoders know, merged: what a model scores with
mixer.* experts.NAME.*              of an ensemble likewise (learning/ensemble_state.py)
worker3.*                           what worker 3 knows by itself (learning/worker_state.py): what it goes on with
metrics.* delays.counts             prequential sums, and delays from produced to learnt
drift.*                             what is known about drift (learning/watching.py)
behind.json                         what happens to rows and experts right behind the snapshot (learning/job_state.py)
journal.batches                     the batches since the snapshot before (learning/job_state.py)
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.models.model_layout import learner_of
from cluster.snapshots.errors import SnapshotDamagedError
from learning.ensemble_state import of_all_workers
from learning.job_state import JobState
from learning.metrics import DelayHistogram
from learning.state_arrays import joined, section
from learning.worker_state import encoder_of, merged_encoders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore

__all__ = ["arrays_of_job", "read_job"]

_WORKER = re.compile(r"worker(\d{1,6})\.encoder\.keys", re.ASCII)


def arrays_of_job(state: JobState) -> dict[str, NDArray[Any]]:
    """All that is not in the manifest itself."""
    merged = merged_encoders(of for _, of in sorted(state.workers.items()))
    arrays: dict[str, NDArray[Any]] = {"encoder.keys": merged[0], "encoder.stats": merged[1]}
    arrays |= of_all_workers(of for _, of in sorted(state.workers.items()))
    for worker, own in state.workers.items():
        arrays |= joined(f"worker{worker}", own)
    arrays |= joined("metrics", state.metrics.arrays()) | joined("delays", state.delays.arrays())
    arrays |= joined("drift", state.watch)
    behind = json.dumps({"changes": state.changes, "renewed": state.renewed}).encode()
    return arrays | {"journal.batches": state.journal, "behind.json": np.frombuffer(behind, np.uint8).copy()}


def read_job(store: SnapshotStore, manifest: SnapshotManifest) -> JobState:
    """The state. Raises SnapshotDamagedError for arrays that are not those of the manifest's learner."""
    learner, arrays = learner_of(manifest.pipeline), store.job_arrays(manifest)
    try:
        workers = {
            int(found[1]): section(arrays, f"worker{found[1]}")
            for found in map(_WORKER.fullmatch, arrays)
            if found
        }
        for own in workers.values():
            encoder_of(own)
        return JobState(
            manifest.number, manifest.offsets, manifest.records, manifest.dead,
            type(learner.metrics()).of(section(arrays, "metrics")),
            DelayHistogram.of(section(arrays, "delays")),
            workers, manifest.turns, _journal(arrays["journal.batches"]),
            section(arrays, "drift"), *_behind(arrays["behind.json"]),
        )  # fmt: skip
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise SnapshotDamagedError(
            f"snapshot {manifest.number} does not hold what a job of the learner {learner.kind} knows: {error}; "
            "go on with the code and the learner that wrote it"
        ) from error


def _behind(array: NDArray[Any]) -> tuple[tuple[tuple[int, float], ...], tuple[str, ...]]:
    """What happens right behind the snapshot: changes of rows, and experts that begin afresh."""
    values = json.loads(array.tobytes())
    return tuple((int(t), float(kept)) for t, kept in values["changes"]), tuple(map(str, values["renewed"]))


def _journal(batches: NDArray[Any]) -> NDArray[np.int64]:
    if batches.dtype != np.int64 or batches.ndim != 2 or batches.shape[1] != 4:
        raise ValueError("expected the journal as i64 (n, 4)")
    return batches
