"""Parameter state on a real Ray and a real broker: factors, table policies, a bound on staleness, and N shards to M."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from kafka import KafkaProducer
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.figures import metric_points
from cluster.job import JobResult, run_job
from cluster.models.model_layout import learner_of, tables_of
from cluster.snapshots.model import load_model
from tests.cluster.live import send
from tests.cluster.supervised import supervise
from tests.cluster.topics import produce, records

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("local_ray")]

RECORDS, PARTITIONS = 3000, 3
FTRL = {"kind": "ftrl", "alpha": 0.1}


@pytest.fixture(scope="module")
def clicks(broker: Broker) -> str:
    """A topic of click records over three partitions."""
    produce(broker, "scale-clicks", records(RECORDS), PARTITIONS)
    return "scale-clicks"


@pytest.fixture(scope="module")
def ratings(broker: Broker) -> str:
    """A topic of ratings keyed by user, so that a partition has all of a user's records."""
    rng, topic = np.random.default_rng(5), "scale-ratings"
    broker.create_topic(topic, PARTITIONS)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=5)
    for number in range(RECORDS):
        user, item = int(rng.integers(90)), int(rng.zipf(1.4)) % 70
        label = float(np.clip(round(3 + np.sin(user * item) + rng.normal(0, 0.3)), 1, 5))
        record = {"id": str(number), "features": {"user": user, "item": f"i{item}"}, "label": label}
        producer.send(topic, orjson.dumps(record), key=str(user).encode())
    producer.flush(30)
    producer.close()
    return topic


def pipeline(broker: Broker, folder: Path, topic: str, *overrides: str, **sections: Any) -> Pipeline:
    """A bounded job over a topic in batches of 100."""
    values = {
        "name": "scale",
        "source": {
            "kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": broker.bootstrap_servers,
        },
        "batch_records": 100,
        "snapshots": {"path": str(folder)},
        "mlflow": {"enabled": False},
        "cluster": {"workers": 1, "shards": 3},
        **sections,
    }  # fmt: skip
    return build_pipeline(values, list(overrides), origin="test")


def job(pipeline: Pipeline, *, local: bool = False) -> JobResult:
    """Run it to its end, quietly, in a folder of its own: runs of one second have one name."""
    folder = tempfile.mkdtemp(dir=pipeline.snapshots.path)
    pipeline = pipeline.model_copy(
        update={"snapshots": pipeline.snapshots.model_copy(update={"path": folder})}
    )
    return run_job(pipeline, Console(file=io.StringIO()), local=local)


def state(result: JobResult) -> dict[str, dict[int, tuple[float, ...]]]:
    """Rows by key of each table of the job's last snapshot."""
    model = load_model(result.snapshot)
    tables = tables_of(learner_of(model.pipeline), model.arrays)
    return {name: _by_key(table.keys, table.rows) for name, table in tables.items()}


def _by_key(keys: NDArray[Any], rows: NDArray[Any]) -> dict[int, tuple[float, ...]]:
    return {int(key): tuple(row) for key, row in zip(keys, rows, strict=True)}


def test_factors_on_ray_equal_one_process(broker: Broker, ratings: str, tmp_path: Path) -> None:
    """One worker, three shards, ratings from Kafka: every row of users, items, scale and pairs, to the bit."""
    asked = pipeline(broker, tmp_path, ratings, learner={"kind": "factors", "factors": 4})
    alone, sharded = job(asked, local=True), job(asked)
    assert state(sharded) == state(alone)
    assert sharded.figures.since_start == pytest.approx(alone.figures.since_start)  # sums, by report
    assert alone.figures.status.metrics.records == RECORDS
    assert alone.figures.since_start["rmse"] < alone.figures.since_start["deviation"]


def test_workers_with_users_of_their_own_count_every_rating_once(
    broker: Broker, ratings: str, tmp_path: Path
) -> None:
    """Three workers on items they share: the running mean has every rating, and the quality stays near."""
    sections = {"learner": {"kind": "factors", "factors": 4}}
    alone = job(pipeline(broker, tmp_path, ratings, **sections), local=True)
    three = job(pipeline(broker, tmp_path, ratings, "cluster.workers=3", **sections))
    (scale,) = state(three)["scale"].values()
    assert scale[0] == three.figures.status.metrics.records == RECORDS
    rmse, expected = (result.figures.since_start["rmse"] for result in (three, alone))
    assert rmse == pytest.approx(expected, rel=0.05)


