"""The status document: written by a driver, read by people and programs, believed only as far as it can be."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of
from cluster.status.document import (
    ENDED,
    STATUS_FILE,
    Freshness,
    Job,
    Partition,
    Quality,
    StatusDocument,
    read_status,
)
from cluster.status.find import StatusError, find_run, judged, status_of
from cluster.status.follow import follow
from cluster.status.publisher import StatusPublisher, pace_s

NOW_S = 1_764_000_000.0


def document(
    *, run: str = "clicks-1", pipeline: str = "clicks", pid: int = 1, **changes: object
) -> StatusDocument:
    job = Job(
        run=run, pipeline=pipeline, source="topic clicks", learner="ftrl", place="Ray", host=socket.gethostname(),
        pid=pid, run_url=f"runs/{run}", mlflow_run=None, started_s=NOW_S - 100,
    )  # fmt: skip
    values: dict[str, object] = {
        "state": "learning", "written_s": NOW_S, "interval_s": 1.0, "job": job, "seen_s": NOW_S - 0.5, "records": 7,
        "quality": {"log_loss": Quality(window=float("nan"), since_start=0.5)},
        "freshness": Freshness(p50_s=float("nan"), p99_s=0.2),
        "partitions": [Partition(partition=0, worker=0, offset=7, lag=None, per_s=float("inf"))],
        "groups": {"experts": {"alpha 0.1": {"weight": 0.75, "loss": float("nan")}}},
    }  # fmt: skip
    return StatusDocument.model_validate(values | changes)


def written(base: Path, status: StatusDocument) -> None:
    place_of(str(base / status.job.run)).write_whole(STATUS_FILE, status.model_dump_json().encode())


def gone() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_written_is_read_and_what_is_undefined_is_null(run_url: str) -> None:
    """A stream without production times: JSON has no NaN, and every parser must take the file."""
    place, status = place_of(run_url), document()
    assert read_status(place) is None
    place.write_whole(STATUS_FILE, status.model_dump_json().encode())
    assert read_status(place) == status
    plain = json.loads(place.read_bytes(STATUS_FILE, 10**6), parse_constant=pytest.fail)
    assert plain["freshness"] == {"p50_s": None, "p99_s": 0.2}
    assert plain["partitions"][0] == {"partition": 0, "worker": 0, "offset": 7, "lag": None, "per_s": None}
    assert plain["groups"] == {"experts": {"alpha 0.1": {"weight": 0.75, "loss": None}}}


def test_fields_of_a_later_version_do_not_stop_a_reader(run_url: str) -> None:
    """The job's code is newer than that on the laptop of who looks."""
    place = place_of(run_url)
    later = document().model_dump(mode="json") | {"weather": "fine"}
    place.write_whole(STATUS_FILE, json.dumps(later).encode())
    assert read_status(place) == document()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is not as we write it"),
        (b'{"format": 1, "state": "learn', "is not as we write it"),
        (b"[1, 2]", "is not as we write it"),
        (json.dumps(document().model_dump(mode="json") | {"records": "many"}).encode(), "records"),
        (json.dumps(document().model_dump(mode="json") | {"state": "tired"}).encode(), "state"),
        (json.dumps(document().model_dump(mode="json") | {"format": 2}).encode(), "format 2"),
        (b"[" * 100_000, "is not as we write it"),
    ],
    ids=["empty", "torn", "another thing", "a wrong type", "a wrong word", "a later format", "very deep"],
)
def test_a_file_that_is_no_status_is_a_sentence(run_url: str, raw: bytes, says: str) -> None:
    """Somebody's editor, or another program, wrote there: no traceback, and a run that learns is not disturbed."""
    place = place_of(run_url)
    place.write_whole(STATUS_FILE, raw)
    with pytest.raises(SnapshotError, match=says):
        read_status(place)


def test_the_publisher_writes_the_newest_and_goes_on_when_nothing_changes(
    run_url: str, said: list[str]
) -> None:
    """A job loads a large snapshot for minutes: its word stays young, so nobody takes it for dead."""
    place = place_of(run_url)
    with StatusPublisher(place, 0.05, said.append) as publisher:
        for records in range(50):
            publisher.publish(document(records=records))
        seen: set[float] = set()
        until_s = time.monotonic() + 20
        while len(seen) < 3 and time.monotonic() < until_s:
            if (status := read_status(place)) is not None and (seen or status.records == 49):
                assert status.records == 49, "one at once, and then only the newest"
                seen.add(status.written_s)
            time.sleep(0.01)
        publisher.publish(document(records=50, state="finished"))
    assert len(seen) == 3
    last = read_status(place)
    assert last is not None
    assert (last.records, last.state) == (50, "finished"), "the last word is written, whatever the pace"
    assert said == []


