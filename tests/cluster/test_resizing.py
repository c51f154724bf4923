"""What is asked of a job that learns, and what it says: refusals, failures, and what a run remembers of its sizes."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.ports import LaunchError, SourceError, StoreError
from cluster.broker import Broker
from cluster.mailbox import Mailbox
from cluster.requests import ScaleRequest
from cluster.resizing import Resizing
from cluster.scaling import ask_scale, sizes_of
from cluster.sizes import Sizes, remember, remembered
from cluster.snapshots.errors import SnapshotError
from learning.job_messages import SnapshotAsked, SnapshotFailed, SnapshotWritten, StopAsked
from tests.cluster.live import send
from tests.cluster.test_resume import learn, pipeline_of
from tests.cluster.topics import produce, records


def namespace(**values: Any) -> Any:
    """What has these attributes, whatever else it is to be."""
    return SimpleNamespace(**values)


class Played:
    """Cluster, reserve, coordinator and starter in one; the test says what is ready, fails, or drains."""

    asked = sizes = Sizes(2, 2)

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.is_ready, self.drains = True, set[str]()
        self.error: Exception | None = None

    def prepare(self, pipeline: Any, workers: int, leave: set[str]) -> Played:
        self.done.append(("prepare", workers, pipeline.cluster["shards"], *sorted(leave)))
        return self

    def draining(self) -> set[str]:
        return self.drains

    def ready(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.is_ready

    def preload(self, _: str, tables: int) -> None:
        self.done.append(("preload", tables))

    def switch(self, snapshot: int) -> None:
        self.done.append(("switch", snapshot))

    def discard(self) -> None:
        self.done.append("discard")

    def tell(self, event: Any) -> None:
        self.done.append(event)

    def records(self) -> int:
        return 500

    def check_workers(self, workers: int) -> None:
        if workers > 3:
            raise SourceError("expected at most 3 workers")

    def resize(self, sizes: Sizes) -> None:
        self.sizes = sizes


class Pipeline:
    """What of a pipeline counts here: that its numbers of actors are replaced."""

    cluster: Any = SimpleNamespace(model_copy=lambda update: update)

    def model_copy(self, update: dict[str, Any]) -> Any:
        return SimpleNamespace(**update)


class Job:
    """A job that is asked, and steps on."""

    def __init__(self, folder: Path) -> None:
        self.played, self.said = Played(), list[str]()
        self.mailbox = Mailbox(str(folder), self.said.append)
        self.mailbox.look_interval_s = 0.0
        starter: Any = self.played
        self.resizing = Resizing(starter, starter, self.mailbox, self.said.append)
        plan = namespace(start=namespace(number=4, records=400), generation=1)
        self.start = namespace(
            plan=plan, tables=4, ends={0: None, 1: None, 2: None}, run_url=str(folder), pipeline=Pipeline()
        )
        self.newest = namespace(number=4, records=400, generation=1, note={})
        self.resizing.begun(self.start)

    def ask(self, **sizes: int) -> ScaleRequest:
        request = ScaleRequest.new(**sizes)
        self.mailbox.ask(request)
        return request

    def step(self, settled: Any = None) -> None:
        coordinator: Any = self.played
        if isinstance(settled, SnapshotWritten):
            self.newest = namespace(number=settled.number, records=500, generation=1, note={})
        self.resizing.step(coordinator, self.newest, settled)

    def stopped(self) -> None:
        """As far as to the workers' end."""
        for settled in (None, None, SnapshotWritten(5), None):
            self.step(settled)

    def answer(self, request: ScaleRequest) -> tuple[bool, str]:
        found = self.mailbox.take_answer(request)
        assert found is not None
        return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_a_resize_takes_its_steps_in_order(job: Job, tmp_path: Path) -> None:
    """New actors, a snapshot, which they load, the workers' end, and the next generation, which is told."""
    request = job.ask(workers=3)
    job.stopped()
    assert job.played.done == [("prepare", 3, 2), SnapshotAsked(), ("preload", 5), StopAsked()]
    assert job.resizing.due(namespace(number=6, note={}), ends=False)
    assert job.played.done[-1] == ("switch", 6)
    assert job.played.sizes == Sizes(3, 2) == remembered(str(tmp_path), Sizes(2, 2))
    assert job.mailbox.take_answer(request) is None
    job.resizing.beginning(StoreError("a new shard has died"))  # which undoes nothing any more
    job.resizing.begun(job.start)
    done, sentence = job.answer(request)
    assert done
    assert sentence.startswith(
        "went from 2 workers and 2 shards to 3 workers and 2 shards at 400 records; learning"
    )


