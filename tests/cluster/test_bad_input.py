"""Whatever comes in, and whatever is typed: bad records are dead letters beside learnt ones, mistakes are sentences."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import typer
from kafka import KafkaProducer
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobResult, run_job
from jobs.evaluate import main as evaluate
from jobs.train import main as train
from tests.cluster.commands import run
from tests.cluster.topics import arrow_message, consume, records

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

HUGE_BYTES = 10 * 2**20
GOOD = records(200)


def with_(**changes: Any) -> bytes:
    return orjson.dumps({**GOOD[0], **changes})


def arrow(columns: dict[str, Any]) -> bytes:
    batch, sink = pa.RecordBatch.from_pydict(columns), io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


BAD: dict[str, tuple[bytes | None, str]] = {
    "text": (b"hello", "not JSON"),
    "half a record": (with_()[:40], "not JSON"),
    "not UTF-8": (b'{"features": {"a": "\xff"}, "label": 1}', "not JSON"),
    "an array": (b"[1, 2]", "is a list"),
    "a number": (b"17", "is a number"),
    "no features": (b'{"label": 1}', '"features" is missing'),
    "features in a list": (with_(features=[1, 2]), '"features" is a list'),
    "a nested feature": (with_(features={"a": {"b": 1}}), "feature 'a' is an object"),
    "no label": (b'{"features": {"price": 1}}', '"label" is missing'),
    "label 2": (with_(label=2), '"label" is 2; send'),
    "label -1": (with_(label=-1), '"label" is -1; send'),
    "label as text": (with_(label="yes"), '"label" is a text'),
    "NaN": (b'{"features": {"price": NaN}, "label": 1}', "not JSON"),
    "1e999": (b'{"features": {"price": 1e999}, "label": 1}', "no finite 32-bit float"),
    "infinite label": (b'{"features": {"price": 1}, "label": 1e999}', '"label" is inf'),
    "weight 0": (with_(weight=0), '"weight" is 0'),
    "empty": (b"", "the message is empty"),
    "tombstone": (None, "the message is empty"),
    "huge": (b'{"features": {"a": "' + b"x" * HUGE_BYTES + b'"}, "label": 1}', "message_bytes_max"),
    "Arrow garbage": (b"\xff\xff\xff\xff" + b"garbage" * 9, "Arrow"),
    "Arrow cut short": (arrow_message(GOOD[:5])[:-40], "Arrow"),
    "Arrow without label": (arrow({"price": [1.0]}), 'no column "label"'),
}
ARROW_ROWS: dict[str, list[float | None]] = {
    "label": [1.0, float("nan"), 0.0, 2.0, None, 1.0, 0.0],
    "price": [1.0, 1.0, float("inf"), 1.0, 1.0, float("nan"), 2.0],
}
ARROW_BAD = {1: '"label"', 2: "'price'", 3: '"label"', 4: '"label"', 5: "'price'"}


@pytest.fixture(scope="module")
def topic(broker: Broker) -> tuple[str, dict[str, str], int]:
    """Two partitions of good records with bad ones between them: name, reason by place, and how many were sent."""
    name = "bad-input"
    broker.create_topic(name, 2)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, max_request_size=2 * HUGE_BYTES)
    reasons: dict[str, str] = {}
    sent = 0
    for i, (value, reason) in enumerate([*BAD.values(), (arrow(ARROW_ROWS), "")]):
        partition = i % 2
        for row in GOOD[8 * i : 8 * i + 4]:
            producer.send(name, orjson.dumps(row), partition=partition)
        offset = producer.send(name, value, key=b"k", partition=partition).get(30).offset
        place = f"{name}[{partition}]@{offset}"
        producer.send(name, orjson.dumps(GOOD[8 * i + 4]), partition=partition)
        sent += 5
        if reason:
            reasons[place] = reason
            sent += 1
        else:
            reasons |= {f"{place} row {row}": why for row, why in ARROW_BAD.items()}
            sent += len(ARROW_ROWS["label"])
    producer.flush(30)
    producer.close()
    return name, reasons, sent


def pipeline(broker: Broker, folder: Path, topic: str, *overrides: str) -> Pipeline:
    source = {"kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": broker.bootstrap_servers}
    values = {
        "name": "bad",
        "source": source,
        "snapshots": {"path": str(folder)},
        "mlflow": {"enabled": False},
    }
    return build_pipeline(values, list(overrides), origin="test")


def check(result: JobResult, letters: list[dict[str, Any]], topic: tuple[str, dict[str, str], int]) -> None:
    name, reasons, sent = topic
    status = result.figures.status
    assert status.records == sent
    assert status.dead == len(reasons) == len(letters)
    assert status.metrics.records == sent - len(reasons)
    by_place = {letter["place"]: letter for letter in letters}
    assert by_place.keys() == reasons.keys()
    for place, reason in reasons.items():
        assert reason in by_place[place]["reason"], place
        letter = by_place[place]
        assert place.startswith(f"{name}[{letter['partition']}]@{letter['offset']}")
        assert len(letter["value"]) <= 4 * 65536 // 3 + 4


def check_values(letters: list[dict[str, Any]]) -> None:
    """What was sent can be had back from the letters; of the huge message its beginning and its length."""
    values = {
        base64.b64decode(letter["value"])
        if letter["encoding"] == "base64"
        else letter["value"].encode(): letter
        for letter in letters
    }
    whole = [value or b"" for name, (value, _) in BAD.items() if name != "huge"]
    assert set(whole) <= values.keys()
    huge = BAD["huge"][0]
    assert huge is not None
    assert values[huge[:65536]]["value_bytes"] == len(huge)


def test_good_records_are_learnt_and_bad_ones_kept(
    broker: Broker, tmp_path: Path, topic: tuple[str, dict[str, str], int]
) -> None:
    """Producers of every degree of brokenness share a topic; one process reads it, letters go to a file."""
    result = run_job(pipeline(broker, tmp_path, topic[0]), Console(file=io.StringIO()), local=True)
    (file,) = (result.run_folder / "dead_letters").iterdir()
    letters = [json.loads(line) for line in file.read_text().splitlines()]
    check(result, letters, topic)
    check_values(letters)


@pytest.mark.usefixtures("local_ray")
def test_the_same_over_ray_with_two_workers_and_a_dead_letter_topic(
    broker: Broker, tmp_path: Path, topic: tuple[str, dict[str, str], int]
) -> None:
    """Each worker has its own partition; the letters of both arrive in one topic, and counts still add up."""
    settings = pipeline(broker, tmp_path, topic[0], "dead_letters.topic=bad-letters", "batch_records=7")
    result = run_job(settings, Console(file=io.StringIO()))
    letters = consume(broker, "bad-letters")
    check(result, letters, topic)
    check_values(letters)
    assert not (result.run_folder / "dead_letters").exists()


# Mistakes on the command line ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fails(tmp_path: Path, module: str, *arguments: object, within_s: float = 30.0, **variables: str) -> str:
    """The one sentence with which a command refuses, exit code 1, without a traceback, in bounded time."""
    started_s = time.monotonic()
    code, out, err = run(module, *arguments, cwd=tmp_path, environment=variables, timeout_s=within_s)
    assert code == 1, out + err
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].lower().startswith("error")
    assert time.monotonic() - started_s < within_s
    return lines[0]


KAFKA = (
    "name: x\nsource: {{kind: kafka, topic: {topic}, until: end, bootstrap_servers: '127.0.0.1:{port}'}}\n"
)


def refuses(capfd: pytest.CaptureFixture[str], main: Any, *arguments: object) -> str:
    """As `fails`, in this process: for the many mistakes that are found before anything is started."""
    application = typer.Typer()
    application.command()(main)
    with pytest.raises(SystemExit) as ended:
        application([str(argument) for argument in arguments])
    err = capfd.readouterr().err
    assert ended.value.code == 1
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error ")
    return err


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("a: [b", [], ["p.yaml", "not valid YAML", "expected ',' or ']'"]),
        ("just text", [], ["p.yaml", "mapping", "name and source"]),
        ("name: x\nsource: {kind: kafka}", [], ["source.topic is missing"]),
        ("name: x\nsource: {topic: t}", [], ["source.kind should be kafka or file"]),
        ("name: x\nsource: {kind: kafak, topic: t}", [], ["source.kind", "kafka or file", "'kafak'"]),
        (
            "name: x\nsuorce: {}\nsource: {kind: kafka, topic: t}",
            [],
            ["unknown key suorce", "did you mean source?"],
        ),
        ("name: '[/red]'\nsource: {kind: kafka, topic: t}", [], ["name", "[/red]"]),
        (KAFKA, ["cluster.workers=two"], ["cluster.workers", "integer", "'two'"]),
        (KAFKA, ["cluster.wrokers=2"], ["unknown key cluster.wrokers", "did you mean workers?"]),
        (KAFKA, ["learner.alpha=1"], ["unknown key learner.alpha", "belongs to the learner ftrl"]),
        (KAFKA, ["learner.shrae=0"], ["unknown key learner.shrae", "did you mean share?"]),
        (KAFKA, ["cluster.workers"], ["--set expects a.b=value", "'cluster.workers'"]),
        (KAFKA, ["name=[1"], ["--set name=[1", "not valid YAML"]),
        (KAFKA, ["name.first=x"], ["--set name.first=x", "no keys below it"]),
        (KAFKA, ["batch_records=0"], ["batch_records", "greater than or equal to 1"]),
    ],
)
def test_a_pipeline_that_cannot_be_used_is_a_sentence(tmp_path, capfd, text, overrides, words):
    """Typing mistakes in the file or after --set: which key, what was expected, what came; before anything starts."""
    path = tmp_path / "p.yaml"
    path.write_text(text.replace("{{", "{").replace("}}", "}").replace("{topic}", "t").replace("{port}", "1"))
    err = refuses(capfd, train, path, *(part for override in overrides for part in ("--set", override)))
    for word in words:
        assert word in err


def test_a_missing_pipeline_file_is_a_sentence(tmp_path: Path) -> None:
    """The real command line with a path that does not exist."""
    assert "nope.yaml cannot be read: No such file" in fails(tmp_path, "jobs.train", "nope.yaml")


def test_an_unknown_topic_is_a_sentence(broker: Broker, tmp_path: Path) -> None:
    """The topic's name is misspelt; nothing is created, no Ray is started."""
    (tmp_path / "p.yaml").write_text(KAFKA.format(topic="no-such", port=broker.port))
    sentence = fails(tmp_path, "jobs.train", "p.yaml")
    assert "has no topic 'no-such'" in sentence
    assert "jobs.produce" in sentence
    assert not (tmp_path / "mlruns").exists()
    assert not (tmp_path / "runs").exists()


