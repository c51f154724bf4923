"""The coordinator's half of a snapshot as arrays, and back.

encoder.keys encoder.stats          what all workers' encoders know, merged: what a model scores with
worker3.keys worker3.stats          what worker 3's knows: what it goes on with
metrics.* delays.counts             prequential sums, and delays from produced to learnt
journal.batches                     the batches since the snapshot before (learning/job_state.py)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.models.model_layout import learner_of
from cluster.snapshots.errors import SnapshotDamagedError
from learning.encoding import merge_stats
from learning.job_state import JobState
from learning.metrics import DelayHistogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore
    from learning.job_state import EncoderState

__all__ = ["arrays_of_job", "read_job"]

_WORKER = re.compile(r"worker(\d{1,6})\.keys", re.ASCII)


def arrays_of_job(state: JobState) -> dict[str, NDArray[Any]]:
    """All that is not in the manifest itself."""
    merged = merge_stats([encoder for _, encoder in sorted(state.encoders.items())])
    arrays: dict[str, NDArray[Any]] = {"encoder.keys": merged[0], "encoder.stats": merged[1]}
    for worker, (keys, stats) in state.encoders.items():
        arrays |= {f"worker{worker}.keys": keys, f"worker{worker}.stats": stats}
    arrays |= {f"metrics.{name}": array for name, array in state.metrics.arrays().items()}
    arrays |= {f"delays.{name}": array for name, array in state.delays.arrays().items()}
    return arrays | {"journal.batches": state.journal}


def read_job(store: SnapshotStore, manifest: SnapshotManifest) -> JobState:
    """The state. Raises SnapshotDamagedError for arrays that are not those of the manifest's learner."""
    learner, arrays = learner_of(manifest.pipeline), store.job_arrays(manifest)
    try:
        encoders = {
            int(found[1]): _encoder(arrays, f"worker{found[1]}")
            for found in map(_WORKER.fullmatch, arrays)
            if found
        }
        return JobState(
            manifest.number, manifest.offsets, manifest.records, manifest.dead,
            type(learner.metrics()).of(_section(arrays, "metrics")),
            DelayHistogram.of(_section(arrays, "delays")),
            encoders, manifest.turns, _journal(arrays["journal.batches"]),
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise SnapshotDamagedError(
            f"snapshot {manifest.number} does not hold what a job of the learner {learner.kind} knows: {error}; "
            "go on with the code and the learner that wrote it"
        ) from error


def _section(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{name}.")}


def _encoder(arrays: Mapping[str, NDArray[Any]], prefix: str) -> EncoderState:
    keys, stats = arrays[f"{prefix}.keys"], arrays[f"{prefix}.stats"]
    if keys.dtype != np.uint64 or stats.dtype != np.float64 or stats.shape != (len(keys), 3):
        raise ValueError(f"expected {prefix} as keys u64 (k,) and stats f64 (k, 3)")
    return keys, stats


def _journal(batches: NDArray[Any]) -> NDArray[np.int64]:
    if batches.dtype != np.int64 or batches.ndim != 2 or batches.shape[1] != 4:
        raise ValueError("expected the journal as i64 (n, 4)")
    return batches