@pytest.mark.parametrize(
    ("sizes", "done", "reason"),
    [
        ({"workers": 4}, False, "expected at most 3 workers"),
        ({"workers": 2, "shards": 2}, True, "the job has 2 workers and 2 shards already"),
    ],
)
def test_what_cannot_be_is_said_at_once(job: Job, sizes: dict[str, int], done: bool, reason: str) -> None:
    """Nothing is started for it."""
    request = job.ask(**sizes)
    job.step()
    assert job.answer(request) == (done, reason)
    assert job.played.done == []


@pytest.mark.parametrize("phase", ["starting", "saving", "loading"])
def test_what_fails_beside_the_learning_leaves_the_job_as_it_was(job: Job, phase: str) -> None:
    """No room for actors, a full disk, a snapshot that cannot be loaded: the new actors go, the answer says why."""
    request = job.ask(shards=4)
    job.step()
    if phase != "starting":
        job.step()
    if phase == "loading":
        job.step(SnapshotWritten(5))
    job.played.error = None if phase == "saving" else LaunchError("no room")
    job.step(SnapshotFailed(5) if phase == "saving" else None)
    done, sentence = job.answer(request)
    assert not done
    assert ("could not be written" if phase == "saving" else "no room") in sentence
    assert job.played.done[-1] == "discard"
    assert StopAsked() not in job.played.done


def test_nothing_was_learnt_since_the_last_snapshot_so_no_other_is_waited_for(job: Job) -> None:
    """An idle stream: none would come."""
    job.ask(shards=4)
    job.newest.records = 500
    for _ in range(4):
        job.step()
    assert job.played.done == [("prepare", 2, 4), SnapshotAsked(), ("preload", 4), StopAsked()]


def test_a_disk_that_is_full_at_the_workers_end_sends_the_job_back(job: Job) -> None:
    """The generation has ended; the next one begins at the last snapshot, with the old actors."""
    job.ask(shards=4)
    job.stopped()
    with pytest.raises(SnapshotError, match="for which the workers had ended"):
        job.step(SnapshotFailed(6))
    assert job.played.sizes == Sizes(2, 2)


def test_a_job_at_its_end_is_not_scaled(job: Job) -> None:
    """The stream ended, or Ctrl-C came, while the workers were asked to stop."""
    request = job.ask(shards=4)
    job.stopped()
    assert not job.resizing.due(job.newest, ends=True)
    assert job.answer(request) == (
        False,
        "the job did not go to 2 workers and 4 shards: the job was about to end",
    )


def test_three_deaths_in_a_row_end_an_attempt_to_scale(job: Job) -> None:
    """Each time the request is found again once the job has come back; then it is answered."""
    request = job.ask(shards=4)
    for _ in range(3):
        assert job.mailbox.take_answer(request) is None
        job.step()
        job.resizing.beginning(StoreError("a shard has died"))
        job.resizing.begun(job.start)
    assert job.answer(request) == (
        False, "the job did not go to 2 workers and 4 shards: a shard has died, 3 times",
    )  # fmt: skip
    assert job.mailbox.requests() == []


