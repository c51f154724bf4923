from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cluster.models import registry
from cluster.models.mlflow_run import RegistryError, tracking_uri_of
from cluster.models.model_files import ModelState, write_model
from cluster.models.registry import RunLog
from cluster.models.scorer import Scorer, frame_to_batch
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY
from learning.learner import TableRows
from learning.table import Table


def make_pipeline(uri, **changes):
    return {
        "name": "clicks",
        "source": {"kind": "kafka", "topic": "ads", "options": {"sasl_plain_password": "hunter2"}},
        "features": {"numeric": {"bins_per_sd": 3.0}, "ignore": ["user"]},
        "learner": {"kind": "ftrl", "alpha": 0.5},
        "mlflow": {"tracking_uri": uri, "experiment": "tests", "interval_s": 0.05, **changes},
    }


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One MLflow database for the whole file: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(database):
    from mlflow import MlflowClient

    return MlflowClient(database)


@pytest.fixture
def said():
    return []


@pytest.fixture
def frame():
    return pd.DataFrame({"site": ["a", "b", None, "a"], "age": [20.0, 30.0, 40.0, None], "user": ["u"] * 4})


@pytest.fixture
def model(tmp_path, frame):
    """A model folder that has learnt a little, and what it should predict for `frame`."""
    pipeline = make_pipeline("unused")
    batch = frame_to_batch(frame, pipeline["features"])
    encoder, table, learner = NumericEncoder(), Table(2), Ftrl(alpha=0.5)
    encoded = encoder.encode(batch)
    index = table.locate(encoded.keys)
    bias = int(table.locate(np.array([BIAS_KEY]))[0])
    learner.learn([TableRows(table.rows, index, bias)], encoded)
    frozen = encoder.encode(batch, frozen=True)
    expected = learner.predict([TableRows(table.rows, table.find(frozen.keys), bias)], frozen)
    encoder_keys, stats = encoder.state()
    arrays = {
        "weights.keys": table.keys, "weights.rows": table.rows,
        "encoder.keys": encoder_keys, "encoder.stats": stats,
    }  # fmt: skip
    write_model(tmp_path / "model", ModelState(pipeline, arrays, {0: 4, 1: 7}, 4, {"log_loss": 0.6}))
    return tmp_path / "model", expected


def started(uri, said, **changes):
    log = RunLog(say=said.append)
    log.start(make_pipeline(uri, **changes), "run 1")
    return log


def test_a_run_shows_its_pipeline_and_its_metrics_over_records(database, client, said):
    """Somebody opens the run in the MLflow UI: parameters, source, curves whose x axis is records."""
    log = started(database, said)
    names = [
        "prequential/log_loss",
        "throughput/records_per_s",
        "freshness/produce_to_learnt_p50_s",
        "odd+name/../x",
    ]
    for step in (10, 20):
        log.log({**dict.fromkeys(names, step / 4), "auc": float("nan"), "lag": float("inf")}, records=step)
    assert log.finish() is True
    run = client.get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["learner.alpha"] == "0.5"
    assert run.data.params["features.ignore"] == '["user"]'
    assert run.data.tags["millrace.source"] == "ads"
    assert set(run.data.metrics) == {*names[:3], "odd_name/x"}
    history = client.get_metric_history(log.run_id, names[0])
    assert [(point.step, point.value) for point in history] == [(10, 2.5), (20, 5.0)]
    assert abs(history[0].timestamp / 1000 - time.time()) < 60
    assert [file.path for file in client.list_artifacts(log.run_id)] == ["pipeline.yaml"]
    assert said == []


def test_secrets_are_in_neither_parameters_nor_artifact(database, client, said, tmp_path):
    """The pipeline holds the broker's password in clear text, and the tracking server is open to all colleagues."""
    log = started(database, said)
    assert log.finish()
    assert client.get_run(log.run_id).data.params["source.options.sasl_plain_password"] == "***"
    path = client.download_artifacts(log.run_id, "pipeline.yaml", str(tmp_path))
    assert "hunter2" not in Path(path).read_text()