def test_no_broker_is_a_sentence_in_bounded_time(tmp_path: Path, free_port: int) -> None:
    """Kafka has not been started, or the address is wrong: train and produce say so."""
    (tmp_path / "p.yaml").write_text(KAFKA.format(topic="t", port=free_port))
    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n")
    commands = (
        ("jobs.train", "p.yaml"),
        ("jobs.produce", "a.csv", "t", "--bootstrap-servers", f"127.0.0.1:{free_port}"),
    )
    with ThreadPoolExecutor() as side_by_side:  # each waits ten seconds
        sentences = list(side_by_side.map(lambda command: fails(tmp_path, *command), commands))
    for sentence in sentences:
        assert f"no Kafka broker answered at 127.0.0.1:{free_port} within 10 s" in sentence
        assert "python -m jobs.broker" in sentence


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    """A second broker on the same port, or something else is there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        sentence = fails(tmp_path, "jobs.broker", "--port", port, "--data-dir", tmp_path / "data")
    assert str(port) in sentence
    assert "choose another" in sentence


FILES = {
    "a.xyz": (b"x,y\n1,0\n", ["a.xyz", ".csv", ".parquet"]),
    "empty.csv": (b"", ["empty.csv is empty"]),
    "header.csv": (b"x,click\n", ["header.csv holds no rows"]),
    "nolabel.csv": (b"x,clicks\n1,0\n", ["no column 'click'", "did you mean 'clicks'?"]),
    "text.csv": (b"x,click\n1,maybe\n2,never\n", ["'click'", "'maybe', 'never'", "numbers from 0 to 1"]),
    "[red].csv": (b"x,clicks\n1,0\n", ["[red].csv", "did you mean 'clicks'?"]),
    "torn.csv.gz": (b"\x1f\x8b\x08\x00torn", ["torn.csv.gz", "no whole gzip file"]),
    "torn.parquet": (b"PAR1 torn", ["torn.parquet", "cannot be read"]),
    "garbage.jsonl": (b"not json\nneither\n", ["garbage.jsonl"]),
    "binary.csv": (bytes(range(256)) * 4, ["binary.csv"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_learnt_is_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Wrong kind of file, empty, torn, or no usable label: what was expected, what came, and the nearest name."""
    content, words = FILES[name]
    (tmp_path / name).write_bytes(content)
    sentence = refuses(capfd, evaluate, tmp_path / name, "--label", "click")
    for word in words:
        assert word in sentence


