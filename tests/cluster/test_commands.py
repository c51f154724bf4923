"""The commands that people type, on the same small records in every form: the numbers must not depend on the form."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cluster.broker import Broker
from cluster.evaluate import Evaluation, evaluate
from tests.cluster.commands import run
from tests.cluster.topics import consume, records

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

RECORDS = 3000
METRICS = ("log_loss", "accuracy", "auc", "average_precision", "prior_log_loss")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records, with missing values, a time and a useless column, as clicks.csv, .csv.gz, .parquet, .jsonl."""
    folder = tmp_path_factory.mktemp("files")
    rows = [
        {**row["features"], "when": 1.7e9 + i, "noise": f"n{i}", "y": row["label"]}
        for i, row in enumerate(records(RECORDS))
    ]
    (folder / "clicks.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "clicks.parquet")
    with (folder / "clicks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "clicks.csv.gz").write_bytes(gzip.compress((folder / "clicks.csv").read_bytes()))
    return folder


def evaluated(folder: Path, name: str, *arguments: object) -> dict[str, Any]:
    """What `jobs.evaluate --json` prints, and nothing else, on standard output."""
    options = ("--json", "--time", "when", "--ignore", "noise")
    code, out, err = run("jobs.evaluate", folder / name, *options, *arguments, cwd=folder)
    assert code == 0, err
    return dict(json.loads(out))


def of(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: metrics[name] for name in METRICS}


@pytest.fixture(scope="module")
def expected(files: Path) -> dict[str, Any]:
    """The CSV's metrics in one process."""
    return evaluated(files, "clicks.csv", "--local")


def test_evaluate_prints_all_metrics_as_json(expected: dict[str, Any], files: Path) -> None:
    """For scripts: one JSON object with every figure, better than the prior, and nothing is left in the folder."""
    assert {*METRICS, "records", "seconds"} <= expected.keys()
    assert expected["records"] == RECORDS
    assert expected["dead_letters"] == 0
    assert 0 < expected["log_loss"] < expected["prior_log_loss"]
    assert 0.6 < expected["auc"] < 1
    assert all(math.isfinite(value) for value in expected.values())
    assert {path.name for path in files.iterdir()} == {
        f"clicks.{e}" for e in ("csv", "csv.gz", "jsonl", "parquet")
    }


@pytest.mark.parametrize("name", ["clicks.csv.gz", "clicks.parquet", "clicks.jsonl"])
def test_evaluate_gives_the_same_metrics_for_every_format(
    files: Path, expected: dict[str, Any], name: str
) -> None:
    """The same records compressed, as columns and as JSON: equal to the last bit."""
    assert of(evaluated(files, name)) == of(expected)


def test_evaluate_takes_a_pipeline_and_overrides(
    files: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    """A pipeline's learner on another file: its keys count, --set more, its source and empty sections not."""
    path = tmp_path / "p.yaml"
    path.write_text(
        "name: p\nsource: {kind: kafka, topic: t}\nfeatures:\ncluster:\nlearner: {kind: ftrl, alpha: 0.0001}\n"
    )
    slow = evaluated(files, "clicks.csv", "--pipeline", path)
    assert slow["log_loss"] > expected["log_loss"]
    usual = evaluated(files, "clicks.csv", "--learner", "ftrl")
    assert of(evaluated(files, "clicks.csv", "--pipeline", path, "--set", "learner.alpha=0.1")) == of(usual)


@pytest.mark.slow
def test_evaluate_over_ray_with_one_worker_is_equal(files: Path, expected: dict[str, Any]) -> None:
    """A Ray of its own and three shards change nothing at all."""
    assert of(evaluated(files, "clicks.csv", "--workers", 1, "--shards", 3)) == of(expected)


@pytest.mark.usefixtures("local_ray")
def test_evaluate_over_ray_with_two_workers_is_near(files: Path, expected: dict[str, Any]) -> None:
    """A second worker changes little, and loses no record."""
    overrides = ("batch_records=256",)
    asked = Evaluation(
        files / "clicks.csv", "y", time="when", ignore=("noise",), overrides=overrides, workers=2, shards=3
    )
    two = evaluate(asked, Console(file=io.StringIO()))
    assert two["records"] == RECORDS
    assert two["log_loss"] == pytest.approx(expected["log_loss"], rel=0.05)


def test_contradictory_options_are_a_sentence(files: Path) -> None:
    """--local means one process, --workers means Ray."""
    code, _, err = run("jobs.evaluate", files / "clicks.csv", "--local", "--workers", 2, cwd=files)
    assert code == 1
    assert "--local means one process; leave it out" in err


@pytest.fixture(scope="module")
def trained(broker: Broker, files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The CSV produced as JSON and as Arrow, and each topic trained to its end by the real commands; their folders."""
    folders = {}
    for form in ("json", "arrow"):
        folder = folders[form] = tmp_path_factory.mktemp(form)
        topic = f"commands-{form}"
        options = ("--time", "when", "--ignore", "noise", "--partitions", 1, "--format", form)
        servers = ("--bootstrap-servers", broker.bootstrap_servers)
        code, out, err = run("jobs.produce", files / "clicks.csv", topic, *options, *servers, cwd=folder)
        assert code == 0, err
        assert f"sent {RECORDS} records" in out
        (folder / "p.yaml").write_text(
            f"name: clicks\nsource: {{kind: kafka, topic: {topic}, until: end}}\n"
            f"predictions: {{topic: predictions-{form}}}\ncluster: {{workers: 1}}\n"
        )
        override = f"source.bootstrap_servers={broker.bootstrap_servers}"
        uri = f"sqlite:///{folder}/tracking.db"
        code, out, err = run(
            "jobs.train",
            "p.yaml",
            "--set",
            override,
            "--local",
            cwd=folder,
            environment={"MLFLOW_TRACKING_URI": uri},
        )
        assert code == 0, err
        assert "3,000 read = 3,000 learnt + 0 dead letters" in out
        assert "clicks v1" in out
    return folders


def recorded(folder: Path, table: str, *columns: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "tracking.db") as database:
        return list(database.execute(f"select {', '.join(columns)} from {table}"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "arrow"])
def test_produce_and_train_equal_evaluate(
    trained: dict[str, Path], expected: dict[str, Any], form: str
) -> None:
    """A file through Kafka is learnt exactly as the file itself, in either format: all metrics in MLflow are equal."""
    latest = dict(recorded(trained[form], "latest_metrics", "key", "value"))
    assert {name: latest[f"prequential/{name}"] for name in METRICS} == of(expected)
    assert latest["stream/records"] == RECORDS


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_predictions_hold_every_record_once(trained: dict[str, Path], broker: Broker, form: str) -> None:
    """Each row number is an id in the predictions topic, once, with a probability; both formats predict the same."""
    assert trained
    messages = consume(broker, f"predictions-{form}")
    assert sorted(int(message["id"]) for message in messages) == list(range(RECORDS))
    assert all(0 < message["prediction"] < 1 for message in messages)
    assert {m["id"]: m["prediction"] for m in messages} == {
        m["id"]: m["prediction"] for m in consume(broker, "predictions-json")
    }


def test_train_records_a_run_whose_champion_scores_anywhere(trained: dict[str, Path], tmp_path: Path) -> None:
    """MLflow has the parameters, the curve and the version; a process elsewhere, without our code, loads and scores."""
    folder = trained["arrow"]
    params = dict(recorded(folder, "params", "key", "value"))
    assert params["source.topic"] == "commands-arrow"
    assert params["learner.kind"] == "population"
    assert recorded(folder, "runs", "status") == [("FINISHED",)]
    assert recorded(folder, "registered_model_aliases", "alias", "version") == [("champion", 1)]
    script = (
        "import mlflow, pandas as pd\n"
        f"mlflow.set_tracking_uri('sqlite:///{folder}/tracking.db')\n"
        "model = mlflow.pyfunc.load_model('models:/clicks@champion')\n"
        "frame = pd.DataFrame([{'price': p, 'visits': 3, 'city': 'Oslo', 'user': 'new', 'mobile': True}"
        " for p in (0.0, 6.0, None)])\n"
        "print(*[float(p) for p in model.predict(frame)])\n"
    )
    scored = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    cheap, dear, unknown = map(float, scored.stdout.split())
    assert 0 < cheap < dear < 1
    assert 0 < unknown < 1
