"""The torch learner on rows of tables: its steps against plain torch, its randomness, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from learning.batch import ROLE_FIRST, Batch, BatchId
from learning.deep import Deep
from learning.deep_inputs import Inputs
from learning.deep_models import ModelError
from learning.keys import name_key, value_key
from learning.pace import Pace
from tests.learning.deep_world import SMALL, Rows, encoded, log_loss
from tests.streams import cut

RECORDS = 600


class Reference:
    """mlp as a tutorial writes it: torch's own modules and optimisers, keys numbered in a dictionary, no tables."""

    def __init__(self, rows: Rows, batch: Batch) -> None:
        self.of = rows.learner
        keys = list(dict.fromkeys(batch.keys.tolist()))
        self.number = {key: i for i, key in enumerate(keys)}
        width = 1 + self.of.embedding
        born = np.zeros((len(keys), rows.tables[0].rows.shape[1]), np.float32)
        birth = self.of.specs()[0].birth
        assert birth is not None
        birth.fill(np.array(keys, np.uint64), born)
        self.bag = nn.EmbeddingBag.from_pretrained(
            torch.from_numpy(born[:, :width].copy()), mode="sum", freeze=False
        )
        self.layers = nn.Sequential(nn.Linear(self.of.embedding, 8), nn.ReLU(), nn.Linear(8, 1))
        names = {name.removeprefix("layers."): torch.from_numpy(p) for name, p in rows.parameters().items()}
        self.layers.load_state_dict(names)
        self.adam = torch.optim.Adam(self.layers.parameters(), lr=self.of.dense_rate)
        self.squares = torch.zeros(len(keys), 2)

    def step(self, batch: Batch) -> Tensor:
        """Logits before a step, then the step."""
        numbers = torch.tensor([self.number[key] for key in batch.keys.tolist()])
        values, starts = torch.from_numpy(batch.values.copy()), torch.from_numpy(batch.offsets[:-1].copy())
        sums = self.bag(numbers, starts, per_sample_weights=values)
        logits = sums[:, 0] + self.layers(sums[:, 1:])[:, 0]
        loss = nn.BCEWithLogitsLoss(weight=torch.from_numpy(batch.weights))(
            logits, torch.from_numpy(batch.labels.copy())
        )
        if (taught := batch.taught) is not None:
            targets = torch.from_numpy(taught.probabilities.astype(np.float32))
            loss += taught.weight * nn.BCEWithLogitsLoss(weight=torch.from_numpy(batch.weights))(
                logits, targets
            )
        self.adam.zero_grad()
        self.bag.weight.grad = None
        loss.backward()
        self.adam.step()
        assert self.bag.weight.grad is not None
        g = self.bag.weight.grad * len(batch)
        with torch.no_grad():
            self.squares += torch.stack((g[:, 0] ** 2, (g[:, 1:] ** 2).mean(1)), 1)
            root = self.squares.sqrt()
            self.bag.weight[:, 0] -= self.of.weight_rate * g[:, 0] / (1.0 + root[:, 0])
            self.bag.weight[:, 1:] -= self.of.row_rate * g[:, 1:] / (0.03 + root[:, 1:])
        return logits.detach()


def test_steps_are_those_of_plain_torch_on_a_plain_model() -> None:
    """Predictions, vectors and dense parameters after 40 steps: what autograd and torch.optim.Adam make of them."""
    rows, batch = Rows(replace(SMALL, model="mlp")), encoded(RECORDS)
    batch = replace(batch, weights=np.linspace(0.5, 2.0, RECORDS, dtype=np.float32))
    reference = Reference(rows, batch)
    expected = torch.sigmoid(torch.cat([reference.step(part) for part in cut(batch, 16)])).numpy()
    found = np.concatenate([rows.learn(part) for part in cut(batch, 16)])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    weights = rows.tables[0].rows[rows.tables[0].find(np.array(list(reference.number), np.uint64))]
    np.testing.assert_allclose(weights[:, :5], reference.bag.weight.detach().numpy(), atol=2e-5)
    for name, parameter in reference.layers.named_parameters():
        np.testing.assert_allclose(rows.parameters()[f"layers.{name}"], parameter.detach().numpy(), atol=2e-5)


