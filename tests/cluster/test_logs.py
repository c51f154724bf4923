"""Logs for people and for machines: names by subject, one JSON object a line if asked."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import logs
from cluster.broker import Broker
from tests.cluster.commands import ROOT, run
from tests.cluster.topics import produce, records

SUBJECT = re.compile(r"getLogger\(([^)]*)\)")
LIBRARIES = {'"kafka"', "chatty", ""}


@pytest.fixture
def context() -> Iterator[None]:
    """The process's own handler, level and context as they were, afterwards."""
    root, subjects = logging.getLogger(), logging.getLogger("millrace")
    # A job that an earlier test ran in this process has left its handler, which is the one that is replaced here.
    others = [handler for handler in root.handlers if handler not in logs._handlers]
    before = (root.level, subjects.level, others, dict(logs._context))
    yield
    for handler in logs._handlers:
        root.removeHandler(handler)
    root.setLevel(before[0])
    subjects.setLevel(before[1])
    logs._context.clear()
    logs._context.update(before[3])
    assert root.handlers == before[2]


def test_every_logger_is_named_by_its_subject() -> None:
    """Somebody wants the lines about the stream, and no others: millrace.stream."""
    found = {
        name
        for folder in ("actors", "cluster", "jobs", "learning")
        for path in (ROOT / folder).rglob("*.py")
        for name in SUBJECT.findall(path.read_text())
    }
    ours = found - LIBRARIES
    assert len(ours) > 4
    assert all(re.fullmatch(r'"millrace(\.[a-z]+)?"', name) for name in ours), ours


def test_a_line_for_machines_has_what_one_searches_by_and_no_secret(
    context: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log collector reads it; the tracking server's password stood in an error."""
    monkeypatch.setenv("MILLRACE_LOG", "json")
    logs.set_up_logs()
    logs.set_up_logs()  # twice: no line comes twice
    logs.log_context(run="clicks-1", worker=3)
    log = logging.getLogger("millrace.stream")
    log.info("lost %s", "https://anna:hunter2@mlflow/x", extra={"fields": {"lag": 7}})
    log.debug("not wanted")
    try:
        raise ValueError("no room")
    except ValueError:
        log.exception("over\ntwo lines")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 2
    first, second = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert (first["level"], first["subject"], first["lag"]) == ("info", "millrace.stream", 7)
    assert (first["run"], first["worker"]) == ("clicks-1", 3)
    assert first["message"] == "lost https://anna:***@mlflow/x"
    assert "ValueError: no room" in second["error"]


def test_a_line_for_people_has_no_secret_either(
    context: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the message, nor in an error that quotes an address, nor from a library."""
    monkeypatch.delenv("MILLRACE_LOG", raising=False)
    logs.set_up_logs()
    try:
        raise ValueError("s3://key:hunter2@bucket")
    except ValueError:
        logging.getLogger("millrace.stream").exception("lost %s", "https://anna:hunter2@mlflow/x")
    logging.getLogger("kafka").warning("http://a/?token=hunter2")
    shown = capsys.readouterr().err
    assert "hunter2" not in shown
    assert "lost https://anna:***@mlflow/x" in shown
    assert "ValueError: s3://key:***@bucket" in shown


@pytest.mark.parametrize("name", ["MILLRACE_LOG", "MILLRACE_LOG_LEVEL"])
def test_a_mistyped_setting_is_said(
    context: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """MILLRACE_LOG=jsn: text, and a line that says what was expected."""
    monkeypatch.setenv(name, "jsn")
    logs.set_up_logs()
    assert re.search(rf"expected {name} to be .*, but it is 'jsn'", capsys.readouterr().err)


@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_a_job_writes_lines_for_machines_and_only_those(broker: Broker, tmp_path: Path) -> None:
    """In a container: standard error goes to a collector that takes JSON, from the first line to the last."""
    produce(broker, "logged", records(2000), 2)
    pipeline = {
        "name": "logged",
        "source": {"kind": "kafka", "topic": "logged", "bootstrap_servers": broker.bootstrap_servers},
        "mlflow": {"enabled": False},
        "records_max": 2000,
        "run": "logged-1",
    }
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(pipeline))
    environment = {"MILLRACE_LOG": "json"}
    code, _, err = run("jobs.train", file, "--local", cwd=tmp_path, environment=environment, timeout_s=120)
    assert code == 0
    lines = [json.loads(line) for line in err.splitlines()]
    (ended,) = [line for line in lines if line["message"].startswith("the job has ended: ")]
    assert (ended["subject"], ended["level"], ended["run"]) == ("millrace.job", "info", "logged-1")
    progress = [line for line in lines if line["message"] == "progress"]
    assert progress
    assert {"records", "lag", "log_loss"} <= set(progress[-1])
    code, _, err = run("jobs.train", tmp_path / "no.yaml", cwd=tmp_path, environment=environment)
    assert code == 1
    (line,) = err.splitlines()
    assert json.loads(line)["level"] == "error"
    assert "no.yaml" in json.loads(line)["message"]