def test_a_disk_that_refuses_the_status_is_said_once_and_costs_nothing(
    tmp_path: Path, said: list[str]
) -> None:
    """The run's folder became a file: learning goes on, and one sentence tells why jobs.status sees nothing."""
    (tmp_path / "run").write_text("in the way")
    with StatusPublisher(place_of(str(tmp_path / "run")), 0.01, said.append) as publisher:
        publisher.publish(document())
        time.sleep(0.2)
    assert len(said) == 1
    assert "the status cannot be written" in said[0]


def test_a_job_that_was_superseded_writes_no_more(run_url: str, said: list[str]) -> None:
    """Behind a URL there is no lock: the older of two jobs must not write over the status of the newer."""
    place = place_of(run_url)
    with StatusPublisher(place, 0.01, said.append) as publisher:
        publisher.publish(document())
        publisher.withdraw()
    place.write_whole(STATUS_FILE, document(records=99).model_dump_json().encode())
    time.sleep(0.05)
    found = read_status(place)
    assert found is not None
    assert found.records == 99


def test_an_object_store_is_written_to_at_a_slower_pace() -> None:
    """Every put is billed."""
    assert pace_s("s3://bucket/runs/clicks") == 10 * pace_s("runs/clicks")


@pytest.mark.parametrize(
    ("changes", "age_s", "kind", "says"),
    [
        ({}, 0.9, "running", ""),
        ({}, -3.0, "running", ""),
        ({"state": "starting", "seen_s": None, "written_s": NOW_S + 900}, -890, "running", ""),
        ({"pid": gone()}, 40, "dead", "the job is dead: its process"),
        ({"pid": 1}, 40, "silent", "has not written for 40 s"),
        ({"interval_s": 10.0}, 40, "running", ""),
        ({"seen_s": NOW_S - 30}, 1, "stuck", "the figures are 30 s old"),
        ({"state": "recovering", "seen_s": NOW_S - 300}, 1, "running", ""),
        ({"state": "finished"}, 10**6, "ended", ""),
        ({"state": "stopped", "pid": gone()}, 10**6, "ended", ""),
        ({"state": "failed", "reason": "no broker"}, 10**6, "failed", "no broker"),
    ],
)
def test_the_age_of_the_word_tells_how_the_job_is(changes: dict, age_s: float, kind: str, says: str) -> None:
    """Alive, on a clock that runs ahead, killed, unreachable, slow by design, stuck, gone in order."""
    verdict = judged(document(**changes), NOW_S + age_s)
    assert (verdict.kind, says in verdict.sentence) == (kind, True)
    assert verdict.age_s >= 0
    assert verdict.well == (kind in {"running", "ended"})


def test_a_run_is_found_by_folder_name_pipeline_and_by_none(tmp_path: Path) -> None:
    """What people type: runs/NAME, NAME, the pipeline's file, the pipeline's name, or nothing."""
    base = tmp_path / "runs"
    for second, (run, pipeline) in enumerate([("a", "clicks"), ("b", "clicks"), ("c", "ratings")]):
        written(base, document(run=run, pipeline=pipeline, written_s=NOW_S + second))
    (base / "broken").mkdir()
    (base / "broken" / STATUS_FILE).write_text("{")
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"name: clicks\nsource: {{kind: kafka, topic: t}}\nsnapshots: {{path: {base}}}\n")
    named = tmp_path / "named.yaml"
    named.write_text(file.read_text() + "run: a\n")
    asked = {
        str(base / "a"): "a",
        "a": "a",
        "clicks": "b",
        "ratings": "c",
        None: "c",
        str(file): "b",
        str(named): "a",
    }
    for what, run in asked.items():
        assert status_of(find_run(what, str(base))).job.run == run, what
    with pytest.raises(StatusError, match="expected a run or pipeline 'sales' with a status"):
        find_run("sales", str(base))
    with pytest.raises(StatusError, match=r"has no status\.json"):
        status_of(find_run(str(tmp_path), str(base)))
    with pytest.raises(StatusError, match="is not as we write it"):
        status_of(find_run(str(base / "broken"), str(base)))


def test_the_words_for_an_end_are_states() -> None:
    """A reader waits for one of them."""
    assert all(document(state=state).ended for state in ENDED)
    assert not document().ended


@pytest.mark.parametrize(("end", "well"), [("finished", True), ("failed", False)])
def test_following_ends_when_the_job_does(tmp_path: Path, end: str, well: bool) -> None:
    """Somebody watches in a terminal: the last picture stays there, and the exit code tells how it ended."""
    place = place_of(str(tmp_path))
    now_s = time.time()
    place.write_whole(STATUS_FILE, document(written_s=now_s, seen_s=now_s).model_dump_json().encode())
    last = document(written_s=now_s, state=end, records=4321, reason="no room").model_dump_json().encode()
    ending = threading.Timer(0.3, place.write_whole, (STATUS_FILE, last))
    ending.start()
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=40)
    assert follow(place, console) is well
    ending.join()
    drawn = screen.getvalue()
    assert " learning " in drawn
    assert f" {end} " in drawn.rpartition("records")[0]
    assert "4,321" in drawn
