"""A run that is started again under its name goes on: stream, state, counters and its run in MLflow."""

from __future__ import annotations

import io
import json
from pathlib import Path

import orjson
import pytest
from kafka import KafkaProducer
from mlflow import MlflowClient
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobError, run_job
from cluster.models.model_files import ModelState
from cluster.models.registry import RunLog
from cluster.snapshots.model import load_model
from cluster.snapshots.store import SnapshotStore
from tests.cluster.commands import run
from tests.cluster.topics import produce, records

pytestmark = pytest.mark.timeout(200)


def pipeline_of(broker: Broker, folder: Path, topic: str, *overrides: str) -> Pipeline:
    """A bounded job over a topic, in a run that has a name."""
    values = {
        "name": "resumed", "run": "r1", "batch_records": 50, "learner": {"kind": "ftrl"},
        "source": {
            "kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": broker.bootstrap_servers,
        },
        "snapshots": {"path": str(folder)},
        "mlflow": {"enabled": False},
    }  # fmt: skip
    return build_pipeline(values, list(overrides), origin="test")


def learn(pipeline: Pipeline, **hooks):
    """A job in this process; nothing of it is printed."""
    return run_job(pipeline, Console(file=io.StringIO()), **{"local": True, **hooks})


def test_a_run_goes_on_in_its_own_mlflow_run(broker: Broker, tmp_path: Path) -> None:
    """A job ended early and is started again: one run in MLflow, one curve, the settings that it began with."""
    produce(broker, "resume-mlflow", records(1000), 2)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    recorded = ("mlflow.enabled=true", f"mlflow.tracking_uri={uri}", "mlflow.interval_s=0.05")
    first = learn(pipeline_of(broker, tmp_path, "resume-mlflow", "records_max=400", *recorded))
    second = learn(pipeline_of(broker, tmp_path, "resume-mlflow", "snapshots.keep=5", *recorded))
    assert (first.finished, second.finished) == (False, True)
    assert first.figures.status.records < second.figures.status.records == 1000
    assert first.run_id == second.run_id is not None
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("millrace")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.tags["millrace.run"]) == ("FINISHED", "r1")
    assert run.data.params["snapshots.keep"] == "3"
    assert run.data.metrics["stream/records"] == 1000
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "stream/records")]
    assert steps == sorted(steps)
    assert steps[0] <= first.figures.status.records
    assert (second.version, client.get_model_version("resumed", "2").tags["records"]) == (2, "1000")


def test_a_run_that_mlflow_has_no_more_gets_a_new_one(broker: Broker, tmp_path: Path) -> None:
    """Somebody deleted the run in MLflow, or the database is another one: the job goes on and is recorded anew."""
    produce(broker, "resume-lost", records(300), 1)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    recorded = ("mlflow.enabled=true", f"mlflow.tracking_uri={uri}")
    first = learn(pipeline_of(broker, tmp_path, "resume-lost", "records_max=100", *recorded))
    MlflowClient(uri).delete_run(first.run_id)
    second = learn(pipeline_of(broker, tmp_path, "resume-lost", *recorded))
    assert second.run_id not in (None, first.run_id)
    assert second.figures.status.records == 300


def test_a_second_job_of_a_run_is_refused(broker: Broker, tmp_path: Path) -> None:
    """Somebody starts the same command in another terminal: the job that learns is not disturbed."""
    produce(broker, "resume-twice", records(200), 1)
    pipeline, refused = pipeline_of(broker, tmp_path, "resume-twice"), []

    def second() -> None:
        with pytest.raises(JobError, match="already being learnt by process") as caught:
            learn(pipeline)
        refused.append(caught.value)

    assert learn(pipeline, on_ready=second).figures.status.records == 200
    assert len(refused) == 1
    assert not any(getattr(refused[0], "__notes__", ()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, JobError])
def test_a_job_that_ends_early_says_how_to_go_on(broker: Broker, tmp_path: Path, error: type) -> None:
    """A second Ctrl-C, or an error: the run's name is in the terminal."""
    topic = f"resume-ends-{error.__name__}"
    produce(broker, topic, records(100), 1)
    learn(pipeline_of(broker, tmp_path, topic, "records_max=50"))

    def end() -> None:
        raise error("it ends")

    with pytest.raises(error) as caught:
        learn(pipeline_of(broker, tmp_path, topic), on_ready=end)
    assert caught.value.__notes__ == ["to go on from its last snapshot, start it again with --run r1"]


