"""A job with a teacher: a crash changes nothing, and the teacher stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cluster.models.model_files import ModelState
from cluster.models.scorer import Scorer
from learning.distillation import Teacher
from tests.actors.test_recovery import DEEP, SIZE, Disk, Job, records_for, undisturbed

LEARNER = {"kind": "deep", "embedding": 4, "hidden": [8], "dropout": 0.1, "step_records": 50}


def model_at(job: Job, number: int) -> ModelState:
    """The model in a snapshot of a job."""
    snapshot = job.disk.finished[number]
    own = snapshot.state.workers[0]
    arrays = {name: own[name].copy() for name in ("encoder.keys", "encoder.stats")}
    for name, state in snapshot.tables.items():
        arrays |= {f"{name}.keys": state.keys.copy(), f"{name}.rows": state.rows.copy()}
    return ModelState({"learner": LEARNER}, arrays, snapshot.state.offsets, snapshot.state.records, {})


def test_a_job_with_a_teacher_that_crashes_ends_as_one_that_does_not() -> None:
    """Each generation loads it anew. It does change what is learnt, its rows stay, and snapshots tell of it."""
    batches = records_for(DEEP, 1500, SIZE)
    without = undisturbed(DEEP, {}, batches)
    model = model_at(without, 1)
    before = {name: array.tobytes() for name, array in model.arrays.items()}

    def teacher() -> Teacher:
        return Teacher(1, Scorer(replace(model)).score, 0.7)

    for rehearses in (False, True):
        job = Job(DEEP, {}, batches, Disk(late=2), rehearses=rehearses, teacher=teacher)
        for generation, (shards, dies_after) in enumerate([(2, 5), (2, 12), (3, 15), (1, None)], 1):
            job.live(generation, shards, dies_after)
        calm = Job(DEEP, {}, batches, Disk(late=0), rehearses=rehearses, teacher=teacher)
        calm.live(1, 1)
        job.assert_same(calm)
        last = calm.disk.finished[max(calm.disk.finished)].state
        assert last.workers[0]["teacher.snapshot"].tolist() == [1]
        at = max(without.predictions)
        assert not np.array_equal(without.predictions[at], calm.predictions[at])
    assert before == {name: array.tobytes() for name, array in model.arrays.items()}
