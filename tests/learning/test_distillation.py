"""A teacher beside the labels: the loss against plain torch, whom it leaves alone, and what it is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from learning.batch import Batch, BatchId
from learning.deep import Deep
from learning.distillation import Taught, Teacher
from learning.rehearsal import Rehearsal
from learning.worker_state import WorkerState
from tests.learning.deep_world import SMALL, Rows, encoded, log_loss
from tests.learning.test_deep import Reference
from tests.streams import cut

RECORDS = 480
LEARNERS = (SMALL, replace(SMALL, model="mlp", row_optimizer="adam"))


def taught_by(batch: Batch, weight: float, seed: int = 5) -> Batch:
    """The batch with what some teacher says of it."""
    probabilities = np.random.default_rng(seed).uniform(0.05, 0.95, len(batch))
    return replace(batch, taught=Taught(probabilities, weight))


@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_steps_are_those_of_both_losses_in_plain_torch(weight: float) -> None:
    """BCE with the label plus `weight` times BCE with the teacher's probability, by autograd and torch's optimisers."""
    rows, batch = Rows(replace(SMALL, model="mlp")), encoded(RECORDS)
    batch = replace(batch, weights=np.linspace(0.5, 2.0, RECORDS, dtype=np.float32))
    parts = [taught_by(part, weight, seed) for seed, part in enumerate(cut(batch, 16))]
    reference, without = Reference(rows, batch), Rows(rows.learner)
    expected = torch.sigmoid(torch.cat([reference.step(part) for part in parts])).numpy()
    found = np.concatenate([rows.learn(part) for part in parts])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    vectors = rows.tables[0].rows[rows.tables[0].find(np.array(list(reference.number), np.uint64))]
    np.testing.assert_allclose(vectors[:, :5], reference.bag.weight.detach().numpy(), atol=2e-5)
    for name, parameter in reference.layers.named_parameters():
        np.testing.assert_allclose(rows.parameters()[f"layers.{name}"], parameter.detach().numpy(), atol=2e-5)
    plain = np.concatenate([without.learn(part) for part in cut(batch, 16)])
    assert np.abs(plain - expected).max() > 0.01, "the teacher has a say"


@pytest.mark.parametrize("learner", LEARNERS, ids=["deepfm", "mlp-adam"])
def test_a_teacher_of_no_weight_or_that_was_not_asked_changes_nothing(learner: Deep) -> None:
    """To the bit."""
    batch = encoded(RECORDS)
    states = []
    for taught in (None, Taught(np.full(RECORDS, 0.9), 0.0), Taught(np.full(RECORDS, np.nan), 3.0)):
        rows = Rows(learner)
        rows.learn(replace(batch, taught=taught))
        states.append(rows.state())
    assert states[0] == states[1] == states[2]


def test_a_batch_is_not_changed_by_what_is_learnt_of_it() -> None:
    """Metrics see the labels and weights as they came."""
    batch = taught_by(encoded(64), 1.0)
    labels, weights = batch.labels.copy(), batch.weights.copy()
    Rows(SMALL).learn(batch)
    assert batch.labels.tobytes() == labels.tobytes()
    assert batch.weights.tobytes() == weights.tobytes()


def test_old_records_have_no_teacher() -> None:
    """They come behind a batch that has one, with their own labels and weights; the batch's own keep theirs."""
    kept = Rehearsal(100, 0.5)
    kept.extend(taught_by(encoded(40), 1.0))
    batch = taught_by(encoded(40, seed=1), 1.0)
    found = kept.extend(batch)
    assert len(found) == 60
    assert found.taught is not None
    assert batch.taught is not None
    assert found.taught.probabilities[:40].tobytes() == batch.taught.probabilities.tobytes()
    labels, weights = found.taught.softened(found.labels, found.weights)
    assert labels[40:].tobytes() == found.labels[40:].tobytes()
    assert weights[40:].tobytes() == found.weights[40:].tobytes()
    assert (weights[:40] == 2 * found.weights[:40]).all()


def test_a_worker_asks_its_teacher_about_each_batch_as_it_was_read() -> None:
    """Before its own encoder has seen it; a batch without records is nothing to ask about; snapshots say who taught."""
    asked = []

    def score(batch: Batch) -> np.ndarray:
        asked.append(batch)
        return np.full(len(batch), 0.25)

    state, batch = WorkerState(teacher=Teacher(7, score, 0.5)), encoded(30)
    found = state.prepare(batch)
    assert found.taught is not None
    assert (found.taught.probabilities == 0.25).all()
    empty = state.prepare(Batch.empty(BatchId(0, 30, 40)))
    assert empty.taught is not None
    assert len(empty.taught.probabilities) == 0
    assert len(asked) == 1
    assert asked[0] is batch
    assert state.arrays()["teacher.snapshot"].tolist() == [7]
    assert "teacher.snapshot" not in WorkerState().arrays()


def test_what_the_teacher_knew_is_forgotten_less() -> None:
    """The labels of a second stretch contradict the first: who is taught by the model of then still knows it better."""
    first, second = encoded(4000), encoded(4000, seed=1)
    second = replace(second, labels=1.0 - second.labels)
    losses = []
    for weight in (0.0, 2.0):
        rows, old = Rows(SMALL), Rows(SMALL)
        for part in cut(first, 100):
            rows.learn(part)
            old.learn(part)
        before = old.state()
        teacher = Teacher(1, old.predict, weight)
        for part in cut(second, 100):
            rows.learn(replace(part, taught=teacher.of(part)))
        assert old.state() == before, "a teacher learns nothing"
        losses.append(log_loss(rows.predict(first), first.labels))
    assert losses[1] < losses[0] - 0.1