def test_a_record_without_its_item_is_a_dead_letter(broker: Broker, clicks: str, tmp_path: Path) -> None:
    """Clicks have a user but no item: nothing can be learnt, nothing is lost, and the job ends well."""
    result = job(pipeline(broker, tmp_path, clicks, learner={"kind": "factors"}))
    assert (result.figures.status.dead, result.figures.status.metrics.records) == (RECORDS, 0)
    letters = [
        orjson.loads(line)
        for line in (result.run_folder / "dead_letters" / "worker-0.jsonl").read_bytes().splitlines()
    ]
    assert len(letters) == RECORDS
    assert "feature 'item' is missing" in letters[0]["reason"]


@pytest.mark.parametrize(
    "policy",
    [{"admit_after": 3, "admission": "exact"}, {"admit_after": 2}, {"expire_after_records": 500}],
)
def test_policies_on_ray_equal_one_process(
    broker: Broker, clicks: str, tmp_path: Path, policy: dict[str, Any]
) -> None:
    """Admission and expiry decide alike over three shards; without a policy there are more rows."""
    sections = {"learner": FTRL, "tables": {"weights": policy}}
    asked = pipeline(broker, tmp_path, clicks, **sections)
    alone, sharded = job(asked, local=True), job(asked)
    assert state(sharded) == state(alone)
    everything = state(job(pipeline(broker, tmp_path, clicks, learner=FTRL), local=True))
    assert 10 < len(state(alone)["weights"]) < len(everything["weights"])


@pytest.mark.parametrize("bound", [0, 250])
def test_a_bound_on_staleness_is_kept(broker: Broker, clicks: str, tmp_path: Path, bound: int) -> None:
    """Three workers: with 0 they take turns, and are then as stale as one alone; with 250 they overlap a little."""
    from cluster.launch import RayCluster

    overrides = ("cluster.workers=3", f"cluster.staleness_examples_max={bound}", "batch_records=20")
    asked = pipeline(broker, tmp_path, clicks, *overrides, learner=FTRL)
    with RayCluster(asked) as cluster:
        status, _ = supervise(cluster, asked, tmp_path / "run")
        shards = cluster.shard_status()
    assert status.metrics.records == RECORDS
    assert shards[0]["staleness_max"] <= bound
    assert sum(shards[0]["staleness"]) == shards[0]["pushes"] == RECORDS // 20
    if bound == 0:
        assert shards[0]["moved_rows"] == 0, "who takes turns finds nothing moved where turns are given"


def test_snapshots_of_three_shards_go_on_in_two_as_they_would_have_in_one_process(
    broker: Broker, tmp_path: Path
) -> None:
    """A run of three shards is started again with two, and in one process, and learns what has come since alike."""
    produce(broker, "scale-goes-on", records(RECORDS // 2), PARTITIONS)
    asked = pipeline(broker, tmp_path / "two", "scale-goes-on", learner=FTRL).model_copy(update={"run": "r"})
    quiet = Console(file=io.StringIO())
    first = load_model(run_job(asked, quiet).snapshot)
    shutil.copytree(tmp_path / "two", tmp_path / "local")
    send(broker, "scale-goes-on", records(RECORDS // 2, seed=1), PARTITIONS)
    found = {}
    for name in ("two", "local"):
        asked = pipeline(broker, tmp_path / name, "scale-goes-on", "cluster.shards=2", learner=FTRL)
        result = run_job(asked.model_copy(update={"run": "r"}), quiet, local=name == "local")
        model = load_model(result.snapshot)
        assert sum(model.offsets.values()) == model.records == RECORDS
        rows = _by_key(model.arrays["weights.keys"], model.arrays["weights.rows"])
        found[name] = (rows, result.figures.status.metrics.summary())
    assert found["two"] == found["local"]
    squares = sum(row[1] for row in found["two"][0].values())
    assert squares > 1.5 * float(first.arrays["weights.rows"][:, 1].sum()), "nothing was learnt on top"


def test_metrics_name_every_table_and_the_staleness(broker: Broker, ratings: str, tmp_path: Path) -> None:
    """What MLflow shows of the state: rows, bytes and load of each table, and how stale pushes were."""
    from cluster.figures import Figures
    from cluster.launch import RayCluster

    asked = pipeline(
        broker, tmp_path, ratings, "cluster.workers=2", learner={"kind": "factors"},
        tables={"seen": {"rows_max": 300}},
    )  # fmt: skip
    with RayCluster(asked) as cluster:
        status, _ = supervise(cluster, asked, tmp_path / "run")
        points = metric_points(Figures.between(None, status, 1.0), cluster.shard_status())
    assert points["state/users_rows"] == 90
    assert points["state/seen_rows"] <= 300
    assert points["state/seen_evicted"] > 0
    assert points["state/rows"] == sum(points[f"state/{t}_rows"] for t in ("users", "items", "scale", "seen"))
    assert 0 < points["state/bytes_of_largest_shard"] <= points["state/bytes"]
    assert points["staleness/records_p50"] <= points["staleness/records_p99"]
    assert points["prequential/rmse"] > 0
