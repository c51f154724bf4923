"""What a stranger sees of a run in MLflow: the description, the charts and the tables."""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from actors.status import JobEvent, Status
from cluster.config import build_pipeline
from cluster.figures import CHARTED_MAX, Figures, group_points
from cluster.job import run_job
from cluster.models.charts import calibration_of
from cluster.models.run_page import NOTE_TAG, POINTS_MAX, RunPage, description, table_csv
from learning.metrics import DelayHistogram, Prequential
from learning.ratings import Ratings
from tests.cluster.test_status_document import document

PIPELINE = {
    "name": "clicks",
    "source": {"kind": "kafka", "topic": "ads"},
    "learner": {"kind": "ftrl", "alpha": 0.1, "beta": 1.0},
    "cluster": {"shards": 3, "workers": 4},
}


def learnt(records: int, seed: int = 0, skew: float = 1.0) -> Prequential:
    """Metrics of predictions whose log-odds are `skew` times too small."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 1.5, records)
    labels = (rng.random(records) < 1 / (1 + np.exp(-skew * logits))).astype(np.float32)
    metrics = Prequential.zero()
    metrics.update(1 / (1 + np.exp(-logits)), labels)
    return metrics


def figures(
    records: int, groups: dict | None = None, metrics: Prequential | Ratings | None = None
) -> Figures:
    status = Status(
        "learning", 1, records, 0, 0, 1, metrics or learnt(records), DelayHistogram(), DelayHistogram(), [],
        groups=groups or {},
    )  # fmt: skip
    return Figures.between(None, status, 10.0)


def png_size(raw: bytes) -> tuple[int, int]:
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", raw[16:24])
    return width, height


def test_calibration_is_what_was_predicted_against_what_came() -> None:
    """A perfect model lies on the diagonal; one that is too timid is below it where it says little."""
    fair, timid = (
        calibration_of(learnt(400_000).histograms),
        calibration_of(learnt(400_000, skew=1.5).histograms),
    )
    assert fair is not None
    assert timid is not None
    assert fair.records.sum() == 400_000
    assert len(fair.records) == 15
    sigma = np.sqrt(fair.observed * (1 - fair.observed) / fair.records)
    assert np.all(np.abs(fair.predicted - fair.observed) < 5 * sigma + 1e-3)
    low = timid.predicted < 0.2
    assert low.sum() > 5
    assert np.all(timid.observed[low] < timid.predicted[low])
    assert calibration_of(np.zeros((2, 4096), np.int64)) is None


def test_certain_predictions_are_one_group() -> None:
    """A model that is sure of everything: one bin holds all, and nothing is divided by zero."""
    counts = np.zeros((2, 4096), np.int64)
    counts[0, 0], counts[1, -1] = 1000, 10
    found = calibration_of(counts)
    assert found is not None
    assert found.records.tolist() == [1000, 10]
    assert found.observed.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("kind", ["binary", "ratings", "experts", "one record"])
def test_charts_are_drawn_of_whatever_there_is(kind: str) -> None:
    """Ratings have no calibration, a job that just began has one point, an ensemble has weights."""
    page = RunPage(PIPELINE, "clicks-1")
    groups = {"experts": {"a": {"weight": 0.75}, "b": {"weight": 0.25}}} if kind == "experts" else {}
    ratings = Ratings.zero()
    ratings.update(np.array([3.0, 4.0]), np.array([4.0, 4.0], np.float32))
    metrics = ratings if kind == "ratings" else learnt(1 if kind == "one record" else 1000)
    for records in (1,) if kind == "one record" else range(100, 1100, 100):
        page.add(figures(records, groups, metrics))
    page.mark(JobEvent(500, "drift", "the log-loss rose"))
    files = page.files(document(groups=groups), metrics)()
    assert png_size(files["charts/overview.png"])[0] == 990
    assert ("charts/calibration.png" in files) == (kind != "ratings")
    assert ("tables/experts.csv" in files) == (kind == "experts")


def test_a_job_that_learnt_nothing_gets_no_charts() -> None:
    """It failed before its first record: a description and no empty axes."""
    page = RunPage(PIPELINE, "clicks-1")
    assert set(page.files(document(), None)()) == {"tables/partitions.csv", "tables/experts.csv"}


def test_the_past_stays_bounded_and_forgets_what_was_taken_back() -> None:
    """Months of learning, and a rollback by replay: the chart's x axis never goes back."""
    page = RunPage(PIPELINE, "clicks-1")
    metrics = learnt(10)
    for records in range(1, 3 * POINTS_MAX):
        page.add(figures(records, metrics=metrics))
    assert POINTS_MAX / 3 < len(page._points) <= POINTS_MAX
    page._apart = 1
    page.add(figures(500, metrics=metrics))
    x = [point.records for point in page._points]
    assert x == sorted(set(x))
    assert x[-1] == 500


