"""A torch learner's models outside of the job: scored from a folder and by MLflow, and what a recorded name may do."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, PipelineError, build_pipeline
from cluster.job import JobResult, run_job
from cluster.models.scorer import Scorer, copy_code, requirements
from cluster.snapshots.model import load_model
from learning.deep import Deep
from learning.deep_models import ModelError
from tests.cluster.topics import produce, records

OWN = """
from torch import nn


class Linear(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.bias = nn.Parameter(nn.Linear(1, 1).bias.detach())

    def forward(self, inputs):
        return self.bias + inputs.sums()[:, 0]
"""


def pipeline_of(broker: Broker, topic: str, folder: Path, learner: dict) -> Pipeline:
    """A short bounded job."""
    values = {
        "name": "deep", "run": "r", "batch_records": 64,
        "source": {
            "kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": broker.bootstrap_servers,
        },
        "learner": {"kind": "deep", "embedding": 4, "hidden": [8], "step_records": 32, **learner},
        "snapshots": {"path": str(folder)}, "mlflow": {"enabled": False},
    }  # fmt: skip
    return build_pipeline(values, [], origin="test")


def learn(pipeline: Pipeline) -> JobResult:
    """In this process."""
    return run_job(pipeline, Console(file=io.StringIO()), local=True)


def test_a_snapshot_scores_frames_without_the_second_label(broker: Broker, tmp_path: Path) -> None:
    """`like` is a label of the stream; whoever asks for a prediction has none."""
    rows = records(600)
    for i, row in enumerate(rows):
        row["features"]["like"] = i % 2
    produce(broker, "deep-likes", rows, 1)
    learner = {"model": "multi_task", "second_label": "like"}
    done = learn(pipeline_of(broker, "deep-likes", tmp_path, learner))
    assert done.figures.status.records == 600
    scorer = Scorer(load_model(done.snapshot))
    frame = pd.DataFrame([row["features"] for row in rows[-100:]]).drop(columns="city")
    without = scorer.predict(frame.drop(columns="like"))
    assert without.between(0.0, 1.0).all()
    assert without.nunique() > 50
    np.testing.assert_array_equal(without, scorer.predict(frame))


def test_the_code_of_a_registered_model_is_whole(tmp_path: Path) -> None:
    """What is imported inside of functions, to spare others torch, is shipped too; torch is among the requirements."""
    folders = copy_code(tmp_path)
    assert (tmp_path / "learning" / "deep_training.py").is_file()
    assert {"cluster", "learning"} <= {folder.name for folder in folders}
    code = "import cluster.models.scorer, learning.deep_training as t; print(t.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path))
    assert any(line.startswith("torch==") and "+" not in line for line in requirements(Deep()))


def test_a_recorded_name_imports_nothing(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline file's model is imported; a snapshot that names it is only scored by who has imported it."""
    (tmp_path / "own_deep.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    produce(broker, "deep-own", records(300), 1)
    done = learn(pipeline_of(broker, "deep-own", tmp_path / "runs", {"model": "own_deep.Linear"}))
    frame = pd.DataFrame([row["features"] for row in records(20)])
    assert Scorer(load_model(done.snapshot)).predict(frame).between(0.0, 1.0).all()
    monkeypatch.delitem(sys.modules, "own_deep")
    # Another seed: what was built from the module while it was there is not built again.
    state = load_model(done.snapshot)
    state.pipeline["learner"]["seed"] = 1
    with pytest.raises(ModelError, match="import own_deep"):
        Scorer(state).predict(frame)
    assert "own_deep" not in sys.modules
    with pytest.raises(PipelineError, match="no_such_module"):
        pipeline_of(broker, "deep-own", tmp_path, {"model": "no_such_module.Model"})
