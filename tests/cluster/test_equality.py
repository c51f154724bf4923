"""Promise 1 on a real Ray and a real broker: one worker over any shards equals one process, to the bit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobResult, run_job
from cluster.snapshots.model import load_model
from tests.cluster.topics import consume, produce, records

RECORDS = 3000

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def topics(broker: Broker) -> dict[str, str]:
    """The same records in the same order, as JSON and as Arrow messages of 100 rows, over 3 partitions."""
    rows = records(RECORDS)
    produce(broker, "equal-json", rows, 3)
    produce(broker, "equal-arrow", rows, 3, arrow_rows=100)
    return {"json": "equal-json", "arrow": "equal-arrow"}


def pipeline(broker: Broker, folder: Path, topic: str, predictions: str, *overrides: str) -> Pipeline:
    """A bounded job over the topic that also writes its predictions."""
    broker.create_topic(predictions, 1)
    values = {
        "name": "equality",
        "source": {
            "kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": broker.bootstrap_servers,
        },
        "learner": {"kind": "ftrl", "alpha": 0.1, "l1": 0.2},
        "predictions": {"topic": predictions},
        "snapshots": {"path": str(folder)},
        "mlflow": {"enabled": False},
        "cluster": {"workers": 1},
    }  # fmt: skip
    return build_pipeline(values, list(overrides), origin="test")


def state(result: JobResult) -> dict[str, dict[int, tuple[float, ...]]]:
    """Rows by key of the tables of the job's last snapshot."""
    arrays = load_model(result.snapshot).arrays
    tables = [name.removesuffix(".rows") for name in arrays if name.endswith(".rows")]
    return {
        name: {
            int(k): tuple(row) for k, row in zip(arrays[f"{name}.keys"], arrays[f"{name}.rows"], strict=True)
        }
        for name in tables
    }


def predictions(broker: Broker, topic: str) -> dict[str, float]:
    """Predictions by record id; every id exactly once."""
    messages = consume(broker, topic)
    assert len({message["id"] for message in messages}) == len(messages) == RECORDS
    return {message["id"]: message["prediction"] for message in messages}


@pytest.fixture(scope="module")
def single(
    broker: Broker, topics: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, dict[int, tuple[float, ...]]], dict[str, float], JobResult]:
    """State, predictions and result of one process over the JSON topic in batches of 256."""
    settings = pipeline(
        broker, tmp_path_factory.mktemp("single"), topics["json"], "out-single", "batch_records=100"
    )
    result = run_job(settings, Console(file=io.StringIO()), local=True)
    return state(result), predictions(broker, "out-single"), result


@pytest.mark.parametrize(
    ("shards", "size", "form"),
    [(1, 100, "json"), (2, 100, "arrow"), (3, 100, "json"), (5, 100, "arrow"), (5, 100, "json")],
)
@pytest.mark.usefixtures("local_ray")
def test_one_worker_on_ray_equals_one_process(
    broker: Broker, topics: dict[str, str], single: tuple, tmp_path: Path, shards: int, size: int, form: str
) -> None:
    """Same rows and same predictions for every number of shards, from JSON and from Arrow."""
    expected_state, expected_predictions, _ = single
    out = f"out-{shards}-{size}-{form}"
    overrides = (f"cluster.shards={shards}", f"batch_records={size}")
    result = run_job(pipeline(broker, tmp_path, topics[form], out, *overrides), Console(file=io.StringIO()))
    assert state(result) == expected_state
    assert predictions(broker, out) == expected_predictions
    assert result.figures.status.records == RECORDS


@pytest.mark.parametrize(
    ("shards", "size", "form", "learner"),
    [
        (2, 1, "json", "ftrl"),
        (3, 7, "json", "ftrl"),
        (2, 256, "arrow", "ftrl"),
        (1, 4096, "json", "ftrl"),
        (3, 7, "json", "population"),
        (2, 256, "arrow", "population"),
    ],
)
@pytest.mark.usefixtures("local_ray")
def test_batch_sizes_on_ray_equal_the_same_batch_size_in_one_process(
    broker: Broker, topics: dict[str, str], tmp_path: Path, shards: int, size: int, form: str, learner: str
) -> None:
    """Over several partitions the batch size sets the round robin, so each size has its own one-process twin."""
    console, results = Console(file=io.StringIO()), {}
    for local in (True, False):
        out = f"size-{shards}-{size}-{form}-{learner}-{local}"
        overrides = (f"cluster.shards={shards}", f"batch_records={size}", f"learner={{kind: {learner}}}")
        settings = pipeline(broker, tmp_path / out, topics[form], out, *overrides)
        results[local] = (state(run_job(settings, console, local=local)), predictions(broker, out))
    assert results[True] == results[False]


@pytest.mark.usefixtures("local_ray")
def test_two_workers_count_every_record_once_and_their_offsets_are_the_ends(
    broker: Broker, topics: dict[str, str], single: tuple, tmp_path: Path
) -> None:
    """Several workers are not bit-equal, but nothing is lost, nothing doubled, and quality stays near."""
    out = "out-two-workers"
    settings = pipeline(broker, tmp_path, topics["json"], out, "cluster.workers=2", "batch_records=100")
    result = run_job(settings, Console(file=io.StringIO()))
    assert len(predictions(broker, out)) == RECORDS
    assert load_model(result.snapshot).offsets == {0: 1000, 1: 1000, 2: 1000}
    loss, expected = (r.figures.since_start["log_loss"] for r in (result, single[2]))
    assert loss == pytest.approx(expected, rel=0.05)


def test_a_snapshot_in_the_middle_holds_offsets_and_counts_that_agree(
    broker: Broker, topics: dict[str, str], tmp_path: Path
) -> None:
    """State and offsets are one object: the encoder's count of a feature equals the records up to the offsets."""
    settings = pipeline(
        broker,
        tmp_path,
        topics["json"],
        "out-snapshots",
        "snapshots.interval_records=700",
        "batch_records=5",
    )
    result = run_job(settings, Console(file=io.StringIO()), local=True)
    folders = sorted(Path(result.snapshot).parent.iterdir())
    assert len(folders) >= 2
    for folder in folders:
        model = load_model(folder)
        assert sum(model.offsets.values()) == model.records
        assert np.max(model.arrays["encoder.stats"][:, 0]) == model.records
