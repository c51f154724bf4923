"""Several learners as one: tables, columns, roles and merges are each one's own; what does not fit is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from learning.batch import ROLE_FIRST, Batch, BatchId
from learning.ensemble import Ensemble, Expert
from learning.factors import Factors
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY
from learning.learner import Learner, TableRows
from learning.learners import learner_from
from learning.mixer import Mixing
from learning.population import Population
from learning.river_build import RiverSettings
from learning.table import Table
from tests.learning.river_models import records

RIVER = RiverSettings("river.naive_bayes.BernoulliNB")
PAIR = Ensemble((Expert("slow", Ftrl(alpha=0.05)), Expert("tree", RIVER), Expert("mixed", Population())))


def rows_of(learner: Learner, tables: list[Table], batch: Batch, *, born: bool = True) -> list[TableRows]:
    """A batch's share of tables, as a store gives it."""
    found = []
    for spec, table, keys in zip(learner.specs(), tables, learner.keys(batch), strict=True):
        bias = int(table.locate(np.array([BIAS_KEY]))[0]) if spec.bias else -1
        index = table.locate(keys) if born else table.find(keys)
        found.append(TableRows(table.rows, index, bias))
    return found


def tables_of(learner: Learner) -> list[Table]:
    return [Table(spec.width, birth=spec.birth) for spec in learner.specs()]


def test_tables_are_called_by_expert() -> None:
    """Names of tables say whose they are, and a model of river's has none."""
    assert [spec.name for spec in PAIR.specs()] == ["slow_weights", "mixed_weights", "mixed_mixture"]
    assert list(PAIR.outside) == ["tree"]
    assert PAIR.names == ("slow", "tree", "mixed")


def test_each_expert_learns_as_if_it_were_alone() -> None:
    """Columns are what each learner gives by itself, to the bit, before and after; river's is what was given."""
    whole = tables_of(PAIR)
    alone = {
        name: (learner, tables_of(learner))
        for name, learner in PAIR.experts
        if not isinstance(learner, RiverSettings)
    }
    for seed in range(3):
        batch = records(200, seed)
        given = np.random.default_rng(seed).random((200, 1))
        sent = dataclasses.replace(batch, given=given)
        before = PAIR.predict(rows_of(PAIR, whole, sent), sent)
        columns = PAIR.learn(rows_of(PAIR, whole, sent), sent)
        assert columns.shape == (200, 3)
        assert columns[:, 1].tolist() == before[:, 1].tolist() == given[:, 0].tolist()
        for i, name in ((0, "slow"), (2, "mixed")):
            learner, tables = alone[name]
            assert before[:, i].tolist() == learner.predict(rows_of(learner, tables, batch), batch).tolist()
            assert columns[:, i].tolist() == learner.learn(rows_of(learner, tables, batch), batch).tolist()
    for table, other in zip(whole, [*alone["slow"][1], *alone["mixed"][1]], strict=True):
        assert table.rows.tolist() == other.rows.tolist()


def test_a_merge_is_that_of_the_expert_whose_table_it_is() -> None:
    """Walks of two workers over rows of either expert, merged as the expert alone would."""
    rng = np.random.default_rng(0)
    for table, (name, own) in enumerate((("slow", 0), ("mixed", 0), ("mixed", 1))):
        learner: Any = dict(PAIR.experts)[name]
        width = learner.specs()[own].width
        rows, base, end = (np.abs(rng.normal(size=(5, width))).astype(np.float32) for _ in range(3))
        end = base + np.abs(end)
        rows = base + np.abs(rows)
        merged, alone, at = rows.copy(), rows.copy(), np.arange(5)
        moved = PAIR.merge(table, merged, at, base, end, -1, 1.5)
        assert moved == learner.merge(own, alone, at, base, end, -1, 1.5)
        assert merged.tolist() == alone.tolist()


def test_coupling_is_the_strongest() -> None:
    """One number travels with a push: that of the expert whose coordinates move together most."""
    batch = dataclasses.replace(records(100), given=np.full((100, 1), 0.5))
    tables = tables_of(PAIR)
    rows = rows_of(PAIR, tables, batch)
    bases = [table.rows.copy() for table in rows]
    PAIR.learn(rows, batch)
    slow, mixed = (dict(PAIR.experts)[name] for name in ("slow", "mixed"))
    assert isinstance(slow, Ftrl)
    assert isinstance(mixed, Population)
    found = (slow.coupling(bases[:1], rows[:1], batch), mixed.coupling(bases[1:], rows[1:], batch))
    assert PAIR.coupling(bases, rows, batch) == max(found)