def test_evaluate_and_produce_refuse_a_file_in_the_same_words(tmp_path: Path) -> None:
    """The real command lines: the label is misspelt."""
    (tmp_path / "a.csv").write_text("x,clicks\n1,0\n")
    evaluated = fails(tmp_path, "jobs.evaluate", "a.csv", "--label", "click")
    produced = fails(tmp_path, "jobs.produce", "a.csv", "topic", "--label", "click")
    assert evaluated == produced
    assert "no column 'click'" in evaluated
    assert "did you mean 'clicks'?" in evaluated


# Secrets ---------------------------------------------------------------------------------------------


def test_a_secret_from_the_environment_is_nowhere_to_be_found(broker: Broker, tmp_path: Path) -> None:
    """A password as ${NAME}: not in the run folder, the MLflow database and artifacts, or anything printed."""
    secret = "s3cr3t-" + os.urandom(8).hex()
    broker.create_topic("secret", 1)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    for row in GOOD:
        producer.send("secret", orjson.dumps(row))
    producer.flush(30)
    producer.close()
    (tmp_path / "p.yaml").write_text(
        KAFKA.format(topic="secret", port=broker.port).replace(
            "until", "options: {client_id: '${PASS}'}, until"
        )
    )
    code, out, err = run("jobs.train", "p.yaml", "--local", cwd=tmp_path, environment={"PASS": secret})
    assert code == 0, err
    assert "200 learnt" in out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(
        "${PASS}" in path.read_text(errors="replace") for path in files if path.name == "pipeline.yaml"
    )
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert secret not in out + err


def test_an_unset_variable_is_a_sentence(broker: Broker, tmp_path: Path) -> None:
    """The password was forgotten: the variable's name, before any connection is tried."""
    (tmp_path / "p.yaml").write_text(
        KAFKA.format(topic="t", port=broker.port).replace(
            "until", "options: {sasl_plain_password: '${NO_PASS}'}, until"
        )
    )
    assert "${NO_PASS}, but the environment has no such variable; set NO_PASS" in fails(
        tmp_path, "jobs.train", "p.yaml"
    )