def test_a_partition_without_a_record_yet_is_gone_on_with_where_the_run_began(
    broker: Broker, tmp_path: Path
) -> None:
    """`start: latest`: what came into a silent partition while the job was down is learnt, and not skipped."""
    produce(broker, "resume-latest", records(100), 2)
    overrides = ("source.start=latest", "source.until=forever", "records_max=60")

    def feed(partitions: tuple[int, ...]) -> None:
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        for partition in partitions:
            for _ in range(60):
                producer.send("resume-latest", b'{"features": {"a": 1}, "label": 1}', partition=partition)
        producer.flush(30)
        producer.close()

    first = learn(
        pipeline_of(broker, tmp_path, "resume-latest", *overrides),
        on_ready=lambda: feed((0,)),
    )
    assert first.figures.status.records == 60
    newest = SnapshotStore(str(tmp_path / "r1"), print).newest()
    assert newest is not None
    assert newest.offsets == {0: 110, 1: 50}
    feed((1,))
    second = learn(pipeline_of(broker, tmp_path, "resume-latest", "source.start=latest", "records_max=120"))
    assert second.figures.status.records == 120


def test_the_command_continues_a_run_by_its_name(broker: Broker, tmp_path: Path) -> None:
    """What a person types: --run NAME, the sentence that names it, and --run NAME again."""
    produce(broker, "resume-command", records(300), 1)
    file = tmp_path / "pipeline.yaml"
    source = (
        f"kind: kafka, topic: resume-command, until: end, bootstrap_servers: '{broker.bootstrap_servers}'"
    )
    file.write_text(
        "name: resumed\nbatch_records: 20\nlearner: {kind: ftrl}\nmlflow: {enabled: false}\n"
        f"source: {{{source}}}\n"
    )
    train = ("jobs.train", file, "--local", "--run", "mine")
    code, out, err = run(*train, "--set", "records_max=100", cwd=tmp_path, timeout_s=120)
    assert (code, err) == (0, "")
    assert "start it again with --run mine" in out
    code, out, err = run(*train, cwd=tmp_path, timeout_s=120)
    assert (code, err) == (0, "")
    assert "300 read" in out
    assert "start it again" not in out
    code, out, err = run(*train, "--set", "learner.alpha=0.7", cwd=tmp_path, timeout_s=120)
    assert code == 1
    assert "expected learner.alpha 0.1" in err


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 9000, '{"run_id": 7, "tracking_uri": "x"}', '{"run_id": "../x", "tracking_uri": null}'],
)
def test_a_damaged_memory_of_the_mlflow_run_makes_a_new_one(tmp_path: Path, text: str) -> None:
    """mlflow.json in the run's folder is no JSON, or names what is no run: the job is recorded, as a new run."""
    said: list[str] = []
    (tmp_path / "mlflow.json").write_text(text)
    uri = f"sqlite:///{tmp_path.parent}/memory.db"
    pipeline = {"name": "clicks", "mlflow": {"tracking_uri": uri, "interval_s": 0.05}}
    ids = set()
    for _ in range(2):
        log = RunLog(say=said.append)
        log.start(pipeline, "run 1", tmp_path)
        assert log.finish()
        ids.add(log.run_id)
    assert ids == {json.loads((tmp_path / "mlflow.json").read_text())["run_id"]}
    assert said == []


def test_a_run_with_damaged_snapshots_only_is_left_as_it_is(broker: Broker, tmp_path: Path) -> None:
    """To begin anew would remove what can still be mended: the job says so; mended, the run goes on."""
    produce(broker, "resume-damaged", records(600), 2)
    first = learn(pipeline_of(broker, tmp_path, "resume-damaged", "records_max=300"))
    file = next(Path(first.snapshot).glob("shard0_*.weights.rows.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + bytes(byte ^ 1 for byte in whole[-4:]))
    with pytest.raises(JobError, match="none can be used"):
        learn(pipeline_of(broker, tmp_path, "resume-damaged"))
    file.write_bytes(whole)
    again = learn(pipeline_of(broker, tmp_path, "resume-damaged"))
    other = learn(pipeline_of(broker, tmp_path, "resume-damaged", "run=other"))
    state, expected = load_model(again.snapshot), load_model(other.snapshot)
    assert rows_of(state) == rows_of(expected)
    assert state.metrics == expected.metrics


def test_a_run_from_the_latest_offset_keeps_it_though_it_died_before_a_snapshot(
    broker: Broker, tmp_path: Path
) -> None:
    """`start: latest` is a place that is noted at the first look: what comes while the job is down is not skipped."""
    produce(broker, "resume-noted", records(100), 2)
    settings = ("source.start=latest", "source.until=forever", "records_max=60")
    pipeline = pipeline_of(broker, tmp_path, "resume-noted", *settings)

    def die() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        learn(pipeline, on_ready=die)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    for i, row in enumerate(records(60, seed=1)):
        producer.send("resume-noted", orjson.dumps(row), partition=i % 2)
    producer.flush(30)
    producer.close()
    status = learn(pipeline).figures.status
    assert (status.records, status.dead) == (60, 0)


def rows_of(model: ModelState) -> dict[int, bytes]:
    """Rows by key."""
    keys, rows = model.arrays["weights.keys"], model.arrays["weights.rows"]
    return {int(key): row.tobytes() for key, row in zip(keys, rows, strict=True)}
