"""Who teaches a job (learning/distillation.py): which version of its run, and how a worker comes by it.

The teacher is chosen once, when somebody starts the job: version `distillation.version` of the run, or the newest one
that it has. It stays through deaths, rollbacks and changes of size, and its snapshot stays as each version's does.
Every snapshot says who taught (`teacher.snapshot` of each worker), so a replay has the same teacher.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster.same_run import OtherRunError
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.model import model_of
from cluster.snapshots.store import SnapshotStore
from cluster.versions import VersionBook, snapshot_meant
from learning.distillation import Teacher

if TYPE_CHECKING:
    from cluster.config import Pipeline

__all__ = ["load_teacher", "recorded_teacher", "teacher_of"]

log = logging.getLogger("millrace.workers")


def teacher_of(pipeline: Pipeline, store: SnapshotStore, run_url: str) -> int:
    """The snapshot whose model teaches a job that is started now; 0: none does, or the run has no version yet.

    Raises OtherRunError if the version that is named is none of the run, or not whole.
    """
    wanted = pipeline.distillation
    if not wanted.weight:
        return 0
    try:
        book = VersionBook(run_url)
        if wanted.version is not None:
            number = snapshot_meant(str(wanted.version), book, store)
        else:
            number = max((v.snapshot for v in book.all() if v.version is not None), default=0)
        if number:
            store.verify(number)
    except SnapshotError as error:
        raise OtherRunError(
            f"expected a version of the run that can teach (distillation), but {error}; name one of its versions as "
            "distillation.version, or set distillation.weight to 0"
        ) from error
    return number


def recorded_teacher(store: SnapshotStore, number: int) -> int:
    """The snapshot that taught the job which went on at `number`, as far as the run still tells; 0: none did."""
    behind = min((n for n in store.numbers() if n > number), default=number)
    arrays = store.job_arrays(store.manifest(behind))
    found = [array for name, array in arrays.items() if name.endswith(".teacher.snapshot")]
    return int(found[0][0]) if found else 0


def load_teacher(run_url: str, number: int, weight: float) -> Teacher:
    """The teacher, in the worker's process. Raises SnapshotError, which the job waits for as for any files."""
    from cluster.models.scorer import Scorer  # pandas and pyarrow: for those who have a teacher

    try:
        scorer = Scorer(model_of(SnapshotStore(run_url, log.warning), number))
    except SnapshotError as error:
        # A damaged one is no reason to pass over the snapshot that the job itself goes on from.
        raise SnapshotError(
            f"the teacher, snapshot {number}, cannot be read: {error}; name another version of the run as "
            "distillation.version, or set distillation.weight to 0"
        ) from error
    return Teacher(number, scorer.score, weight)