def test_a_table_says_what_is_unknown_by_nothing() -> None:
    """MLflow shows the file as a table; a name with a comma stays one cell."""
    rows: dict[str, dict[str, Any]] = {"city=Oslo, N": {"records": 3, "auc": None}, "other": {"auc": 0.5}}
    read = list(csv.reader(io.StringIO(table_csv("slice", rows).decode())))
    assert read == [["slice", "records", "auc"], ["city=Oslo, N", "3", ""], ["other", "", "0.5"]]


def test_large_groups_are_tables_and_small_ones_charts() -> None:
    """Ten thousand slices would be ten thousand charts."""
    small = {"experts": {"alpha 0.1": {"weight": 0.5}}}
    large = {"slices": {str(row): {"log_loss": 0.5} for row in range(CHARTED_MAX + 1)}}
    points = group_points(figures(10, small | large).status.groups)
    assert points["experts/weight/alpha 0.1"] == 0.5
    assert not [name for name in points if name.startswith("slices/")]


def test_the_description_tells_a_stranger_what_runs_and_how_to_read_it() -> None:
    """Somebody opens the experiment of another team."""
    first = description(PIPELINE, "clicks-1")
    then = description(PIPELINE, "clicks-1", document(state="finished", records=1234))
    assert first.splitlines()[0] == then.splitlines()[0]
    for part in ("topic `ads`", "FTRL-Proximal", "alpha 0.1", "4 workers, 3 shards", "predicted first"):
        assert part in first
    assert "1,234 records" in then
    assert "reached the end of its input" in then


@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_a_run_has_its_page_and_what_people_write_there_stays(tmp_path: Path) -> None:
    """A real job to a real MLflow; a colleague describes the run in words of her own, and the job goes on."""
    from mlflow import MlflowClient

    rows = "\n".join(f"{i % 7},{i % 3},{i % 2}" for i in range(3000))
    (tmp_path / "rows.csv").write_text(f"a,b,y\n{rows}\n")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    values = {
        "name": "page",
        "run": "page-1",
        "source": {"kind": "file", "path": str(tmp_path / "rows.csv")},
        "snapshots": {"path": str(tmp_path / "runs")},
        "mlflow": {"tracking_uri": uri, "interval_s": 0.1},
        "batch_records": 100,
        "records_max": 1500,
    }
    result = run_job(build_pipeline(values, [], origin="test"), Console(quiet=True), local=True)
    client = MlflowClient(uri)
    run = client.get_run(str(result.run_id))
    paths = {
        file.path
        for folder in ("charts", "tables")
        for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"charts/overview.png", "charts/calibration.png", "tables/partitions.csv"} <= paths
    assert run.data.tags["millrace.state"] == "stopped"
    assert run.data.tags["millrace.records"] == str(result.figures.status.records)
    assert f"{result.figures.status.records:,} records" in run.data.tags[NOTE_TAG]
    assert "one worker in one process" in run.data.tags[NOTE_TAG]
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_tag(run.info.run_id, NOTE_TAG, "Anna's run: do not touch")
    del values["records_max"]
    run_job(build_pipeline(values, [], origin="test"), Console(quiet=True), local=True)
    run = client.get_run(run.info.run_id)
    assert run.data.tags[NOTE_TAG] == "Anna's run: do not touch"
    assert run.data.tags["millrace.records"] == "3000"