def test_versions_are_numbered_tagged_and_the_newest_is_champion(database, client, said, model):
    """Two snapshots of one job are promoted, one after the other."""
    folder, _ = model
    log = started(database, said, model="versions")
    versions = [
        log.register(folder, {"log_loss": 0.6, "auc": float("nan")}, {"why": "end"}).result(60) for _ in "ab"
    ]
    assert log.finish()
    assert versions == [1, 2]
    newest = client.get_model_version_by_alias("versions", "champion")
    assert int(newest.version) == 2
    assert newest.run_id == log.run_id
    assert json.loads(newest.tags["offsets"]) == {"0": 4, "1": 7}
    assert (newest.tags["records"], newest.tags["log_loss"], newest.tags["why"]) == ("4", "0.6", "end")
    assert "auc" not in newest.tags
    assert newest.description.startswith("State of pipeline clicks after 4 records, with log_loss 0.6000;")
    assert said == []


GUARDED = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "kafka", "torch", "river"):
            raise ImportError(f"a scorer imported {name}")
sys.meta_path.insert(0, Refuse())
import mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model("models:/portable/1")
frame = pd.read_json(sys.stdin, orient="split")
print(json.dumps({"p": model.predict(frame).tolist(), "one": model.predict(frame[["age"]].head(1)).tolist()}))
import cluster.models.scorer
assert "/code/" in cluster.models.scorer.__file__, cluster.models.scorer.__file__
"""


def test_a_version_loads_where_neither_the_repository_nor_ray_is(database, said, model, frame, tmp_path):
    """A web service loads models:/NAME/1 with mlflow alone; columns may be missing or new."""
    folder, expected = model
    log = started(database, said, model="portable")
    log.register(folder, {}).result(60)
    assert log.finish()
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": database,
        "PYTHONPATH": "",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    answer = subprocess.run(
        [sys.executable, "-c", GUARDED], input=frame.assign(new="x").to_json(orient="split"), cwd=empty,
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout.splitlines()[-1])
    assert result["p"] == expected.tolist()
    assert len(result["one"]) == 1


def test_nothing_in_a_version_is_a_pickle(database, client, said, model, tmp_path):
    """A security review asks what loading the artifact could execute."""
    log = started(database, said, model="plain")
    version = log.register(model[0], {}).result(60)
    assert log.finish()
    from mlflow.artifacts import download_artifacts

    source = client.get_model_version("plain", str(version)).source
    (tmp_path / "got").mkdir()
    root = download_artifacts(artifact_uri=source, dst_path=str(tmp_path / "got"))
    names = {path.suffix or path.name for path in Path(root).rglob("*") if path.is_file()}
    assert names <= {".py", ".npy", ".json", ".yaml", ".txt", "MLmodel"}


def test_a_damaged_folder_is_not_registered_and_training_goes_on(database, said, tmp_path):
    """The snapshot's disk was full."""
    log = started(database, said)
    with pytest.raises(RegistryError, match=r"no file manifest\.json"):
        log.register(tmp_path, {}).result(60)
    log.log({"loss": 1.0}, 1)
    assert log.finish() is True
    assert len(said) == 1


@pytest.fixture
def dead_uri():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://bob:hunter2@127.0.0.1:{probe.getsockname()[1]}"


def test_a_dead_server_neither_stops_nor_slows_training(dead_uri, said, model):
    """MLflow's server is down from start to end of the job."""
    begun = time.perf_counter()
    log = started(dead_uri, said)
    for step in range(10_000):
        log.log({"loss": 1.0, "auc": 0.5}, step)
    version = log.register(model[0], {})
    assert time.perf_counter() - begun < 5.0  # 10,000 points; the first test to import mlflow shares the GIL
    time.sleep(1.0)
    begun = time.perf_counter()
    assert log.finish(timeout_s=1.5) is False
    assert time.perf_counter() - begun < 2.5
    with pytest.raises(RegistryError, match="before the job ended"):
        version.result(0)
    assert log.dropped_points == 10_000
    assert 1 <= len(said) <= 2
    assert "hunter2" not in " ".join(said)
    with pytest.raises(RegistryError, match="no MLflow run is open"):
        log.register(model[0], {}).result(0)