def test_a_node_that_drains_is_left(job: Job) -> None:
    """The numbers stay, nobody has asked, and nothing is remembered."""
    job.played.drains = {"ab" * 28}
    job.stopped()
    assert job.resizing.due(namespace(number=6, note={}), ends=False)
    job.resizing.begun(job.start)
    assert job.played.done[0] == ("prepare", 2, 2, "ab" * 28)
    assert job.said[-1].startswith("moved away from node abababababab at 400 records; learning paused for 0.")
    job.step()
    assert job.played.done[-1] == ("switch", 6)  # what Ray has put there again is not moved for a while


def test_a_job_in_one_process_says_no(broker: Broker, tmp_path: Path) -> None:
    """It has no actors; and a run without a job is told what to do."""
    produce(broker, "local-scale", records(200), 1)
    settings = pipeline_of(broker, tmp_path, "local-scale", "records_max=400", "source.until=forever")
    told: list[str] = []

    def ask() -> None:
        with pytest.raises(SnapshotError) as error:
            ask_scale(str(tmp_path / "r1"), workers=3, say=print, timeout_s=60)
        told.append(str(error.value))
        send(broker, "local-scale", records(200), 1)

    asking = threading.Thread(target=ask)
    learn(settings, on_ready=asking.start)
    asking.join()
    assert told == [
        "the job did not go to 3 workers and 2 shards: it runs in one process (--local); run it on Ray to scale it"
    ]
    with pytest.raises(SnapshotError, match=r"no job learns .*; scaling is for a job that runs"):
        ask_scale(str(tmp_path / "r1"), workers=3, say=print)
    with pytest.raises(SnapshotError, match="is no run"):
        ask_scale(str(tmp_path), workers=3, say=print)


def test_whoever_waits_in_vain_asks_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job behind a URL may not run at all: what is asked now is not done tomorrow."""
    url = f"memory://{tmp_path.name}/run"
    monkeypatch.setattr("cluster.snapshots.run_folder.last_generation", lambda _: 1)
    begun_s = time.monotonic()
    with pytest.raises(SnapshotError, match=r"answered within 0\.1 s, and nobody asks any more"):
        ask_scale(url, shards=3, say=print, timeout_s=0.1)
    assert time.monotonic() - begun_s < 30
    assert Mailbox(url, print).requests() == []


@pytest.mark.parametrize(
    "text", ["workers", "workers=0", "workers=1025", "cores=2", "workers=2,shards=2", "shards=-1"]
)
def test_what_is_typed_wrong_is_said(text: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(SnapshotError, match="expected workers=N or shards=N, once each"):
        sizes_of([text])


def test_sizes_are_typed_once_each() -> None:
    """Both at a time, in any order."""
    assert sizes_of(["shards=4", "workers=8"]) == {"workers": 8, "shards": 4}
    with pytest.raises(SnapshotError, match="once each"):
        sizes_of(["shards=4", "shards=5"])


def test_a_run_remembers_its_sizes_until_the_file_says_something_else(anywhere: Any, run_url: str) -> None:
    """A driver that died comes back as it was; whoever changes the file means it."""
    assert remembered(run_url, Sizes(2, 2)) == Sizes(2, 2)
    remember(run_url, Sizes(2, 2), Sizes(8, 4))
    assert remembered(run_url, Sizes(2, 2)) == Sizes(8, 4)
    assert remembered(run_url, Sizes(3, 2)) == Sizes(3, 2)


NO_SIZES = b'{"asked": {"workers": 2, "shards": 2}, "in_force": {"workers": 0, "shards": 1}}'


@pytest.mark.parametrize("raw", [b"[]", b"{", NO_SIZES])
def test_sizes_that_cannot_be_read_are_said(tmp_path: Path, raw: bytes) -> None:
    """A damaged file is nothing to guess from."""
    (tmp_path / "sizes.json").write_bytes(raw)
    with pytest.raises(SnapshotError, match="does not say how many actors the run had"):
        remembered(str(tmp_path), Sizes(2, 2))
