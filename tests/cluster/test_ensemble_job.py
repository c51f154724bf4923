"""Jobs of an ensemble with models of river's: continued, scored, and described wrongly in the pipeline file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cluster.config import Pipeline, PipelineError, build_pipeline
from cluster.job import run_job
from cluster.models.model_files import read_model, write_model
from cluster.models.scorer import Scorer, frame_to_batch, requirements
from cluster.snapshots.model import model_of
from cluster.snapshots.store import SnapshotStore
from learning.ensemble import Ensemble
from learning.ensemble_state import EnsembleState
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.table import Table

pytestmark = pytest.mark.filterwarnings("ignore")

EXPERTS: list[dict[str, Any]] = [
    {"kind": "ftrl", "name": "slow", "alpha": 0.05},
    {"kind": "population"},
    {"kind": "river", "name": "tree", "model": "river.tree.HoeffdingTreeClassifier"},
    {
        "kind": "river", "name": "logistic", "model": "river.linear_model.LogisticRegression",
        "transformers": ["river.preprocessing.StandardScaler"],
    },
]  # fmt: skip
RULES: list[dict[str, Any]] = [{"rule": "fixed_share"}, {"rule": "linucb", "context": ["a"]}]


def pipeline_of(folder: Path, mixing: dict[str, Any], **more: Any) -> Pipeline:
    path = folder / "d.csv"
    if not path.exists():
        rng = np.random.default_rng(3)
        a, c = rng.normal(size=1500), rng.integers(0, 4, 1500)
        y = (a + (c < 2) + rng.normal(0, 0.5, 1500) > 0.5).astype(int)
        pd.DataFrame({"a": a.round(4), "c": np.array([*"pqrs"])[c], "y": y}).to_csv(path, index=False)
    values = {
        "name": "p", "source": {"kind": "file", "path": str(path)}, "batch_records": 100,
        "mlflow": {"enabled": False}, "snapshots": {"path": str(folder), "interval_s": 0},
        "cluster": {"workers": 1},
        "learner": {"kind": "ensemble", "experts": EXPERTS, "mixing": mixing},
    }  # fmt: skip
    return build_pipeline(values | more, [], origin="a test")


def last_model(pipeline: Pipeline) -> tuple[SnapshotStore, int, float]:
    result = run_job(pipeline, Console(quiet=True), local=True)
    url, _, number = result.snapshot.rpartition("/snapshots/")
    return SnapshotStore(url, print), int(number), result.figures.since_start["log_loss"]


@pytest.mark.parametrize("mixing", RULES, ids=[rule["rule"] for rule in RULES])
def test_a_job_that_is_continued_ends_as_one_that_was_not(tmp_path: Path, mixing: dict[str, Any]) -> None:
    """Stopped after 700 of 1,500 records and continued: tables, mixer, river's models and loss agree to the bit.

    The version that comes of it is written, read and scored, and predicts as experts and mixer do by hand.
    """
    last_model(pipeline_of(tmp_path, mixing, run="parts", records_max=700))
    store, number, loss = last_model(pipeline_of(tmp_path, mixing, run="parts"))
    other, last, expected = last_model(pipeline_of(tmp_path, mixing, run="whole"))
    assert loss == expected
    model, whole = model_of(store, number), model_of(other, last)
    assert model.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        if name.endswith((".keys", ".rows")) and not name.startswith("encoder"):
            continue  # rows may lie in another order
        if name == "experts.logistic.graph":
            continue  # so do the weights in a vector of river's; that they are the same, loss and mixer tell
        assert np.array_equal(model.arrays[name], array), name
    write_model(tmp_path / "model", model)
    assert any(line.startswith("river==") for line in requirements(_learner(tmp_path)))
    frame = pd.read_csv(tmp_path / "d.csv")[:200].drop(columns="y")
    scorer, again = Scorer.load(tmp_path / "model"), Scorer(whole)
    predictions = scorer.predict(frame)
    assert predictions.tolist() == again.predict(frame).tolist()
    assert predictions.tolist() == scorer.predict(frame).tolist()
    assert 0.05 < predictions.std() < 0.5


def _learner(folder: Path) -> Ensemble:
    learner = pipeline_of(folder, RULES[0]).learner.build()
    assert isinstance(learner, Ensemble)
    return learner


def test_a_version_predicts_with_frozen_weights(tmp_path: Path) -> None:
    """By hand: each expert's prediction, river's by the saved model, and the mixer's weights as they were."""
    pipeline = pipeline_of(
        tmp_path, RULES[0], features={"numeric": {"standardize": False, "bins_per_sd": 0, "exact": False}}
    )
    store, number, _ = last_model(pipeline)
    model = model_of(store, number)
    write_model(tmp_path / "model", model)
    arrays, ensemble = read_model(tmp_path / "model").arrays, _learner(tmp_path)
    state = EnsembleState(ensemble)
    state.restore(arrays)
    frame = pd.read_csv(tmp_path / "d.csv")[:50].drop(columns="y")
    batch = state.seen(frame_to_batch(frame, {}))
    rows = []
    for spec, keys in zip(ensemble.specs(), ensemble.keys(batch), strict=True):
        table = Table(spec.width)
        table.restore(arrays[f"{spec.name}.keys"], arrays[f"{spec.name}.rows"])
        rows.append(TableRows(table.rows, table.find(keys), int(table.find(np.array([BIAS_KEY]))[0])))
    columns = ensemble.predict(rows, batch)
    weights = [state.mixer.weights()[name] for name in ensemble.names]
    np.testing.assert_allclose(Scorer(model).predict(frame), columns @ weights, rtol=1e-12)


def test_actors_get_sections_of_the_classes_that_they_have(tmp_path: Path) -> None:
    """Else pydantic, in each of them, would take what it gets for something unexpected, and say so in the terminal."""
    pipeline = pipeline_of(tmp_path, RULES[1], drift={"detector": {"kind": "kswin"}})
    assert pickle.loads(pickle.dumps(pipeline)) == pipeline


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        (
            {"experts": [{"kind": "ftrl", "alhpa": 1}, {"kind": "ftrl"}]},
            r"experts\.0\.alhpa; did you mean alpha",
        ),
        ({"experts": [{"kind": "ftrl"}, {"kind": "populaton"}]}, r"experts\.1\.kind should be ftrl or"),
        ({"experts": EXPERTS, "mixing": {"rle": "hedge"}}, r"mixing\.rle; did you mean rule"),
        ({"experts": EXPERTS, "mixing": {"rule": "hedge", "share": 0.1}}, "share means nothing to hedge"),
        ({"experts": [EXPERTS[0], {"kind": "river"}]}, r"experts\.1\.model is missing"),
        (
            {"experts": [EXPERTS[0], {"kind": "river", "model": "river.tree.HoeffdingTreClassifier"}]},
            "the expert river1.*did you mean river.tree.HoeffdingTreeClassifier",
        ),
        ({"experts": [EXPERTS[0], EXPERTS[0]]}, "each its own"),
    ],
)
def test_a_wrong_ensemble_is_told_in_a_sentence(tmp_path: Path, learner: dict[str, Any], said: str) -> None:
    """Unknown keys name the nearest one, in experts too, and what cannot be built is said before a job begins."""
    with pytest.raises(PipelineError, match=said):
        pipeline_of(tmp_path, {}, learner={"kind": "ensemble", **learner})