def test_a_factorisation_machine_is_the_sum_over_its_pairs() -> None:
    """The square trick against the double loop of the definition, without layers."""
    rows, batch = Rows(replace(SMALL, birth_scale=0.5)), encoded(32)
    for _ in range(3):
        rows.learn(batch)
    zeroed = rows.parameters()["layers.2.weight"]
    values = rows.tables[0].rows[rows.tables[0].find(batch.keys)][:, :5] * batch.values[:, None]
    found = rows.predict(batch)
    for i in range(4):
        x = values[batch.offsets[i] : batch.offsets[i + 1]].astype(np.float64)
        pairs = [x[a, 1:] * x[b, 1:] for a in range(len(x)) for b in range(a)]
        pooled = np.concatenate((x[:, 1:].sum(0), np.sum(pairs, 0)))
        p = rows.parameters()
        hidden = np.maximum(p["layers.0.weight"] @ pooled + p["layers.0.bias"], 0.0)
        logit = x[:, 0].sum() + np.sum(pairs) + (zeroed @ hidden + p["layers.2.bias"])[0]
        assert found[i] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


@pytest.mark.parametrize(
    "learner",
    [
        SMALL,
        replace(SMALL, model="mlp"),
        replace(SMALL, row_optimizer="adam", weight_rate=0.05, row_rate=0.01),
    ],
)
def test_a_stream_is_learnt(learner: Deep) -> None:
    """Prequential log-loss ends well below that of the base rate."""
    rows, batch = Rows(learner), encoded(8000)
    predictions = np.concatenate([rows.learn(part) for part in cut(batch, 512)])
    later = slice(4000, None)
    base = np.full(4000, batch.labels[later].mean())
    assert log_loss(predictions[later], batch.labels[later]) < log_loss(base, batch.labels[later]) - 0.08


def test_predictions_are_made_before_the_step() -> None:
    """What learn returns for a step is what predict says before it; labels are not used for them."""
    rows, batch = Rows(SMALL), encoded(RECORDS)
    rows.learn(batch)
    later = encoded(16, seed=1)
    before = rows.predict(later)
    known = np.isin(later.keys, rows.tables[0].keys).reshape(16, -1).all(1)
    found = rows.learn(replace(later, labels=1.0 - later.labels))
    np.testing.assert_allclose(found[known], before[known], atol=1e-6)


@pytest.mark.parametrize("cut_at", [(600,), (160, 440), (16, 32, 552)])
def test_batches_that_end_where_steps_do_learn_the_same(cut_at: tuple[int, ...]) -> None:
    """A batch is only a way to carry steps: cuts between them change no bit."""
    whole, parts, batch = Rows(SMALL), Rows(SMALL), encoded(RECORDS)
    expected, found, first = whole.learn(batch), [], 0
    for size in cut_at:
        found.append(parts.learn(cut(_slice(batch, first, first + size), size)[0]))
        first += size
    assert np.concatenate(found).tobytes() == expected.tobytes()
    assert parts.state() == whole.state()


def _slice(batch: Batch, first: int, last: int) -> Batch:
    entries, records = slice(batch.offsets[first], batch.offsets[last]), slice(first, last)
    fields = {
        name: getattr(batch, name)[records]
        for name in ("labels", "weights", "event_times_s", "produced_s", "positions")
    }
    return replace(
        batch, batch_id=BatchId(0, first, last), keys=batch.keys[entries], values=batch.values[entries],
        kinds=batch.kinds[entries], offsets=batch.offsets[first : last + 1] - batch.offsets[first], **fields,
    )  # fmt: skip


def test_dropout_depends_on_seed_and_place_alone() -> None:
    """A replay of a batch drops the same units, whatever torch's own generator did; another place, others."""
    learner, batch = replace(SMALL, dropout=0.5), encoded(64)
    states = []
    for number in range(2):
        torch.manual_seed(number)
        rows = Rows(learner)
        rows.learn(batch)
        states.append(rows.state())
    elsewhere = Rows(learner)
    elsewhere.learn(replace(batch, batch_id=BatchId(0, 64, 128)))
    assert states[0] == states[1] != elsewhere.state()


