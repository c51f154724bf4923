"""What a run begins with: FTRL from given weights, and a torch model whose base is held while its head learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learning.batch import CATEGORY, Batch
from learning.deep import Deep
from learning.deep_layout import BLOCK, layout_of
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.warm_start import KEYS, ROWS, deep_tables, ftrl_tables
from tests.learning.deep_world import SMALL, Rows, encoded
from tests.streams import cut

LEARNER = Ftrl(alpha=0.05, beta=0.7, l1=0.3, l2=0.2)
WEIGHTS = np.array([1.0, -0.4, 0.0, 2.5, -1.1])
KEYS_OF = np.array([11, 12, 13, 14, int(BIAS_KEY)], np.uint64)
N0 = 40.0
BASED = replace(SMALL, model="mlp", base_parameters=("layers.0", "rows"), freeze_updates=5, base_rate=0.01)


def one(key: int, label: float) -> Batch:
    """One record of one feature."""
    batch = encoded(1)
    return replace(
        batch, keys=np.array([key], np.uint64), values=np.ones(1, np.float32),
        kinds=np.full(1, CATEGORY, np.uint8), offsets=np.array([0, 1]), labels=np.array([label], np.float32),
    )  # fmt: skip


def test_rows_of_given_weights_are_the_closed_form_and_read_as_these_weights() -> None:
    """z0 = -w0 ((beta + sqrt(n0)) / alpha + l2) - sgn(w0) l1, no l1 for the bias; predictions are those of w0."""
    rows = ftrl_tables(LEARNER, KEYS_OF, WEIGHTS, N0)["weights"].rows
    l1 = np.array([0.3, 0.3, 0.3, 0.3, 0.0])
    expected = -WEIGHTS * ((0.7 + np.sqrt(N0)) / 0.05 + 0.2) - np.sign(WEIGHTS) * l1
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-6)
    assert (rows[:, 1] == N0).all()
    for i in range(4):
        table = [TableRows(rows.copy(), np.array([i]), 4)]
        p = LEARNER.predict(table, one(int(KEYS_OF[i]), 1.0))[0]
        assert np.log(p / (1 - p)) == pytest.approx(WEIGHTS[i] + WEIGHTS[4], abs=1e-5)


def test_a_trusted_weight_moves_little_and_zeros_would_lose_it() -> None:
    """The mistake that the closed form is there to prevent: a weight of 1 is 0.08 after one small gradient."""
    rows = ftrl_tables(LEARNER, KEYS_OF, WEIGHTS, N0)["weights"].rows.copy()
    record = one(11, 1.0)
    before = LEARNER.predict([TableRows(rows, np.array([0]), 4)], record)[0]
    LEARNER.learn([TableRows(rows, np.array([0]), 4)], record)
    after = LEARNER.predict([TableRows(rows, np.array([0]), 4)], record)[0]
    assert before < after < before + 0.02


def test_weights_that_come_twice_are_refused() -> None:
    """Which of the two counts would be a matter of luck."""
    with pytest.raises(ValueError, match="distinct"):
        ftrl_tables(LEARNER, np.array([1, 1], np.uint64), np.ones(2), 1.0)


def test_given_parameters_and_rows_are_what_the_model_computes_with() -> None:
    """By name, shape by shape; what is not given begins as always; the way back gives them again."""
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "layers.0.weight": rng.normal(size=(8, 4)).astype(np.float32),
        KEYS: np.array([5, 6], np.uint64),
        ROWS: rng.normal(size=(2, 5)).astype(np.float32),
    }
    learner = replace(SMALL, model="mlp")
    tables = deep_tables(learner, given)
    found = layout_of(learner).unpack(tables["dense"].rows)
    np.testing.assert_array_equal(found["layers.0.weight"], given["layers.0.weight"])
    np.testing.assert_array_equal(found["layers.2.weight"], Rows(learner).parameters()["layers.2.weight"])
    np.testing.assert_array_equal(tables["embeddings"].rows[:, :5], given[ROWS])
    assert (tables["embeddings"].rows[:, 5:] == 0.0).all()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"layers.9.weight": np.zeros(3)}, "layers.9.weight"),
        ({"layers.0.weight": np.zeros((3, 3))}, "shape"),
        ({"layers.0.bias": np.full(8, np.nan)}, "finite"),
        ({KEYS: np.zeros(2, np.uint64), ROWS: np.zeros((2, 5))}, "distinct"),
        ({ROWS: np.zeros((2, 3))}, "embeddings.rows"),
        ({"layers.0.weight": np.zeros((8, 4))}, "layers.0.bias"),
    ],
)
def test_a_base_that_does_not_fit_is_refused(given: dict, reason: str) -> None:
    """Other names, other shapes, no numbers; or less than what is to be held still."""
    with pytest.raises(ValueError, match=reason):
        deep_tables(BASED, given)


def test_the_base_stands_still_and_then_moves_while_the_heads_moments_go_on() -> None:
    """No gradient reaches base or rows in the first five steps; from the sixth on it does, and its moments begin."""
    rows, parts = Rows(BASED), cut(encoded(16 * 12), 16)
    base, _ = layout_of(BASED).groups
    began = rows.blocks()
    for part in parts[:5]:
        rows.learn(part)
    held = rows.blocks()
    assert held[: base.blocks].tobytes() == began[: base.blocks].tobytes(), "parameters, moments and steps"
    head = held[base.blocks :]
    assert (head[:, 0] == 5).all()
    assert np.abs(head[:, 1 + BLOCK : 1 + 2 * BLOCK]).max() > 0
    table = rows.tables[0]
    born = np.zeros_like(table.rows)
    birth = BASED.specs()[0].birth
    assert birth is not None
    birth.fill(table.keys, born)
    assert table.rows.tobytes() == born.tobytes(), "rows are part of this base"
    rows.learn(parts[5])
    moved = rows.blocks()
    assert (moved[: base.blocks, 0] == 1).all()
    assert (moved[base.blocks :, 0] == 6).all()
    size = base.ends[-1]
    step = np.abs(moved[: base.blocks, 1 : 1 + BLOCK] - held[: base.blocks, 1 : 1 + BLOCK]).ravel()[:size]
    gradient = moved[: base.blocks, 1 + BLOCK : 1 + 2 * BLOCK].ravel()[:size] / 0.1
    assert np.count_nonzero(gradient) > size / 3, "the gradient reaches the base"
    np.testing.assert_allclose(
        step[np.abs(gradient) > 1e-6], 0.01, rtol=0.02
    )  # Adam's first step is its own rate
    first = moved[base.blocks :, 1 + BLOCK : 1 + 2 * BLOCK]
    kept = 0.9 * head[:, 1 + BLOCK : 1 + 2 * BLOCK]
    assert np.abs(first - kept).max() < np.abs(first).max(), "the head's moments were not begun anew"
    assert not np.array_equal(table.rows[: len(born)], born)


def test_a_head_that_learns_alone_learns_as_if_the_base_were_a_constant() -> None:
    """While it is held, the head's steps are those of a learner whose base cannot move at all."""
    always = replace(BASED, freeze_updates=2**20)
    held, constant = Rows(BASED), Rows(always)
    for part in cut(encoded(80), 16):
        assert held.learn(part).tobytes() == constant.learn(part).tobytes()
    assert held.state() == constant.state()


def test_a_learner_that_is_all_base_is_refused() -> None:
    """Nothing would learn, and nothing would count the steps until it does."""
    with pytest.raises(ValueError, match="leave at least one out"):
        Rows(Deep(base_parameters=("layers",), freeze_updates=3)).learn(encoded(4))
