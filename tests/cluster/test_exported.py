"""What is exported for Prometheus, and the dashboard that draws it: one must not name what the other has not."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from cluster.broker import Broker
from cluster.config import build_pipeline
from cluster.job import run_job
from cluster.status.document import Freshness, Quality, Shard, Snapshots, StatusDocument, Worker
from cluster.status.exported import EXPORTED, samples
from tests.cluster.test_status_document import document
from tests.cluster.topics import produce, records

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
METRIC = re.compile(r"ray_(millrace_\w+)(?:\{([^}]*)\})?")
BY_NAME = {metric.name: metric for metric in EXPORTED}


def full() -> StatusDocument:
    """A status in which nothing is unknown."""
    own: dict[str, Any] = {"job": document().job, "lag": 4, "records_per_s": 5.0}
    changes: dict[str, Any] = {
        "freshness": Freshness(p50_s=0.1, p99_s=0.2),
        "quality": {"log_loss": Quality(window=0.3, since_start=0.4)},
        "staleness": {"records_p50": 1.0, "records_p99": 2.0, "records_max": 3.0},
        "snapshots": Snapshots(
            number=3, created_s=1.0, size_bytes=5, write_s=0.1, pause_p50_s=0.1, pause_p99_s=0.2
        ),
        "workers": [
            Worker(worker=0, partitions=[0], records=1, dead=0, lag=4, records_per_s=5.0, finished=False)
        ],
        "shards": [Shard(shard=0, rows=1, bytes=2, load=0.5, pushes=3)],
        "partitions": [{"partition": 0, "worker": 0, "offset": 7, "lag": 4, "per_s": 1.0}],
        "groups": {"experts": {"a": {"weight": 0.5}}},
    }
    return document(**own, **changes)


def test_a_full_status_gives_every_metric_with_its_tags_and_no_other() -> None:
    """Somebody writes an alert from the list of names: each of them comes."""
    found: dict[str, set[str]] = {}
    for sample in samples(full()):
        found.setdefault(sample.name, set()).update(sample.tags)
    assert found == {metric.name: {"run", "pipeline", *metric.tags} for metric in EXPORTED}


def test_what_is_unknown_is_not_exported() -> None:
    """A stream without production times: no point is better than a zero, which would look like perfect freshness."""
    names = {sample.name for sample in samples(document())}
    assert "millrace_records" in names
    assert not names & {"millrace_lag_records", "millrace_snapshot_age_seconds"}
    fresh = [sample for sample in samples(document()) if sample.name == "millrace_freshness_seconds"]
    assert [sample.tags["quantile"] for sample in fresh] == ["0.99"]


def test_an_ended_job_says_so() -> None:
    """An alert on a job that should run."""
    running = {s.name: s.value for s in samples(document())}["millrace_running"]
    failed = {s.name: s.value for s in samples(document(state="failed"))}["millrace_running"]
    assert (running, failed) == (1.0, 0.0)


def expressions(dashboard: dict) -> list[tuple[str, str]]:
    """(expression, legend) of all that a dashboard asks for."""
    asked = [
        (target["expr"], target["legendFormat"])
        for p in dashboard["panels"]
        for target in p.get("targets", [])
    ]
    variables = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    notes = [
        (note["expr"], note["textFormat"]) for note in dashboard["annotations"]["list"] if "expr" in note
    ]
    return [*asked, *notes, *((query, "") for query in variables)]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_asks_only_for_what_is_exported(path: Path) -> None:
    """A renamed metric or tag leaves an empty panel that nobody notices for weeks."""
    dashboard = json.loads(path.read_text())
    asked = expressions(dashboard)
    assert len(asked) > 10
    for expression, legend in asked:
        found = METRIC.findall(expression)
        assert found, f"{expression} asks for nothing of ours"
        for name, selector in found:
            assert name in BY_NAME, f"{expression}: {name} is not exported"
            tags = {"run", "pipeline", *BY_NAME[name].tags}
            used = {part.split("=")[0].strip() for part in selector.split(", ") if part}
            used |= set(re.findall(r"\{\{(\w+)\}\}", legend))
            assert {tag.strip("=~! ") for tag in used} <= tags, (
                f"{expression} ({legend}): tags of {name} are {tags}"
            )


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_can_be_imported(path: Path) -> None:
    """Grafana wants unique panel ids, a place for each, and no overlap; every exported metric is drawn somewhere."""
    dashboard = json.loads(path.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert dashboard["uid"]
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 36
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not own & cells, f"{panel['title']} lies over another panel"
        cells |= own
    drawn = {name for expression, _ in expressions(dashboard) for name, _ in METRIC.findall(expression)}
    assert set(BY_NAME) - drawn <= {"millrace_partition_offset", "millrace_worker_lag_records"}


def test_the_scrape_configuration_finds_rays_nodes() -> None:
    """Prometheus reads the file that the dashboard of Ray's head writes."""
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (files,) = job["file_sd_configs"]
    assert files["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_job_on_ray_is_at_the_metrics_endpoint_of_its_node(
    broker: Broker, local_ray: None, tmp_path: Path
) -> None:
    """What Prometheus would read from the node's agent, dashboard or not: the job's own figures under its run."""
    import ray

    produce(broker, "exported", records(2000), 2)
    pipeline = build_pipeline(
        {
            "name": "exported",
            "source": {"kind": "kafka", "topic": "exported", "bootstrap_servers": broker.bootstrap_servers},
            "mlflow": {"enabled": False, "interval_s": 0.2},
            "batch_records": 100,
            "run": "exported-run",
            "snapshots": {"path": str(tmp_path / "runs")},
            "records_max": 2000,
        },
        [],
        origin="test",
    )
    run_job(pipeline, Console(quiet=True))
    (node,) = ray.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    text, ends_s = "", time.monotonic() + 60
    while 'run="exported-run"' not in text and time.monotonic() < ends_s:
        time.sleep(0.5)
        text = urllib.request.urlopen(url, timeout=10).read().decode()
    names = set(re.findall(r"^ray_(millrace_\w+)\{", text, re.MULTILINE))
    assert names <= set(BY_NAME)
    expected = {
        "running",
        "records",
        "records_per_second",
        "lag_records",
        "quality",
        "snapshot_number",
        "shard_rows",
    }
    assert {f"millrace_{name}" for name in expected} <= names
    # Other jobs of this process may still be told of: Ray forgets a series seconds after it was last set.
    own = [line for line in text.splitlines() if 'run="exported-run"' in line]
    (line,) = [line for line in own if line.startswith("ray_millrace_records{")]
    assert 'run="exported-run"' in line
    assert 'pipeline="exported"' in line
    assert float(line.rsplit(" ", 1)[1]) == 2000.0
    ended = [line for line in own if line.startswith("ray_millrace_running{")]
    assert float(ended[0].rsplit(" ", 1)[1]) == 0.0