def ratings(n: int, kinds: list[int]) -> Batch:
    """Records of three roles each, of which an expert knows two."""
    rng = np.random.default_rng(5)
    keys = np.column_stack([rng.integers(1, 9, n) + 100 * role for role in range(3)]).astype(np.uint64)
    return dataclasses.replace(
        Batch.empty(BatchId(0, 0, n)), keys=keys.ravel(), values=np.ones(3 * n, np.float32),
        kinds=np.tile(np.array(kinds, np.uint8), n), offsets=np.arange(0, 3 * n + 1, 3),
        labels=rng.integers(1, 6, n).astype(np.float32), weights=np.ones(n, np.float32), positions=np.arange(n),
    )  # fmt: skip


def test_experts_have_roles_of_their_own() -> None:
    """Two factor learners, of user and item and of user and shop: each sees its own, as if it were alone."""
    experts = (Expert("items", Factors(factors=2)), Expert("shops", Factors(item="shop", factors=2)))
    both = Ensemble(experts)
    assert both.roles == ("user", "item", "shop")
    assert both.of_ratings
    assert not both.encodes
    batch = ratings(80, [ROLE_FIRST, ROLE_FIRST + 1, ROLE_FIRST + 2])
    columns = both.learn(rows_of(both, tables_of(both), batch), batch)
    for i, kinds in enumerate(([ROLE_FIRST, ROLE_FIRST + 1, 0], [ROLE_FIRST, 0, ROLE_FIRST + 1])):
        alone, learner = ratings(80, kinds), experts[i].learner
        assert isinstance(learner, Factors)
        assert (
            columns[:, i].tolist()
            == learner.learn(rows_of(learner, tables_of(learner), alone), alone).tolist()
        )


def test_a_batch_without_the_predictions_of_outside_is_refused() -> None:
    """The worker forgot to ask its river models."""
    batch = records(10)
    with pytest.raises(ValueError, match="predictions of the experts tree as given"):
        PAIR.learn(rows_of(PAIR, tables_of(PAIR), batch), batch)


def test_batches_keep_what_was_given() -> None:
    """Joined batches have the given predictions of both; where one has none, neither has the whole."""
    one, two = (
        dataclasses.replace(records(5, seed), given=np.full((5, 1), float(seed))) for seed in range(2)
    )
    joined = Batch.concat(BatchId(0, 0, 10), [one, two])
    assert joined.given is not None
    assert joined.given[:, 0].tolist() == [0.0] * 5 + [1.0] * 5
    assert Batch.concat(BatchId(0, 0, 10), [one, records(5)]).given is None


PAIR_OF_FTRL = [{"kind": "ftrl"}, {"kind": "ftrl"}]


@pytest.mark.parametrize(
    ("experts", "said"),
    [
        ([{"kind": "ftrl"}], "2 to 64 experts"),
        ([{"kind": "ftrl", "name": "a"}, {"kind": "ftrl", "name": "a"}], "each its own"),
        ([{"kind": "ftrl", "name": "a-b"}, {"kind": "ftrl"}], "letters, digits and _"),
        ([{"kind": "ftrl", "name": "mixture"}, {"kind": "ftrl"}], "none 'mixture'"),
        ([{"kind": "river", "model": "river.x.Y"}] * 2, "each its own|with tables"),
        ([{"kind": "ftrl"}, {"kind": "factors"}], "predict the same thing"),
        ([{"kind": "factors"}, {"kind": "factors", "feedback": "implicit"}], "feedback: implicit"),
        ([{"kind": "ftrl"}, {"kind": "ensemble", "experts": PAIR_OF_FTRL}], "no expert of another"),
        ([{"kind": "ftrl"}, {"kind": "ftlr"}], "expected a learner of kind"),
        ([{"kind": "ftrl"}, {"kind": "ftrl", "alhpa": 1}], "no such settings as alhpa"),
        ([{"kind": "factors", "rating_max": 2.0}, {"kind": "factors", "rating_min": 3.0}], "no label fits"),
        ([3], "list of learners"),
    ],
)  # fmt: skip
def test_experts_that_do_not_fit_are_refused(experts: list, said: str) -> None:
    """Mixtures of kinds, ensembles in ensembles, and names that are no names of tables, each in a sentence."""
    with pytest.raises(ValueError, match=said):
        learner_from({"kind": "ensemble", "experts": experts})


def test_a_recorded_section_builds_the_same() -> None:
    """Lists instead of tuples, names left out: as JSON brings a pipeline back."""
    made = learner_from(
        {
            "kind": "ensemble",
            "experts": [
                {"kind": "ftrl", "alpha": 0.2},
                {"kind": "river", "model": RIVER.model, "arguments": []},
            ],
            "mixing": {"rule": "linucb", "context": ["x"]},
        }
    )
    assert made == Ensemble(
        (Expert("ftrl0", Ftrl(alpha=0.2)), Expert("river1", RIVER)), Mixing("linucb", context=("x",))
    )


def test_a_context_needs_z_scores() -> None:
    """Factors take entries as they were sent: a bandit over them has no context."""
    with pytest.raises(ValueError, match="made of z-scores"):
        Ensemble((Expert("a", Factors()), Expert("b", Factors())), Mixing("linucb", context=("x",)))