def test_the_number_of_threads_of_the_machine_does_not_matter() -> None:
    """The learner sets its own, of the thread in which it learns."""
    batch, states = encoded(2000), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rows = Rows(replace(SMALL, hidden=(64, 32), embedding=16, step_records=1000))
        rows.learn(batch)
        states.append(rows.state())
    assert states[0] == states[1]


def test_a_value_that_overflows_costs_its_step_and_no_more() -> None:
    """A gradient that is not finite counts as 0, so one absurd record does not turn the model into NaN."""
    rows, batch = Rows(SMALL), encoded(64)
    values = batch.values.copy()
    values[3] = 3e38
    rows.learn(replace(batch, values=values))
    rows.learn(batch)
    assert all(np.isfinite(table.rows).all() for table in rows.tables)


def test_batches_without_records_and_records_without_entries_are_no_harm() -> None:
    """A stretch of dead letters, and records whose features are all missing: they get what the biases say."""
    batch = encoded(5)
    bare = replace(
        batch,
        keys=batch.keys[:0],
        values=batch.values[:0],
        kinds=batch.kinds[:0],
        offsets=np.zeros(6, np.int64),
    )
    for model in ("deepfm", "mlp", "two_tower"):
        rows = Rows(replace(SMALL, model=model))
        assert rows.learn(Batch.empty(BatchId(0, 0, 0))).shape == (0,)
        found = rows.learn(bare)
        assert len(set(found.tolist())) == 1
        assert rows.predict(bare)[0] != found[0]


def test_a_raised_pace_multiplies_the_step_and_not_what_is_remembered() -> None:
    """A reaction to drift: twice the way from the same rows, the same sums of squares."""
    ways = []
    for rate in (1.0, 2.0):
        rows = Rows(SMALL)
        rows.learn(replace(encoded(16), pace=Pace(rate)))
        ways.append(rows.tables[0].rows.copy())
    np.testing.assert_allclose(ways[1][:, 0], 2.0 * ways[0][:, 0], rtol=1e-5)
    assert ways[1][:, 5:].tobytes() == ways[0][:, 5:].tobytes()