class _Flaky:
    """A stand-in for the calls to MLflow: `failures` calls fail first; keeps what arrived."""

    run_id = "r"

    def __init__(self, failures, error=None):
        self.failures, self.steps, self.closed = failures, [], ""
        self.error = error or ConnectionError("reset by https://bob:hunter2@host")
        self.registered = 0
        self.tags = []

    def open(self):
        pass

    def log(self, points):
        self._maybe_fail()
        self.steps += [point.records for point in points]

    def register(self, request):
        self._maybe_fail()
        self.registered += 1
        return self.registered

    def tag(self, tags):
        self._maybe_fail()
        self.tags.append(tags)

    def close(self, status):
        self.closed = status

    def _maybe_fail(self):
        if self.failures:
            self.failures -= 1
            raise self.error


@pytest.fixture
def flaky(monkeypatch):
    def start(said, failures, error=None):
        run = _Flaky(failures, error)
        monkeypatch.setattr(registry, "MlflowRun", lambda *_: run)
        log = started("unused", said)
        return log, run

    return start


def test_points_and_versions_arrive_once_the_server_is_back(flaky, said):
    """The tracking server is restarted while a job runs: one sentence when it goes, one when it is back."""
    log, run = flaky(said, failures=2)
    for step in range(5):
        log.log({"loss": 1.0}, step)
    version = log.register("folder", {})
    assert version.result(30) == 1
    assert log.finish("FAILED")
    assert run.steps == [0, 1, 2, 3, 4]
    assert run.closed == "FAILED"
    assert len(said) == 2
    assert "hunter2" not in said[0]


def test_a_point_that_mlflow_refuses_is_dropped_and_the_next_ones_arrive(flaky, said):
    """A metric is unacceptable to the server; trying again would block all that follows, for ever."""
    from mlflow.exceptions import MlflowException

    error = MlflowException.invalid_parameter_value("bad metric")
    log, run = flaky(said, failures=1, error=error)
    log.log({"loss": 1.0}, 1)
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    log.log({"loss": 1.0}, 2)
    assert log.finish()
    assert (run.steps, log.dropped_points, len(said)) == ([2], 1, 1)


def test_tags_arrive_in_order_once_the_server_is_back(flaky, said):
    """A job went back to an older version while the tracking server was away: what happened is not forgotten."""
    log, run = flaky(said, failures=2)
    for number in range(3):
        log.tag({"rollback": str(number)})
    assert log.finish()
    assert run.tags == [{"rollback": str(number)} for number in range(3)]


def test_mlflow_that_is_switched_off_costs_nothing(said, model):
    """The pipeline says mlflow.enabled: false."""
    before = threading.active_count()
    log = started("unused", said, enabled=False)
    log.log({"loss": 1.0}, 1)
    version = log.register(model[0], {})
    assert isinstance(version, Future)
    assert isinstance(version.exception(0), RegistryError)
    assert (log.finish(), log.run_id, threading.active_count(), said) == (True, None, before, [])


def test_the_tracking_uri_comes_from_pipeline_then_environment_then_here(tmp_path, monkeypatch):
    """A stranger starts a job without any MLflow; a team sets the variable; a pipeline names its own server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri_of({}) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team")
    assert tracking_uri_of({"mlflow": {"tracking_uri": None}}) == "http://team"
    assert tracking_uri_of({"mlflow": {"tracking_uri": "sqlite:////a/b.db"}}) == "sqlite:////a/b.db"


def test_mlflow_is_quiet_but_not_mute(database, said, capfd):
    """A terminal shows the job's own lines, without alembic's, and still MLflow's warnings."""
    assert started(database, said).finish()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert logging.getLogger("mlflow").isEnabledFor(logging.WARNING)


def test_a_scorer_predicts_what_the_learner_would(model, frame):
    """The prediction service answers exactly what training would have, with the frame's own index."""
    folder, expected = model
    series = Scorer.load(folder).predict(
        frame.set_index(pd.Index(list("wxyz"))).assign(label=1, id="i", ts=0.0)
    )
    assert series.tolist() == expected.tolist()
    assert (series.name, series.dtype, list(series.index)) == ("prediction", np.dtype("f8"), list("wxyz"))


@pytest.mark.parametrize("columns", [{}, {"never": [1.0]}, {"site": ["unknown"]}, {"site": [None]}])
def test_unknown_and_missing_columns_give_a_probability(model, columns):
    """A client sends a feature that is new, or none that is known."""
    predicted = Scorer.load(model[0]).predict(pd.DataFrame(columns, index=[0]))
    assert 0.0 < predicted.iloc[0] < 1.0