class Plain(nn.Module):
    """A model of the user's own."""

    def __init__(self, embedding: int, scale: float = 1.0) -> None:
        super().__init__()
        self.out = nn.Linear(embedding, 1)
        self.scale = scale

    def forward(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self.out(inputs.entries().new_zeros(1) + inputs.sums()[:, 1:]).squeeze(1)
        return self.scale * logits


class Counting(nn.Module):
    """One with running statistics."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(embedding)

    def forward(self, inputs: Inputs) -> Tensor:
        normal: Tensor = self.norm(inputs.sums()[:, 1:])
        return normal.sum(1)


@pytest.fixture
def own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `own_models`, as a pipeline file has it imported."""
    module = types.ModuleType("own_models")
    module.__dict__.update(Plain=Plain, Counting=Counting, number=3)
    monkeypatch.setitem(sys.modules, "own_models", module)


@pytest.mark.usefixtures("own_models")
def test_a_model_of_the_users_own_learns() -> None:
    """Any module that takes the inputs; its constructor gets what the pipeline says."""
    rows, batch = Rows(replace(SMALL, model="own_models.Plain", model_options={"scale": 0.5})), encoded(2000)
    predictions = rows.learn(batch)
    assert set(rows.parameters()) == {"out.weight", "out.bias"}
    assert log_loss(predictions[1000:], batch.labels[1000:]) < 0.69


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("own_models.Counting", "running"),
        ("own_models.number", "torch.nn.Module"),
        ("nowhere.Model", "import nowhere"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_a_sentence(model: str, reason: str) -> None:
    """Running statistics would be lost; what is no module is none; nothing is imported that nobody imported."""
    with pytest.raises(ModelError, match=reason):
        Rows(replace(SMALL, model=model)).learn(encoded(4))
    assert "nowhere" not in sys.modules


def with_role(batch: Batch, feature: str, texts: list[str]) -> Batch:
    """Each record's first entry becomes the role's."""
    keys, kinds, values = batch.keys.copy(), batch.kinds.copy(), batch.values.copy()
    first = batch.offsets[:-1]
    keys[first] = [value_key(name_key(feature), text) for text in texts]
    kinds[first], values[first] = ROLE_FIRST, 1.0
    return replace(batch, keys=keys, kinds=kinds, values=values)


def test_a_second_label_is_learnt_and_is_no_input() -> None:
    """multi_task: `like` beside the click; where it is neither yes nor no, only the click is learnt."""
    learner = replace(SMALL, model="multi_task", second_label="like")
    batch = encoded(6000)
    likes = batch.labels * (np.random.default_rng(0).random(6000) < 0.8)
    texts = [str(int(like)) if i % 3 else "unknown" for i, like in enumerate(likes)]
    marked = with_role(batch, "like", texts)
    rows = Rows(learner)
    found = np.concatenate([rows.learn(part) for part in cut(marked, 500)])
    assert found.shape == (6000, 2)
    later = slice(3000, None)
    for column, labels in ((0, batch.labels), (1, likes)):
        base = np.full(3000, labels[later].mean())
        assert log_loss(found[later, column], labels[later]) < log_loss(base, labels[later]) - 0.01
    assert not np.isin(marked.keys[marked.kinds == ROLE_FIRST], rows.tables[0].keys).any()
    assert learner.more_labels == ("like",)


def test_two_towers_learn_from_choices_and_items_of_the_same_step() -> None:
    """All labels are 1; the negatives stand for what was not chosen, and none is a record's own item."""
    learner = Deep(model="two_tower", embedding=8, hidden=(16,), negatives=3, step_records=32, row_rate=0.2)
    rng = np.random.default_rng(0)
    users = rng.integers(0, 40, 6000)
    items = (users % 4) * 10 + rng.integers(0, 10, 6000)  # each user likes ten of forty items
    batch = encoded(6000)
    keys = np.stack((users + 1, items + 1001), 1).astype(np.uint64).ravel() * np.uint64(0x9E3779B97F4A7C15)
    kinds = np.tile(np.array([ROLE_FIRST, ROLE_FIRST + 1], np.uint8), 6000)
    batch = replace(
        batch, keys=keys, kinds=kinds, values=np.ones(12_000, np.float32), labels=np.ones(6000, np.float32),
        offsets=np.arange(6001, dtype=np.int64) * 2,
    )  # fmt: skip
    rows, metrics = Rows(learner), learner.metrics()
    for part in cut(batch, 250):
        found = rows.learn(part)
        if part.batch_id.first_offset >= 3000:
            learner.judge(metrics, found, part)
    assert found.shape == (250, 4)
    assert np.isnan(rows.learn(cut(batch, 1)[0])[:, 1:]).all(), "a record alone has nothing to compare with"
    assert metrics.summary()["auc"] > 0.65


def test_a_pipeline_without_torch_learners_does_not_load_torch() -> None:
    """Its import takes seconds and memory in every process."""
    code = (
        "import sys; from cluster.config import build_pipeline as b;"
        "[b({'name': 'a', 'source': {'topic': 't', 'kind': 'kafka'}, 'learner': {'kind': k}}, [], origin='x')"
        " for k in ('ftrl', 'deep')]; import cluster.actors_on_ray; print('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "resnet"}, "package.module.Class"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"embedding": 0}, "embedding"),
        ({"dense_rate": float("nan")}, "dense_rate"),
        ({"model": "multi_task"}, "second_label"),
        ({"second_label": "like"}, "second_label"),
        ({"negatives": 2}, "two_tower"),
        ({"model": "two_tower", "user": "a", "item": "a"}, "two features"),
        ({"freeze_updates": 5}, "base_parameters"),
        ({"model_options": {"a": 1}}, "model_options"),
        ({"row_optimizer": "sgd"}, "adagrad"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(fields: dict, reason: str) -> None:
    """In a sentence that names the parameter, before anything starts."""
    with pytest.raises(ValueError, match=reason):
        Deep(**fields)


@pytest.mark.gpu
def test_a_gpu_learns_the_same_within_tolerance() -> None:
    """The same code on another device: predictions after 40 steps within a thousandth, rows within a hundredth."""
    batch, found = encoded(2000), []
    for device in ("cpu", "cuda"):
        rows = Rows(replace(SMALL, device=device))
        found.append(
            (np.concatenate([rows.learn(part) for part in cut(batch, 64)]), rows.tables[0].rows.copy())
        )
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-2)
